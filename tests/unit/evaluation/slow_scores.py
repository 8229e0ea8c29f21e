"""A slow transcription of the scores' formulas, which loops over thresholds and pixels, and images to score."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from crackseg.evaluation.metrics import ScoreAccumulator, Scores, count_image

COUNTED = ("predicted", "predicted_near_truth", "predicted_on_truth", "truth_near_prediction")


def slow_dilation(mask_HW: np.ndarray, d: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask_HW, d), (2 * d + 1, 2 * d + 1))
    return windows.any(axis=(2, 3))


def slow_predictions(crack_prob_HW: np.ndarray, num_thresholds: int, min_max: bool, roi_HW: np.ndarray) -> Any:
    """Yield the thresholded map for each k."""
    if crack_prob_HW.dtype.kind == "u":
        full = int(np.iinfo(crack_prob_HW.dtype).max)
        low, high = (int(f(crack_prob_HW[roi_HW])) for f in (np.min, np.max)) if min_max else (0, full)
        values = [[Fraction(int(v) - low, (high - low) or 1) for v in row] for row in crack_prob_HW]
        for k in range(num_thresholds):
            threshold = Fraction(k, num_thresholds - 1)
            yield np.array([[v >= threshold for v in row] for row in values]) & roi_HW
        return
    if min_max:
        low, high = crack_prob_HW[roi_HW].min(), crack_prob_HW[roi_HW].max()
        crack_prob_HW = (crack_prob_HW - low) / (high - low) if high > low else np.zeros_like(crack_prob_HW)
    for k in range(num_thresholds):
        yield (crack_prob_HW.astype(np.float64) >= np.float64(k) / (num_thresholds - 1)) & roi_HW


def slow_counts(
    crack_prob_HW: np.ndarray,
    mask_HW: np.ndarray,
    *,
    tolerance_px: int,
    num_thresholds: int,
    min_max: bool,
    roi_HW: np.ndarray | None = None,
) -> list[dict[str, int]]:
    roi_HW = np.ones(mask_HW.shape, bool) if roi_HW is None else roi_HW.astype(bool)
    truth = mask_HW.astype(bool) & roi_HW
    near_truth = slow_dilation(truth, tolerance_px)
    return [
        {
            "predicted": int(b.sum()),
            "predicted_near_truth": int((b & near_truth).sum()),
            "predicted_on_truth": int((b & truth).sum()),
            "truth_near_prediction": int((truth & slow_dilation(b, tolerance_px)).sum()),
            "truth": int(truth.sum()),
        }
        for b in slow_predictions(crack_prob_HW, num_thresholds, min_max, roi_HW)
    ]


def slow_precision_recall_f(counts: dict[str, int], protocol: str) -> tuple[float, float, float]:
    def share(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    if protocol == "symmetric":
        precision = share(counts["predicted_near_truth"], counts["predicted"])
        recall = share(counts["truth_near_prediction"], counts["truth"])
    else:
        tp = counts["predicted_near_truth" if protocol == "paper" else "predicted_on_truth"]
        fp = counts["predicted"] - tp
        fn = counts["truth"] - counts["predicted_on_truth"]
        precision, recall = share(tp, tp + fp), share(tp, tp + fn)
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def slow_scores(images: list[list[dict[str, int]]], protocol: str) -> dict[str, float]:
    num_thresholds = len(images[0])
    pooled = [{n: sum(image[k][n] for image in images) for n in images[0][k]} for k in range(num_thresholds)]
    curve = [slow_precision_recall_f(c, protocol) for c in pooled]
    best = max(range(num_thresholds), key=lambda k: curve[k][2])  # the first, i.e. lowest, of equals
    if not pooled[0]["truth"]:
        best = num_thresholds - 1
    best_fs = [max(slow_precision_recall_f(c, protocol)[2] for c in i) for i in images if i[0]["truth"]]
    shown = [curve[k] for k in reversed(range(num_thresholds)) if pooled[k]["predicted"]]
    path = [(shown[0][0], 0.0), *((precision, recall) for precision, recall, _ in shown)]
    area = sum((r1 - r0) * (p0 + p1) / 2 for (p0, r0), (p1, r1) in pairwise(path))
    return {
        "ods": curve[best][2],
        "precision": curve[best][0],
        "recall": curve[best][1],
        "threshold": best / (num_thresholds - 1),
        "ois": float(np.mean(best_fs)) if best_fs else 0.0,
        "ois_std": float(np.std(best_fs)) if best_fs else 0.0,
        "ap": area,
    }


@st.composite
def scored_images(draw: st.DrawFn, num_thresholds: int | None = None) -> dict[str, Any]:
    """A small map with its truth and the settings to count it by; values crowd around the thresholds."""
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    num_thresholds = num_thresholds or draw(st.sampled_from([2, 3, 5, 11, 100, 256]))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8, np.uint16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.random((height, width)).astype(np.float64)
    at_threshold = rng.integers(0, num_thresholds, (height, width)) / (num_thresholds - 1)
    values = np.where(rng.random((height, width)) < draw(st.sampled_from([0, 0.5, 1])), at_threshold, values)
    floor, ceiling = draw(st.sampled_from([(0.0, 1.0), (0.0, 0.5), (0.3, 1.0), (0.6, 0.6)]))
    values = floor + values * (ceiling - floor)
    if np.issubdtype(dtype, np.integer):
        crack_prob_HW = np.rint(values * np.iinfo(dtype).max).astype(dtype)
    else:
        crack_prob_HW = values.astype(dtype)
        toward = rng.choice([-1.0, 2.0], (height, width)).astype(dtype)
        nudged = np.nextafter(crack_prob_HW, toward).clip(0, 1)
        crack_prob_HW = np.where(rng.random((height, width)) < 0.3, nudged, crack_prob_HW)
    roi_HW = rng.random((height, width)) < 0.7 if draw(st.booleans()) else None
    if roi_HW is not None:
        roi_HW[rng.integers(height), rng.integers(width)] = True
    return {
        "crack_prob_HW": crack_prob_HW,
        "mask_HW": (rng.random((height, width)) < draw(st.sampled_from([0, 0.1, 0.5, 1]))).astype(np.uint8),
        "tolerance_px": draw(st.integers(0, 3)),
        "num_thresholds": num_thresholds,
        "min_max": draw(st.booleans()),
        "roi_HW": roi_HW,
    }


def score(*images: tuple[np.ndarray, np.ndarray], **settings_: Any) -> Scores:
    accumulator = ScoreAccumulator(settings_.get("num_thresholds", 256))
    for number, (crack_prob_HW, mask_HW) in enumerate(images):
        accumulator.add(count_image(crack_prob_HW, mask_HW, **settings_), f"image{number}")
    return accumulator.result()


def crack_scene(seed: int = 0, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A float32 map and its 1-px truth, as a half-trained model would leave them."""
    rng = np.random.default_rng(seed)
    mask_HW = np.zeros((size, size), np.uint8)
    for _ in range(3):
        points = rng.integers(0, size, (4, 1, 2)).astype(np.int32)
        cv2.polylines(mask_HW, [points], False, 1)
    blurred = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), 1.5) * 3
    return (blurred + rng.exponential(0.05, (size, size))).clip(0, 1).astype(np.float32), mask_HW
