"""Predict an orthomosaic of any size in constant memory: by rows of tiles on one grid, so there are no seams."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inference.predictor import sigmoid
from crackseg.inspection.mosaic_checks import check_raster
from crackseg.inspection.mosaic_reading import Mosaic, open_raster
from crackseg.inspection.mosaic_rows import KeptRows
from crackseg.progress import progress

NO_DATA = 255  # of the mask: 0 no crack, 1 crack
EDGE_PX = 4  # next to pixels without data nothing counts as a crack: the edge of the data looks like one
_AROUND = np.ones((2 * EDGE_PX + 1, 2 * EDGE_PX + 1), np.uint8)


def check_rows_suffice(analyzer: CrackAnalyzer) -> None:
    """Check that a map can be made in rows.

    Raises:
        CracksegError: the model's post-processing needs the whole map.
    """
    settings = analyzer.settings
    if settings.postprocess.method != "none":
        raise CracksegError(
            f"the model's post-processing ({settings.postprocess.method}) works on whole maps, and a mosaic is "
            "predicted in rows; choose a version without it: --model"
        )


def predict_rows(
    mosaic: Mosaic, analyzer: CrackAnalyzer, num_done: int = 0
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Predict a mosaic from the top to the bottom.

    Tiles lie on a grid over the whole mosaic, and each pixel is the blend of all tiles that cover it, as in
    :class:`crackseg.inference.predictor.Predictor`.

    Args:
        mosaic, analyzer: mosaic and model.
        num_done: rows of tiles at the top that are known and not wanted again; the last of them is predicted again,
            since it reaches into the next one, but not yielded.
    Yields:
        First row, probabilities float32 (h, W), bool (h, W) where there is data, and bool (h, W) where there is data
        all around, ``EDGE_PX`` wide. h is at most the side of a tile.
    """
    settings = analyzer.settings
    side, overlap = settings.predict.tile_size_px, settings.predict.overlap_px
    step = side - overlap
    tops, lefts = (_starts(length, side, overlap) for length in (mosaic.height, mosaic.width))
    row_weights, column_weights = _weights(tops, side, overlap), _weights(lefts, side, overlap)
    padded_width = lefts[-1] + side
    logits_hW = np.zeros((side, padded_width), np.float32)
    above_hW = np.zeros((0, mosaic.width), bool)
    first = max(0, num_done - max(1, math.ceil(overlap / step))) if num_done < len(tops) else len(tops)
    rows = list(zip(range(first, len(tops)), tops[first:], row_weights[first:], strict=True))
    for number, top, row_weight in progress(rows, "predict", "row", total=len(tops), initial=first):
        count = min(side, mosaic.height - top)
        rgb_hW3, valid_hW = mosaic.read_rows(top, count)
        missing = side - count, padded_width - mosaic.width
        rgb_hW3 = np.pad(rgb_hW3, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        wanted = [
            (left, weight)
            for left, weight in zip(lefts, column_weights, strict=True)
            if valid_hW[:, left : left + side].any()
        ]
        tiles = (np.ascontiguousarray(rgb_hW3[:, left : left + side]) for left, _ in wanted)
        predicted = analyzer.predictor.predict_logits_of(tiles)
        for (left, weight), tile_logits in zip(wanted, predicted, strict=True):
            logits_hW[:, left : left + side] += row_weight[:, None] * weight * tile_logits
        done = count if top == tops[-1] else step
        around_hW = cv2.erode(np.concatenate([above_hW, valid_hW]).astype(np.uint8), _AROUND, borderValue=1) > 0
        inner_hW = around_hW[len(above_hW) :][:done]
        above_hW = valid_hW[done - EDGE_PX : done]
        if number >= num_done:
            yield top, sigmoid(logits_hW[:done, : mosaic.width].copy()), valid_hW[:done], inner_hW
        logits_hW = np.concatenate([logits_hW[step:], np.zeros((step, padded_width), np.float32)])


def _starts(length: int, side: int, overlap: int) -> list[int]:
    count = max(1, -(-(length - overlap) // (side - overlap)))
    return [k * (side - overlap) for k in range(count)]


def _weights(starts: list[int], side: int, overlap: int) -> list[np.ndarray]:
    """Return the weights of each tile along one side, float32 (side,), that sum to one at every pixel."""
    ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).clip(max=overlap + 1).astype(np.float64)
    total = np.zeros(starts[-1] + side)
    for start in starts:
        total[start : start + side] += ramp
    return [(ramp / total[start : start + side]).astype(np.float32) for start in starts]


def count_rows(mosaic: Mosaic, analyzer: CrackAnalyzer) -> int:
    """Return the number of rows of tiles."""
    predict = analyzer.settings.predict
    return len(_starts(mosaic.height, predict.tile_size_px, predict.overlap_px))


def predict_into(rows: KeptRows, mosaic: Mosaic, analyzer: CrackAnalyzer, threshold: float) -> None:
    """Predict the rows that are missing, and keep each as soon as it is finished.

    Args:
        rows: gets masks (0, 1 for crack, ``NO_DATA``) and probabilities (255 is 1; 0 where there is no data).
        mosaic, analyzer: see :func:`predict_rows`.
        threshold: crack is where the probability is at least this.
    """
    for _, crack_prob_hW, valid_hW, inner_hW in predict_rows(mosaic, analyzer, len(rows)):
        mask_hW = ((crack_prob_hW >= threshold) & inner_hW).astype(np.uint8)
        mask_hW[~valid_hW] = NO_DATA
        rows.add(mask_hW, np.where(valid_hW, np.rint(255 * crack_prob_hW), 0).astype(np.uint8))


def write_rows(rows: KeptRows, mosaic: Mosaic, mask_path: Path, score_path: Path) -> float:
    """Write masks and probabilities as tiled GeoTIFFs, uint8, of the mosaic's CRS and transform.

    Returns:
        Fraction of the pixels that have data.
    Raises:
        CracksegError: a file is not whole.
    """
    from rasterio.windows import Window

    profile = {
        "driver": "GTiff", "width": mosaic.width, "height": mosaic.height, "count": 1, "dtype": "uint8",
        "crs": mosaic.crs, "transform": mosaic.transform, "tiled": True, "blockxsize": 256, "blockysize": 256,
        "compress": "deflate", "bigtiff": "if_safer",
    }  # fmt: skip
    top = num_valid = mask_crc = score_crc = 0
    with (
        open_raster(mask_path, "w", nodata=NO_DATA, **profile) as mask_file,
        open_raster(score_path, "w", **profile) as score_file,
    ):
        for mask_hW, score_hW in rows.read():
            window = Window(0, top, mosaic.width, len(mask_hW))
            mask_file.write(mask_hW, 1, window=window)
            score_file.write(score_hW, 1, window=window)
            mask_crc, score_crc = zlib.crc32(mask_hW.data, mask_crc), zlib.crc32(score_hW.data, score_crc)
            num_valid += int(np.count_nonzero(mask_hW != NO_DATA))
            top += len(mask_hW)
    check_raster(mask_path, mask_crc)
    check_raster(score_path, score_crc)
    return num_valid / (mosaic.width * mosaic.height)
