"""Scoring: from crack probabilities and ground truth to ODS, OIS and AP under three protocols.

Each image is read once, into histograms that can be added up; docs/how-scoring-works.md has the formulas.

Shape legend: H rows, W columns; T thresholds k / (T - 1), k = 0 … T - 1. G is the ground truth, G⊕d its
dilation by a square of (2d + 1)² pixels, B the prediction at a threshold: the pixels whose value is at least
the threshold.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields

import cv2
import numpy as np

from crackseg.errors import CracksegError

PROTOCOLS = ("paper", "symmetric", "strict")
RAW_THRESHOLDS = 1024  # to choose an operating threshold: raw probabilities may fill a small part of [0, 1]
MAX_THRESHOLDS = 2**14  # up to here _bin_values is exact for float32, and _histogram has room in 16 bits


@dataclass(frozen=True, slots=True, eq=False)
class ImageCounts:
    """Pixel counts at every threshold, of one image or summed over several; enough for all three protocols.

    Attributes:
        predicted: int64 (T,), |B|.
        predicted_near_truth: int64 (T,), |B ∧ G⊕d|.
        predicted_on_truth: int64 (T,), |B ∧ G|.
        truth_near_prediction: int64 (T,), |G ∧ B⊕d|.
        truth: |G|.
    """

    predicted: np.ndarray
    predicted_near_truth: np.ndarray
    predicted_on_truth: np.ndarray
    truth_near_prediction: np.ndarray
    truth: int

    def __add__(self, other: ImageCounts) -> ImageCounts:
        """Pool the counts of two sets of images."""
        return ImageCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision, recall and F at every threshold; float64 (T,) each, thresholds ascending."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f: np.ndarray

    def highest_threshold(self, loss: float) -> float:
        """Return the highest threshold whose F is at most this fraction of the best F below it; 1.0 if F is 0."""
        return float(self.thresholds[self.f >= (1 - loss) * self.f.max()][-1])

    def precision_at_recall(self, step_percent: int = 2) -> dict[int, float]:
        """Sample the curve at 0, ``step_percent`` … percent of recall, up to the highest recall that is reached.

        Returns:
            By recall in percent, the highest precision at this recall or a higher one (interpolated precision).
        """
        levels = np.arange(0, 101, step_percent)
        reached = self.recall[None] >= levels[:, None] / 100
        best = np.where(reached, self.precision[None], 0).max(axis=1)
        return {int(level): float(best[i]) for i, level in enumerate(levels) if reached[i].any()}


@dataclass(frozen=True, slots=True, eq=False)
class ProtocolScores:
    """Scores of a dataset under one protocol; every number is in [0, 1], never NaN.

    Attributes:
        ods: best F over the thresholds, with counts pooled over all images.
        precision: at that threshold.
        recall: at that threshold.
        threshold: the lowest one that reaches ``ods``; 1.0 for a dataset without any crack.
        ois: mean over the images with cracks of each one's best F; 0.0 if no image has cracks.
        ois_std: population standard deviation (ddof 0) of the same.
        ap: area under ``curve`` (:func:`average_precision`).
        curve: the pooled precision-recall curve.
    """

    ods: float
    precision: float
    recall: float
    threshold: float
    ois: float
    ois_std: float
    ap: float
    curve: Curve

    def to_dict(self) -> dict[str, float]:
        """Return all scores without the curve."""
        names = ("ods", "precision", "recall", "threshold", "ois", "ois_std", "ap")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class ImageScore:
    """Score of one image: its best F and the lowest threshold that reaches it; None for an image without cracks."""

    stem: str
    crack_pixels: int
    paper_f: float | None = None
    paper_threshold: float | None = None
    symmetric_f: float | None = None
    symmetric_threshold: float | None = None
    strict_f: float | None = None
    strict_threshold: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Result of :class:`ScoreAccumulator`: scores under the three protocols, and of each image, sorted by stem."""

    num_images: int
    paper: ProtocolScores
    symmetric: ProtocolScores
    strict: ProtocolScores
    images: tuple[ImageScore, ...]

    def to_dict(self) -> dict[str, int | dict[str, float]]:
        """Return ``{"num_images": n, "paper": {"ods": …}, "symmetric": {…}, "strict": {…}}``, for JSON."""
        return {"num_images": self.num_images} | {name: getattr(self, name).to_dict() for name in PROTOCOLS}


