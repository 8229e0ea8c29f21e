"""Inspection of one photograph: the model predicts it once; other thresholds use the stored map.

Shape legend: H, W the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crackseg.data.images.files import decode_photograph, write_probability_map
from crackseg.errors import CracksegError
from crackseg.geometry.postprocessing import postprocess_map
from crackseg.inference.detector import CrackAnalyzer, measure_confidence
from crackseg.inference.drift import Unusual, find_unusual, measure_photograph, warn_of_use
from crackseg.serving.page.pictures import encode_heat, encode_view

THRESHOLD_STEP = 0.001  # of the page's slider
_VIEW_NAME, _HEAT_NAME = "view.jpg", "heat.jpg"


@dataclass(frozen=True, slots=True)
class Inspection:
    """A photograph and its prediction.

    Attributes:
        name: of its file.
        image_path: the file.
        map_path: the post-processed map, a float ``.npy`` (H, W); the cracks at a threshold are this map at that
            threshold, whatever the post-processing (:func:`crackseg.geometry.postprocessing.postprocess_map`).
        operating_threshold: the model's own.
        values: of the photograph, named as in :mod:`crackseg.inference.drift`, at the model's own threshold.
        unusual: values in which it is unlike the training photographs.
        warning: that the model must not be used, or that the photograph is unlike the training ones; for the tables.
        remark: how the photograph was converted when it was read; "" if it was not.
    """

    name: str
    image_path: Path
    map_path: Path
    operating_threshold: float
    values: dict[str, float]
    unusual: tuple[Unusual, ...]
    warning: str = ""
    remark: str = ""

    @property
    def size_px(self) -> tuple[int, int]:
        """Return width and height of the photograph."""
        height, width = np.load(self.map_path, mmap_mode="r").shape
        return width, height

    @property
    def probability_path(self) -> Path:
        """Return the file of the probabilities before post-processing, as ``crackseg predict --maps`` writes it."""
        return self.map_path.with_suffix(".png")

    @property
    def view_path(self) -> Path:
        """Return the file of the reduced photograph, see :mod:`crackseg.serving.page.pictures`."""
        return self.map_path.with_name(_VIEW_NAME)

    @property
    def heat_path(self) -> Path:
        """Return the file of the coloured probabilities."""
        return self.map_path.with_name(_HEAT_NAME)

    def exact_threshold(self, slider_value: float) -> float:
        """Return the threshold that a value of the slider means.

        The slider has steps; where it stands at the model's own threshold it means exactly that one, so that the page
        shows what ``crackseg predict`` writes.
        """
        nearest = abs(slider_value - self.operating_threshold) <= THRESHOLD_STEP / 2
        return self.operating_threshold if nearest else slider_value

    def find_cracks(self, threshold: float) -> np.ndarray:
        """Return the crack mask at a threshold in [0, 1]; bool (H, W)."""
        return np.load(self.map_path, mmap_mode="r") >= threshold


def inspect_photograph(analyzer: CrackAnalyzer, image_path: Path, map_path: Path) -> Inspection:
    """Decode a photograph, predict it and store its map and pictures: thousands of photographs take little memory.

    Args:
        analyzer: the model.
        image_path: any file.
        map_path: where the map goes, alone in its folder; next to it come the probabilities and the pictures.
    Raises:
        CracksegError: the file is no photograph that can be read, or the model refuses it.
    """
    name = image_path.name
    try:
        content = image_path.read_bytes()
    except OSError as error:
        raise CracksegError(f"{name}: cannot be read ({error.strerror}); drop it again") from error
    photograph = decode_photograph(content, name=name)
    image_HW3 = photograph.image_HW3
    values = measure_photograph(image_HW3)
    try:
        crack_prob_HW = analyzer.predictor.predict_prob(image_HW3)
    except CracksegError as error:
        raise CracksegError(f"{name}: {error}") from error
    settings = analyzer.settings
    kept_HW = postprocess_map(crack_prob_HW, **settings.postprocess.model_dump())
    np.save(map_path, kept_HW)
    write_probability_map(map_path.with_suffix(".png"), crack_prob_HW)
    map_path.with_name(_VIEW_NAME).write_bytes(encode_view(image_HW3))
    map_path.with_name(_HEAT_NAME).write_bytes(encode_heat(crack_prob_HW))
    values["crack_fraction"] = float((kept_HW >= settings.operating_threshold).mean())
    values["confidence"] = measure_confidence(crack_prob_HW)
    return Inspection(
        name=name,
        image_path=image_path,
        map_path=map_path,
        operating_threshold=settings.operating_threshold,
        values=values,
        unusual=tuple(find_unusual(settings.reference, values)),
        warning=" ".join(warn_of_use(settings, [values])),
        remark=photograph.remark,
    )
