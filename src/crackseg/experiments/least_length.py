"""Choose `postprocess.min_length_px`: with a least length, few photographs without cracks are marked.

False marks are short, and many cracks are long. With a least length the threshold can be lower, where cracks do not
break into short components; cracks that are shorter themselves are lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from crackseg.data.catalog import list_splits
from crackseg.data.images.files import read_mask
from crackseg.errors import CracksegError, count_of
from crackseg.inference.operating_threshold import OperatingPoint, find_operating_points, predict_map
from crackseg.inference.predictor import load_predictor
from crackseg.params import change_params, load_params
from crackseg.params.writing import write_settings
from crackseg.project import Layout, require_made

KEY = "postprocess.min_length_px"
LENGTHS_PX = (0, 20, 40, 60, 80, 120, 160, 200, 300)


def compare_lengths(root: Path, lengths_px: Sequence[int] = LENGTHS_PX) -> list[OperatingPoint]:
    """Find threshold, F and false alarms of the trained model with each least length, on the data that trained it.

    Threshold and F are of the validation images; photographs without cracks count from validation and training.

    Args:
        root: of a project in which a model was trained.
        lengths_px: in pixels of the prepared images; the other settings of ``postprocess`` are those of params.yaml.
    Raises:
        CracksegError: nothing was trained, or no validation image has cracks, or no image is without.
    """
    layout = Layout(root)
    weights_path = require_made(layout.weights)
    params = load_params(layout.params)
    splits = list_splits(layout.prepared, params.data.train_dataset)
    trained_on = [s for s in splits["train"] if not read_mask(s.mask_path).any()]
    predictor, extra = load_predictor(weights_path, device=params.train.device, precision=params.train.precision)
    variants = [change_params(params, {KEY: length}, source=KEY).postprocess for length in sorted(set(lengths_px))]
    points = find_operating_points(
        predict_map(predictor),
        splits["val"],
        variants,
        of_training=float(extra["operating_threshold"]),
        more_crack_free=trained_on,
    )
    missing = {"with cracks": points[0].num_cracked, "without cracks, with black masks": points[0].num_crack_free}
    for kind, count in missing.items():
        if not count:
            raise CracksegError(
                f"{params.data.train_dataset}: lengths cannot be compared without photographs {kind}, and there are "
                "none to validate with; import some, and train again"
            )
    return points


def choose_length(points: Sequence[OperatingPoint], max_false_alarms: float) -> OperatingPoint:
    """Choose the shortest length with which few enough photographs without cracks are marked.

    The shortest loses the fewest cracks. F does not decide: on a few images it may rise with a length that others lose
    all their cracks to.

    Args:
        points: of :func:`compare_lengths`.
        max_false_alarms: largest fraction of the crack-free photographs that may be marked, in [0, 1].
    Raises:
        CracksegError: none marks so few.
    """
    # Where no crack is found, nothing is marked: F is 0, and the length of no use.
    found = [p for p in points if p.f > 0]
    few = [p for p in found if p.num_alarmed / p.num_crack_free <= max_false_alarms]
    if not few:
        fewest = min(found or points, key=lambda p: p.num_alarmed)
        raise CracksegError(
            f"no length marks at most {100 * max_false_alarms:g} % of the "
            f"{count_of(fewest.num_crack_free, 'photograph')} without cracks: the fewest, {fewest.num_alarmed}, with "
            f"{fewest.postprocessing.min_length_px} px. Try longer ones (--length-px), allow more "
            "(--max-false-alarms), or add such photographs to the training"
        )
    return min(few, key=lambda p: p.postprocessing.min_length_px)


def write_length(root: Path, point: OperatingPoint) -> dict[str, tuple[Any, Any]]:
    """Write the length into params.yaml; return the changes: key, value before and after."""
    return write_settings(root / "params.yaml", {KEY: point.postprocessing.min_length_px}, source=KEY)


def tabulate(points: Sequence[OperatingPoint]) -> pd.DataFrame:
    """List the points by length: threshold, F, and how many images with and without cracks are marked."""
    return pd.DataFrame(
        {
            "min_length_px": [p.postprocessing.min_length_px for p in points],
            "threshold": [p.threshold for p in points],
            "F": [p.f for p in points],
            "with cracks, marked": [f"{p.num_found} of {p.num_cracked}" for p in points],
            "without cracks, marked": [f"{p.num_alarmed} of {p.num_crack_free}" for p in points],
        }
    )