def count_image(
    crack_prob_HW: np.ndarray,
    mask_HW: np.ndarray,
    *,
    tolerance_px: int = 2,
    num_thresholds: int = 256,
    min_max: bool = True,
    roi_HW: np.ndarray | None = None,
    name: str = "crack_prob",
) -> ImageCounts:
    """Count one image at all thresholds, exactly as ``crack_prob >= np.float64(k) / (T - 1)`` would.

    Args:
        crack_prob_HW: float32 or float64 (H, W) in [0, 1]; or a stored map, uint8 or uint16 (H, W), whose
            full scale is 1, stretched and compared as exact fractions, without any rounding.
        mask_HW: ground truth (H, W), bool, or uint8 {0, 1}.
        tolerance_px: d, half-width of the square dilation, in pixels of this mask, >= 0.
        num_thresholds: T, from 2 to 16,384.
        min_max: stretch the map linearly to [0, 1] first (section 3.3), in its own float type; a constant
            map becomes all zeros.
        roi_HW: region of interest (H, W), bool, or uint8 {0, 1}. What lies outside has no influence: neither its
            ground truth nor its prediction counts, nor does it move the minimum and maximum.
        name: what errors call the map, e.g. its path.
    Raises:
        CracksegError: shapes differ, values out of range or not a number, an empty ROI, or a wrong setting.
    """
    _check_settings(tolerance_px, num_thresholds)
    low, high = _value_range(crack_prob_HW, name)
    truth_HW = _as_bool(mask_HW, crack_prob_HW.shape, f"{name}: the mask")
    counted_HW = None
    if roi_HW is not None:
        counted_HW = _as_bool(roi_HW, crack_prob_HW.shape, f"{name}: the region of interest")
        if not counted_HW.any():
            raise CracksegError(f"{name}: the region of interest is empty; leave it out to count all pixels")
        truth_HW = truth_HW & counted_HW
        # As low as the lowest pixel inside: that changes no extreme, and no maximum around a ground truth pixel.
        inside = crack_prob_HW[counted_HW]
        low, high = inside.min(), inside.max()
        crack_prob_HW = np.where(counted_HW, crack_prob_HW, low)

    if not min_max:
        low, high = 0, _full_scale(crack_prob_HW.dtype)
    bins_HW = _bin_map(crack_prob_HW, low, high, num_thresholds)
    side = 2 * min(tolerance_px, max(truth_HW.shape)) + 1
    square = np.ones((side, side), np.uint8)
    near_truth_HW = cv2.dilate(truth_HW.view(np.uint8), square).view(bool)
    # Dilating the bins dilates B at all thresholds at once: a maximum reaches k if any pixel around does.
    reached_bins_HW = cv2.dilate(bins_HW, square)
    predicted = _histogram(bins_HW, num_thresholds)
    if counted_HW is not None:
        near_truth_HW &= counted_HW
        predicted[bins_HW.min()] -= np.count_nonzero(~counted_HW)

    near_truth = np.flatnonzero(near_truth_HW)  # pixels near cracks, G included: few
    on_truth = near_truth[truth_HW.ravel()[near_truth]]
    predicted_near_truth = np.bincount(bins_HW.ravel()[near_truth], minlength=num_thresholds)
    predicted_on_truth = np.bincount(bins_HW.ravel()[on_truth], minlength=num_thresholds)
    truth_near_prediction = np.bincount(reached_bins_HW.ravel()[on_truth], minlength=num_thresholds)
    in_bin = np.stack([predicted, predicted_near_truth, predicted_on_truth, truth_near_prediction])
    at_least = in_bin[:, ::-1].cumsum(axis=1, dtype=np.int64)[:, ::-1]
    return ImageCounts(at_least[0], at_least[1], at_least[2], at_least[3], len(on_truth))


def average_precision(precision: np.ndarray, recall: np.ndarray, predicted: np.ndarray) -> float:
    """Measure the area under a precision-recall curve by the trapezoid rule.

    The curve runs from the highest threshold to the lowest, leaves out thresholds at which nothing is
    predicted, and begins at recall 0 with the precision of its first point: a perfect map has 1. Recall never
    falls along it, under any of the three protocols.

    Args:
        precision: float (T,), thresholds ascending.
        recall: float (T,).
        predicted: int (T,), pixels predicted at each threshold.
    """
    shown = np.flatnonzero(predicted)[::-1]
    heights = np.concatenate([precision[shown[:1]], precision[shown]])
    widths = np.diff(recall[shown], prepend=0.0)
    return float(np.sum(widths * (heights[1:] + heights[:-1]) / 2))


