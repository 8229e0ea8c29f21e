"""A photograph of 8,192² in tiles: time per megapixel against a single tile, and peak memory against no tiles."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from benchmarks.inference import make_network
from benchmarks.measure import Effort, Row, peak_memory_mb, run_apart
from benchmarks.scenes import draw_pair
from crackseg.inference.predictor import Predictor, build_predictor, fit_side, tile_windows
from crackseg.models.unet import UNet
from crackseg.params import PredictParams

_TILE_PX, _OVERLAP_PX = 512, 32  # as in the presets; the sides fit the photograph, see fit_side
_UNTILED_PX = 2048
_MOST_GB = 2.0


def run(effort: Effort) -> list[Row]:
    """Rows ``tiled``, ``tiled-pixels`` and ``tiled-memory``, of the U-Net."""
    side = effort.pick(8192, _UNTILED_PX)
    found = run_apart("tiled", side, _TILE_PX)
    whole = run_apart("tiled", _UNTILED_PX, _UNTILED_PX)
    small = found if side == _UNTILED_PX else run_apart("tiled", _UNTILED_PX, _TILE_PX)
    assert found["finite"], "a pixel of the map is no number"
    fitted = fit_side(side, _TILE_PX, _OVERLAP_PX, UNet.size_multiple)
    count = len(tile_windows(side, fitted, _OVERLAP_PX, UNet.size_multiple)) ** 2
    megapixels, tile_megapixels = side**2 / 1e6, _TILE_PX**2 / 1e6
    work = count * fitted**2 / 1e6
    ideal_s = found["tile_s"] / tile_megapixels * work
    note = (
        f"{side:,}², {count} tiles of {fitted}² that overlap by {_OVERLAP_PX} px or more; ideal: their pixels at the "
        f"speed of a single tile of {_TILE_PX}²"
    )
    pixels_note = "the same by the photograph's own megapixels: what overlaps is computed twice"
    whole_note = f"ours {found['peak_gb']:.2f} GB at {side:,}² (asked: < {_MOST_GB:g}); the row: {_UNTILED_PX:,}²"
    return [
        Row(
            "tiled",
            found["seconds"] / work,
            ideal_s / work,
            "single tiles",
            "s/megapixel",
            note,
            target=0.85,
        ),
        Row(
            "tiled-pixels",
            found["seconds"] / megapixels,
            found["tile_s"] / tile_megapixels,
            "a single tile",
            "s/megapixel",
            pixels_note,
            target=0.85,
        ),
        Row("tiled-memory", small["peak_gb"], whole["peak_gb"], f"untiled {_UNTILED_PX:,}²", "GB", whole_note),
    ]


def _measure(side: int, tile_px: int) -> dict[str, float]:
    params = PredictParams(tile_size_px=tile_px, overlap_px=_OVERLAP_PX, batch_size=1, fit_tiles=True)
    predictor = build_predictor(make_network("unet"), params, device="auto", precision="float32")
    part, _ = draw_pair(0)
    photograph = np.tile(part, (side // 512, side // 512, 1))
    alone = tile_px < side
    tiles = _time_tiles(predictor, part)[1:] if alone else []  # the first one allocates
    start = time.perf_counter()
    prob = predictor.predict_prob(photograph)
    seconds = time.perf_counter() - start
    tiles += _time_tiles(predictor, part) if alone else []
    tile_s = float(np.median(tiles)) if tiles else seconds
    peak_gb = peak_memory_mb() / 1e3
    return {"seconds": seconds, "tile_s": tile_s, "peak_gb": peak_gb, "finite": bool(np.isfinite(prob).all())}


def _time_tiles(predictor: Predictor, part: np.ndarray) -> list[float]:
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        predictor.predict_prob(part)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), int(sys.argv[2]))))
