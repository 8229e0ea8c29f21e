"""Compare photographs with those that a model was made with.

Five values of each photograph are compared with the model's reference statistics, by the two-sample
Kolmogorov-Smirnov test and the population stability index (PSI).

Shape legend: H, W the photograph.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.stats import ks_2samp

from crackseg.data.catalog import warn_of_source
from crackseg.inference.detector import ModelSettings, ReferenceStatistics

FIGURES = ("brightness", "contrast", "sharpness", "crack_fraction", "confidence")
MIN_IMAGES = 10  # on both sides: fewer say nothing
_OF_VALIDATION = ("crack_fraction", "confidence")  # the others are measured on training images
_ALPHA = 0.01 / len(FIGURES)  # so that one comparison in a hundred is a false alarm, over all five figures
_LEAST_DISTANCE = 0.25  # thousands of photographs make any distance significant; this one matters, too
_PSI_BINS = 10
_REACH = 0.25  # spans of the reference beyond its ends, from where one photograph is unusual
_MIN_FOR_ONE = 20  # in the reference: the ends of fewer are chance
_BAND = 512  # rows measured at a time


def measure_photograph(image_HW3: np.ndarray) -> dict[str, float]:
    """Measure brightness, contrast and sharpness of a photograph.

    Args:
        image_HW3: uint8 (H, W, 3), RGB.
    Returns:
        ``brightness``: mean of the grey values, in [0, 1]; ``contrast``: their standard deviation, in [0, 0.5];
        ``sharpness``: variance of their Laplacian (full scale 1), >= 0, which falls with blur and rises with noise.
    """
    height, width = image_HW3.shape[:2]
    sums = np.zeros(4)  # of grey, its square, the Laplacian, its square
    for start in range(0, height, _BAND):
        above = min(start, 1)
        band = image_HW3[start - above : start + _BAND + 1]
        grey = cv2.cvtColor(band, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        laplacian = cv2.Laplacian(grey, cv2.CV_32F)
        rows = slice(above, above + min(_BAND, height - start))
        for i, values in enumerate((grey[rows], laplacian[rows])):
            sums[2 * i] += values.sum(dtype=np.float64)
            sums[2 * i + 1] += np.square(values).sum(dtype=np.float64)
    means = sums / (height * width)
    return {
        "brightness": float(means[0]),
        "contrast": float(max(0.0, means[1] - means[0] ** 2) ** 0.5),
        "sharpness": float(max(0.0, means[3] - means[2] ** 2)),
    }


@dataclass(frozen=True, slots=True)
class FigureDrift:
    """One figure of new photographs beside the reference.

    Attributes:
        figure: one of ``FIGURES``.
        num_reference, num_new: photographs compared.
        reference_median, new_median: of the figure.
        ks: Kolmogorov-Smirnov distance, the largest gap between the two cumulative shares, in [0, 1].
        p_value: chance of such a distance if nothing had changed.
        psi: population stability index, >= 0; by custom, under 0.1 is no shift and over 0.25 a large one, from some
            hundred photographs on (with few, it is large by chance).
        drifted: p_value < 0.002 and ks >= 0.25; None with fewer than 10 photographs on a side, which say nothing.
    """

    figure: str
    num_reference: int
    num_new: int
    reference_median: float
    new_median: float
    ks: float
    p_value: float
    psi: float
    drifted: bool | None


@dataclass(frozen=True, slots=True)
class Unusual:
    """A figure of one photograph that lies far outside those of the model's own.

    Attributes:
        figure: one of ``FIGURES``.
        value: of the photograph.
        low, high: the smallest and the largest of the model's own.
    """

    figure: str
    value: float
    low: float
    high: float


def find_unusual(reference: ReferenceStatistics, figures: Mapping[str, float]) -> list[Unusual]:
    """Find the figures in which one photograph is unlike all those that the model was made with.

    A distribution cannot be tested with one photograph, as :func:`compare` does with ten; but one whose figure lies
    beyond the reference's smallest or largest, by more than a quarter of their span, is hardly of their kind.

    Args:
        reference: the model's.
        figures: of the photograph, by name (``FIGURES``).
    Returns:
        In the order of ``FIGURES``; of those with fewer than 20 photographs in the reference nothing is said.
    """
    found = []
    for name in FIGURES:
        known = getattr(reference, name)
        if len(known) < _MIN_FOR_ONE:
            continue
        low, high, value = min(known), max(known), figures[name]
        if not low - _REACH * (high - low) <= value <= high + _REACH * (high - low):
            found.append(Unusual(name, value, low, high))
    return found


def compare(reference: ReferenceStatistics, figures: Sequence[Mapping[str, float]]) -> list[FigureDrift]:
    """Compare photographs with those that the model was made with, figure by figure.

    Args:
        reference: the model's.
        figures: of each new photograph, by name (``FIGURES``).
    Returns:
        One for each figure; none if there is no photograph.
    """
    return [
        _compare_figure(name, np.array(getattr(reference, name)), np.array([f[name] for f in figures]))
        for name in FIGURES
        if figures
    ]


def warn_of_unusual(unusual: Sequence[Unusual]) -> str:
    """Warn of one photograph that is unlike the model's own, in a sentence; "" if it is like them."""
    if not unusual:
        return ""
    said = "; ".join(f"{_name(u.figure)} {u.value:.3g}, theirs {u.low:.3g} to {u.high:.3g}" for u in unusual)
    return f"This photograph is unlike those that the model was made with, so what it finds may be wrong: {said}."


