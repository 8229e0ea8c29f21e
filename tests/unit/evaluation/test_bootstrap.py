"""The interval that lets a model into production, against slow and plain arithmetic."""

from __future__ import annotations

import time

import numpy as np
import pytest

from crackseg.errors import CracksegError
from crackseg.evaluation.bootstrap import Metric, compare_means, compare_paired, parse_metric
from crackseg.evaluation.metrics import ImageCounts, ScoreAccumulator, _precision_recall_f, count_image

MEAN_ODS = Metric("mean", "paper", "ods")


def draw_images(seed: int, count: int, noise: float, *, size: int = 32, thresholds: int = 32) -> list[ImageCounts]:
    """Counts of maps that show a line under noise; the line depends on the place in the list alone."""
    rng = np.random.default_rng(seed)
    counts = []
    for i in range(count):
        mask = np.zeros((size, size), bool)
        if i % 5 != 4:  # some images have no crack
            mask[np.arange(size), (np.arange(size) * (1 + i % 3) + 3 * i) % size] = True
        prob = np.clip(0.6 * mask + noise * rng.random((size, size)), 0, 1)
        counts.append(count_image(prob, mask, num_thresholds=thresholds, tolerance_px=1, min_max=False))
    return counts


def score_plainly(counts: list[ImageCounts], metric: Metric) -> float:
    scores = ScoreAccumulator(num_thresholds=len(counts[0].predicted))
    for number, of_image in enumerate(counts):
        scores.add(of_image, str(number))
    return getattr(scores.result(), metric.protocol).to_dict()[metric.score]


@pytest.mark.parametrize("protocol", ["paper", "symmetric", "strict"])
@pytest.mark.parametrize("score", ["ods", "ois", "ap"])
def test_every_draw_scores_as_the_metric_code_does(protocol: str, score: str) -> None:
    metric = Metric("A", protocol, score)
    ours, theirs = draw_images(0, 9, 1.0), draw_images(1, 9, 0.7)
    found, _ = compare_paired({"A": ours}, {"A": theirs}, metric, num_resamples=50, seed=3)
    assert found.champion == pytest.approx(score_plainly(ours, metric), abs=1e-12)
    assert found.challenger == pytest.approx(score_plainly(theirs, metric), abs=1e-12)
    rng = np.random.default_rng(3)
    differences = []
    with_crack, without = [0, 1, 2, 3, 5, 6, 7, 8], [4]
    for weights in rng.multinomial(8, np.full(8, 1 / 8), size=50):
        chosen = without + [with_crack[i] for i, times in enumerate(weights) for _ in range(times)]
        former, new = (score_plainly([counts[i] for i in chosen], metric) for counts in (ours, theirs))
        differences.append(new - former)
    assert [found.low, found.high] == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist(), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_equal_models_are_never_told_apart(seed: int) -> None:
    same = draw_images(seed, 12, 1.0)
    found, _ = compare_paired({"A": same}, {"A": same}, MEAN_ODS, num_resamples=200)
    assert found.value == found.low == found.high == 0
    twins, _ = compare_paired(
        {"A": same}, {"A": draw_images(seed + 100, 12, 1.0)}, MEAN_ODS, num_resamples=400, seed=seed
    )
    assert twins.low <= 0 <= twins.high


def test_a_clearly_better_model_is_told_and_the_order_matters() -> None:
    worse, better = draw_images(0, 20, 1.0), draw_images(1, 20, 0.55)
    up, _ = compare_paired({"A": worse}, {"A": better}, MEAN_ODS)
    down, _ = compare_paired({"A": better}, {"A": worse}, MEAN_ODS)
    assert 0 < up.low < up.value < up.high
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low))


def test_each_dataset_counts_once_in_the_mean() -> None:
    champion = {"A": draw_images(0, 4, 1.0), "B": draw_images(1, 40, 1.0)}
    challenger = {"A": draw_images(2, 4, 0.5), "B": draw_images(1, 40, 1.0)}
    overall, by_dataset = compare_paired(champion, challenger, MEAN_ODS, num_resamples=100)
    assert by_dataset["B"].value == 0
    assert overall.value == pytest.approx(by_dataset["A"].value / 2)
    only_b, _ = compare_paired(champion, challenger, Metric("B", "paper", "ods"), num_resamples=100)
    assert only_b == by_dataset["B"]


def test_a_crack_free_image_among_two_hides_no_progress() -> None:
    mask, none = np.eye(16, dtype=bool), np.zeros((16, 16), bool)
    blind = [count_image(np.full((16, 16), 0.5), m, min_max=False) for m in (mask, none)]
    perfect = [count_image(m.astype(np.float64), m, min_max=False) for m in (mask, none)]
    found, _ = compare_paired({"A": blind}, {"A": perfect}, MEAN_ODS, num_resamples=200)
    assert found.low > 0.5


def test_images_without_cracks_alone_score_zero_not_nan() -> None:
    empty = [count_image(np.full((8, 8), 0.5), np.zeros((8, 8), bool)) for _ in range(3)]
    for score in ("ods", "ois", "ap"):
        found, _ = compare_paired({"A": empty}, {"A": empty}, Metric("A", "paper", score), num_resamples=20)
        assert (found.champion, found.low, found.high) == (0, 0, 0)


def test_paper_sized_data_takes_seconds() -> None:
    few = draw_images(0, 5, 1.0, size=64, thresholds=256)
    images = {"CrackLS315": few * 63, "Stone331": few * 66}
    start = time.perf_counter()
    compare_paired(images, images, MEAN_ODS)
    assert time.perf_counter() - start < 20


def test_other_images_are_refused() -> None:
    images = draw_images(0, 5, 1.0)
    with pytest.raises(CracksegError, match="not scored on the same images"):
        compare_paired({"A": images}, {"A": images[::-1]}, MEAN_ODS)
    with pytest.raises(CracksegError, match="not scored on the same datasets"):
        compare_paired({"A": images}, {"B": images}, MEAN_ODS)


@pytest.mark.parametrize("text", ["mean/ods", "CRKWH100/strict/ap", "mean/symmetric/ois"])
def test_metrics_are_named_as_in_mlflow(text: str) -> None:
    assert str(parse_metric(text, ["CRKWH100"])) == text


@pytest.mark.parametrize("text", ["ods", "mean/odds", "Nowhere/ods", "mean/loose/ods", ""])
def test_unknown_metrics_are_named(text: str) -> None:
    with pytest.raises(CracksegError, match="datasets: CRKWH100"):
        parse_metric(text, ["CRKWH100"])


def test_ois_from_tables_is_that_from_counts() -> None:
    ours, theirs = draw_images(0, 9, 1.0), draw_images(1, 9, 0.7)
    from_counts, _ = compare_paired({"A": ours}, {"A": theirs}, Metric("A", "paper", "ois"), num_resamples=4000)
    best = [
        np.array([_precision_recall_f(counts)[2][0].max() for counts in images if counts.truth])
        for images in (ours, theirs)
    ]
    from_tables = compare_means(*best, num_resamples=4000)
    assert from_tables.value == pytest.approx(from_counts.value, abs=1e-12)
    assert (from_tables.low, from_tables.high) == pytest.approx((from_counts.low, from_counts.high), abs=0.01)
    with pytest.raises(CracksegError, match="same images"):
        compare_means(best[0], best[1][1:])
