"""Growth is measured on what the photographs show along a line, not on where a network happened to find it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from crackseg.inspection.growth import Change, compare_views
from crackseg.inspection.joint_lines import PredictedPhotograph, find_views
from crackseg.registry.loading import load_model
from tests.unit.inspection.grown_scenes import compare_visits, visit_twice

SIDE = 400
SEEN = np.ones((SIDE, SIDE), bool)
THRESHOLD = 0.5
Line = tuple[tuple[int, int], tuple[int, int]]
SHORT: Line = ((50, 200), (150, 210))
LONG: Line = ((50, 200), (300, 225))
GROWN_PX = np.hypot(150, 15)


def surface(*cracks: Line, seed: int = 0, grey: int = 60, texture: float = 3) -> np.ndarray:
    """A photograph with cracks of 3 px."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE), 150, np.float32)
    for start, end in cracks:
        cv2.line(image, start, end, grey, 3)
    image = cv2.GaussianBlur(image, (0, 0), 0.7) + cv2.GaussianBlur(
        rng.normal(0, 2 * texture, (SIDE, SIDE)).astype(np.float32), (0, 0), 1
    )
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def found(*cracks: Line, value: float = 0.9) -> np.ndarray:
    crack_prob = np.full((SIDE, SIDE), 0.001, np.float32)
    for start, end in cracks:
        cv2.line(crack_prob, start, end, value, 5)
    return crack_prob


def compare(before: PredictedPhotograph, after: PredictedPhotograph) -> list[Change]:
    views = find_views(before, after, THRESHOLD, SEEN, error_px=0.3, min_length_px=40)
    return compare_views(*views, SEEN, error_px=0.3)


def test_a_crack_that_the_network_missed_in_the_earlier_photograph_is_not_new() -> None:
    before = PredictedPhotograph([found()], surface(LONG))
    (change,) = compare(before, PredictedPhotograph([found(LONG)], surface(LONG, seed=1)))
    assert change.words == ()
    assert change.length_before_px == pytest.approx(change.length_after_px, abs=2)
    assert [c.words for c in compare(PredictedPhotograph([found(LONG)], surface(LONG)), before)] == [()]


def test_growth_is_measured_whole_where_the_network_finds_parts_of_it() -> None:
    parts = found(SHORT, ((190, 214), (215, 217)))
    faint = found(LONG, value=0.05)
    faint[:, 150:180] = faint[:, 240:] = 0.001  # nothing at all between the crack and its new part, nor at its end
    after = PredictedPhotograph([np.maximum(parts, faint)], surface(LONG, seed=1))
    (change,) = compare(PredictedPhotograph([found(SHORT)], surface(SHORT)), after)
    assert change.words == ("longer",)
    assert change.grown_px == pytest.approx(GROWN_PX, rel=0.05)


def test_a_response_beyond_the_end_of_a_crack_is_no_growth() -> None:
    before = PredictedPhotograph([found(SHORT)], surface(SHORT))
    (change,) = compare(before, PredictedPhotograph([found(((50, 200), (190, 214)))], surface(SHORT, seed=1)))
    assert change.words == ()


def test_a_response_far_beyond_the_end_of_the_earlier_crack_hides_no_growth() -> None:
    before = PredictedPhotograph([found(((50, 200), (180, 213)))], surface(SHORT))
    (change,) = compare(before, PredictedPhotograph([found(LONG)], surface(LONG, seed=1)))
    assert change.words == ("longer",)
    assert change.grown_px == pytest.approx(GROWN_PX, rel=0.05)


def test_a_softer_and_darker_photograph_shows_the_same_crack() -> None:
    later = cv2.GaussianBlur(surface(LONG, seed=1), (0, 0), 1.5) // 2
    for network in (found(LONG), found(SHORT)):
        views = (PredictedPhotograph([found(LONG)], surface(LONG)), PredictedPhotograph([network], later))
        assert [change.words for change in compare(*views)] == [()]
        assert [change.words for change in compare(*reversed(views))] == [()]


def test_a_shadow_line_on_one_photograph_that_the_network_does_not_take_for_a_crack_is_none() -> None:
    shadow: Line = ((30, 320), (370, 330))
    after = PredictedPhotograph([found(SHORT)], surface(SHORT, shadow, seed=1))
    assert [change.words for change in compare(PredictedPhotograph([found(SHORT)], surface(SHORT)), after)] == [()]


def test_where_texture_hides_the_contrast_the_network_decides() -> None:
    hidden = {"grey": 147, "texture": 8.0}
    before = PredictedPhotograph([found(SHORT)], surface(SHORT, **hidden))  # type: ignore[arg-type]
    after = PredictedPhotograph([found(LONG)], surface(LONG, seed=1, **hidden))  # type: ignore[arg-type]
    (change,) = compare(before, after)
    assert change.words == ("longer",)
    assert change.grown_px == pytest.approx(GROWN_PX, rel=0.15)


def test_photographs_without_cracks_have_no_change() -> None:
    assert (
        compare(PredictedPhotograph([found()], surface()), PredictedPhotograph([found()], surface(seed=1))) == []
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_growth_on_a_perfect_map_is_within_5_percent_from_another_view_in_another_light(seed: int) -> None:
    visits = visit_twice(seed, grows=True)
    changes = compare_visits(visits)
    assert [change.words for change in changes] == [("longer",)]
    assert sum(c.grown_px for c in changes) == pytest.approx(visits.grown_px, rel=0.05)


def test_a_perfect_map_of_an_unchanged_crack_shows_no_growth() -> None:
    assert [change.words for change in compare_visits(visit_twice(5, grows=False))] == [()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_shipped_model_measures_most_growth_within_5_percent_and_invents_none() -> None:
    analyzer = load_model("scenes", None).analyzer
    network = (analyzer.predictor.predict_prob, analyzer.settings.operating_threshold)
    errors = []
    for seed in range(40, 46):
        visits = visit_twice(seed, grows=True, side_px=800)
        grown_px = sum(change.grown_px for change in compare_visits(visits, network))
        errors.append(abs(grown_px / visits.grown_px - 1))
    assert sum(error <= 0.05 for error in errors) >= 4, errors
    for seed in range(50, 54):
        changes = compare_visits(visit_twice(seed, grows=False, side_px=800), network)
        assert not any(change.grown for change in changes)
