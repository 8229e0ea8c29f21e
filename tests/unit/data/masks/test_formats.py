from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from crackseg.data.masks.formats import MaskReader, has_shape_of
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import make_mask, save

CRACK = make_mask(1)  # {0, 1}, one pixel wide


def read_all(paths: list[Path], crack_values: tuple[int, ...] | None = None) -> tuple[list[np.ndarray], list[str]]:
    reader = MaskReader(crack_values)
    return [reader.read(path) for path in paths], reader.find_problems()


def read_one(path: Path, crack_values: tuple[int, ...] | None = None) -> np.ndarray:
    """The mask of a file that gives no cause for complaint."""
    (mask,), problems = read_all([path], crack_values)
    assert problems == []
    return mask


def as_palette(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(colours)
    return image


def test_every_way_to_store_a_binary_mask_gives_the_same_mask(tmp_path: Path) -> None:
    white = CRACK * np.uint8(255)
    opaque = np.full_like(white, 255)
    files = {
        "grey.png": white,
        "grey.bmp": white,
        "colour.bmp": np.dstack([white] * 3),
        "rgba.png": np.dstack([white] * 3 + [opaque]),
        "zero_one.png": CRACK,
        "bits.png": CRACK.astype(bool),
        "bits.bmp": CRACK.astype(bool),
        "sixteen.png": CRACK.astype(np.uint16) * np.uint16(65535),
        "sixteen_one.png": CRACK.astype(np.uint16),
        "red.png": np.dstack([white, white * 0, white * 0]),
        "green.png": np.dstack([white * 0, white, white * 0]),
        "ink_on_transparent.png": np.dstack([white * 0] * 3 + [white]),
        "red_on_transparent.png": np.dstack([opaque, white * 0, white * 0, white]),
        "float.tif": CRACK.astype(np.float32),
        "grey_opaque.png": np.dstack([white, opaque]),
        "grey_opaque.jp2": np.dstack([white, opaque]),
    }
    for name, values in files.items():
        assert (read_one(save(tmp_path / name, values)) == CRACK).all(), name
    as_palette(CRACK, [0, 0, 0, 128, 0, 0]).save(tmp_path / "palette.png")
    assert (read_one(tmp_path / "palette.png") == CRACK).all()
    as_palette(CRACK * 3, [0] * 9 + [255] * 3).save(tmp_path / "grey_palette.png")
    assert (read_one(tmp_path / "grey_palette.png") == CRACK).all()


def test_jpeg_mask_is_read_through_its_noise(tmp_path: Path) -> None:
    thick = cv2.dilate(CRACK, np.ones((5, 5), np.uint8))
    mask = read_one(save(tmp_path / "a.jpg", thick * np.uint8(255), quality=90))
    assert (mask != thick).mean() < 0.01


def planked(with_area: bool) -> np.ndarray:
    """A crack of 255 as in UAV75, and planking of 204: an area or lines of one pixel."""
    values = np.zeros((64, 64), np.uint8)
    values[10:15] = 204 if with_area else 0
    values[30::10] = 0 if with_area else 204
    values[:, 40] = 255
    return values


@pytest.mark.parametrize("with_area", [True, False])
def test_two_kinds_of_pixels_are_refused_with_their_shares(tmp_path: Path, with_area: bool) -> None:
    path = save(tmp_path / "a.png", planked(with_area))
    _, (problem,) = read_all([path])
    assert "204" in problem
    assert "255 (1.562%)" in problem
    assert "--crack-value 255" in problem


def test_crack_value_tells_two_kinds_of_pixels_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.dstack([planked(True)] * 3 + [np.full((64, 64), 255, np.uint8)]))
    assert (read_one(path, (255,)) == (planked(True) == 255)).all()
    assert (read_one(path, (204, 255)) == (planked(True) > 0)).all()


def test_the_second_kind_may_be_in_another_mask(tmp_path: Path) -> None:
    only_crack = save(tmp_path / "a.png", CRACK * np.uint8(255))
    both = save(tmp_path / "b.png", planked(True))
    _, problems = read_all([only_crack, both])
    assert len(problems) == 1


def draw_soft(line_type: int, thickness: int) -> np.ndarray:
    values = np.zeros((128, 128), np.uint8)
    for seed in range(4):
        y = np.random.default_rng(seed).integers(0, 128, 2)
        cv2.line(values, (0, int(y[0])), (127, int(y[1])), 255, thickness, line_type)
    return values


