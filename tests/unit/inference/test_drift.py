"""Drift: quiet where nothing changed and where too little is known, loud where the photographs are others."""

import cv2
import numpy as np
import pytest

from crackseg.inference.detector import ReferenceStatistics
from crackseg.inference.drift import (
    FIGURES,
    compare,
    count_reference,
    describe_drift,
    find_unusual,
    measure_photograph,
    population_stability_index,
    warn_of_reference,
)

Figures = list[dict[str, float]]


def draw(rng: np.random.Generator, count: int, shift: float = 0.0) -> Figures:
    """Figures of so many photographs, each shifted by so many standard deviations."""
    return [{name: float(0.5 + 0.1 * (rng.normal() + shift)) for name in FIGURES} for _ in range(count)]


def make_reference(figures: Figures) -> ReferenceStatistics:
    values = {name: tuple(f[name] for f in figures) for name in FIGURES}
    return ReferenceStatistics(num_images=len(figures), **values)


def loud(reference: Figures, figures: Figures) -> list[str]:
    return [d.figure for d in compare(make_reference(reference), figures) if d.drifted]


@pytest.mark.parametrize(("num_reference", "num_new"), [(50, 10), (10, 50), (200, 200), (50, 1000)])
def test_photographs_of_the_same_kind_give_no_alarm(num_reference: int, num_new: int) -> None:
    rng = np.random.default_rng(0)
    alarms = sum(bool(loud(draw(rng, num_reference), draw(rng, num_new))) for _ in range(20))
    assert alarms <= 1  # one in a hundred is what the level allows


@pytest.mark.parametrize(("num_reference", "num_new"), [(50, 10), (10, 50), (200, 200)])
def test_other_photographs_give_alarm(num_reference: int, num_new: int) -> None:
    rng = np.random.default_rng(0)
    drifts = compare(make_reference(draw(rng, num_reference)), draw(rng, num_new, shift=4))
    assert [d.drifted for d in drifts] == [True] * len(FIGURES)
    said = describe_drift(drifts)
    assert "not like those" in said
    assert all(f"{name}: median" in said for name in FIGURES)


def test_one_changed_figure_is_the_one_named() -> None:
    rng = np.random.default_rng(0)
    darker = [f | {"brightness": f["brightness"] - 0.4} for f in draw(rng, 30)]
    assert loud(draw(rng, 50), darker) == ["brightness"]


@pytest.mark.parametrize(("num_reference", "num_new"), [(9, 100), (100, 9), (2, 1)])
def test_few_photographs_are_not_judged(num_reference: int, num_new: int) -> None:
    rng = np.random.default_rng(0)
    drifts = compare(make_reference(draw(rng, num_reference)), draw(rng, num_new, shift=9))
    assert {d.drifted for d in drifts} == {None}
    assert "too few" in describe_drift(drifts)


def test_a_small_shift_of_thousands_is_no_drift() -> None:
    rng = np.random.default_rng(0)
    reference, figures = draw(rng, 4000), draw(rng, 4000, shift=0.3)
    (first, *_) = compare(make_reference(reference), figures)
    assert first.p_value < 1e-6
    assert not first.drifted


def test_no_photograph_is_no_drift() -> None:
    assert compare(make_reference(draw(np.random.default_rng(0), 20)), []) == []
    assert "no photograph" in describe_drift([])


def test_psi_follows_its_formula() -> None:
    reference = np.arange(100.0)
    assert population_stability_index(reference, reference) == 0
    below = population_stability_index(reference, np.full(100, -1.0))  # all in the first of ten bins
    p, first, other = 10.5 / 105, 100.5 / 105, 0.5 / 105
    expected = (first - p) * np.log(first / p) + 9 * (other - p) * np.log(other / p)
    assert below == pytest.approx(expected)
    assert np.isfinite(population_stability_index(np.zeros(30), np.ones(30)))


def test_measures_follow_their_definitions_across_bands() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (1100, 40), dtype=np.uint8)
    figures = measure_photograph(np.dstack([grey] * 3))
    scaled = grey / np.float32(255)
    assert figures["brightness"] == pytest.approx(scaled.mean(), abs=1e-5)
    assert figures["contrast"] == pytest.approx(scaled.std(), abs=1e-5)
    assert figures["sharpness"] == pytest.approx(cv2.Laplacian(scaled, cv2.CV_32F).var(), rel=1e-4)


def test_blur_lowers_sharpness_and_a_flat_photograph_has_none() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert (
        measure_photograph(cv2.GaussianBlur(noise, (0, 0), 2))["sharpness"]
        < 0.1 * measure_photograph(noise)["sharpness"]
    )
    assert measure_photograph(np.full((1, 1, 3), 255, np.uint8)) == {
        "brightness": 1.0, "contrast": 0.0, "sharpness": 0.0,
    }  # fmt: skip


def test_one_photograph_of_another_kind_is_unusual_in_what_differs() -> None:
    rng = np.random.default_rng(0)
    known = draw(rng, 50)
    reference = make_reference(known)
    low, high = min(reference.brightness), max(reference.brightness)
    for value in (low - 0.3 * (high - low), high + 0.3 * (high - low)):
        (unusual,) = find_unusual(reference, known[0] | {"brightness": value})
        assert (unusual.figure, unusual.value, unusual.low, unusual.high) == ("brightness", value, low, high)


def test_one_photograph_of_the_same_kind_is_rarely_unusual() -> None:
    rng = np.random.default_rng(0)
    reference = make_reference(draw(rng, 50))
    assert sum(bool(find_unusual(reference, figures)) for figures in draw(rng, 1000)) <= 20


def test_one_photograph_is_not_judged_by_a_few() -> None:
    rng = np.random.default_rng(0)
    reference = make_reference(draw(rng, 19))
    assert find_unusual(reference, draw(rng, 1, shift=99)[0]) == []


def test_a_model_with_few_reference_images_is_named_and_not_the_photographs() -> None:
    rng = np.random.default_rng(0)
    reference = make_reference(draw(rng, 30)).model_copy(
        update=dict.fromkeys(("crack_fraction", "confidence"), (0.5,) * 4)
    )
    said = describe_drift(compare(reference, draw(rng, 37)))
    assert "none found in brightness, contrast, sharpness" in said
    assert "too few to judge crack fraction, confidence (from 4 validation images); at least 10 images" in said
    assert "photographs are too few" not in said
    assert warn_of_reference(count_reference(make_reference(draw(rng, 10)))) == ""
    assert "from 2 training and validation images" in warn_of_reference(
        count_reference(make_reference(draw(rng, 2)))
    )


def test_few_photographs_are_named_and_not_the_model() -> None:
    rng = np.random.default_rng(0)
    said = describe_drift(compare(make_reference(draw(rng, 30)), draw(rng, 3)))
    assert "3 photographs: too few to judge; at least 10 are needed." in said
    assert "reference" not in said
