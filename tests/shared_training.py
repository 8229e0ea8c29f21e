"""Trainings that two processes share; tests start this file once for each process, and compare with one alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from crackseg.child_processes import end_quickly
from crackseg.data.pixel_cache import PairReader
from crackseg.inference.predictor import Predictor
from crackseg.models import build_model
from crackseg.training.distributed.processes import ALONE, Processes, joined
from crackseg.training.loop import fit, validate
from crackseg.training.losses import build_loss
from tests.tiny_training import list_samples, make_network, make_recipe
from tests.warm_commands import warm_python

Curve = list[list[float]]
# Settings, and what is special about them: 8 patches give a last batch of 2, of 1 (one process has no share of it), and
# batches in parts. The U-Net has batch normalisation, the others have none; AdamW would make full steps of the rounding
# in its smallest gradients.
CASES: dict[str, dict[str, Any]] = {
    "batch norm": {
        "loss": "focal",
        "architecture": "unet",
        "train": {"batch_size": 3},
        "optimizer": {"name": "sgd", "lr": 0.05},
    },
    "batch norm, averaged": {
        "loss": "focal",
        "architecture": "unet",
        "train": {"batch_size": 3, "ema_decay": 0.8, "flip_agreement": 1.0, "keep_initial": 0.3},
        "optimizer": {"name": "sgd", "lr": 0.05},
    },
    "focal": {"loss": "focal", "train": {"batch_size": 3}},
    "last batch of one": {
        "loss": "focal",
        "train": {"batch_size": 7, "ema_decay": 0.8, "flip_agreement": 1.0},
    },
    "bce_soft_f": {"loss": "bce_soft_f", "train": {"batch_size": 3}},
    "bce_soft_f, last batch of one": {"loss": "bce_soft_f", "train": {"batch_size": 7}},
    "bce in parts": {
        "loss": "bce",
        "train": {"batch_size": 7, "accumulate": 3, "ema_decay": 0.8, "flip_agreement": 1.0},
    },
}


def train_case(name: str, pairs_dir: Path, checkpoint_dir: Path, processes: Processes = ALONE) -> Curve:
    """Train one of CASES; returns training and validation loss by epoch."""
    case = CASES[name]
    recipe = make_recipe(train={"epochs": 2, **case["train"]})
    recipe = replace(
        recipe,
        loss=recipe.loss.model_copy(update={"name": case["loss"]}),
        optimizer=recipe.optimizer.model_copy(update=case.get("optimizer", {})),
    )
    torch.manual_seed(processes.rank)  # other weights in each process, were they not the first one's
    if case.get("architecture") == "unet":
        network = build_model("unet", width=4)
    else:
        network = build_model("deepcrack", width=4, batch_norm=False)
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    progress = fit(
        network, *list_samples(pairs_dir), recipe, checkpoint_dir=checkpoint_dir, on_epoch=lambda *_: None,
        processes=processes,
    )  # fmt: skip
    return [[row["train/loss"], row["val/loss"]] for row in progress.history]


def validate_once(pairs_dir: Path, processes: Processes = ALONE) -> dict[str, float]:
    """Score all six pairs with seeded weights, two to a pass: three passes do not divide by two processes."""
    recipe = make_recipe()
    predictor = Predictor(
        make_network(0), recipe.predict.model_copy(update={"batch_size": 2}), device=torch.device("cpu"),
        precision=torch.float32,
    )  # fmt: skip
    train, val = list_samples(pairs_dir)
    return asdict(
        validate(predictor, PairReader(train + val), build_loss("focal", gamma=2.0, alpha=3.0), processes)
    )


def start_processes(script: Path, arguments: Sequence[str], count: int) -> list[subprocess.Popen]:
    """Start ``count`` processes as torch's launcher does, without the launcher."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared: Mapping[str, str] = {
        "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [warm_python(), str(script), *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def main() -> None:
    """Train all cases on the pairs in argv[1] and write what came out below argv[2]."""
    end_quickly()
    pairs_dir, out = Path(sys.argv[1]), Path(sys.argv[2])
    with joined("cpu") as processes:
        results: dict[str, Any] = {"validation": validate_once(pairs_dir, processes)}
        for name in CASES:
            # Only the first process's folder may be used.
            results[name] = train_case(name, pairs_dir, out / str(processes.rank) / name, processes)
        (out / f"results{processes.rank}.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
