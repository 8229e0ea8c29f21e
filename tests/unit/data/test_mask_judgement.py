"""What masks mean is judged over all files, on the colours that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crackseg.data.masks.crack_values import CrackValue, parse_crack_value
from crackseg.data.masks.formats import MaskReader
from crackseg.errors import CracksegError

SIZE = (80, 96)
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def crack(seed: int = 0, width: int = 2) -> np.ndarray:
    """A crack, bool (H, W)."""
    mask = np.zeros(SIZE, bool)
    row = 20 + 4 * seed
    for column in range(5, 90):
        mask[row + column // 12 : row + column // 12 + width, column] = True
    return mask


def patch() -> np.ndarray:
    """An area, bool (H, W)."""
    mask = np.zeros(SIZE, bool)
    mask[56:76, 60:90] = True
    return mask


def paint(*layers: tuple[np.ndarray, tuple[int, ...] | int], background: tuple[int, ...] = BLACK) -> np.ndarray:
    values = np.full((*SIZE, 3), background, np.uint8)
    for where, colour in layers:
        values[where] = colour
    return values


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def read(
    folder: Path,
    images: list[np.ndarray | Image.Image],
    ending: str = ".png",
    *,
    values: tuple[CrackValue, ...] = (),
) -> tuple[list[np.ndarray], list[str]]:
    reader, masks = MaskReader(values or None), []
    for number, image in enumerate(images):
        path = folder / f"m{number}{ending}"
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, quality=90)
        masks.append(reader.read(path))
    return masks, reader.find_problems()


def all_are_cracks(masks: list[np.ndarray]) -> bool:
    return all((mask == crack(seed)).all() for seed, mask in enumerate(masks))


def test_the_order_of_a_palette_does_not_matter(tmp_path: Path) -> None:
    images = [
        palette(~crack(i) if i < 2 else crack(i), *((WHITE, BLACK) if i < 2 else (BLACK, WHITE))) for i in range(5)
    ]
    masks, problems = read(tmp_path, images)
    assert problems == []
    assert all_are_cracks(masks)


def test_a_palette_may_be_transparent_where_nothing_was_drawn(tmp_path: Path) -> None:
    image = palette(crack(), WHITE, RED)
    image.info["transparency"] = 0
    masks, problems = read(tmp_path, [image])
    assert problems == []
    assert all_are_cracks(masks)


def test_one_bit_files_show_white_as_crack_whatever_their_bits_mean(tmp_path: Path) -> None:
    Image.fromarray(crack()).save(tmp_path / "a.tif", tiffinfo={262: 0})  # WhiteIsZero
    Image.fromarray(crack()).save(tmp_path / "b.bmp")
    reader = MaskReader()
    assert all_are_cracks([reader.read(tmp_path / "a.tif")])
    assert all_are_cracks([reader.read(tmp_path / "b.bmp")])
    assert reader.find_problems() == []


@pytest.mark.parametrize(
    "images",
    [
        [paint((crack(), (128, 0, 0))), paint((patch(), (0, 128, 0)))],
        [palette(crack(), BLACK, (128, 0, 0)), palette(patch(), BLACK, (0, 128, 0))],
        [paint((crack(), RED)), paint((crack(1), WHITE))],
        [paint((crack(), RED), background=WHITE)],
        [paint((crack(), RED), background=BLUE)],
        [paint((patch(), (224, 224, 192)), (np.roll(patch(), 5, 1) & patch(), (128, 0, 0)))],
    ],
    ids=["files", "palettes", "white and red", "on white", "on blue", "border of objects"],
)
def test_colours_are_compared_over_all_files(tmp_path: Path, images: list) -> None:
    _, (problem,) = read(tmp_path, images)
    assert "colours" in problem
    assert "--crack-value" in problem


def test_a_colour_in_one_file_of_many_is_found(tmp_path: Path) -> None:
    images = [paint((crack(i), RED)) for i in range(9)] + [paint((crack(width=1)[:, ::-1], GREEN))]
    _, (problem,) = read(tmp_path, images)
    assert "#00ff00" in problem


@pytest.mark.parametrize("levels", [(204, 255), (127, 255), (1, 255), (1, 2)])
def test_grey_levels_are_compared_over_all_files(tmp_path: Path, levels: tuple[int, int]) -> None:
    images = [(crack(i) * level).astype(np.uint8) for i, level in enumerate((*levels, levels[0]))]
    _, (problem,) = read(tmp_path, images)
    assert "--crack-value" in problem


def test_instance_numbers_of_each_file_are_refused(tmp_path: Path) -> None:
    images = [(crack(i) * (i + 1)).astype(np.uint8) for i in range(12)]
    _, (problem,) = read(tmp_path, images)
    assert "--crack-value" in problem


def test_class_numbers_within_a_border_of_255_are_refused(tmp_path: Path) -> None:
    values = np.zeros(SIZE, np.uint8)
    values[20:24, 5:90], values[21:23, 6:89] = 255, 1  # as VOC draws objects
    _, (problem,) = read(tmp_path, [values])
    assert "1, 255" in problem
    masks, problems = read(tmp_path, [values], values=(1,))
    assert problems == []
    assert masks[0].sum() == 2 * 83


def test_a_mat_of_numbers_among_white_masks_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"mask": crack().astype(np.uint8)})
    Image.fromarray(crack()).save(tmp_path / "b.png")
    reader = MaskReader()
    reader.read(tmp_path / "a.mat")
    reader.read(tmp_path / "b.png")
    (problem,) = reader.find_problems()
    assert "1" in problem


def test_sixteen_bits_are_read_by_their_full_scale(tmp_path: Path) -> None:
    for top in (1, 255, 65535):
        masks, problems = read(tmp_path, [(crack(i) * top).astype(np.uint16) for i in range(3)])
        assert problems == []
        assert all_are_cracks(masks)
    _, problems = read(tmp_path, [(crack() * 255).astype(np.uint16), (crack() * 65535).astype(np.uint16)])
    assert len(problems) == 1


@pytest.mark.parametrize("colour", [RED, (128, 0, 0), WHITE, BLACK])
def test_what_was_drawn_on_a_transparent_sheet_is_crack(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    drawn = [np.dstack([paint((crack(i), colour)), crack(i) * np.uint8(255)]) for i in range(2)]
    masks, problems = read(tmp_path, [*drawn, np.zeros((*SIZE, 4), np.uint8)])
    assert problems == []
    assert all_are_cracks(masks[:2])
    assert not masks[2].any()


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    "colours", [(RED, BLUE), (WHITE, (200, 200, 200)), (WHITE, RED)], ids=["colours", "grey", "white and red"]
)
def test_lossy_masks_of_two_kinds_are_refused(tmp_path: Path, ending: str, width: int, colours: tuple) -> None:
    both = [paint((crack(i, width), colours[0]), (patch(), colours[1])) for i in range(3)]
    _, (problem,) = read(tmp_path, both, ending)
    assert "several" in problem
    apart = [paint((crack(0, width), colours[0])), paint((patch(), colours[1]))]
    _, (problem,) = read(tmp_path, apart, ending)
    assert "several" in problem


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
@pytest.mark.parametrize("colour", [WHITE, RED, GREEN, (200, 200, 200)])
def test_lossy_masks_of_one_kind_are_read(tmp_path: Path, ending: str, colour: tuple[int, int, int]) -> None:
    masks, problems = read(tmp_path, [paint((crack(i, 4), colour)) for i in range(3)], ending)
    assert problems == []
    assert all((mask != crack(i, 4)).mean() < 0.01 for i, mask in enumerate(masks))


def test_lossy_masks_are_named_in_the_account(tmp_path: Path) -> None:
    Image.fromarray(crack()).convert("L").save(tmp_path / "a.jpg")
    reader = MaskReader()
    reader.read(tmp_path / "a.jpg")
    assert any("lossy" in text and names == ("a.jpg",) for text, names in reader.find_notes())


def test_some_inverted_masks_are_named(tmp_path: Path) -> None:
    images = [((~crack(i) if i < 4 else crack(i)) * 255).astype(np.uint8) for i in range(10)]
    _, (problem,) = read(tmp_path, images)
    assert "4 of 10 masks" in problem
    assert "black on white: m0.png, m1.png, m2.png, m3.png" in problem


def test_one_white_mask_is_named(tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, [np.full(SIZE, 255, np.uint8), *(crack(i) * np.uint8(255) for i in range(4))])
    assert "m0.png" in problem


def test_one_large_damaged_area_is_no_inverted_mask(tmp_path: Path) -> None:
    large = np.full(SIZE, 255, np.uint8)
    large[:25] = 0
    _, problems = read(tmp_path, [large, *(crack(i) * np.uint8(255) for i in range(4))])
    assert problems == []


def test_a_photograph_with_cracks_drawn_on_it_is_refused(tmp_path: Path) -> None:
    rough = np.random.default_rng(0).integers(90, 170, (*SIZE, 3)).astype(np.uint8)
    rough[crack()] = RED
    _, (problem,) = read(tmp_path, [rough])
    assert "photographs (m0.png)" in problem


def test_a_colour_says_which_pixels_are_crack(tmp_path: Path) -> None:
    images = [
        palette(crack(0) + 2 * patch(), BLACK, (128, 0, 0), (0, 128, 0)),
        palette(2 * crack(1) + patch(), BLACK, (0, 128, 0), (128, 0, 0)),
        paint((crack(2), (128, 0, 0)), (patch(), (0, 128, 0))),
    ]
    masks, problems = read(tmp_path, images, values=(parse_crack_value("128,0,0"),))
    assert problems == []
    assert all_are_cracks(masks)


def test_a_number_that_is_two_colours_is_refused(tmp_path: Path) -> None:
    order = [palette(crack(0), BLACK, RED), palette(crack(1), BLACK, GREEN)]
    _, (problem,) = read(tmp_path, order, values=(1,))
    assert "#ff0000 in m0.png" in problem
    assert "#00ff00 in m1.png" in problem
    _, (problem,) = read(tmp_path, [paint((crack(), RED), (patch(), WHITE))], values=(255,))
    assert "--crack-value '#" in problem


def test_a_colour_in_a_lossy_file_is_found(tmp_path: Path) -> None:
    images = [paint((crack(i, 6), RED), (patch(), BLUE)) for i in range(2)]
    masks, problems = read(tmp_path, images, ".jpg", values=("#ff0000",))
    assert problems == []
    assert all(mask[crack(i, 6)].mean() > 0.7 and not mask[patch()].any() for i, mask in enumerate(masks))


def test_crack_values_are_numbers_or_colours() -> None:
    assert [parse_crack_value(text) for text in ("255", "#80FF00", "128,0,0", "(128, 0, 0)")] == [
        255,
        "#80ff00",
        "#800000",
        "#800000",
    ]
    for text in ("red", "70000", "#12", "1,2", "300,0,0", "-1"):
        with pytest.raises(CracksegError, match="expected a number, or a colour"):
            parse_crack_value(text)
