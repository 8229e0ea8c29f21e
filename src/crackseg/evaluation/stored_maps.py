"""Count a probability map against its ground truth, for scores, the promotion gate, experiments and figures.

Shape legend: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_mask, read_stored_map, to_probability
from crackseg.errors import CracksegError
from crackseg.evaluation.false_alarms import FalseAlarms
from crackseg.evaluation.metrics import ImageCounts, count_image
from crackseg.geometry.centerlines import LineCounts, count_lines, skeleton_length_px
from crackseg.geometry.postprocessing import postprocess, postprocess_map
from crackseg.params import PostprocessParams
from crackseg.types import CrackSample


@dataclass(frozen=True, eq=False)
class ScoredMap:
    """A probability map next to its ground truth.

    Attributes:
        map_HW: uint8 or uint16, as stored (full scale is 1), or float32 or float64 in [0, 1].
        mask_HW: ground truth, bool, or uint8 {0, 1}.
        roi_HW: region of interest, bool, or uint8 {0, 1}; None for the whole map.
        name: of the map in error messages, e.g. its path.
    """

    map_HW: np.ndarray
    mask_HW: np.ndarray
    roi_HW: np.ndarray | None = None
    name: str = "crack_prob"

    def __post_init__(self) -> None:
        if self.roi_HW is not None and (self.roi_HW.shape != self.mask_HW.shape or not self.roi_HW.any()):
            height, width = self.mask_HW.shape
            raise CracksegError(
                f"{self.name}: the region of interest has {self.roi_HW.shape[1]} x {self.roi_HW.shape[0]} pixels, "
                f"{np.count_nonzero(self.roi_HW)} of them inside; expected a region of the ground truth's size, "
                f"{width} x {height}, that is not empty"
            )

    @classmethod
    def read(cls, map_path: Path, mask_HW: np.ndarray, roi_HW: np.ndarray | None = None) -> ScoredMap:
        """Read a stored map (:func:`crackseg.data.images.files.read_stored_map`), which must have the mask's size."""
        map_HW = read_stored_map(map_path)
        if map_HW.shape != mask_HW.shape:
            raise CracksegError(
                f"{map_path}: the map is {map_HW.shape[1]} x {map_HW.shape[0]} pixels and its ground truth "
                f"{mask_HW.shape[1]} x {mask_HW.shape[0]}; predict at the size of the ground truth"
            )
        return cls(map_HW, mask_HW, roi_HW, str(map_path))

    @cached_property
    def inside_HW(self) -> np.ndarray:
        """Pixels that are counted; bool (H, W)."""
        return np.ones(self.mask_HW.shape, bool) if self.roi_HW is None else self.roi_HW > 0

    @cached_property
    def truth_HW(self) -> np.ndarray:
        """Ground truth inside the region of interest; bool (H, W)."""
        return (self.mask_HW > 0) & self.inside_HW

    @cached_property
    def stretched_HW(self) -> np.ndarray:
        """Map stretched to [0, 1] by its extremes inside the region of interest, and 0 outside; float64 (H, W)."""
        map_HW = self.map_HW.astype(np.float64)
        inside = map_HW if self.roi_HW is None else map_HW[self.inside_HW]
        low, high = float(inside.min()), float(inside.max())
        stretched_HW = (map_HW - low) / ((high - low) or 1.0)
        return stretched_HW if self.roi_HW is None else np.where(self.inside_HW, stretched_HW, 0.0)

    def process(self, postprocessing: PostprocessParams) -> np.ndarray:
        """Post-process the stretched map; float64 (H, W) in [0, 1].

        It is stretched first, as the protocols require: post-processing may remove its maximum.
        """
        return postprocess_map(self.stretched_HW, **postprocessing.model_dump(), name=self.name)

    def count(
        self,
        postprocessing: PostprocessParams | None = None,
        *,
        tolerance_px: int = 2,
        num_thresholds: int = 256,
        processed_HW: np.ndarray | None = None,
    ) -> ImageCounts:
        """Count the pixels of all protocols at all thresholds (:func:`crackseg.evaluation.metrics.count_image`).

        Args:
            postprocessing: applied to the map first; with None, or settings without effect, the stored values are
                compared without rounding.
            processed_HW: result of :meth:`process`, if the caller has it already.
        Raises:
            CracksegError: the shapes differ, the region is empty, or the array is no map.
        """
        if postprocessing is None or not changes_maps(postprocessing):
            processed_HW = None
        elif processed_HW is None:
            processed_HW = self.process(postprocessing)
        return count_image(
            self.map_HW if processed_HW is None else processed_HW,
            self.mask_HW,
            tolerance_px=tolerance_px,
            num_thresholds=num_thresholds,
            min_max=processed_HW is None,
            roi_HW=self.roi_HW,
            name=self.name,
        )

    def mark(self, threshold: float, postprocessing: PostprocessParams) -> np.ndarray:
        """Mark the cracks as a finished model does: at a raw probability, without stretching; bool (H, W).

        Nothing is marked outside the region of interest.
        """
        crack_mask_HW = postprocess(
            to_probability(self.map_HW), threshold=threshold, **postprocessing.model_dump(), name=self.name
        )
        return crack_mask_HW & self.inside_HW

    def count_lines(self, crack_mask_HW: np.ndarray, *, tolerance_px: int) -> LineCounts:
        """Count centre lines and components of a mask from :meth:`mark`."""
        return count_lines(crack_mask_HW, self.truth_HW, tolerance_px=tolerance_px)

    def count_false_alarms(self, crack_mask_HW: np.ndarray) -> FalseAlarms:
        """Count the cracks in a mask from :meth:`mark` if the ground truth has none; all counts are 0 if it has."""
        if self.truth_HW.any():
            return FalseAlarms()
        return FalseAlarms(
            num_crack_free=1,
            num_alarmed=int(crack_mask_HW.any()),
            crack_pixels=int(np.count_nonzero(crack_mask_HW)),
            length_px=skeleton_length_px(crack_mask_HW),
            area_px=int(np.count_nonzero(self.inside_HW)),
        )


def read_scored_map(sample: CrackSample, map_path: Path, *, use_roi: bool) -> ScoredMap:
    """Read a prepared sample's map, its ground truth and its region of interest, each once.

    Raises:
        CracksegError: a file is missing or damaged, or the map is of another size than the ground truth.
    """
    mask_HW = read_mask(sample.mask_path)
    roi_HW = read_mask(sample.roi_path) if use_roi and sample.roi_path else None
    return ScoredMap.read(map_path, mask_HW, roi_HW)


def changes_maps(postprocessing: PostprocessParams) -> bool:
    """Return True if these settings can change a map."""
    return postprocessing.method != "none" or postprocessing.min_length_px > 1
