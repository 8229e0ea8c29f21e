"""Compare two models by a paired bootstrap over the images of each dataset.

Scores pool pixel counts over images, so a resample is a product of draws and counts, and no image is scored again. Both
models are scored on the same draws, so images that are hard for both cancel out.

Shape legend: n images of a dataset, R resamplings, T thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from crackseg.errors import CracksegError
from crackseg.evaluation.metrics import PROTOCOLS, ImageCounts, _precision_recall_f, average_precision

_SCORES = ("ods", "ois", "ap")
_COUNTS = ("predicted", "predicted_near_truth", "predicted_on_truth", "truth_near_prediction")
_BLOCK = 128  # resamplings at a time: their pooled counts fit the cache


@dataclass(frozen=True, slots=True)
class Metric:
    """Score by which two models are compared.

    Attributes:
        dataset: name of a dataset, or ``mean`` of all with equal weight.
        protocol: ``paper``, ``symmetric`` or ``strict``.
        score: ``ods``, ``ois`` or ``ap``.
    """

    dataset: str
    protocol: str
    score: str

    def __str__(self) -> str:
        protocol = "" if self.protocol == "paper" else f"{self.protocol}/"
        return f"{self.dataset}/{protocol}{self.score}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of a challenger's and a champion's score on the same images.

    Attributes:
        champion: its score in [0, 1].
        challenger: its score in [0, 1].
        low: lower end of the 95 % interval of the difference.
        high: upper end.
    """

    champion: float
    challenger: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """Challenger's score minus the champion's."""
        return self.challenger - self.champion

    def __str__(self) -> str:
        return (
            f"{self.champion:.4f} -> {self.challenger:.4f} ({self.value:+.4f}, 95 % interval "
            f"{self.low:+.4f} to {self.high:+.4f})"
        )


def parse_metric(text: str, datasets: Sequence[str]) -> Metric:
    """Read a metric as MLflow names it: ``mean/ods``, ``CRKWH100/strict/ods``, ``mean/ap``.

    Raises:
        CracksegError: it is none of these, or names another dataset.
    """
    match = re.fullmatch(rf"(.+?)/(?:({'|'.join(PROTOCOLS)})/)?({'|'.join(_SCORES)})", text)
    if match is None or match[1] not in ("mean", *datasets):
        raise CracksegError(
            f"--metric {text}: expected [mean or a dataset]/[symmetric/ or strict/ or nothing][ods, ois or ap], e.g. "
            f"mean/ods; datasets: {', '.join(datasets)}"
        )
    return Metric(match[1], match[2] or "paper", match[3])


def compare_paired(
    champion: Mapping[str, Sequence[ImageCounts]],
    challenger: Mapping[str, Sequence[ImageCounts]],
    metric: Metric,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Difference, dict[str, Difference]]:
    """Compare two models by resampling each dataset's images with replacement, separately with and without cracks.

    Args:
        champion: counts of every image by dataset, T thresholds each.
        challenger: the same images in the same order.
        metric: its dataset may be ``mean``; its protocol and score are used for each dataset, too.
        num_resamples: R.
        seed: of the draws; the same seed gives the same interval.
    Returns:
        The difference on the metric itself, and on each dataset.
    Raises:
        CracksegError: there are no datasets, or not the same images.
    """
    if champion.keys() != challenger.keys() or not champion:
        raise CracksegError("the two models were not scored on the same datasets")
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    by_dataset: dict[str, Difference] = {}
    for dataset, ours in champion.items():
        theirs = challenger[dataset]
        if len(ours) != len(theirs) or not ours or [c.truth for c in ours] != [c.truth for c in theirs]:
            raise CracksegError(f"{dataset}: the two models were not scored on the same images")
        weights = _draw(np.array([counts.truth > 0 for counts in ours]), num_resamples, rng)
        weights = np.vstack([np.ones_like(weights[:1]), weights])  # first the images without resampling
        former, new = (_score_draws(counts, weights, metric) for counts in (ours, theirs))
        drawn[dataset] = new[1:] - former[1:]
        by_dataset[dataset] = _summarise(float(former[0]), float(new[0]), drawn[dataset])
    if metric.dataset != "mean":
        return by_dataset[metric.dataset], by_dataset
    overall = _summarise(
        fmean(d.champion for d in by_dataset.values()),
        fmean(d.challenger for d in by_dataset.values()),
        np.mean(list(drawn.values()), axis=0),
    )
    return overall, by_dataset