@pytest.mark.parametrize("thickness", [1, 2, 7])
def test_anti_aliased_cracks_are_over_127(tmp_path: Path, thickness: int) -> None:
    values = draw_soft(cv2.LINE_AA, thickness)
    assert len(np.unique(values)) > 10
    assert (read_one(save(tmp_path / "a.png", values)) == (values > 127)).all()


@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA])
@pytest.mark.parametrize("side", [48, 64, 97, 256])
def test_scaled_masks_have_soft_edges_but_one_kind_of_pixels(
    tmp_path: Path, interpolation: int, side: int
) -> None:
    values = cv2.resize(draw_soft(cv2.LINE_8, 5), (side, side), interpolation=interpolation)
    assert (read_one(save(tmp_path / "a.png", values)) == (values > 127)).all()


def test_blurred_and_once_compressed_masks_are_over_127(tmp_path: Path) -> None:
    blurred = cv2.GaussianBlur(draw_soft(cv2.LINE_8, 9), (0, 0), 2)
    once_jpeg = cv2.imdecode(cv2.imencode(".jpg", draw_soft(cv2.LINE_8, 5))[1], cv2.IMREAD_GRAYSCALE)
    for name, values in (("blurred.png", blurred), ("once_jpeg.png", once_jpeg)):
        assert (read_one(save(tmp_path / name, values)) == (values > 127)).all(), name


@pytest.mark.parametrize("value", [2, 38, 100])
def test_one_dark_value_is_no_crack_by_guess(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / "a.png", CRACK * np.uint8(value))
    _, (problem,) = read_all([path])
    assert f"--crack-value {value}" in problem
    assert (read_one(path, (value,)) == CRACK).all()


def test_class_numbers_are_refused(tmp_path: Path) -> None:
    values = np.zeros((40, 40), np.uint8)
    values[5:8], values[20:30] = 1, 2
    _, (problem,) = read_all([save(tmp_path / "a.png", values)])
    assert "1, 2" in problem


def test_crack_value_that_no_mask_has_is_refused(tmp_path: Path) -> None:
    _, (problem,) = read_all([save(tmp_path / "a.png", CRACK * np.uint8(255))], (254,))
    assert "254" in problem
    assert "255" in problem


def test_black_cracks_on_white_are_refused_until_said(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", (1 - CRACK) * np.uint8(255))
    _, (problem,) = read_all([path])
    assert "--crack-value 0" in problem
    assert (read_one(path, (0,)) == CRACK).all()


def test_several_colours_are_refused(tmp_path: Path) -> None:
    values = np.zeros((40, 40, 3), np.uint8)
    values[5, :, 0], values[20:30, :, 1] = 255, 255
    path = save(tmp_path / "a.png", values)
    _, (problem,) = read_all([path])
    assert "several colours (#00ff00, #ff0000)" in problem
    assert "--crack-value '#ff0000'" in problem
    assert read_one(path, (255,)).sum() == 40


def test_masks_without_any_crack_are_fine(tmp_path: Path) -> None:
    assert not read_one(save(tmp_path / "a.png", CRACK * 0)).any()


def test_crackforest_mat_takes_segmentation_2(tmp_path: Path) -> None:
    truth = {"Segmentation": CRACK.astype(np.uint16) + 1, "Boundaries": CRACK.astype(bool)}
    scipy.io.savemat(tmp_path / "1.mat", {"groundTruth": truth})
    assert (read_one(tmp_path / "1.mat") == CRACK).all()


def test_mat_with_one_matrix_is_a_mask(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "1.mat", {"mask": CRACK.astype(float)})
    assert (read_one(tmp_path / "1.mat") == CRACK).all()


def test_mat_without_ground_truth_says_what_it_holds(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "1.mat", {"first": CRACK, "second": CRACK})
    with pytest.raises(CracksegError, match="first, second"):
        MaskReader().read(tmp_path / "1.mat")
    (tmp_path / "2.mat").write_bytes(b"no matlab")
    with pytest.raises(CracksegError, match=r"2\.mat"):
        MaskReader().read(tmp_path / "2.mat")


@pytest.mark.parametrize(
    ("image_size", "mask_size", "fits"),
    [
        ((800, 600), (800, 600), True),
        ((1024, 1024), (512, 512), True),
        ((1001, 667), (500, 333), True),
        ((800, 600), (600, 800), False),
        ((800, 600), (800, 601), False),
        ((800, 600), (512, 512), False),
    ],
)
def test_mask_has_the_shape_of_its_image(image_size, mask_size, fits) -> None:
    assert has_shape_of(image_size, np.zeros(mask_size[::-1], np.uint8)) is fits