def warn_of_drift(drifts: Sequence[FigureDrift]) -> str:
    """Warn of photographs that are not of the model's kind, in a sentence; "" where none was found."""
    said = "; ".join(
        f"{_name(d.figure)} {d.new_median:.4g}, the model's own {d.reference_median:.4g}"
        for d in drifts
        if d.drifted
    )
    if not said:
        return ""
    return f"These photographs are not like those that the model was made with, so its masks may be wrong: {said}."


def warn_of_reference(num_reference: Mapping[str, int]) -> str:
    """Name the figures that a model has too few images of to compare photographs with; "" if there are enough.

    Args:
        num_reference: images in the model's reference statistics, by figure (:func:`count_reference`).
    """
    few = {count for count in num_reference.values() if count < MIN_IMAGES}
    parts = []
    for count in sorted(few):
        names = [name for name, number in num_reference.items() if number == count]
        kind = "validation" if set(names) <= set(_OF_VALIDATION) else "training"
        kind = "training and validation" if kind == "training" and set(names) & set(_OF_VALIDATION) else kind
        parts.append(f"{', '.join(map(_name, names))} (from {count} {kind} image{'' if count == 1 else 's'})")
    if not parts:
        return ""
    return (
        f"The model's reference statistics are too few to judge {' and '.join(parts)}; at least {MIN_IMAGES} images "
        "are needed. More data in its training set gives more."
    )


def warn_of_use(settings: ModelSettings, figures: Sequence[Mapping[str, float]]) -> list[str]:
    """Warn of a model that must not be used, and of photographs that it does not know; a sentence each.

    Args:
        settings: of the model.
        figures: of each photograph, by name (``FIGURES``): a few are looked at one by one, ten and more together.
    """
    reference = settings.reference
    if len(figures) >= MIN_IMAGES:
        said = [warn_of_drift(compare(reference, figures))]
    else:
        said = [warn_of_unusual(find_unusual(reference, f)) for f in figures]
    return [s for s in (warn_of_source(settings.data_source), *dict.fromkeys(said)) if s]


def count_reference(reference: ReferenceStatistics) -> dict[str, int]:
    """Images in the reference statistics, by figure."""
    return {name: len(getattr(reference, name)) for name in FIGURES}


def _name(figure: str) -> str:
    return figure.replace("_", " ")


def describe_drift(drifts: Sequence[FigureDrift]) -> str:
    """Say in a few lines whether the photographs are of the model's kind, and what could not be judged and why."""
    if not drifts:
        return "drift: no photograph to compare"
    loud = [d for d in drifts if d.drifted]
    judged = [d.figure for d in drifts if d.drifted is not None]
    notes = [warn_of_reference({d.figure: d.num_reference for d in drifts})]
    if (num_new := drifts[0].num_new) < MIN_IMAGES:
        notes.append(
            f"{num_new} photograph{'' if num_new == 1 else 's'} are too few to judge; at least {MIN_IMAGES}."
        )
    few = [f"  {note}" for note in notes if note]
    if not loud:
        said = f"none found in {', '.join(map(_name, judged))}" if judged else "not judged"
        return "\n".join([f"drift: {said}", *few])
    lines = [
        f"  {d.figure}: median {d.new_median:.4g}, of the model's own {d.reference_median:.4g} "
        f"(KS {d.ks:.2f}, p {d.p_value:.1g}, PSI {d.psi:.2f})"
        for d in loud
    ]
    return "\n".join(
        [
            "drift: these photographs are not like those that the model was made with, so its masks may be wrong:",
            *lines,
            *few,
            "look at some overlays; if they are bad, label a few of these photographs and train with them",
        ]
    )


def population_stability_index(reference: np.ndarray, values: np.ndarray) -> float:
    """Measure how far a distribution has shifted: Σ (q - p) ln(q / p) over bins.

    Bins hold a tenth of the reference each (fewer where values repeat); half a photograph is added to each bin on both
    sides, so that an empty one gives no infinity.

    Args:
        reference: float (N,), N >= 1.
        values: float (M,), M >= 1.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _PSI_BINS + 1)[1:-1]))
    shares = []
    for sample in (reference, values):
        counts = np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1) + 0.5
        shares.append(counts / counts.sum())
    p, q = shares
    return float(np.sum((q - p) * np.log(q / p)))


def _compare_figure(name: str, reference: np.ndarray, values: np.ndarray) -> FigureDrift:
    # The table of predictions holds six digits, the reference all: equal photographs must have equal figures.
    reference, values = reference.round(6), values.round(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it says when it takes the asymptotic p-value
        ks = ks_2samp(reference, values)
    enough = min(len(reference), len(values)) >= MIN_IMAGES
    return FigureDrift(
        figure=name,
        num_reference=len(reference),
        num_new=len(values),
        reference_median=float(np.median(reference)),
        new_median=float(np.median(values)),
        ks=float(ks.statistic),
        p_value=float(ks.pvalue),
        psi=population_stability_index(reference, values),
        drifted=bool(ks.pvalue < _ALPHA and ks.statistic >= _LEAST_DISTANCE) if enough else None,
    )
