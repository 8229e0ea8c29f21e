"""Seconds from the command to the first mask of a folder: `crackseg predict` against a script with a common library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import ROOT, Effort, Row, measure_in_turn
from benchmarks.scenes import write_photographs

_PHOTOGRAPHS = 10
_MOST_S = 300.0
_POLL_S = 0.01


def run(effort: Effort) -> list[Row]:
    """Row ``first-result``."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_photographs(folder / "photographs", _PHOTOGRAPHS)
        ours, peer = measure_in_turn(
            [
                lambda: _wait_for_mask(["-m", "crackseg", "predict", "photographs", "--model", "scenes"], folder),
                lambda: _wait_for_mask(["-m", "benchmarks.first_result", "photographs"], folder),
            ],
            repeats=effort.pick(3, 1),
            warm_up=not effort.quick,  # reads the libraries from the disk
        )
    note = f"a process each, {_PHOTOGRAPHS} photographs of 2 MP; the peer has random weights and writes masks only"
    return [Row("first-result", ours, peer, "segmentation-models-pytorch, U-Net-ResNet18", "s", note)]


def _wait_for_mask(command: Sequence[str], folder: Path) -> None:
    """Start a command, wait until it has written a mask, and stop it."""
    out_dir = folder / "out"
    shutil.rmtree(out_dir, ignore_errors=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "CRACKSEG_QUIET": "1",
    }
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *command, "--out", str(out_dir)], cwd=folder, env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            while not any((out_dir / "masks").rglob("*.png")):
                if process.poll() is not None or time.monotonic() - started > _MOST_S:
                    raise RuntimeError(f"{' '.join(command)} wrote no mask within {_MOST_S:g} s")
                time.sleep(_POLL_S)
        finally:
            process.terminate()


def _predict_plainly(photographs: Path, out_dir: Path) -> None:
    """Do what a tutorial of the library does: read, scale, pad, predict, threshold, write."""
    import cv2
    import segmentation_models_pytorch as smp
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=1).eval()
    (out_dir / "masks").mkdir(parents=True)
    for path in sorted(photographs.iterdir()):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        batch = F.pad(batch, (0, -width % 32, 0, -height % 32), mode="replicate")
        with torch.inference_mode():
            mask = network(batch)[0, 0, :height, :width] > 0
        cv2.imwrite(str(out_dir / "masks" / f"{path.stem}.png"), mask.numpy().astype("uint8") * 255)


if __name__ == "__main__":
    _predict_plainly(Path(sys.argv[1]), Path(sys.argv[3]))
