"""Scoring against a loop over thresholds in NumPy, and against scikit-learn's pooled precision-recall curve."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import cv2
import numpy as np
from skimage import morphology
from sklearn.metrics import precision_recall_curve

from benchmarks.measure import Effort, Row, measure_in_turn, peak_memory_mb, run_apart
from benchmarks.scenes import draw_map
from crackseg.evaluation.metrics import ScoreAccumulator, Scores, count_image
from crackseg.geometry.centerlines import thin

_NUM_THRESHOLDS = 256
_TOLERANCE_PX = 2
_MEMORY_SIZE_PX = 128  # scikit-learn would need 17 GB for 2,000 maps of 512²
_MEMORY_IMAGES = (100, 2000)

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]


def run(effort: Effort) -> list[Row]:
    """Rows ``scoring``, ``scoring-sklearn``, ``scoring-memory`` and ``scoring-lines``."""
    cv2.setNumThreads(1)
    pairs = [draw_map(seed) for seed in range(effort.pick(200, 50))]
    return [_against_loop(pairs, effort), _against_sklearn(pairs, effort), _memory(), _thinning(pairs, effort)]


def _against_loop(pairs: Pairs, effort: Effort) -> Row:
    few = pairs[:: effort.pick(4, 5)]
    ours, (ods, ois, ap) = _score(few).paper, _score_by_loop(few)
    differences = [abs(ours.ods - ods), abs(ours.ois - ois), abs(ours.ap - ap)]
    assert max(differences) < 1e-9, differences
    seconds = measure_in_turn(
        [lambda: _score(few), lambda: _score_by_loop(few)],
        repeats=effort.pick(3, 1),
        clock=time.thread_time,
        warm_up=False,
    )
    ours_s, peer_s = (1000 * s / len(few) for s in seconds)
    note = f"{len(few)} maps of 512²; ours counts all three protocols, the loop one; ODS, OIS, AP equal to 1e-9"
    return Row("scoring", ours_s, peer_s, "NumPy, a loop over 256 thresholds", "ms/map", note, target=40)


def _against_sklearn(pairs: Pairs, effort: Effort) -> Row:
    ours = _score(pairs, min_max=False).strict.curve
    precision, recall, thresholds = _curve_by_sklearn(pairs)
    # scikit-learn has a point for each value that occurs: the one of k / 255 is that of the next value above.
    at = np.searchsorted(thresholds, ours.thresholds, side="left")
    reached = at < len(thresholds)
    np.testing.assert_allclose(ours.precision[reached], precision[at[reached]], atol=1e-9)
    np.testing.assert_allclose(ours.recall[reached], recall[at[reached]], atol=1e-9)
    seconds = measure_in_turn(
        [lambda: _score(pairs, min_max=False), lambda: _curve_by_sklearn(pairs)],
        repeats=effort.pick(2, 1),
        clock=time.thread_time,
        warm_up=False,
    )
    ours_s, peer_s = (1000 * s / len(pairs) for s in seconds)
    note = f"{len(pairs)} maps of 512²; precision and recall at 256 thresholds equal to 1e-9"
    return Row("scoring-sklearn", ours_s, peer_s, "scikit-learn, pooled", "ms/map", note, target=25)


def _memory() -> Row:
    few, many = _MEMORY_IMAGES
    grown = {}
    for way in ("ours", "sklearn"):
        peaks = [run_apart("scoring", way, count)["peak_mb"] for count in (few, many)]
        grown[way] = max(peaks[1] - peaks[0], 0.0)
    note = f"from {few} to {many:,} maps of {_MEMORY_SIZE_PX}²; ours grew by {grown['ours']:.1f} MB (asked: < 30)"
    # A growth of nothing would be infinitely better; a megabyte is as near as a process's peak can be told.
    ours = max(grown["ours"], 1.0)
    target = grown["sklearn"] / 30
    return Row("scoring-memory", ours, grown["sklearn"], "scikit-learn, pooled", "MB", note, target=target)


def _thinning(pairs: Pairs, effort: Effort) -> Row:
    """What scoring spends most on besides counting: thinning prediction and truth, for the centre-line IoU."""
    masks = [mask for prob, truth in pairs[: effort.pick(40, 10)] for mask in (prob > 0.5, truth > 0)]
    for mask in masks:
        np.testing.assert_array_equal(thin(mask), morphology.thin(mask))
    seconds = measure_in_turn(
        [lambda: [thin(mask) for mask in masks], lambda: [morphology.thin(mask) for mask in masks]],
        repeats=effort.pick(3, 1),
        clock=time.thread_time,
        warm_up=False,
    )
    ours_s, peer_s = (1000 * s / len(masks) for s in seconds)
    note = f"{len(masks)} masks of 512², predicted and true; equal in every pixel"
    return Row("scoring-lines", ours_s, peer_s, "scikit-image, thin", "ms/mask", note)


def _score(pairs: Pairs, *, min_max: bool = True) -> Scores:
    scores = ScoreAccumulator(_NUM_THRESHOLDS)
    for number, (prob, truth) in enumerate(pairs):
        counts = count_image(
            prob, truth, tolerance_px=_TOLERANCE_PX, num_thresholds=_NUM_THRESHOLDS, min_max=min_max
        )
        scores.add(counts, str(number))
    return scores.result()


def _score_by_loop(pairs: Pairs) -> tuple[float, float, float]:
    """ODS, OIS and AP of the paper's protocol as its formulas read, one threshold after the other."""
    square = np.ones((2 * _TOLERANCE_PX + 1,) * 2, np.uint8)
    counts = np.zeros((3, _NUM_THRESHOLDS))  # TP, predicted, FN
    best = []
    for prob, truth in pairs:
        prob = (prob - prob.min()) / (prob.max() - prob.min())
        near_truth, truth = cv2.dilate(truth, square) > 0, truth > 0
        of_image = np.zeros_like(counts)
        for k in range(_NUM_THRESHOLDS):
            predicted = prob >= np.float64(k) / (_NUM_THRESHOLDS - 1)
            of_image[:, k] = (predicted & near_truth).sum(), predicted.sum(), (~predicted & truth).sum()
        counts += of_image
        best.append(_f(of_image)[2].max())
    precision, recall, f = _f(counts)
    order = slice(None, None, -1)
    recall, precision = recall[order], precision[order]
    ap = np.sum(np.diff(recall, prepend=0) * (precision + np.concatenate([precision[:1], precision[:-1]])) / 2)
    return float(f.max()), float(np.mean(best)), float(ap)


def _f(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tp, predicted, fn = counts
    precision, recall = tp / predicted, tp / (tp + fn)
    return precision, recall, 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _curve_by_sklearn(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = np.concatenate([truth.ravel() for _, truth in pairs])
    prob = np.concatenate([prob.ravel() for prob, _ in pairs])
    return precision_recall_curve(truth, prob)


def _measure_peak(way: str, count: int) -> float:
    """Score so many maps, each drawn when it is needed; returns the peak of this process."""
    drawn = [draw_map(seed, _MEMORY_SIZE_PX) for seed in range(20)]
    if way == "ours":
        scores = ScoreAccumulator(_NUM_THRESHOLDS)
        for number in range(count):
            scores.add(count_image(*drawn[number % 20]), str(number))
        scores.result()
    else:
        prob = np.empty((count, _MEMORY_SIZE_PX**2), np.float32)
        truth = np.empty(prob.shape, np.uint8)
        for number in range(count):
            prob[number], truth[number] = (part.ravel() for part in drawn[number % 20])
        precision_recall_curve(truth.ravel(), prob.ravel())
    return peak_memory_mb()


if __name__ == "__main__":
    print(json.dumps({"peak_mb": _measure_peak(sys.argv[1], int(sys.argv[2]))}))
