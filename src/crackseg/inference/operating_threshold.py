"""Operating threshold of a finished model, chosen on validation images after post-processing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crackseg.data.catalog import spread_evenly
from crackseg.data.images.files import read_image, read_mask
from crackseg.evaluation.metrics import RAW_THRESHOLDS, ScoreAccumulator, count_image
from crackseg.evaluation.stored_maps import changes_maps
from crackseg.geometry.postprocessing import postprocess_map
from crackseg.inference.predictor import Predictor
from crackseg.params import PostprocessParams
from crackseg.progress import progress
from crackseg.types import CrackSample

MOST_IMAGES = 200  # that a model is finished with, spread evenly over the split

MapOf = Callable[[CrackSample], np.ndarray]
"""Gives the probability map of a sample: float (H, W) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A post-processing with its threshold.

    Attributes:
        postprocessing: of the maps.
        threshold: raw probability, above 0; 1 if no crack is found.
        f: F at the threshold over the validation images, in [0, 1] (paper protocol, tolerance 2 px).
        num_cracked: validation images with cracks in the ground truth.
        num_found: how many of them are marked at the threshold, anywhere.
        num_crack_free: images without a crack pixel in the ground truth.
        num_alarmed: how many of them are marked at the threshold.
    """

    postprocessing: PostprocessParams
    threshold: float
    f: float
    num_cracked: int
    num_found: int
    num_crack_free: int
    num_alarmed: int


def predict_map(predictor: Predictor) -> MapOf:
    """Return a function that predicts the map of a sample."""
    return lambda sample: predictor.predict_prob(read_image(sample.image_path))


def find_operating_points(
    map_of: MapOf,
    val_samples: Sequence[CrackSample],
    variants: Sequence[PostprocessParams],
    *,
    of_training: float,
    more_crack_free: Sequence[CrackSample] = (),
    f_loss: float = 0.0,
) -> list[OperatingPoint]:
    """Find the threshold of each post-processing; the map of every image is asked for once.

    It is the one with the best F on the validation images, the highest of equal ones; where the maps are left as they
    are, the one that training chose.

    Args:
        map_of: gives the map of a sample.
        val_samples: prepared; 200 at most are used.
        variants: of post-processing.
        of_training: the threshold that training chose.
        more_crack_free: prepared, of another split and without cracks; they only count as such, 200 at most.
        f_loss: fraction of the best F that may be lost for a higher threshold.
    """
    scores = [ScoreAccumulator(num_thresholds=RAW_THRESHOLDS) for _ in variants]
    highest: list[list[float]] = [[] for _ in variants]  # value of each map
    cracked: list[bool] = []
    val_samples = spread_evenly(val_samples, MOST_IMAGES)
    samples = [*val_samples, *spread_evenly(more_crack_free, MOST_IMAGES)]
    for i, sample in enumerate(progress(samples, "choose the threshold", "image")):
        prob_HW, mask_HW = map_of(sample), read_mask(sample.mask_path)
        cracked.append(bool(mask_HW.any()))
        for variant, accumulator, of_variant in zip(variants, scores, highest, strict=True):
            processed_HW = postprocess_map(prob_HW, **variant.model_dump(), name=sample.stem)
            of_variant.append(float(processed_HW.max()))
            if i < len(val_samples):
                counts = count_image(processed_HW, mask_HW, num_thresholds=RAW_THRESHOLDS, min_max=False)
                accumulator.add(counts, sample.stem)
    points = []
    for variant, accumulator, of_variant in zip(variants, scores, highest, strict=True):
        curve = accumulator.result().paper.curve
        curve.f[0] = 0  # at 0 whole photographs are marked, which no model is meant to do
        threshold = curve.highest_threshold(f_loss) if changes_maps(variant) else of_training
        f = float(curve.f[round(threshold * (RAW_THRESHOLDS - 1))])
        marked = [value >= threshold for value in of_variant]
        found = sum(m for m, has_crack in zip(marked, cracked, strict=True) if has_crack)
        free = len(cracked) - sum(cracked)
        points.append(OperatingPoint(variant, threshold, f, sum(cracked), found, free, sum(marked) - found))
    return points


def choose_threshold(
    map_of: MapOf,
    val_samples: Sequence[CrackSample],
    postprocessing: PostprocessParams,
    *,
    of_training: float,
    f_loss: float = 0.0,
) -> float:
    """Choose the operating threshold of a finished model, a raw probability in [0, 1].

    Where post-processing leaves the maps as they are, no map is asked for.

    Args:
        map_of, val_samples, of_training, f_loss: see :func:`find_operating_points`.
        postprocessing: of a map before the threshold.
    """
    if not changes_maps(postprocessing):
        return of_training
    (point,) = find_operating_points(map_of, val_samples, [postprocessing], of_training=of_training, f_loss=f_loss)
    return point.threshold
