"""The scores, held against a slow transcription of their formulas that loops over thresholds and pixels."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, precision_recall_curve

from crackseg.errors import CracksegError
from crackseg.evaluation.metrics import PROTOCOLS, Curve, ImageCounts, ScoreAccumulator, count_image
from tests.unit.evaluation.slow_scores import (
    COUNTED,
    crack_scene,
    score,
    scored_images,
    slow_counts,
    slow_dilation,
    slow_scores,
)


@settings(max_examples=200, deadline=None)
@given(image=scored_images())
def test_counts_are_those_of_the_formulas_at_every_threshold(image: dict[str, Any]) -> None:
    counts = count_image(**image)
    expected = slow_counts(**image)
    for name in COUNTED:
        assert getattr(counts, name).dtype == np.int64
        assert getattr(counts, name).tolist() == [at_k[name] for at_k in expected], name
    assert counts.truth == expected[0]["truth"]


@pytest.mark.parametrize("num_thresholds", [2, 3, 100, 101, 256, 1000, 4096, 2**14])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_one_bit_below_a_threshold_does_not_reach_it(dtype: Any, num_thresholds: int) -> None:
    thresholds = np.arange(num_thresholds) / (num_thresholds - 1)
    at = thresholds.astype(dtype)
    below, above = np.nextafter(at, dtype(-1)), np.nextafter(at, dtype(2))
    crack_prob_HW = np.stack([below, at, above]).clip(0, 1)
    counts = count_image(
        crack_prob_HW, np.zeros(crack_prob_HW.shape, bool), num_thresholds=num_thresholds, min_max=False
    )
    ascending = np.sort(crack_prob_HW.astype(np.float64), axis=None)
    assert np.array_equal(counts.predicted, ascending.size - np.searchsorted(ascending, thresholds, side="left"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("min_max", [False, True])
def test_a_stored_map_counts_like_its_exact_fractions(dtype: Any, min_max: bool) -> None:
    full = np.iinfo(dtype).max
    levels = np.linspace(3, full - 5, 4096).astype(dtype).reshape(64, 64)
    mask_HW = crack_scene(size=64)[1]
    stored = count_image(levels, mask_HW, min_max=min_max)
    low, high = (3, full - 5) if min_max else (0, full)
    fractions = (levels.astype(np.float64) - low) / (high - low)
    as_float = count_image(fractions, mask_HW, min_max=False)
    for name in COUNTED:
        assert np.array_equal(getattr(stored, name), getattr(as_float, name))


def test_level_k_of_an_8_bit_map_reaches_threshold_k() -> None:
    every_level = np.arange(256, dtype=np.uint8).reshape(16, 16)
    counts = count_image(every_level, np.zeros((16, 16), bool), min_max=False)
    assert counts.predicted.tolist() == list(range(256, 0, -1))


@pytest.mark.parametrize("shape", [(3, 700_001), (1500, 1501), (1, 1), (7, 1)])
def test_no_pixel_is_lost_or_doubled_between_blocks(shape: tuple[int, int]) -> None:
    crack_prob_HW = np.random.default_rng(1).random(shape).astype(np.float32)
    roi_HW = np.ones(shape, bool)
    roi_HW[0, : shape[1] // 2] = False
    counts = count_image(crack_prob_HW, np.zeros(shape, bool), num_thresholds=7, min_max=False, roi_HW=roi_HW)
    expected = [int((crack_prob_HW[roi_HW].astype(float) >= k / 6).sum()) for k in range(7)]
    assert counts.predicted.tolist() == expected


def test_inputs_are_left_as_they_were() -> None:
    crack_prob_HW, mask_HW = crack_scene()
    roi_HW = np.zeros(mask_HW.shape, np.uint8)
    roi_HW[20:90, 30:100] = 1
    before = [a.copy() for a in (crack_prob_HW, mask_HW, roi_HW)]
    count_image(crack_prob_HW, mask_HW, roi_HW=roi_HW)
    assert all(np.array_equal(a, b) for a, b in zip(before, (crack_prob_HW, mask_HW, roi_HW), strict=True))


def test_views_that_are_not_contiguous_count_like_copies() -> None:
    crack_prob_HW, mask_HW = crack_scene()
    view = count_image(crack_prob_HW[::2, ::-1].T, mask_HW[::2, ::-1].T, roi_HW=mask_HW[::2, :].T >= 0)
    copy = count_image(crack_prob_HW[::2, ::-1].T.copy(), mask_HW[::2, ::-1].T.copy())
    assert all(np.array_equal(getattr(view, name), getattr(copy, name)) for name in COUNTED)


def test_a_tolerance_wider_than_the_image_reaches_all_of_it() -> None:
    crack_prob_HW, mask_HW = crack_scene(size=32)
    counts = count_image(crack_prob_HW, mask_HW, tolerance_px=10**9)
    assert np.array_equal(counts.predicted_near_truth, counts.predicted)
    assert (counts.truth_near_prediction == counts.truth).all()


def test_min_max_of_a_stored_map_does_not_round() -> None:
    """In float32, level 3 of 5 becomes 0.59999996 and misses the threshold 153/255 = 3/5."""
    counts = count_image(np.array([[0, 3, 5]], np.uint8), np.zeros((1, 3), bool))
    assert counts.predicted[153:155].tolist() == [2, 1]


def test_min_max_makes_the_scale_of_a_map_irrelevant() -> None:
    crack_prob_HW, mask_HW = crack_scene()
    assert score((crack_prob_HW / 4, mask_HW)).to_dict() == score((crack_prob_HW, mask_HW)).to_dict()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.float32(0.7), np.float64(1.0), np.uint8(255), np.uint16(9)])
def test_min_max_turns_a_constant_map_into_zeros(value: Any) -> None:
    mask_HW = crack_scene()[1]
    counts = count_image(np.full(mask_HW.shape, value), mask_HW)
    assert counts.predicted[0] == mask_HW.size
    assert not counts.predicted[1:].any()


@settings(max_examples=50, deadline=None)
@given(image=scored_images(), seed=st.integers(0, 2**32 - 1))
def test_what_lies_outside_the_region_of_interest_has_no_influence(image: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    roi_HW = rng.random(image["mask_HW"].shape) < 0.5
    roi_HW.flat[0] = True
    image["roi_HW"] = roi_HW
    elsewhere = rng.integers(0, 2, roi_HW.shape)
    other = image | {
        "crack_prob_HW": np.where(roi_HW, image["crack_prob_HW"], elsewhere.astype(image["crack_prob_HW"].dtype)),
        "mask_HW": np.where(roi_HW, image["mask_HW"], 1 - image["mask_HW"]),
    }
    for name in COUNTED:
        assert np.array_equal(getattr(count_image(**image), name), getattr(count_image(**other), name))


@pytest.mark.parametrize("min_max", [False, True])
def test_a_rectangular_region_scores_like_the_image_cut_to_it(min_max: bool) -> None:
    crack_prob_HW, mask_HW = crack_scene()
    crack_prob_HW = crack_prob_HW / 2 + np.float32(0.5)
    roi_HW = np.zeros(mask_HW.shape, bool)
    roi_HW[17:101, 30:77] = True
    inside = count_image(crack_prob_HW, mask_HW, roi_HW=roi_HW, min_max=min_max)
    cut = count_image(crack_prob_HW[17:101, 30:77], mask_HW[17:101, 30:77], min_max=min_max)
    for name in (*COUNTED, "truth"):
        assert np.array_equal(getattr(inside, name), getattr(cut, name))


@settings(max_examples=60, deadline=None)
@given(images=st.sampled_from([2, 5, 11]).flatmap(lambda t: st.lists(scored_images(t), min_size=1, max_size=4)))
def test_ods_ois_and_ap_are_those_of_the_formulas(images: list[dict[str, Any]]) -> None:
    accumulator = ScoreAccumulator(images[0]["num_thresholds"])
    for number, image in enumerate(images):
        accumulator.add(count_image(**image), str(number))
    scores = accumulator.result()
    slow = [slow_counts(**image) for image in images]
    for protocol in PROTOCOLS:
        assert scores.to_dict()[protocol] == pytest.approx(slow_scores(slow, protocol), abs=1e-12), protocol
    for number, row in enumerate(scores.images):
        assert (row.stem, row.crack_pixels) == (str(number), slow[number][0]["truth"])
        for protocol in PROTOCOLS:
            alone = slow_scores([slow[number]], protocol)
            found = getattr(row, f"{protocol}_f"), getattr(row, f"{protocol}_threshold")
            expected = (alone["ods"], alone["threshold"]) if row.crack_pixels else (None, None)
            assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(image=scored_images())
def test_recall_never_falls_when_the_threshold_does(image: dict[str, Any]) -> None:
    accumulator = ScoreAccumulator(image["num_thresholds"])
    accumulator.add(count_image(**image), "image")
    scores = accumulator.result()
    for protocol in PROTOCOLS:
        assert (np.diff(getattr(scores, protocol).curve.recall) <= 0).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), images=st.lists(scored_images(11), min_size=2, max_size=7))
def test_neither_the_order_nor_the_worker_changes_a_single_bit(
    data: st.DataObject, images: list[dict[str, Any]]
) -> None:
    counts = [(count_image(**image), f"image{number}") for number, image in enumerate(images)]
    in_order = ScoreAccumulator(11)
    for one in counts:
        in_order.add(*one)
    workers = [ScoreAccumulator(11) for _ in range(3)]
    for one in data.draw(st.permutations(counts)):
        workers[data.draw(st.integers(0, 2))].add(*pickle.loads(pickle.dumps(one)))
    first, second, third = data.draw(st.permutations(workers))
    second.merge(third)
    first.merge(second)
    assert first.result().to_dict() == in_order.result().to_dict()
    assert first.result().images == in_order.result().images


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_a_perfect_map_scores_one_throughout(dtype: Any) -> None:
    mask_HW = crack_scene()[1]
    crack_prob_HW = mask_HW * dtype(255) if dtype is np.uint8 else mask_HW.astype(dtype)
    for scores in score((crack_prob_HW, mask_HW)).to_dict().values():
        if isinstance(scores, dict):
            assert scores == {
                "ods": 1.0,
                "precision": 1.0,
                "recall": 1.0,
                "threshold": 1 / 255,  # all thresholds but 0 reach it: the lowest is named
                "ois": 1.0,
                "ois_std": 0.0,
                "ap": 1.0,
            }


def test_thick_lines_over_half_of_the_cracks_gain_most_from_the_paper_and_least_from_strict() -> None:
    """The worked example of docs/how-scoring-works.md: ten lines of 100 px, five of them found, 5 px thick."""
    mask_HW = np.zeros((140, 140), np.uint8)
    mask_HW[10:130:12, 20:120] = 1
    found = mask_HW.copy()
    found[70:] = 0
    crack_prob_HW = slow_dilation(found.astype(bool), 2).astype(np.float32)
    scores = score((crack_prob_HW, mask_HW))
    tp, fn = 5 * 5 * 104, 5 * 100  # a dilated line has 5 x 104 pixels
    assert scores.paper.recall == tp / (tp + fn)
    assert scores.paper.ods == pytest.approx(2 * tp / (2 * tp + fn)) == pytest.approx(0.912, abs=5e-4)
    assert scores.symmetric.ods == pytest.approx(2 * 0.5 / 1.5)
    assert scores.strict.ods == pytest.approx(2 * 500 / (2600 + 1000))
    assert scores.paper.ods > scores.symmetric.ods > scores.strict.ods


def test_without_tolerance_the_three_protocols_agree() -> None:
    scores = score(crack_scene(0), crack_scene(1), tolerance_px=0).to_dict()
    assert scores["paper"] == scores["strict"] == scores["symmetric"]


def test_tolerance_leaves_strict_alone_and_raises_the_others() -> None:
    tight, wide = (score(crack_scene(), tolerance_px=d) for d in (1, 3))
    assert wide.strict.to_dict() == tight.strict.to_dict()
    assert wide.paper.ods > tight.paper.ods
    assert wide.symmetric.ods > tight.symmetric.ods


def test_an_image_without_cracks_costs_ods_precision_and_stays_out_of_ois() -> None:
    crack_prob_HW, mask_HW = crack_scene()
    with_cracks = score((crack_prob_HW, mask_HW))
    both = score((crack_prob_HW, mask_HW), (crack_prob_HW, np.zeros_like(mask_HW)))
    for protocol in PROTOCOLS:
        alone, pooled = getattr(with_cracks, protocol), getattr(both, protocol)
        assert (pooled.ois, pooled.ois_std) == (alone.ois, 0.0)
        assert pooled.ods < alone.ods
        assert np.array_equal(pooled.curve.recall, alone.curve.recall)
    assert (both.num_images, both.images[1].paper_f) == (2, None)


def test_a_dataset_without_any_crack_has_zeros_and_a_threshold_that_flags_nothing() -> None:
    crack_prob_HW, mask_HW = crack_scene()
    scores = score((crack_prob_HW, np.zeros_like(mask_HW)), min_max=False)
    zeros = dict.fromkeys(("ods", "precision", "recall", "ois", "ois_std", "ap"), 0.0)
    for protocol in PROTOCOLS:
        assert scores.to_dict()[protocol] == zeros | {"threshold": 1.0}


def test_scores_become_json_of_the_promised_shape() -> None:
    table = json.loads(json.dumps(score(crack_scene()).to_dict(), allow_nan=False))
    assert list(table) == ["num_images", "paper", "symmetric", "strict"]
    for protocol in PROTOCOLS:
        assert list(table[protocol]) == ["ods", "precision", "recall", "threshold", "ois", "ois_std", "ap"]
        assert all(isinstance(value, float) for value in table[protocol].values())


def test_the_reported_point_lies_on_the_curve() -> None:
    for protocol in PROTOCOLS:
        scores = getattr(score(crack_scene(0), crack_scene(1)), protocol)
        k = scores.curve.thresholds.tolist().index(scores.threshold)
        point = scores.curve.precision[k], scores.curve.recall[k], scores.curve.f[k]
        assert point == (scores.precision, scores.recall, scores.ods)


def test_precision_at_recall_is_the_best_at_this_recall_or_a_higher_one() -> None:
    recall, precision = np.array([0.9, 0.6, 0.25, 0.0]), np.array([0.25, 0.75, 0.5, 1.0])
    curve = Curve(np.linspace(0, 1, 4), precision, recall, recall * 0)
    expected = {0: 1.0, 20: 0.75, 40: 0.75, 60: 0.75, 80: 0.25}  # recall 100 % is not reached
    assert curve.precision_at_recall(20) == expected
    assert list(curve.precision_at_recall()) == list(range(0, 91, 2))


def test_strict_agrees_with_scikit_learn_on_pooled_pixels() -> None:
    images = [crack_scene(seed) for seed in range(3)]
    images = [
        (np.rint(crack_prob_HW * 255).astype(np.float64) / 255, mask_HW) for crack_prob_HW, mask_HW in images
    ]
    ours = score(*images, min_max=False).strict
    truth, values = (np.concatenate([image[i].ravel() for image in images]) for i in (1, 0))
    precision, recall, thresholds = precision_recall_curve(truth, values)
    at = np.searchsorted(ours.curve.thresholds, thresholds)
    assert np.array_equal(ours.curve.thresholds[at], thresholds)
    assert np.allclose(ours.curve.precision[at], precision[:-1], rtol=0, atol=1e-12)
    assert np.allclose(ours.curve.recall[at], recall[:-1], rtol=0, atol=1e-12)
    precision[-1] = precision[-2]  # scikit-learn begins at precision 1, we at that of the first point
    assert ours.ap == pytest.approx(auc(recall, precision), abs=1e-12)


def test_saving_a_map_as_16_bits_moves_no_score_by_a_thousandth() -> None:
    images = [crack_scene(seed) for seed in range(3)]
    saved_images = [
        (np.rint(crack_prob_HW * 65535).astype(np.uint16), mask_HW) for crack_prob_HW, mask_HW in images
    ]
    kept, saved = score(*images).to_dict(), score(*saved_images).to_dict()
    for protocol in PROTOCOLS:
        for name in ("ods", "ois", "ap"):
            assert saved[protocol][name] == pytest.approx(kept[protocol][name], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crack_prob_HW": np.full((4, 5), np.nan)}, "nan"),
        ({"crack_prob_HW": np.where(np.eye(4, 5) > 0, np.nan, 0.5)}, "nan"),
        ({"crack_prob_HW": np.full((4, 5), np.inf)}, "inf"),
        ({"crack_prob_HW": np.full((4, 5), 1.0001)}, "1.0001"),
        ({"crack_prob_HW": np.full((4, 5), -0.5, np.float32)}, "-0.5"),
        ({"crack_prob_HW": np.zeros((4, 5), np.int64)}, "int64"),
        ({"crack_prob_HW": np.zeros((4, 5, 1))}, r"\(4, 5, 1\)"),
        ({"crack_prob_HW": np.zeros((0, 5)), "mask_HW": np.zeros((0, 5), bool)}, r"\(0, 5\)"),
        ({"mask_HW": np.zeros((5, 4), bool)}, r"mask is \(5, 4\)"),
        ({"mask_HW": np.full((4, 5), 255, np.uint8)}, "up to 255"),
        ({"mask_HW": np.full((4, 5), 0.5)}, "float64"),
        ({"roi_HW": np.ones((4, 4), bool)}, r"region of interest is \(4, 4\)"),
        ({"roi_HW": np.zeros((4, 5), bool)}, "region of interest is empty"),
        ({"tolerance_px": -1}, "tolerance_px is -1"),
        ({"tolerance_px": 1.5}, "tolerance_px is 1.5"),
        ({"num_thresholds": 1}, "num_thresholds is 1"),
        ({"num_thresholds": 2**14 + 1}, "num_thresholds is 16385"),
        ({"num_thresholds": 9.0}, "num_thresholds is 9.0"),
    ],
)
def test_wrong_input_is_named(change: dict[str, Any], message: str) -> None:
    image: dict[str, Any] = {"crack_prob_HW": np.zeros((4, 5), np.float32), "mask_HW": np.zeros((4, 5), bool)}
    with pytest.raises(CracksegError, match=message):
        count_image(**(image | change))


def test_an_error_names_the_map() -> None:
    with pytest.raises(CracksegError, match=r"maps/6192\.png"):
        count_image(np.full((4, 5), 2.0), np.zeros((4, 5), bool), name="maps/6192.png")


def counts_of(num_thresholds: int) -> ImageCounts:
    return count_image(*crack_scene(size=16), num_thresholds=num_thresholds)


def test_scoring_nothing_is_an_error() -> None:
    with pytest.raises(CracksegError, match="no image to score"):
        ScoreAccumulator().result()


def test_an_image_cannot_count_twice() -> None:
    one, other = ScoreAccumulator(9), ScoreAccumulator(9)
    one.add(counts_of(9), "6192")
    other.add(counts_of(9), "6192")
    with pytest.raises(CracksegError, match="6192"):
        one.add(counts_of(9), "6192")
    with pytest.raises(CracksegError, match="6192"):
        one.merge(other)
    assert one.result().num_images == 1


def test_counts_at_other_thresholds_cannot_be_mixed_in() -> None:
    accumulator = ScoreAccumulator(9)
    with pytest.raises(CracksegError, match="num_thresholds is 10 here and was 9"):
        accumulator.add(counts_of(10), "6192")
    with pytest.raises(CracksegError, match="num_thresholds is 10 here and was 9"):
        accumulator.merge(ScoreAccumulator(10))


def test_where_f_is_flat_the_upper_end_is_found() -> None:
    values = np.array([0.4, 0.5, 0.48, 0.47, 0.1])
    curve = Curve(np.linspace(0, 1, 5), values, values, values)
    assert curve.highest_threshold(0.0) == 0.25
    assert curve.highest_threshold(0.05) == 0.5
    assert curve.highest_threshold(0.1) == 0.75
    nothing = np.zeros(5)
    assert Curve(np.linspace(0, 1, 5), nothing, nothing, nothing).highest_threshold(0.05) == 1.0
