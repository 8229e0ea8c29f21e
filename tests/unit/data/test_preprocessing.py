"""What the models see: size, aspect and 1-px truth after resizing."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crackseg.data.preprocessing import prepare_pair, resize_image, resize_mask


def draw_curve(width: int, height: int) -> np.ndarray:
    points = np.array([[5, 8], [width // 3, height // 2], [width // 2, height // 3], [width - 6, height - 9]])
    mask = np.zeros((height, width), np.uint8)
    cv2.polylines(mask, [points.astype(np.int32)], False, 1)
    return mask


def count_pieces(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask, connectivity=8)[0] - 1


def test_image_is_resized_by_pixel_area() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = [[[0], [100]], [[200], [100]]]
    assert resize_image(image, 2, 2)[0, 0].tolist() == [100, 100, 100]


def draw_noise(width: int, height: int) -> np.ndarray:
    return (np.random.default_rng(0).random((height, width)) < 0.1).astype(np.uint8)


def find_centre(values: np.ndarray) -> np.ndarray:
    """Centre of mass in pixels, y and x."""
    return np.average(np.indices(values.shape), axis=(1, 2), weights=values) + 0.5


def test_paper_mask_resize_is_nearest_and_breaks_lines() -> None:
    mask = draw_curve(800, 600)
    small = resize_mask(mask, 512, 512, method="nearest")
    assert count_pieces(mask) == 1 < count_pieces(small)
    assert small.sum() < 0.7 * mask.sum()


@pytest.mark.parametrize(("width", "height"), [(512, 512), (300, 600), (640, 480), (1000, 1000)])
def test_nearest_takes_the_pixel_at_the_middle_of_each_cell_as_pillow_does(width: int, height: int) -> None:
    mask = draw_noise(800, 600)
    expected = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize_mask(mask, width, height, method="nearest"), np.asarray(expected))


@pytest.mark.parametrize("method", ["nearest", "line"])
@pytest.mark.parametrize("size_px", [512, 1000])
def test_truth_and_region_stay_where_the_photograph_shows_them(size_px: int, method: str) -> None:
    """To a tenth of a pixel; taking the first pixel of each cell instead of its middle moves them by half a one."""
    mask = cv2.ellipse(np.zeros((600, 800), np.uint8), (310, 270), (211, 173), 30, 0, 360, 1, -1)
    image = np.repeat(255 * mask[..., None], 3, axis=2)
    pair = prepare_pair(image, mask, mask, size_px=size_px, resize="square", mask_resize=method)
    assert pair.roi is not None
    shown = find_centre(pair.image[..., 0])
    assert find_centre(pair.mask) == pytest.approx(shown, abs=0.1)
    assert find_centre(pair.roi) == pytest.approx(shown, abs=0.1)


@settings(deadline=None, max_examples=40)
@given(width=st.integers(20, 200), height=st.integers(20, 200))
def test_line_mask_resize_keeps_lines_whole(width: int, height: int) -> None:
    small = resize_mask(draw_curve(200, 200), width, height, method="line")
    assert small.shape == (height, width)
    assert count_pieces(small) == 1


@pytest.mark.parametrize("method", ["nearest", "line"])
def test_enlarged_mask_covers_the_same_share(method: str) -> None:
    mask = draw_curve(100, 100)
    assert resize_mask(mask, 200, 200, method=method).mean() == pytest.approx(mask.mean())


def test_padding_keeps_the_aspect_ratio_and_does_not_count() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    pair = prepare_pair(image, draw_curve(200, 100), None, size_px=100, resize="pad", mask_resize="line")
    assert pair.image.shape == (100, 100, 3)
    assert pair.mask[50:].sum() == 0
    assert pair.roi is not None
    assert pair.roi[:50].all()
    assert not pair.roi[50:].any()


def test_half_size_truth_meets_its_photograph() -> None:
    image, mask = np.zeros((200, 200, 3), np.uint8), draw_curve(100, 100)
    roi = np.ones((100, 100), np.uint8)
    for resize, side in (("square", 64), ("none", 200)):
        pair = prepare_pair(image, mask, roi, size_px=64, resize=resize, mask_resize="nearest")
        assert pair.roi is not None
        assert pair.image.shape[:2] == pair.mask.shape == pair.roi.shape == (side, side)
