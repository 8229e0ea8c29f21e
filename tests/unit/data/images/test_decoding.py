"""A photograph is what its file shows, or an error that names the file; never half a picture, never a traceback."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from crackseg.data.image_files import find_photographs
from crackseg.data.images.decoding import decode_image, decode_photograph
from crackseg.data.images.files import read_size
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from tests.odd_pictures import make_scene


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """uint8 (96, 128, 3) with grain, so that its JPEG has data everywhere."""
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(60, 200, (96, 128, 3), dtype=np.uint8), (0, 0), 1.0)


def encode(picture: np.ndarray, kind: str, **how: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind, **how)  # type: ignore[arg-type]
    return content.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lost_data_is_no_photograph(picture: np.ndarray, progressive: bool) -> None:
    whole = encode(picture, "JPEG", quality=92, progressive=progressive)
    half = len(whole) // 2
    damaged = {
        "cut": whole[:half],
        "cut, with an end mark": whole[:half] + b"\xff\xd9",
        "the rest is zeros": whole[:half] + bytes(len(whole) - half),
        "a block of zeros": whole[:half] + bytes(512) + whole[half + 512 :],
    }
    assert decode_image(whole).shape == picture.shape
    for how, content in damaged.items():
        with pytest.raises(CracksegError, match="damaged or cut short"):
            decode_image(content, name=how)


def test_flat_areas_are_not_taken_for_damage() -> None:
    for value in (0, 128, 255):
        flat = np.full((96, 128, 3), value, np.uint8)
        flat[:40] = np.random.default_rng(1).integers(0, 256, (40, 128, 3))
        assert decode_image(encode(flat, "JPEG")).shape == flat.shape


@pytest.mark.parametrize(("bits", "factor"), [(10, 4), (12, 16), (14, 64)])
def test_a_camera_s_bits_in_a_16_bit_file_keep_their_brightness(
    picture: np.ndarray, bits: int, factor: int
) -> None:
    grey = picture[..., 0].copy()
    grey[0, 0] = 255  # white
    ok, content = cv2.imencode(".tif", grey.astype(np.uint16) * factor)
    assert ok
    assert abs(decode_image(content.tobytes()).mean() - grey.mean()) < 2, bits


def test_floats_up_to_255_and_up_to_1_are_the_same_photograph(picture: np.ndarray) -> None:
    grey = picture[..., 0].astype(np.float32)
    read = [decode_image(cv2.imencode(".tif", values)[1].tobytes()).astype(int) for values in (grey, grey / 255)]
    assert abs(read[0] - read[1]).max() <= 1
    assert abs(read[0][..., 0] - grey).max() <= 1


def test_values_of_unknown_scale_are_refused_by_name() -> None:
    content = cv2.imencode(".tif", np.linspace(-3, 9, 64 * 64, dtype=np.float32).reshape(64, 64))[1].tobytes()
    with pytest.raises(CracksegError, match=r"heights\.tif: .*full scale is unknown"):
        decode_image(content, name="heights.tif")


def test_a_damaged_exif_block_does_not_hide_the_picture(picture: np.ndarray) -> None:
    content = encode(picture, "WEBP", lossless=True, exif=b"Exif\0\0 garbage, no TIFF")
    assert (decode_image(content) == picture).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_no_damage_ends_in_a_traceback(picture: np.ndarray, kind: str) -> None:
    whole = encode(picture[:32, :32], kind)
    rng = np.random.default_rng(7)
    for _ in range(120):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 4):
            content[place] = rng.integers(256)
        if rng.random() < 0.3:
            del content[rng.integers(1, len(content)) :]
        try:
            decode_image(bytes(content), name="photograph")
        except CracksegError as error:
            assert "photograph" in str(error)  # noqa: PT017


def test_a_name_that_is_too_long_is_that_files_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match="longer than the file system takes"):
        write_bytes(tmp_path / ("裂" * 90), b"content")
    assert list(tmp_path.iterdir()) == []


def test_what_was_decided_about_a_photograph_is_said(picture: np.ndarray) -> None:
    twelve_bits = cv2.imencode(".tif", picture[..., 0].astype(np.uint16) * 16)[1].tobytes()
    assert "full scale 4095" in " ".join(decode_photograph(twelve_bits).remarks)
    frames = [Image.fromarray(np.roll(picture, shift, axis=0)) for shift in (0, 9)]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    assert decode_photograph(content.getvalue()).remarks == ("the first frame alone is read",)
    assert decode_photograph(encode(picture, "JPEG")).remarks == ()


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("裂" * 82 + ".png")  # 250 bytes
    write_bytes(path, b"content")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_picture_of_a_folder_is_listed_through_links_and_whatever_its_ending(
    tmp_path: Path, picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    folder, elsewhere = tmp_path / "day1", tmp_path / "nas"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "c.jpg").write_bytes(encode(picture, "JPEG"))
    for name in ("a.JPG", "b.heic", "d.jfif", "e.dng", "notes.txt"):
        (folder / name).write_bytes(b"")
    (folder / "day2").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "day3").symlink_to(tmp_path / "offline")  # a disk that is not there
    (folder / "same.jpg").symlink_to(elsewhere / "c.jpg")
    (folder / "scan0001").write_bytes(encode(picture, "TIFF"))  # no ending
    with caplog.at_level("INFO", logger="crackseg"):
        found = find_photographs([str(folder)], None)
    assert sorted(p.path.name for p in found) == ["a.JPG", "b.heic", "d.jfif", "e.dng", "same.jpg", "scan0001"]
    assert "links to nothing: day3" in caplog.text
    assert "taken once, though linked twice" in caplog.text
    assert "passed over, no photographs" in caplog.text
    assert "lead back" in caplog.text


@pytest.mark.parametrize("place", ["before its data", "behind its data"])
def test_a_png_is_turned_wherever_its_exif_stands(picture: np.ndarray, place: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(picture, "PNG", exif=exif)
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    chunk, rest = content[start:end], content[:start] + content[end:]
    at = rest.index(b"IDAT") - 4 if place == "before its data" else len(rest) - 12
    moved = rest[:at] + chunk + rest[at:]
    assert np.array_equal(decode_image(moved), np.rot90(picture, -1))
    assert np.array_equal(decode_image(rest), picture)


def test_the_size_of_a_png_is_read_without_decoding_it(picture: np.ndarray, tmp_path: Path) -> None:
    content = bytearray(encode(picture, "PNG"))
    data = content.index(b"IDAT") + 4
    content[data : data + 64] = bytes(64)  # nothing can decode this
    (tmp_path / "torn.png").write_bytes(content)
    assert read_size(tmp_path / "torn.png") == (128, 96)


def test_a_jpeg_whose_marks_are_filled_up_is_whole(picture: np.ndarray) -> None:
    for progressive in (False, True):
        content = encode(picture, "JPEG", quality=92, progressive=progressive)
        filled = content[:-2] + b"\xff\xff\xff" + content[-2:]
        assert np.array_equal(decode_image(filled), decode_image(content))


def test_a_phone_s_photographs_are_read_upright_and_a_cut_one_is_named() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'crackseg[heic]'")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("HEIF", "AVIF"):
        content = encode(np.rot90(make_scene()).copy(), kind, quality=90, exif=exif.tobytes())
        assert np.abs(decode_image(content).astype(int) - make_scene()).max() < 6
        with pytest.raises(CracksegError, match="damaged or cut short"):
            decode_image(content[: len(content) // 2])
