"""What each method makes of drawn cracks, and that every threshold of a map shows it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.morphology import skeletonize

from crackseg.errors import CracksegError
from crackseg.geometry.centerlines import count_pieces
from crackseg.geometry.postprocessing import METHODS, postprocess, postprocess_map

EIGHT = np.ones((3, 3), int)

# Sixteenths: sums, differences and halves of them are exact, so that equal means equal.
maps = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    elements=st.integers(0, 16).map(lambda n: n / 16),
)


def blurred(mask: np.ndarray, sigma_px: float = 2.0, height: float = 0.9) -> np.ndarray:
    """A map with its ridge on the mask; float32, up to ``height``."""
    distance = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (height * np.exp(-((distance / sigma_px) ** 2) / 2)).astype(np.float32)


def curve(columns: np.ndarray, size: int = 96) -> np.ndarray:
    """A wavy crack of one pixel over the given columns."""
    rows = np.rint(size / 2 + 12 * np.sin(columns / 15)).astype(int)
    drawn = np.zeros((size, size), np.uint8)
    cv2.polylines(drawn, [np.stack([columns, rows], axis=1).astype(np.int32)], False, 1)
    return drawn.astype(bool)


def distance_to(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask)


def pieces_of(mask: np.ndarray) -> list[np.ndarray]:
    labels, number = ndimage.label(mask, EIGHT)
    return [labels == k for k in range(1, number + 1)]


# --- thin ---------------------------------------------------------------------------------------------------


def test_thin_line_lies_on_the_crack_from_end_to_end() -> None:
    crack = curve(np.arange(10, 86))
    line = postprocess(blurred(crack), threshold=0.5, method="thin")
    assert count_pieces(line) == 1
    assert np.array_equal(line, skeletonize(line)), "wider than a pixel"
    assert distance_to(crack)[line].max() <= 1
    assert distance_to(line)[crack].max() <= 4, "the ends may shrink by half the width"


def test_thin_line_follows_the_ridge_where_the_crack_is_lopsided() -> None:
    # Steep above the ridge and long below it: the middle of what is over a threshold is not the ridge.
    rows = np.arange(64)[:, None] - 20
    map_HW = np.where(rows < 0, np.exp(-((rows / 1.5) ** 2)), np.exp(-((rows / 9) ** 2))) * np.ones((1, 64))
    map_HW[:, :5] = map_HW[:, -5:] = 0
    line = postprocess(map_HW, threshold=0.5, method="thin")
    assert set(np.flatnonzero(line[:, 20:44].any(axis=1))) == {20}
    assert abs(np.flatnonzero(skeletonize(map_HW >= 0.5)[:, 32])[0] - 20) > 2, "no test of the ridge"


def test_thin_finds_the_middle_of_a_plateau() -> None:
    map_HW = np.zeros((40, 80), np.float32)
    map_HW[15:26, 5:75] = 1
    line = postprocess(map_HW, threshold=0.5, method="thin")
    assert set(np.flatnonzero(line[:, 20:60].any(axis=1))) == {20}


def test_thin_keeps_a_ring_closed() -> None:
    ring = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 20, 1).astype(bool)
    line = postprocess(blurred(ring), threshold=0.5, method="thin")
    inside = ndimage.label(~line)[0]
    assert inside[32, 32] != inside[0, 0]


@given(maps)
@settings(deadline=None)
def test_thinning_neither_breaks_nor_joins_pieces_nor_fills_holes(map_HW: np.ndarray) -> None:
    region = map_HW - map_HW.min() >= 0.25 * np.ptp(map_HW)
    line = postprocess_map(map_HW, method="thin", floor=0.25) > map_HW.min()
    if np.ptp(map_HW) == 0:
        assert not line.any()
        return
    assert not (line & ~region).any()
    assert ndimage.label(line, EIGHT)[1] == ndimage.label(region, EIGHT)[1]
    assert (
        ndimage.label(np.pad(~line, 1, constant_values=True))[1]
        == (ndimage.label(np.pad(~region, 1, constant_values=True))[1])
    )


@given(maps)
@settings(deadline=None)
def test_no_pixel_of_a_thin_line_could_go(map_HW: np.ndarray) -> None:
    map_HW[0] = 0
    thin = postprocess_map(map_HW, method="thin")
    assert np.array_equal(postprocess_map(thin, method="thin"), thin)


# --- hysteresis ---------------------------------------------------------------------------------------------


def slow_hysteresis(map_HW: np.ndarray, threshold: float, low_ratio: float) -> np.ndarray:
    result = np.zeros(map_HW.shape, bool)
    for piece in pieces_of(map_HW >= low_ratio * threshold):
        if map_HW[piece].max() >= threshold:
            result |= piece
    return result


@given(maps, st.sampled_from([0.25, 0.5, 1.0]))
@settings(deadline=None)
def test_hysteresis_is_exact_at_every_threshold(map_HW: np.ndarray, low_ratio: float) -> None:
    map_HW[0, 0], map_HW[-1, -1] = 0, 1
    for step in range(2, 17):
        threshold = step / 16
        expected = slow_hysteresis(map_HW * (map_HW >= 1 / 16), threshold, low_ratio)
        found = postprocess(map_HW, threshold=threshold, method="hysteresis", low_ratio=low_ratio, floor=1 / 16)
        # Half of 1/16 is under the floor, where nothing is taken for a crack.
        assert np.array_equal(found, expected & (map_HW >= 1 / 16))


def test_hysteresis_keeps_a_faint_stretch_of_a_crack_but_no_faint_speck() -> None:
    map_HW = np.zeros((20, 60), np.float32)
    map_HW[10, 5:20] = map_HW[10, 40:55] = 0.9
    map_HW[10, 20:40] = 0.55
    map_HW[2, 2:8] = 0.55
    found = postprocess(map_HW, threshold=0.8, method="hysteresis", low_ratio=0.6)
    assert count_pieces(found) == 1
    assert found[10, 5:55].all()


def test_hysteresis_with_one_threshold_changes_nothing_over_the_floor() -> None:
    map_HW = np.random.default_rng(0).uniform(0.1, 0.9, (64, 64))
    processed = postprocess_map(map_HW, method="hysteresis", low_ratio=1.0)
    over = map_HW >= map_HW.min() + 0.25 * np.ptp(map_HW)
    assert np.allclose(processed, np.where(over, map_HW, 0), atol=1e-12)


# --- link ---------------------------------------------------------------------------------------------------


def gapped_map(gap_px: int, faint: float) -> tuple[np.ndarray, np.ndarray]:
    """A wavy crack, and its map, whose ridge falls to ``faint`` over so many columns, softly."""
    crack = curve(np.arange(10, 86))
    outside_px = np.maximum(np.abs(np.arange(96) - 48) - gap_px / 2, 0)
    height = faint + (0.9 - faint) * (1 - np.exp(-((outside_px / 2) ** 2)))
    return crack, (blurred(crack) * height / 0.9).astype(np.float32)


def test_link_joins_ends_along_the_ridge_of_the_gap() -> None:
    crack, map_HW = gapped_map(gap_px=8, faint=0.45)
    settings: dict[str, Any] = {"threshold": 0.6, "max_gap_px": 20}
    assert count_pieces(postprocess(map_HW, method="thin", **settings)) == 2
    linked = postprocess(map_HW, method="link", **settings)
    assert count_pieces(linked) == 1
    assert distance_to(crack)[linked].max() <= 1.5


def test_link_keeps_away_from_a_gap_that_is_too_long_or_too_faint() -> None:
    _, long = gapped_map(gap_px=30, faint=0.45)
    _, faint = gapped_map(gap_px=8, faint=0.05)
    for map_HW in (long, faint):
        assert count_pieces(postprocess(map_HW, threshold=0.6, method="link", max_gap_px=20)) == 2


def test_link_takes_the_way_round_where_the_ridge_does() -> None:
    map_HW = np.zeros((40, 60), np.float32)
    map_HW[20, 5:26] = map_HW[20, 35:56] = 0.9
    detour = cv2.ellipse(np.zeros((40, 60), np.uint8), (30, 20), (5, 4), 0, 180, 360, 1).astype(bool)
    map_HW[detour & (map_HW == 0)] = 0.5
    linked = postprocess(map_HW, threshold=0.8, method="link", max_gap_px=12)
    assert count_pieces(linked) == 1
    assert linked[16, 28:33].any()
    assert not linked[20, 28:33].any()


@given(maps)
@settings(deadline=None)
def test_link_takes_nothing_from_the_thin_lines(map_HW: np.ndarray) -> None:
    thin = postprocess_map(map_HW, method="thin")
    assert (postprocess_map(map_HW, method="link", max_gap_px=4) >= thin).all()


def test_link_draws_one_path_between_two_pieces() -> None:
    # Two forks face each other with two pairs of ends: a second path would close a loop that nobody saw.
    map_HW = np.zeros((40, 60), np.float32)
    for row in (17, 23):
        fork = np.array([(4, 20), (14, 20), (26, row)], np.int32)
        cv2.polylines(map_HW, [fork, (59, 0) + (-1, 1) * fork], False, 0.9)
    map_HW[map_HW == 0] = 0.5
    map_HW[:3] = map_HW[-3:] = 0
    linked = postprocess(map_HW, threshold=0.8, method="link", max_gap_px=12, floor=0.6)
    assert count_pieces(linked) == 1
    assert ndimage.label(~linked)[1] == 1, "a loop"


# --- length -------------------------------------------------------------------------------------------------


@given(maps, st.integers(2, 6), st.sampled_from(["none", "thin", "hysteresis"]))
@settings(deadline=None)
def test_short_pieces_go_at_every_threshold_and_long_ones_stay(
    map_HW: np.ndarray, min_length_px: int, method: str
) -> None:
    map_HW[0, 0], map_HW[-1, -1] = 0, 1
    floor = 1 / 16
    before = postprocess_map(map_HW, method=method, low_ratio=0.5, floor=floor)
    after = postprocess_map(map_HW, method=method, low_ratio=0.5, floor=floor, min_length_px=min_length_px)
    for step in range(1, 17):
        long = np.zeros(map_HW.shape, bool)
        for piece in pieces_of(before >= step / 16):
            if max(np.ptp(along) for along in np.nonzero(piece)) + 1 >= min_length_px:
                long |= piece
        assert np.array_equal(after >= step / 16, long)


def test_length_is_measured_after_linking() -> None:
    _, map_HW = gapped_map(gap_px=8, faint=0.45)
    settings: dict[str, Any] = {"threshold": 0.6, "max_gap_px": 20, "min_length_px": 60}
    assert not postprocess(map_HW, method="thin", **settings).any()
    assert count_pieces(postprocess(map_HW, method="link", **settings)) == 1


# --- all methods --------------------------------------------------------------------------------------------


@given(maps, st.sampled_from(METHODS), st.sampled_from([0, 3]))
@settings(deadline=None)
def test_stretching_before_or_after_is_the_same(map_HW: np.ndarray, method: str, min_length_px: int) -> None:
    map_HW[0, 0], map_HW[-1, -1] = 0, 1
    settings: dict[str, Any] = {"method": method, "low_ratio": 0.5, "floor": 0.25, "min_length_px": min_length_px}
    squeezed, plain = postprocess_map(0.25 + map_HW / 4, **settings), postprocess_map(map_HW, **settings)
    kept = (plain > 0) | ((method == "none") & (min_length_px == 0))
    assert np.allclose(squeezed, np.where(kept, 0.25 + plain / 4, 0), atol=1e-12)


@given(maps, st.sampled_from(METHODS), st.sampled_from([0, 3]))
@settings(deadline=None)
def test_map_keeps_its_type_size_range_and_input(map_HW: np.ndarray, method: str, min_length_px: int) -> None:
    single = map_HW.astype(np.float32)
    before = single.copy()
    processed = postprocess_map(single, method=method, min_length_px=min_length_px)
    assert (processed.dtype, processed.shape) == (np.float32, single.shape)
    assert processed.min() >= 0
    assert processed.max() <= single.max()
    assert np.array_equal(single, before)


@pytest.mark.parametrize("method", METHODS)
def test_mask_is_the_map_at_its_threshold(method: str) -> None:
    _, map_HW = gapped_map(gap_px=8, faint=0.45)
    processed = postprocess_map(map_HW, method=method, min_length_px=5)
    for threshold in (0.3, 0.6, 0.89):
        found = postprocess(map_HW, threshold=threshold, method=method, min_length_px=5)
        assert np.array_equal(found, processed >= threshold)
        assert found.any()


@pytest.mark.parametrize("method", METHODS)
def test_photograph_without_cracks_stays_without(method: str) -> None:
    noise = np.random.default_rng(0).uniform(0.1, 0.2, (32, 32)).astype(np.float32)
    assert not postprocess(noise, threshold=0.5, method=method).any()
    assert not postprocess(np.zeros((32, 32), np.float32), threshold=0.5, method=method).any()


def test_none_changes_nothing() -> None:
    map_HW = np.random.default_rng(0).uniform(0, 1, (16, 16))
    assert np.array_equal(postprocess_map(map_HW, method="none"), map_HW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "thinn"}, "did you mean thin?"),
        ({"method": "skeleton"}, "expected one of none, thin"),
        ({"low_ratio": 0.0}, "low_ratio is 0"),
        ({"low_ratio": 1.5}, "low_ratio is 1.5"),
        ({"floor": 1.0}, "floor is 1"),
        ({"max_gap_px": 0}, "max_gap_px is 0"),
        ({"min_length_px": -1}, "min_length_px is -1"),
    ],
)
def test_wrong_setting_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        postprocess_map(np.zeros((4, 4)), **{"method": "thin", **change})


@pytest.mark.parametrize(
    ("map_HW", "message"),
    [
        (np.zeros((4, 4), np.uint16), "divide a stored map by its full scale"),
        (np.zeros((4, 4, 1)), "\\(H, W\\)"),
        (np.full((4, 4), np.nan), "nan"),
        (np.full((4, 4), 1.5), "1.5"),
    ],
)
def test_what_is_no_map_is_named(map_HW: np.ndarray, message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        postprocess_map(map_HW, method="thin")


def test_linking_a_map_of_noise_is_bounded_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((96, 96)).astype(np.float32), (0, 0), 1.0)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    monkeypatch.setattr("crackseg.geometry.postprocessing._LEAST_PATHS", 20)
    postprocess_map(noise, method="link", name="maps/7.png")
    assert "maps/7.png: link: 92 gaps of at most 10 px were looked at" in caplog.text
    assert "mostly noise" in caplog.text


def test_a_gap_in_a_crack_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    drawn = curve(np.r_[8:88])
    drawn[:, 40:46] = 0
    postprocess_map(blurred(drawn), method="link")
    assert not caplog.records


@pytest.mark.parametrize("method", ["none", "thin", "hysteresis", "link"])
def test_what_post_processing_removed_is_no_crack_at_a_threshold_below_the_whole_map(method: str) -> None:
    prob = np.full((40, 40), 0.2)
    prob[20, 10:14] = 0.9
    assert not postprocess(prob, threshold=0.01, method=method, min_length_px=30).any()
