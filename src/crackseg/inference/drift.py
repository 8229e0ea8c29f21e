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

from crackseg.data.catalog import warn_of_source
from crackseg.errors import count_of
from crackseg.inference.detector import ModelSettings, ReferenceStatistics

FIGURES = ("brightness", "contrast", "sharpness", "crack_fraction", "confidence")
MIN_IMAGES = 10  # on both sides: fewer are not enough for a test
_OF_VALIDATION = ("crack_fraction", "confidence")  # the others are measured on training images
_ALPHA = 0.01 / len(FIGURES)  # so that one comparison in a hundred is a false alarm, over all five values
_LEAST_DISTANCE = 0.25  # with thousands of photographs any distance is significant; this one is relevant, too
_PSI_BINS = 10
_REACH = 0.25  # a photograph is unusual if it is outside the reference's range by this fraction of the range
_MIN_FOR_ONE = 20  # in the reference: the range of fewer is chance
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
    """Comparison of one measured value of new photographs with the reference.

    Attributes:
        figure: one of ``FIGURES``.
        num_reference, num_new: photographs compared.
        reference_median, new_median: of the values.
        ks: Kolmogorov-Smirnov distance, the largest gap between the two cumulative distributions, in [0, 1].
        p_value: probability of such a distance if nothing had changed.
        psi: population stability index, >= 0; usually, under 0.1 is no shift and over 0.25 a large one, from about a
            hundred photographs on (with few, it is large by chance).
        drifted: p_value < 0.002 and ks >= 0.25; None with fewer than 10 photographs on a side.
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
    """Value of one photograph far outside the range of the model's own photographs.

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
    """Find the values in which one photograph is unlike all those that the model was made with.

    One photograph is not enough for the test in :func:`compare`. It is unusual if a value is outside the reference's
    range by more than a quarter of the range.

    Args:
        reference: the model's.
        figures: values of the photograph, by name (``FIGURES``).
    Returns:
        In the order of ``FIGURES``, without those that have fewer than 20 photographs in the reference.
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
    """Compare photographs with those that the model was made with, value by value.

    Args:
        reference: the model's.
        figures: values of each new photograph, by name (``FIGURES``).
    Returns:
        One for each of ``FIGURES``; none if there is no photograph.
    """
    return [
        _compare_figure(name, np.array(getattr(reference, name)), np.array([f[name] for f in figures]))
        for name in FIGURES
        if figures
    ]


def warn_of_unusual(unusual: Sequence[Unusual]) -> str:
    """Return a warning of one photograph that is unlike the model's own; "" if it is like them."""
    if not unusual:
        return ""
    said = "; ".join(f"{_name(u.figure)} {u.value:.3g}, theirs {u.low:.3g} to {u.high:.3g}" for u in unusual)
    return f"This photograph is unlike those that the model was made with, so what it finds may be wrong: {said}."


def warn_of_drift(drifts: Sequence[FigureDrift]) -> str:
    """Return a warning of photographs that are unlike the model's own; "" if there is no drift."""
    said = "; ".join(
        f"{_name(d.figure)} {d.new_median:.4g}, the model's own {d.reference_median:.4g}"
        for d in drifts
        if d.drifted
    )
    if not said:
        return ""
    return f"These photographs are not like those that the model was made with, so its masks may be wrong: {said}."


def warn_of_reference(num_reference: Mapping[str, int]) -> str:
    """Return a warning of values with too few images in the reference to be compared; "" if there are enough.

    Args:
        num_reference: images in the model's reference statistics, by name (:func:`count_reference`).
    """
    few = {count for count in num_reference.values() if count < MIN_IMAGES}
    parts = []
    for count in sorted(few):
        names = [name for name, number in num_reference.items() if number == count]
        kind = "validation" if set(names) <= set(_OF_VALIDATION) else "training"
        kind = "training and validation" if kind == "training" and set(names) & set(_OF_VALIDATION) else kind
        parts.append(f"{', '.join(map(_name, names))} (from {count_of(count, f'{kind} image')})")
    if not parts:
        return ""
    return (
        f"The model's reference statistics are too few to judge {' and '.join(parts)}; at least {MIN_IMAGES} images "
        "are needed. More data in its training set gives more."
    )


def warn_of_use(settings: ModelSettings, figures: Sequence[Mapping[str, float]]) -> list[str]:
    """List warnings: of a model that must not be used, and of photographs unlike its own; a sentence each.

    Args:
        settings: of the model.
        figures: values of each photograph, by name (``FIGURES``); a few are checked one by one, ten or more together.
    """
    reference = settings.reference
    if len(figures) >= MIN_IMAGES:
        said = [warn_of_drift(compare(reference, figures))]
    else:
        said = [warn_of_unusual(find_unusual(reference, f)) for f in figures]
    return [s for s in (warn_of_source(settings.data_source), *dict.fromkeys(said)) if s]


def count_reference(reference: ReferenceStatistics) -> dict[str, int]:
    """Count the images in the reference statistics, by name."""
    return {name: len(getattr(reference, name)) for name in FIGURES}


def _name(figure: str) -> str:
    return figure.replace("_", " ")


def describe_drift(drifts: Sequence[FigureDrift]) -> str:
    """Describe in a few lines if the photographs are like the model's own, and what could not be judged and why."""
    if not drifts:
        return "drift: no photograph to compare"
    loud = [d for d in drifts if d.drifted]
    judged = [d.figure for d in drifts if d.drifted is not None]
    notes = [warn_of_reference({d.figure: d.num_reference for d in drifts})]
    if (num_new := drifts[0].num_new) < MIN_IMAGES:
        notes.append(f"{count_of(num_new, 'photograph')}: too few to judge; at least {MIN_IMAGES} are needed.")
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

    Bins hold a tenth of the reference each (fewer if values repeat). Half a photograph is added to each bin on both
    sides, so that an empty bin does not give infinity.

    Args:
        reference: float (N,), N >= 1.
        values: float (M,), M >= 1.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _PSI_BINS + 1)[1:-1]))
    fractions = []
    for sample in (reference, values):
        counts = np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1) + 0.5
        fractions.append(counts / counts.sum())
    p, q = fractions
    return float(np.sum((q - p) * np.log(q / p)))


def _compare_figure(name: str, reference: np.ndarray, values: np.ndarray) -> FigureDrift:
    from scipy.stats import ks_2samp  # half a second, which a version that gets a reference need not wait for

    # The table of predictions has six digits, the reference has all: equal photographs must have equal values.
    reference, values = reference.round(6), values.round(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns when it uses the asymptotic p-value
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
