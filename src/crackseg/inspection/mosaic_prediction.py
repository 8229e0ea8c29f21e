"""Predict an orthomosaic of any size in constant memory: by rows of tiles on one grid, so there are no seams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inference.predictor import sigmoid
from crackseg.inspection.mosaic_reading import Mosaic
from crackseg.progress import progress

NO_DATA = 255  # of the mask: 0 no crack, 1 crack
EDGE_PX = 4  # next to pixels without data nothing counts as a crack: the edge of the data looks like one
_AROUND = np.ones((2 * EDGE_PX + 1, 2 * EDGE_PX + 1), np.uint8)


def predict_rows(
    mosaic: Mosaic, analyzer: CrackAnalyzer
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Predict a mosaic from the top to the bottom.

    Tiles lie on a grid over the whole mosaic, and each pixel is the blend of all tiles that cover it, as in
    :class:`crackseg.inference.predictor.Predictor`.

    Yields:
        First row, probabilities float32 (h, W), bool (h, W) where there is data, and bool (h, W) where there is data
        all around, ``EDGE_PX`` wide. h is at most the side of a tile.
    Raises:
        CracksegError: the model's post-processing needs the whole map.
    """
    settings = analyzer.settings
    if settings.postprocess.method != "none":
        raise CracksegError(
            f"the model's post-processing ({settings.postprocess.method}) works on whole maps, and a mosaic is "
            "predicted in rows; choose a version without it: --model"
        )
    side, overlap = settings.predict.tile_size_px, settings.predict.overlap_px
    step = side - overlap
    tops, lefts = (_starts(length, side, overlap) for length in (mosaic.height, mosaic.width))
    row_weights, column_weights = _weights(tops, side, overlap), _weights(lefts, side, overlap)
    padded_width = lefts[-1] + side
    logits_hW = np.zeros((side, padded_width), np.float32)
    above_hW = np.zeros((0, mosaic.width), bool)
    for top, row_weight in zip(progress(tops, "predict", "row"), row_weights, strict=True):
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


def write_prediction(
    mosaic: Mosaic, analyzer: CrackAnalyzer, threshold: float, mask_path: Path, score_path: Path
) -> float:
    """Write mask and probabilities of a mosaic as tiled GeoTIFFs of its CRS and transform.

    Args:
        mosaic, analyzer: see :func:`predict_rows`.
        threshold: crack is where the probability is at least this.
        mask_path: uint8; 0, 1 for crack, ``NO_DATA``.
        score_path: uint8; 255 is probability 1; 0 where there is no data.
    Returns:
        Fraction of the pixels that have data.
    """
    import rasterio
    from rasterio.windows import Window

    profile = {
        "driver": "GTiff", "width": mosaic.width, "height": mosaic.height, "count": 1, "dtype": "uint8",
        "crs": mosaic.crs, "transform": mosaic.transform, "tiled": True, "blockxsize": 256, "blockysize": 256,
        "compress": "deflate", "bigtiff": "if_safer",
    }  # fmt: skip
    num_valid = 0
    with (
        rasterio.open(mask_path, "w", nodata=NO_DATA, **profile) as mask_file,
        rasterio.open(score_path, "w", **profile) as score_file,
    ):
        for top, crack_prob_hW, valid_hW, inner_hW in predict_rows(mosaic, analyzer):
            mask_hW = ((crack_prob_hW >= threshold) & inner_hW).astype(np.uint8)
            mask_hW[~valid_hW] = NO_DATA
            score_hW = np.where(valid_hW, np.rint(255 * crack_prob_hW), 0).astype(np.uint8)
            window = Window(0, top, mosaic.width, len(mask_hW))
            mask_file.write(mask_hW, 1, window=window)
            score_file.write(score_hW, 1, window=window)
            num_valid += int(np.count_nonzero(valid_hW))
    return num_valid / (mosaic.width * mosaic.height)
