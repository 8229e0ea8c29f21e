"""A training small enough for a test: a few pairs of 64 px, a U-Net of width 4, four epochs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from crackseg.data.images.files import write_mask, write_png
from crackseg.models import CrackNetwork, build_model
from crackseg.params import load_params
from crackseg.training.loop import TrainingRecipe, fit
from crackseg.types import CrackSample

SampleList = list[CrackSample]
_PARAMS = Path(__file__).parents[1] / "params.yaml"


def make_samples(folder: Path) -> tuple[SampleList, SampleList]:
    """Write six pairs of dark lines on noisy grey; four to train, two to validate."""
    for i in range(6):
        rng = np.random.default_rng(i)
        mask = np.zeros((64, 64), np.uint8)
        start, end = rng.integers(4, 60, (2, 2)).tolist()
        cv2.line(mask, start, end, 1)
        image = rng.normal(150, 12, (64, 64, 3)) - 90 * cv2.dilate(mask, np.ones((2, 2), np.uint8))[..., None]
        write_png(folder / f"{i}.png", image.clip(0, 255).astype(np.uint8))
        write_mask(folder / f"{i}_mask.png", mask)
    return list_samples(folder)


def list_samples(folder: Path) -> tuple[SampleList, SampleList]:
    """List the pairs that make_samples wrote."""
    every = [
        CrackSample("tiny", str(i), "train" if i < 4 else "val", folder / f"{i}.png", folder / f"{i}_mask.png")
        for i in range(6)
    ]
    return every[:4], every[4:]


def make_recipe(
    *, seed: int = 0, num_workers: int = 0, scheduler: str = "cosine", train: Mapping[str, Any] | None = None
) -> TrainingRecipe:
    """The committed settings, made small; ``train`` holds further keys of that section."""
    params = load_params(_PARAMS)
    return TrainingRecipe(
        augment=params.augment.model_copy(update={"crop_px": 48}),
        loss=params.loss,
        optimizer=params.optimizer.model_copy(update={"name": "adamw", "lr": 3e-3}),
        scheduler=params.scheduler.model_copy(update={"name": scheduler, "patience": 0}),
        train=params.train.model_copy(
            update={
                "epochs": 4, "batch_size": 2, "seed": seed, "num_workers": num_workers, "patches_per_image": 2,
                "device": "cpu", "precision": "float32",
            }
            | dict(train or {})
        ),
        predict=params.predict,
    )  # fmt: skip


def make_network(seed: int, width: int = 4) -> CrackNetwork:
    """A U-Net with seeded weights."""
    torch.manual_seed(seed)
    return build_model("unet", width=width)


def main() -> None:
    """Train the pairs in the folder argv[1] with checkpoints in argv[2]; for tests that kill it."""
    recipe = make_recipe()
    folder = Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    fit(
        make_network(0), *list_samples(Path(sys.argv[1])), recipe, checkpoint_dir=folder,
        on_epoch=lambda *_: None,
    )  # fmt: skip
