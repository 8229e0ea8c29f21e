"""A finished model small enough for a test: an untrained U-Net of width 4, with settings, statistics and a probe."""

from __future__ import annotations

from pathlib import Path

from crackseg.files import write_bytes
from crackseg.inference.detector import CrackAnalyzer
from crackseg.models.weights_file import save_weights
from crackseg.params import PostprocessParams
from crackseg.registry.package import build_analyzer, write_probe
from tests.tiny_training import make_network, make_samples

NO_POSTPROCESSING = PostprocessParams(method="none", low_ratio=0.6, max_gap_px=10, min_length_px=0, floor=0.25)
EXTRA = {
    "operating_threshold": 0.5,
    "predict": {"tile_size_px": 64, "overlap_px": 16, "batch_size": 2},
    "run_id": "0" * 32,
    "data_source": "sample",
}


def make_model(folder: Path, postprocessing: PostprocessParams = NO_POSTPROCESSING) -> CrackAnalyzer:
    """Write ``weights.pt``, ``settings.json`` and ``probe`` into the folder, as a version carries them."""
    weights_path = folder / "weights.pt"
    save_weights(weights_path, make_network(3), spec={"architecture": "unet", "width": 4}, extra=EXTRA)
    train, val = make_samples(folder / "samples")
    analyzer = build_analyzer(
        weights_path, train, val, postprocessing, dataset="tiny", device="cpu", precision="float32"
    )
    write_bytes(folder / "settings.json", analyzer.settings.to_json().encode())
    write_probe(folder / "probe", analyzer, val)
    return analyzer
