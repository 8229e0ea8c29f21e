"""Centre-line IoU, held against a transcription of the benchmark's definition, and the pieces of a mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.morphology import thin

import crackseg.geometry.centerlines
from crackseg.errors import CracksegError
from crackseg.geometry.centerlines import LineCounts, count_lines, count_pieces, skeleton_length_px

masks = hnp.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def line(*points: tuple[int, int], size: int = 64, width: int = 1) -> np.ndarray:
    """A polyline through (column, row) points."""
    drawn = np.zeros((size, size), np.uint8)
    cv2.polylines(drawn, [np.array(points, np.int32)], False, 1, width)
    return drawn.astype(bool)


def slow_centerline_iou(crack_mask: np.ndarray, mask: np.ndarray, radius: int) -> float:
    """By distances between all pixels of the two lines, and true and false positives as the benchmark names them."""
    true_line, predicted_line = np.argwhere(thin(mask)), np.argwhere(thin(crack_mask))
    squared = ((true_line[:, None] - predicted_line[None]) ** 2).sum(axis=2)
    near = squared <= radius**2
    tp = int(near.any(axis=1).sum())
    fn = len(true_line) - tp
    fp = int((~near.any(axis=0)).sum())
    return tp / (tp + fp + fn) if tp + fp + fn else 0.0


@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 7))
@settings(deadline=None, max_examples=300)
def test_thinning_is_scikit_images(scattered: np.ndarray, width: int) -> None:
    mask = cv2.dilate(scattered.view(np.uint8), np.ones((width, width), np.uint8)).view(bool)
    for drawn in (scattered, mask, ~mask):
        np.testing.assert_array_equal(crackseg.geometry.centerlines.thin(drawn), thin(drawn))


@given(st.data(), st.integers(0, 6))
@settings(deadline=None)
def test_centerline_iou_is_the_benchmarks(data: st.DataObject, radius: int) -> None:
    crack_mask = data.draw(masks)
    mask = data.draw(hnp.arrays(bool, crack_mask.shape))
    counts = count_lines(crack_mask, mask, tolerance_px=radius)
    assert counts.centerline_iou == slow_centerline_iou(crack_mask, mask, radius)


def test_thickness_of_a_prediction_does_not_count() -> None:
    truth = line((5, 30), (60, 33))
    assert count_lines(line((5, 30), (60, 33), width=7), truth).centerline_iou == 1


def test_tolerance_is_a_disc_not_a_square() -> None:
    # Three rows and three columns off: 4.24 px, outside the disc of 4 px.
    truth, moved = line((20, 20), (20, 20)), line((23, 23), (23, 23))
    assert count_lines(moved, truth).centerline_iou == 0
    assert count_lines(line((24, 20), (24, 20)), truth).centerline_iou == 1


def test_false_and_missed_lines_lower_centerline_iou_alike() -> None:
    one, other = line((0, 10), (39, 10)), line((0, 40), (39, 40))
    assert count_lines(one, one | other).centerline_iou == 0.5
    assert count_lines(one | other, one).centerline_iou == 0.5


def test_counts_are_pooled_not_ious_averaged() -> None:
    short, long = line((0, 10), (9, 10)), line((0, 40), (29, 40))
    nothing = np.zeros_like(short)
    pooled = count_lines(short, short) + count_lines(nothing, long)
    assert pooled.centerline_iou == pytest.approx(10 / 40)


def test_no_line_anywhere_gives_numbers_not_an_error() -> None:
    nothing = np.zeros((8, 8), np.uint8)
    counts = count_lines(nothing, nothing)
    assert counts == LineCounts(0, 0, 0, 0, 0, 0)
    assert counts.centerline_iou == 0
    assert counts.continuity is None


def test_broken_and_false_pieces_are_told_apart() -> None:
    truth = line((0, 10), (60, 10))
    broken = truth.copy()
    broken[10, 20:23] = broken[10, 40:43] = False
    counts = count_lines(broken | line((0, 50), (20, 50)), truth)
    assert (counts.truth_pieces, counts.predicted_pieces, counts.stray_pieces) == (1, 4, 1)
    assert counts.continuity == 4


def test_pixels_that_touch_at_a_corner_are_one_piece() -> None:
    assert count_pieces(np.eye(5, dtype=np.uint8)) == 1
    assert count_pieces(np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]], bool)) == 4


@pytest.mark.parametrize(
    ("crack_mask", "mask", "tolerance_px", "message"),
    [
        (np.zeros((4, 5), bool), np.zeros((5, 4), bool), 4, "predict at the size of the ground truth"),
        (np.zeros((4, 4), bool), np.full((4, 4), 255, np.uint8), 4, "uint8 0 and 1"),
        (np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), 4, "float32"),
        (np.zeros((4, 4), bool), np.zeros((4, 4), bool), -1, "tolerance_px is -1"),
    ],
)
def test_wrong_masks_are_named(crack_mask: np.ndarray, mask: np.ndarray, tolerance_px: int, message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        count_lines(crack_mask, mask, tolerance_px=tolerance_px)


def test_length_counts_steps_and_diagonal_ones_more() -> None:
    assert skeleton_length_px(line((10, 20), (50, 20))) == 40
    assert skeleton_length_px(np.eye(30, dtype=bool)) == pytest.approx(29 * 2**0.5)
    assert skeleton_length_px(np.zeros((9, 9), bool)) == 0
    assert skeleton_length_px(np.pad(np.ones((1, 1), bool), 4)) == 0
    corner = np.zeros((9, 9), bool)
    corner[4, :5] = corner[4:, 4] = True  # thinning cuts the corner: a diagonal for two of 8 steps
    assert skeleton_length_px(corner) == pytest.approx(6 + 2**0.5)


def test_length_of_a_thick_line_is_that_of_its_middle() -> None:
    assert skeleton_length_px(np.pad(np.ones((7, 101), bool), 10)) == pytest.approx(100, abs=8)


def test_length_does_not_depend_on_the_bands_it_is_measured_in(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((2300, 90), np.uint8)
    cv2.line(mask, (5, 3), (80, 2290), 1, 5)
    cv2.line(mask, (5, 1020), (80, 1030), 1, 3)
    whole = skeleton_length_px(mask)
    monkeypatch.setattr("crackseg.geometry.centerlines._BAND", 1)
    assert skeleton_length_px(mask) == pytest.approx(whole)