def compare_means(
    champion_n: np.ndarray, challenger_n: np.ndarray, *, num_resamples: int = 2000, seed: int = 0
) -> Difference:
    """Compare two models by the mean of a value of each image, e.g. its best F (OIS), from tables alone.

    Args:
        champion_n: float (n,), n > 0, in [0, 1].
        challenger_n: the same images in the same order.
        num_resamples: R.
        seed: of the draws.
    Raises:
        CracksegError: not the same number of images, or none.
    """
    if champion_n.shape != challenger_n.shape or not champion_n.size:
        raise CracksegError("the two models were not scored on the same images")
    weights = _draw(np.ones(len(champion_n), bool), num_resamples, np.random.default_rng(seed))
    differences = weights @ (challenger_n - champion_n) / len(champion_n)
    return _summarise(float(champion_n.mean()), float(challenger_n.mean()), differences)


def _draw(has_crack: np.ndarray, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Count how often each draw has each image; int64 (R, n).

    Images with and without cracks are drawn separately, each in their own number: a draw without any crack has no
    score.
    """
    weights = np.zeros((num_resamples, len(has_crack)), np.int64)
    for kind in (np.flatnonzero(has_crack), np.flatnonzero(~has_crack)):
        if len(kind):
            weights[:, kind] = rng.multinomial(len(kind), np.full(len(kind), 1 / len(kind)), size=num_resamples)
    return weights


def _summarise(champion: float, challenger: float, differences: np.ndarray) -> Difference:
    low, high = np.percentile(differences, [2.5, 97.5])
    return Difference(champion, challenger, float(low), float(high))


def _score_draws(images: Sequence[ImageCounts], weights: np.ndarray, metric: Metric) -> np.ndarray:
    """Score each draw, float64 (R,); ``weights``, int (R, n), is how often it has each image."""
    row = PROTOCOLS.index(metric.protocol)
    if metric.score == "ois":
        with_cracks = [i for i, counts in enumerate(images) if counts.truth]
        best_n = np.array([_precision_recall_f(images[i])[2][row].max() for i in with_cracks])
        times = weights[:, with_cracks].sum(axis=1)
        total = weights[:, with_cracks] @ best_n
        return np.divide(total, times, out=np.zeros(len(weights)), where=times > 0)
    # Sums of integers in float64 are exact up to 2^53, far above any number of pixels, and multiply fast.
    tables = [np.stack([getattr(counts, name) for counts in images]).astype(np.float64) for name in _COUNTS]
    truth_n = np.array([counts.truth for counts in images], np.float64)
    scores = np.zeros(len(weights))
    for start in range(0, len(weights), _BLOCK):
        block = weights[start : start + _BLOCK].astype(np.float64)
        predicted, near_truth, on_truth, reached = (block @ table for table in tables)
        pooled = ImageCounts(predicted, near_truth, on_truth, reached, (block @ truth_n)[:, None])  # type: ignore[arg-type]
        precision, recall, f = (of_protocols[row] for of_protocols in _precision_recall_f(pooled))
        if metric.score == "ods":
            scores[start : start + _BLOCK] = f.max(axis=1)
        else:
            scores[start : start + _BLOCK] = [
                average_precision(*curve) for curve in zip(precision, recall, pooled.predicted, strict=True)
            ]
    return scores