class ScoreAccumulator:
    """Add up the counts of images, in any order and across workers, and score them.

    Counts are integers and :mod:`statistics` sums without rounding, so the result does not depend on the
    order, to the last bit. Memory does not grow with the images but for one row of numbers each.
    """

    def __init__(self, num_thresholds: int = 256) -> None:
        _check_settings(0, num_thresholds)
        self.num_thresholds = num_thresholds
        none = np.zeros(num_thresholds, np.int64)
        self._pooled = ImageCounts(none, none, none, none, 0)
        self._rows: dict[str, ImageScore] = {}

    def add(self, counts: ImageCounts, stem: str) -> None:
        """Add one image's counts under its stem, which must be new."""
        self._check_mergeable(len(counts.predicted), {stem})
        self._pooled += counts
        self._rows[stem] = _score_image(counts, stem)

    def merge(self, other: ScoreAccumulator) -> None:
        """Add all images of another accumulator; no stem may be in both."""
        self._check_mergeable(other.num_thresholds, self._rows.keys() & other._rows.keys())
        self._pooled += other._pooled
        self._rows |= other._rows

    def result(self) -> Scores:
        """Score what was added so far; CracksegError if that is no image."""
        if not self._rows:
            raise CracksegError("no image to score; expected at least one map with its mask")
        thresholds = np.arange(self.num_thresholds) / (self.num_thresholds - 1)
        protocols = {
            name: self._score_protocol(name, Curve(thresholds, precision, recall, f))
            for name, precision, recall, f in zip(PROTOCOLS, *_precision_recall_f(self._pooled), strict=True)
        }
        rows = tuple(row for _, row in sorted(self._rows.items()))
        return Scores(num_images=len(rows), **protocols, images=rows)

    def _score_protocol(self, protocol: str, curve: Curve) -> ProtocolScores:
        # Without any crack F is 0 everywhere, and the lowest threshold would call every pixel a crack.
        best = int(curve.f.argmax()) if self._pooled.truth else -1
        best_fs = [getattr(row, f"{protocol}_f") for row in self._rows.values() if row.crack_pixels]
        return ProtocolScores(
            ods=float(curve.f[best]),
            precision=float(curve.precision[best]),
            recall=float(curve.recall[best]),
            threshold=float(curve.thresholds[best]),
            ois=statistics.fmean(best_fs) if best_fs else 0.0,
            ois_std=statistics.pstdev(best_fs) if best_fs else 0.0,
            ap=average_precision(curve.precision, curve.recall, self._pooled.predicted),
            curve=curve,
        )

    def _check_mergeable(self, num_thresholds: int, stems: set[str]) -> None:
        if num_thresholds != self.num_thresholds:
            raise CracksegError(f"num_thresholds is {num_thresholds} here and was {self.num_thresholds} before")
        if doubled := sorted(stems & self._rows.keys()):
            raise CracksegError(f"scored twice: {', '.join(doubled)}; each stem counts once in a dataset")


