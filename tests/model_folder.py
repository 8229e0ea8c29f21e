"""A finished model as a folder, without training: what a downloaded version holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from crackseg.data.images.files import encode_png
from crackseg.files import write_bytes
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, ModelSettings, ReferenceStatistics
from crackseg.models import build_model
from crackseg.models.weights_file import save_weights
from crackseg.params import PostprocessParams, PredictParams
from crackseg.registry.package import PROBE_NAME


def write_model_folder(folder: Path, spec: dict[str, Any], *, num_images: int = 2, seed: int = 0) -> Path:
    """Write random weights of a small network, settings, and a probe of random images; returns the folder."""
    torch.manual_seed(seed)
    save_weights(folder / WEIGHTS_NAME, build_model(**spec), spec=spec, extra={})
    settings = ModelSettings(
        operating_threshold=0.25,
        predict=PredictParams(tile_size_px=64, overlap_px=8, batch_size=2),
        postprocess=PostprocessParams(method="none", low_ratio=0.6, max_gap_px=10, min_length_px=0, floor=0.25),
        reference=ReferenceStatistics(
            num_images=1,
            brightness=(0.5,),
            contrast=(0.1,),
            sharpness=(1.0,),
            crack_fraction=(0.1,),
            confidence=(0.9,),
        ),
        data_source="sample",
        dataset="CrackTree260",
        run_id="0" * 32,
    )
    write_bytes(folder / SETTINGS_NAME, settings.to_json().encode())
    random = np.random.default_rng(0)
    for i in range(num_images):
        image_HW3 = random.integers(0, 256, (80, 96, 3), dtype=np.uint8)
        write_bytes(folder / PROBE_NAME / "images" / f"{i}.png", encode_png(image_HW3))
    return folder
