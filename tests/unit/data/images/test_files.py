"""Photographs as people have them must come out upright RGB, or be refused by name."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crackseg.data.images.files import (
    decode_image,
    encode_png,
    read_image,
    read_mask,
    read_probability_map,
    read_size,
    read_stored_map,
    write_mask,
    write_probability_map,
)
from crackseg.errors import CracksegError
from crackseg.files import write_bytes

GRADIENT = np.dstack([np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))] * 3)

# A phone's AVIF, damaged in its pixels; Pillow's decoder of it has errors of its own.
DAMAGED_AVIF = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAA"
    "AAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAHwAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEA"
    "AGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAACAAAAAgAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwA"
    "AAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAJ21kYXQSAAoIGPe/aICGg0IyER7Hh4VZ3///4sAA"
    "AJA1l8a0"
)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_jpeg_and_png_are_the_same_photograph() -> None:
    picture = Image.fromarray(GRADIENT)
    np.testing.assert_array_equal(decode_image(encode(picture, "PNG")), GRADIENT)
    jpeg = decode_image(encode(picture, "JPEG", quality=95)).astype(int)
    assert abs(jpeg - GRADIENT).max() <= 6


def test_colours_are_rgb_not_bgr() -> None:
    red = Image.new("RGB", (32, 32), (250, 10, 10))
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        assert decode_image(encode(red, kind))[16, 16].tolist() == pytest.approx([250, 10, 10], abs=8)


def test_phone_photograph_comes_out_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.jpg"
    path.write_bytes(encode(Image.fromarray(GRADIENT), "JPEG", exif=exif, quality=95))
    assert read_image(path).shape == (64, 48, 3)
    assert read_size(path) == (48, 64)
    assert read_image(path)[0].mean() < 20 < 230 < read_image(path)[-1].mean()


def test_sixteen_bits_cmyk_alpha_and_palette_become_rgb() -> None:
    deep = Image.fromarray(GRADIENT[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_image(encode(deep, "TIFF")), GRADIENT)
    np.testing.assert_array_equal(decode_image(encode(deep, "PNG")), GRADIENT)
    cmyk = Image.fromarray(GRADIENT).convert("CMYK")
    assert abs(decode_image(encode(cmyk, "TIFF")).astype(int) - GRADIENT).max() <= 3
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert decode_image(encode(clear, "PNG")).min() == 255
    palette = Image.fromarray(GRADIENT).convert("P")
    assert decode_image(encode(palette, "PNG")).shape == GRADIENT.shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_cut_file_is_refused_not_half_decoded(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), kind)
    with pytest.raises(CracksegError, match="photo"):
        decode_image(content[: len(content) * 2 // 3], name="photo")


def test_damaged_avif_is_refused_like_any_other() -> None:
    with pytest.raises(CracksegError, match=r"photo: .*(damaged|not an image)"):
        decode_image(DAMAGED_AVIF, name="photo")


def test_no_image_and_empty_file_are_named() -> None:
    with pytest.raises(CracksegError, match="notes: not an image"):
        decode_image(b"these are notes", name="notes")
    with pytest.raises(CracksegError, match=r"void: the file is empty \(0 bytes\)"):
        decode_image(b"", name="void")


def test_bomb_is_refused_by_its_header() -> None:
    bomb = encode(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(CracksegError, match=r"30000 x 30000 .* 900 megapixels"):
        decode_image(bomb)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_saved_map_is_the_map(values: list[float]) -> None:
    import tempfile

    prob = np.array(values, np.float32).reshape(2, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.png"
        write_probability_map(path, prob)
        np.testing.assert_allclose(read_probability_map(path), prob, atol=1 / 131_000)
        np.save(path.with_suffix(".npy"), prob)
        np.testing.assert_array_equal(read_probability_map(path.with_suffix(".npy")), prob)


def test_maps_outside_zero_to_one_are_refused(tmp_path: Path) -> None:
    for values in ([[0.0, 1.5]], [[0.0, np.nan]], [[-0.1, 0.5]]):
        np.save(tmp_path / "a.npy", np.array(values))
        with pytest.raises(CracksegError, match=r"a\.npy: expected probabilities in \[0, 1\]"):
            read_probability_map(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((2, 2), np.uint8))
    with pytest.raises(CracksegError, match="expected floats"):
        read_probability_map(tmp_path / "b.npy")


def test_mask_round_trip_and_failed_write_leave_no_litter(tmp_path: Path) -> None:
    mask = np.eye(9, dtype=bool)
    write_mask(tmp_path / "deep" / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "deep" / "m.png"), mask)
    assert decode_image(encode_png(mask.astype(np.uint8) * np.uint8(255))).max() == 255
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_bytes(tmp_path / "taken", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "taken"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content.replace(b"(4, 5)", b"(\0, 5)"), "not a NumPy array that can be read"),
        (lambda content: content.replace(b"(4, 5), }      ", b"(99999, 99999),}"), "not a NumPy array"),
        (lambda content: content.replace(b"(4, 5)", b"(0, 5)"), "without pixels"),
        (lambda content: content[:20], "not a NumPy array that can be read"),
    ],
    ids=["zero in the header", "promises too much", "empty", "cut"],
)
def test_a_damaged_array_is_refused_in_a_sentence(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    np.save(tmp_path / "map.npy", np.zeros((4, 5), np.float32))
    (tmp_path / "map.npy").write_bytes(damage((tmp_path / "map.npy").read_bytes()))
    with pytest.raises(CracksegError, match=said):
        read_stored_map(tmp_path / "map.npy")
