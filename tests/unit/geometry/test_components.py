"""What is measured of drawn shapes is what was drawn, at any angle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crackseg.errors import CracksegError
from crackseg.geometry.components import Measurement, measure_mask
from tests.unit.geometry.drawing import direction, draw_bar, draw_polyline

angles = st.floats(0, 180, exclude_max=True)
widths = st.integers(1, 15)
places = st.tuples(st.floats(119, 121), st.floats(119, 121)).map(np.array)
few = settings(deadline=None, max_examples=40, derandomize=True)


def angle_between(one: float | None, other: float) -> float:
    assert one is not None
    return abs((one - other + 90) % 180 - 90)


def check_widths(found: Measurement, mask: np.ndarray, length: float, width: float, ends_px2: float) -> None:
    """Mean and maximum width within 0.5 px, where the drawing shows the width at all.

    At 45 degrees pixels lie 0.71 px apart across a line: one of 2 px can only come out as 1.4 or 2.1 px wide.
    """
    assume(abs((mask.sum() - ends_px2) / length - width) < 0.25)
    assert found.cracks[0].mean_width_px == pytest.approx(width, abs=0.5)


@given(angles, widths, st.integers(180, 205), places)
@few
def test_straight_crack_with_round_ends(degrees: float, width: int, length: int, centre: np.ndarray) -> None:
    step = direction(degrees) * length / 2
    mask = draw_polyline(np.array([centre - step, centre + step]), width)
    found = measure_mask(mask)
    assert len(found.cracks) == 1
    assert found.length_px == pytest.approx(length, rel=0.03)
    assert angle_between(found.cracks[0].orientation_deg, degrees) < 2
    assert found.cracks[0].tortuosity == pytest.approx(1, abs=0.01)
    check_widths(found, mask, length, width, np.pi * width**2 / 4)


@given(angles, widths, st.integers(180, 205), places)
@few
def test_straight_crack_with_square_ends(degrees: float, width: int, length: int, centre: np.ndarray) -> None:
    mask = draw_bar((centre[0], centre[1]), length, width, degrees)
    found = measure_mask(mask)
    assert found.length_px == pytest.approx(length, rel=0.03)
    assert angle_between(found.cracks[0].orientation_deg, degrees) < 2
    check_widths(found, mask, length, width, 0)


@pytest.mark.parametrize("width", [3, 5, 9, 15])
@pytest.mark.parametrize("degrees", [0, 20, 33.7, 60, 90, 111, 158])
def test_maximum_width_is_no_outlier_of_a_pixel(degrees: float, width: int) -> None:
    step = direction(degrees) * 80
    centre = np.array([120.2, 119.6])
    crack = measure_mask(draw_polyline(np.array([centre - step, centre + step]), width)).cracks[0]
    assert crack.max_width_px == pytest.approx(width, abs=0.5)


@given(angles, st.integers(1, 9), st.floats(-90, 90), places)
@few
def test_bent_crack(degrees: float, width: int, bend: float, middle: np.ndarray) -> None:
    ends = middle - 90 * direction(degrees), middle + 90 * direction(degrees + bend)
    found = measure_mask(draw_polyline(np.array([ends[0], middle, ends[1]]), width))
    assert found.length_px == pytest.approx(180, rel=0.03)
    assert found.cracks[0].tortuosity == pytest.approx(180 / np.hypot(*(ends[1] - ends[0])), rel=0.04)


@given(angles, st.integers(1, 15), st.integers(150, 300), places)
@few
def test_arc(start: float, width: int, sweep: int, centre: np.ndarray) -> None:
    degrees = np.radians(np.linspace(start, start + sweep, 60))
    points = centre + 70 * np.stack([np.cos(degrees), -np.sin(degrees)], axis=1)
    found = measure_mask(draw_polyline(points, width))
    assert found.length_px == pytest.approx(70 * np.radians(sweep), rel=0.03)
    assert found.cracks[0].mean_width_px == pytest.approx(width, abs=0.5)


@given(angles, st.integers(1, 9), st.floats(50, 130), places)
@few
def test_cross_has_four_arms_and_the_length_of_both(
    degrees: float, width: int, between: float, middle: np.ndarray
) -> None:
    one, other = 100 * direction(degrees), 100 * direction(degrees + between)
    mask = draw_polyline(np.array([middle - one, middle + one]), width)
    mask |= draw_polyline(np.array([middle - other, middle + other]), width)
    found = measure_mask(mask)
    assert len(found.cracks) == 1
    assert len(found.cracks[0].branches) in (4, 5)  # a pixel's step may part the crossing
    assert found.length_px == pytest.approx(400, rel=0.03)


def test_angles_are_seen_as_drawn_not_as_stored() -> None:
    rising = np.flipud(np.eye(60, dtype=np.uint8))  # from the lower left to the upper right
    assert measure_mask(rising).cracks[0].orientation_deg == pytest.approx(45, abs=0.5)
    assert measure_mask(np.eye(60, dtype=np.uint8)).cracks[0].orientation_deg == pytest.approx(135, abs=0.5)


def test_ring_has_a_length_but_neither_direction_nor_tortuosity() -> None:
    y, x = np.mgrid[:160, :160]
    crack = measure_mask(abs(np.hypot(x - 80.3, y - 79.6) - 60) <= 2).cracks[0]
    assert crack.length_px == pytest.approx(2 * np.pi * 60, rel=0.01)
    assert crack.mean_width_px == pytest.approx(4, abs=0.5)
    assert crack.orientation_deg is None
    assert crack.tortuosity is None


def test_ragged_outline_makes_no_branches() -> None:
    rng = np.random.default_rng(3)
    mask = np.zeros((60, 240), np.uint8)
    for column in range(20, 220):
        mask[28 - rng.integers(0, 3) : 33 + rng.integers(0, 3), column] = 1
    mask[30, 100] = 0  # and a pinhole
    crack = measure_mask(mask).cracks[0]
    assert len(crack.branches) == 1
    assert crack.length_px == pytest.approx(200, rel=0.03)


def test_specks_are_measured_without_a_warning_and_left_out_on_request() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5, 5] = mask[20:22, 8:10] = 1
    mask[30, 10:40] = 1
    found = measure_mask(mask)
    assert [crack.area_px for crack in found.cracks] == [30, 4, 1]
    assert found.cracks[2].length_px == pytest.approx(1)
    assert found.cracks[2].mean_width_px == pytest.approx(1)
    assert len(measure_mask(mask, min_length_px=5).cracks) == 1


def test_totals_add_up_and_directions_are_counted() -> None:
    level = draw_bar((120, 40), 150, 3, 0)
    steep = draw_bar((120, 150), 100, 5, 95)
    found = measure_mask(level | steep)
    assert found.length_px == pytest.approx(250, rel=0.03)
    assert found.area_px == (level | steep).sum()
    assert found.max_width_px == pytest.approx(5, abs=0.5)
    lengths = found.direction_lengths_px()
    assert sum(lengths) == pytest.approx(found.length_px)
    assert lengths[9] == pytest.approx(100, rel=0.1)
    assert lengths[0] + lengths[17] == pytest.approx(150, rel=0.05)


def test_no_crack_is_no_error() -> None:
    found = measure_mask(np.zeros((30, 40), bool))
    assert found.cracks == ()
    assert found.length_px == 0
    assert found.mean_width_px is None
    assert found.max_width_px is None


@pytest.mark.parametrize(
    "mask", [np.full((4, 4), 255, np.uint8), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), bool)]
)
def test_what_is_no_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(CracksegError, match="expected a mask"):
        measure_mask(mask)
