"""A small drawn orthomosaic of known geometry, and a stand-in for a model that finds its dark pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rasterio.transform import Affine

from crackseg.geometry.severity import OF_CONCRETE
from crackseg.inspection.mosaic_files import MosaicSummary, inspect_mosaic
from crackseg.inspection.mosaic_reading import Mosaic, open_raster
from crackseg.params import PostprocessParams, PredictParams

ENDS = np.array([[60.0, 80.0], [560.0, 680.0]])  # pixel centres of the crack's ends
SIZE = (640, 760)  # width, height


@dataclass
class DarkIsCrack:
    """Stands for a model: a dark pixel is a crack. It keeps the tiles that it was asked for."""

    tiles: list[np.ndarray] = field(default_factory=list)

    def predict_logits_of(self, tiles: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for tile in tiles:
            self.tiles.append(tile)
            yield np.where(tile.mean(axis=2) < 80, np.float32(4), np.float32(-4))


@dataclass
class Settings:
    predict: PredictParams
    postprocess: PostprocessParams


@dataclass
class Analyzer:
    predictor: DarkIsCrack
    settings: Settings


def make_analyzer(*, method: str = "none", min_length_px: int = 0) -> Any:
    post = {"method": method, "low_ratio": 0.6, "max_gap_px": 10, "min_length_px": min_length_px, "floor": 0.25}
    predict = PredictParams(tile_size_px=256, overlap_px=32, batch_size=1)
    return Analyzer(DarkIsCrack(), Settings(predict, PostprocessParams.model_validate(post)))


def draw_deck() -> np.ndarray:
    """Light concrete with one crack of 5 px and a speck, uint8 (3, H, W)."""
    deck = np.full((SIZE[1], SIZE[0]), 190, np.uint8)
    cv2.line(deck, ENDS[0].astype(int).tolist(), ENDS[1].astype(int).tolist(), 20, 5)
    deck[20:24, 600:606] = 20
    return np.stack([deck] * 3)


def write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    with open_raster(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, **profile,
    ) as file:  # fmt: skip
        file.write(values)
    return path


def inspect(path: Path, out: Path, analyzer: Any = None, **options: Any) -> MosaicSummary:
    settings = {
        "name": path.stem, "model": "dark", "threshold": 0.5, "grading": OF_CONCRETE, "scale": None,
        "min_length_px": 20.0,
    } | options  # fmt: skip
    with Mosaic(path, settings.pop("bands", None)) as mosaic:
        return inspect_mosaic(mosaic, analyzer or make_analyzer(), out, **settings)


PLACES = {
    "metres": ("EPSG:32632", Affine.translation(465000, 5247000) @ Affine.scale(0.002, -0.002)),
    "rotated": (
        "EPSG:32632",
        Affine.translation(465000, 5247000) @ Affine.rotation(31) @ Affine.scale(0.002, -0.0017),
    ),
    "degrees": ("EPSG:4326", Affine.translation(8.5, 60.0) @ Affine.scale(4e-8, -2e-8)),
    "US feet": ("EPSG:2263", Affine.translation(984000, 203000) @ Affine.scale(0.01, -0.01)),
    "web map": ("EPSG:3857", Affine.translation(946000, 8400000) @ Affine.scale(0.004, -0.004)),
}
