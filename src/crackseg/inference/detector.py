"""Find the cracks of a photograph with a finished model: from pixels to a crack mask and its values.

Used by the registered model, by ``crackseg predict`` and by the probe that checks a version, so that all give the same
result.

Shape legend: H, W the photograph.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crackseg.errors import CracksegError
from crackseg.geometry.centerlines import skeleton_length_px
from crackseg.geometry.postprocessing import postprocess
from crackseg.inference.predictor import Predictor, build_predictor
from crackseg.models.weights_file import load_network
from crackseg.params import PostprocessParams, PredictParams
from crackseg.types import CrackPrediction

WEIGHTS_NAME = "weights.pt"
SETTINGS_NAME = "settings.json"
_BAND = 512  # rows measured at a time: there is no memory for copies of a map of a hundred megapixels


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReferenceStatistics(_Record):
    """Statistics of the photographs that a model was made with, one value each; see crackseg.inference.drift."""

    num_images: int
    """Number of training images that were measured."""
    brightness: tuple[float, ...]
    """Of training images."""
    contrast: tuple[float, ...]
    """Of training images."""
    sharpness: tuple[float, ...]
    """Of training images."""
    crack_fraction: tuple[float, ...]
    """Predicted on validation images: on its training images a model is better and more confident than elsewhere."""
    confidence: tuple[float, ...]
    """Predicted on validation images."""


class ModelSettings(_Record):
    """Settings stored with the weights of a finished model: ``settings.json``."""

    format: Literal[1] = 1
    operating_threshold: Annotated[float, Field(ge=0, le=1)]
    """Lowest value of the post-processed map that is crack; raw probability, chosen on validation images."""
    predict: PredictParams
    """Settings of the tiles."""
    postprocess: PostprocessParams
    """Post-processing of a map before its threshold."""
    reference: ReferenceStatistics
    """Statistics of the photographs it was made with."""
    data_source: str
    """``sample`` or ``imported``."""
    dataset: str
    """Training dataset."""
    run_id: str
    """MLflow run of the training."""

    def to_json(self) -> str:
        """Return the content of ``settings.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> ModelSettings:
        """Read a ``settings.json``.

        Raises:
            CracksegError: it is missing, damaged, or of a newer version of crackseg.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CracksegError(
                f"{path}: cannot be read ({error.strerror}); a model has {WEIGHTS_NAME} and {SETTINGS_NAME}"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise CracksegError(
                f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}; it is damaged, or of "
                "another version of crackseg: register the model again with `dvc repro register`"
            ) from error


class CrackAnalyzer:
    """A finished model: weights, operating threshold, tiles and post-processing.

    Args:
        predictor: with the model's weights and tiles.
        settings: of the model.
    """

    def __init__(self, predictor: Predictor, settings: ModelSettings) -> None:
        self.predictor = predictor
        self.settings = settings

    @classmethod
    def load(
        cls, weights_path: Path, settings_path: Path, *, device: str = "auto", precision: str = "auto"
    ) -> CrackAnalyzer:
        """Load a model from its two files.

        Args:
            device, precision: as ``train.device`` and ``train.precision``.
        Raises:
            CracksegError: a file is missing or damaged, or the device is not available.
        """
        settings = ModelSettings.read(settings_path)
        network, _ = load_network(weights_path)
        return cls(build_predictor(network, settings.predict, device=device, precision=precision), settings)

    def analyze(self, image_HW3: np.ndarray, *, threshold: float | None = None) -> CrackPrediction:
        """Find the cracks of one photograph of any size.

        Args:
            image_HW3: uint8 (H, W, 3), RGB, upright.
            threshold: in [0, 1], for the post-processed map; None takes the operating threshold.
        Raises:
            CracksegError: the array is no photograph, or the threshold is not in [0, 1].
        """
        if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or not image_HW3.size:
            raise CracksegError(
                f"expected a photograph as uint8 (H, W, 3), RGB; got {image_HW3.dtype} {image_HW3.shape}"
            )
        threshold = self._check_threshold(threshold)  # before the network takes its time
        return self.describe_map(self.predictor.predict_prob(image_HW3), threshold=threshold)

    def describe_map(self, crack_prob_HW: np.ndarray, *, threshold: float | None = None) -> CrackPrediction:
        """Do the second part of :meth:`analyze`, for a map from ``predictor``, without the photograph."""
        threshold = self._check_threshold(threshold)
        crack_mask_HW = postprocess(crack_prob_HW, threshold=threshold, **self.settings.postprocess.model_dump())
        return CrackPrediction(
            crack_prob=crack_prob_HW,
            crack_mask=crack_mask_HW,
            threshold=threshold,
            crack_fraction=float(np.count_nonzero(crack_mask_HW) / crack_mask_HW.size),
            crack_length_px=skeleton_length_px(crack_mask_HW),
            score=float(crack_prob_HW.max()),
            confidence=measure_confidence(crack_prob_HW),
        )

    def _check_threshold(self, threshold: float | None) -> float:
        if threshold is None:
            return self.settings.operating_threshold
        if not 0 <= threshold <= 1:  # true for NaN, too
            raise CracksegError(f"threshold is {threshold}; expected a probability in [0, 1]")
        return threshold


def measure_confidence(crack_prob_HW: np.ndarray) -> float:
    """Measure the confidence of a map: the mean over its pixels of the larger of p and 1 - p, in [0.5, 1].

    Args:
        crack_prob_HW: float (H, W) in [0, 1], not post-processed.
    """
    total = 0.0
    for start in range(0, crack_prob_HW.shape[0], _BAND):
        band = crack_prob_HW[start : start + _BAND]
        total += float(np.maximum(band, 1 - band).sum(dtype=np.float64))
    return total / crack_prob_HW.size