def _precision_recall_f(counts: ImageCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute precision, recall and F at every threshold; float64 (3, T) each, rows as in PROTOCOLS; 0/0 is 0."""
    near, on_truth, found = counts.predicted_near_truth, counts.predicted_on_truth, counts.truth_near_prediction
    truth = np.full_like(near, counts.truth)
    missed = truth - on_truth  # the FN of ``paper`` too, whose TP are counted on the dilated truth
    precision = _ratio(np.stack([near, near, on_truth]), counts.predicted)
    recall = _ratio(np.stack([near, found, on_truth]), np.stack([near + missed, truth, truth]))
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def _score_image(counts: ImageCounts, stem: str) -> ImageScore:
    if not counts.truth:
        return ImageScore(stem, crack_pixels=0)
    columns: dict[str, float] = {}
    for protocol, f in zip(PROTOCOLS, _precision_recall_f(counts)[2], strict=True):
        best = int(f.argmax())
        columns |= {f"{protocol}_f": float(f[best]), f"{protocol}_threshold": best / (len(f) - 1)}
    return ImageScore(stem, counts.truth, **columns)


def _bin_map(crack_prob_HW: np.ndarray, low: float, high: float, num_thresholds: int) -> np.ndarray:
    """Stretch [low, high] to [0, 1] and give each pixel the highest k whose k / (T - 1) it reaches; uint16."""
    bins_HW = np.zeros(crack_prob_HW.shape, np.uint16)
    if low == high:
        return bins_HW
    rows = max(1, 2**15 // crack_prob_HW.shape[1])  # blocks small enough for the cache
    for top in range(0, len(bins_HW), rows):
        bins_HW[top : top + rows] = _bin_values(crack_prob_HW[top : top + rows], low, high, num_thresholds - 1)
    return bins_HW


def _bin_values(values: np.ndarray, low: float, high: float, steps: int) -> np.ndarray:
    """Find the highest k with (value - low) / (high - low) >= k / steps; whole part of the result."""
    if values.dtype.kind == "u":  # as a fraction of integers
        return (values.astype(np.uint32) - np.uint32(low)) * np.uint32(steps) // np.uint32(int(high) - int(low))
    stretched = values if (low, high) == (0, 1) else (values - low) / (high - low)
    if values.dtype == np.float32:
        # A float32 times an integer up to 2^14 is exact in float64, and never so near a whole number, without
        # being one, that the rounding of k / steps could matter.
        return stretched.astype(np.float64) * steps
    nearest = np.rint(stretched * steps)
    return nearest - (stretched < nearest / steps)


def _histogram(bins_HW: np.ndarray, num_thresholds: int) -> np.ndarray:
    """Count the pixels in each bin; int64 (T,)."""
    # Most pixels of a crack map are in bin 0, and incrementing one address again and again stalls a processor: so
    # neighbours are counted in four lanes. OpenCV returns float32, exact up to 2^24 pixels at a time.
    lanes = (np.arange(bins_HW.shape[1]) % 4 * num_thresholds).astype(np.uint16)
    num_bins = 4 * num_thresholds
    rows = max(1, 2**20 // bins_HW.shape[1])
    histogram = np.zeros(num_bins, np.int64)
    for top in range(0, len(bins_HW), rows):
        block = bins_HW[top : top + rows] + lanes
        histogram += cv2.calcHist([block], [0], None, [num_bins], [0, num_bins]).ravel().astype(np.int64)
    return histogram.reshape(4, num_thresholds).sum(axis=0)


def _full_scale(dtype: np.dtype) -> int:
    """Return the value of probability 1: the largest integer of a stored map's dtype, else 1."""
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else 1


def _value_range(crack_prob_HW: np.ndarray, name: str) -> tuple[float, float]:
    """Return the lowest and highest value of a map, in its own dtype; CracksegError if it is no map."""
    dtype = crack_prob_HW.dtype
    if dtype not in (np.float32, np.float64, np.uint8, np.uint16):
        raise CracksegError(f"{name}: expected float32 or float64 in [0, 1], uint8 or uint16; got {dtype}")
    if crack_prob_HW.ndim != 2 or not crack_prob_HW.size:
        raise CracksegError(f"{name}: expected a map (H, W), got the shape {crack_prob_HW.shape}")
    low, high = crack_prob_HW.min(), crack_prob_HW.max()
    if not (low >= 0 and high <= _full_scale(dtype)):  # false for NaN, too
        raise CracksegError(f"{name}: expected probabilities in [0, 1], got values from {low:g} to {high:g}")
    return low, high


def _as_bool(mask_HW: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    if mask_HW.shape != shape:
        raise CracksegError(f"{what} is {mask_HW.shape} pixels and the map {shape}; predict at the mask's size")
    if mask_HW.dtype not in (bool, np.uint8) or mask_HW.max() > 1:
        raise CracksegError(f"{what} holds {mask_HW.dtype} up to {mask_HW.max()}; expected bool, or uint8 0 and 1")
    return np.ascontiguousarray(mask_HW).view(bool)


def _check_settings(tolerance_px: int, num_thresholds: int) -> None:
    if not isinstance(tolerance_px, int) or isinstance(tolerance_px, bool) or tolerance_px < 0:
        raise CracksegError(f"tolerance_px is {tolerance_px!r}; expected a whole number of pixels, 0 or more")
    if not isinstance(num_thresholds, int) or not 2 <= num_thresholds <= MAX_THRESHOLDS:
        raise CracksegError(f"num_thresholds is {num_thresholds!r}; expected 2 to {MAX_THRESHOLDS}")
