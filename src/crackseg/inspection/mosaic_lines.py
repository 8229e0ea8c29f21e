"""Measure the cracks in the mask of an orthomosaic one by one: found in rows, joined across them, read back alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crackseg.geometry.components import Crack, measure_mask
from crackseg.geometry.report import Report, grade_values, measured_values
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import Grading, grade_crack
from crackseg.inspection.mosaic_checks import check_erased
from crackseg.inspection.mosaic_reading import Mosaic, open_raster
from crackseg.progress import progress

_ROWS = 512
_MOST_PX = 64_000_000  # of a crack's bounding box; what is larger is measured in parts


@dataclass(frozen=True, slots=True)
class MosaicCrack:
    """A crack of a mosaic: its lines as pixel centres of the mosaic, float (N, 2), and its values."""

    lines: tuple[np.ndarray, ...]
    values: Report


@dataclass(slots=True)
class _Piece:
    left: int
    top: int
    right: int
    bottom: int
    seed: tuple[int, int]  # x, y of one of its pixels

    def joined(self, other: _Piece) -> _Piece:
        return _Piece(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            self.seed,
        )

    @property
    def size_px(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


def measure_mosaic(
    mosaic: Mosaic,
    mask_path: Path,
    score_path: Path,
    grading: Grading,
    *,
    scale: Scale | None,
    scale_error: float,
    min_length_px: float,
    min_side_px: int = 0,
) -> Iterator[MosaicCrack]:
    """Measure all cracks of a mosaic.

    Args:
        mosaic: for lengths on the ground.
        mask_path, score_path: of :func:`crackseg.inspection.mosaic_prediction.write_prediction`.
        grading: rules for kinds and width classes.
        scale: for a mosaic without ground; else None.
        scale_error: standard uncertainty of the ground sample distance, as a fraction of it.
        min_length_px: shorter cracks are left out.
        min_side_px: components whose bounding box has a shorter longer side are erased from the mask, as the model's
            post-processing does.
    """
    from rasterio.windows import Window

    erased: list[tuple[Window, np.ndarray]] = []
    with open_raster(mask_path, "r+") as mask_file, open_raster(score_path) as score_file:
        pieces = _find_pieces(mask_file, mosaic)
        number = 0
        for piece in progress(pieces, "measure", "crack"):
            width, height = piece.right - piece.left, piece.bottom - piece.top
            window = Window(piece.left, piece.top, width, height)
            mask_hw = mask_file.read(1, window=window)
            _, label_hw = cv2.connectedComponents((mask_hw == 1).astype(np.uint8))
            own_hw = label_hw == label_hw[piece.seed[1] - piece.top, piece.seed[0] - piece.left]
            if max(width, height) < min_side_px:
                mask_file.write(np.where(own_hw, np.uint8(0), mask_hw), 1, window=window)
                erased.append((window, own_hw))
                continue
            if width + height < min_length_px:
                continue
            (crack,) = measure_mask(np.pad(own_hw, 1)).cracks
            if crack.length_px < min_length_px:
                continue
            number += 1
            corner = np.array([piece.left - 1, piece.top - 1])
            lines = tuple(branch.line.points + corner for branch in crack.branches)
            score = float(score_file.read(1, window=window)[own_hw].max()) / 255
            values = _describe(mosaic, crack, lines, grading, scale, scale_error)
            yield MosaicCrack(lines, {"number": number, "score": round(score, 3)} | values)
    check_erased(mask_path, erased)


def _describe(
    mosaic: Mosaic,
    crack: Crack,
    lines: tuple[np.ndarray, ...],
    grading: Grading,
    scale: Scale | None,
    scale_error: float,
) -> Report:
    if scale is None and mosaic.has_ground:
        # Widths by the ground sample distance at the crack, lengths along its lines.
        scale = Scale(mosaic.mm_per_px(lines[0][len(lines[0]) // 2]), scale_error)
        length_mm = 1000 * sum(mosaic.length_m(line) for line in lines)
    else:
        length_mm = None
    values = measured_values(crack, scale) | grade_values(grade_crack(crack, grading, scale))
    if length_mm is not None:
        values["length_mm"] = round(length_mm, 3)
    values["mm_per_px"] = None if scale is None else round(scale.mm_per_px, 6)
    return values


def _find_pieces(mask_file: Any, mosaic: Mosaic) -> list[_Piece]:
    """Find the connected components of a mask by rows; those that touch across two rows are one."""
    from rasterio.windows import Window

    pieces: list[_Piece] = []
    parents: list[int] = []

    def root(k: int) -> int:
        while parents[k] != k:
            parents[k] = parents[parents[k]]
            k = parents[k]
        return k

    last = np.full(mask_file.width, -1)
    for top in range(0, mask_file.height, _ROWS):
        count = min(_ROWS, mask_file.height - top)
        mask_hW = (mask_file.read(1, window=Window(0, top, mask_file.width, count)) == 1).astype(np.uint8)
        num, label_hW, stats, _ = cv2.connectedComponentsWithStats(mask_hW, connectivity=8)
        base = len(pieces) - 1  # label 1 is the next piece
        first_of = np.zeros(num, np.int64)
        places = np.flatnonzero(label_hW)[::-1]
        first_of[label_hW.ravel()[places]] = places
        for k in range(1, num):
            left, above, width, height = (int(v) for v in stats[k, :4])
            y, x = divmod(int(first_of[k]), mask_file.width)
            pieces.append(_Piece(left, top + above, left + width, top + above + height, (x, top + y)))
            parents.append(len(parents))
        here = np.where(label_hW[0] > 0, label_hW[0] + base, -1)
        for shift in (-1, 0, 1):
            moved = np.full_like(last, -1)
            moved[max(0, shift) : len(last) + min(0, shift)] = last[max(0, -shift) : len(last) - max(0, shift)]
            touching = (here >= 0) & (moved >= 0)
            for one, other in set(zip(here[touching].tolist(), moved[touching].tolist(), strict=True)):
                first, second = root(one), root(other)
                if first == second:
                    continue
                whole = pieces[second].joined(pieces[first])
                if whole.size_px > _MOST_PX:
                    mosaic.remarks.append(
                        f"a crack over {whole.size_px:,} pixels is measured in parts, at row {top}"
                    )
                    continue
                parents[first], pieces[second] = second, whole
        last = np.where(label_hW[-1] > 0, label_hW[-1] + base, -1)
    return [pieces[k] for k in range(len(pieces)) if root(k) == k]
