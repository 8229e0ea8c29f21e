"""A folder of photographs through `crackseg predict`'s own function, against a plain loop around the same network."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import Effort, Row
from benchmarks.scenes import write_photographs
from crackseg.data.image_files import find_photographs
from crackseg.inference.files import predict_files
from crackseg.models.shipped import SHIPPED_NAME, SHIPPED_WEIGHTS
from crackseg.models.weights_file import load_network
from crackseg.registry.loading import LoadedModel, load_model

_MOST_DIFFERENT = 1e-3  # of the pixels of a mask
_MULTIPLE = 16  # of the network's input


def run(effort: Effort) -> list[Row]:
    """Row ``predict-folder``."""
    return [compare(effort.pick(200, 12), effort.pick(20, 4))]


def compare(num_photographs: int, num_plain: int, size: tuple[int, int] = (1600, 1200)) -> Row:
    """Time both sides, the plain loop in two parts around ours.

    Args:
        num_photographs: of ours.
        num_plain: of the plain loop, whose time for a photograph is always the same.
        size: (width, height) of a photograph in pixels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = write_photographs(folder / "photographs", num_photographs, size)
        model = load_model(SHIPPED_NAME, None)
        half = num_plain // 2
        plain_s = _predict_plainly(model, paths[:half], folder / "plain")
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):  # the bar
            predict_files(
                model.analyzer,
                find_photographs([str(folder / "photographs")], folder / "out"),
                folder / "out",
                model=model.digest,
                overlays=False,
            )
        ours_s = time.perf_counter() - started
        plain_s += _predict_plainly(model, paths[half:num_plain], folder / "plain")
        different = max(
            float((_read(folder / "plain" / name) != _read(folder / "out" / "masks" / name)).mean())
            for name in [f"{path.stem}.png" for path in paths[:num_plain]]
        )
    assert different <= _MOST_DIFFERENT, f"masks differ in {different:.2%} of the pixels"
    note = (
        f"{num_photographs} photographs, {num_plain} of them by the loop; ours measures, too, and used "
        f"{model.analyzer.predictor.plan}; masks differ in {100 * different:.3f} % of the pixels"
    )
    return Row(
        "predict-folder", ours_s / num_photographs, plain_s / num_plain, "plain torch loop", "s/photograph", note
    )


def _predict_plainly(model: LoadedModel, paths: list[Path], out_dir: Path) -> float:
    """Read, predict as a whole in eager float32, threshold, remove short components, write; returns seconds."""
    settings = model.analyzer.settings
    network = load_network(SHIPPED_WEIGHTS)[0].eval()
    out_dir.mkdir(exist_ok=True)
    started = time.perf_counter()
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        batch = F.pad(batch, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate")
        with torch.inference_mode():
            prob = network(batch).logits[0, 0, :height, :width].sigmoid()
        mask = (prob >= settings.operating_threshold).numpy().astype(np.uint8)
        mask = _remove_short(mask, settings.postprocess.min_length_px)
        cv2.imwrite(str(out_dir / f"{path.stem}.png"), mask * 255)
    return time.perf_counter() - started


def _remove_short(mask: np.ndarray, min_length_px: int) -> np.ndarray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sides = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    keeps = sides >= min_length_px
    keeps[0] = False
    return keeps[labels].astype(np.uint8)


def _read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
