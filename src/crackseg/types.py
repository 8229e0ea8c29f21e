"""Records and names that several folders use: a sample, a model's output, a prediction, a surface.

Shape legend: B batch, H rows, W columns, 1/3 channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # numpy and torch are slow to import and only named here
    import numpy as np
    import torch

Surface = Literal["concrete", "pavement"]
SURFACES: tuple[Surface, ...] = ("concrete", "pavement")

PLAN_NAME = "computed_by.json"  # in a folder of predicted maps: engine, precision, threads


@dataclass(frozen=True, slots=True)
class CrackSample:
    """One photograph with its ground truth, as the manifest lists it.

    Attributes:
        dataset: name of the dataset, e.g. ``CrackTree260``.
        stem: file name without extension; unique within the dataset.
        split: ``train``, ``val`` or ``test``.
        image_path: the photograph.
        mask_path: its ground truth, 8-bit, 0 or 255.
        roi_path: region in which pixels count (Stone331's stone surface), or None for all of it.
    """

    dataset: str
    stem: str
    split: str
    image_path: Path
    mask_path: Path
    roi_path: Path | None = None


class ModelOutput(NamedTuple):
    """Output of every model.

    Attributes:
        logits: float (B, 1, H, W), log-odds of crack, at the input's size.
        side_logits: the same from side outputs, one for each scale; empty for most models.
    """

    logits: torch.Tensor
    side_logits: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class CrackPrediction:
    """Result of a model for one photograph.

    Attributes:
        crack_prob: float32 (H, W) in [0, 1], before post-processing.
        crack_mask: bool (H, W), True where the post-processed map is at least ``threshold``.
        threshold: the threshold used, in [0, 1].
        crack_fraction: fraction of crack pixels, in [0, 1].
        crack_length_px: length of the thinned mask in pixels; a diagonal step counts √2.
        score: highest crack probability, in [0, 1].
        confidence: mean over the pixels of the larger of p and 1 - p, in [0.5, 1].
    """

    crack_prob: np.ndarray
    crack_mask: np.ndarray
    threshold: float
    crack_fraction: float
    crack_length_px: float
    score: float
    confidence: float
