"""Headings of the demo's stages: number, name and purpose, as each begins."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from crackseg.params import load_params
from crackseg.progress import is_quiet

SINCE = "CRACKSEG_DEMO_SINCE"  # seconds since the epoch, in the environment of a demo's stages
_PURPOSES = {
    "prepare": "check images and masks, and resize them",
    "train": "train the network further from the weights that come with crackseg",
    "threshold": "choose the probability from which a pixel is a crack",
    "predict": "compute the crack probability of every pixel",
    "evaluate": "compare these maps with the ground truth",
    "report": "draw the figures",
    "register": "put the model into the registry, as a candidate",
}


def list_stages(datasets: Sequence[str]) -> list[str]:
    """List the stages of dvc.yaml in the order in which DVC runs them, e.g. ``predict CRKWH100``."""
    of_datasets = [f"{stage} {dataset}" for stage in ("predict", "evaluate") for dataset in datasets]
    return ["prepare", "train", "threshold", *of_datasets, "report", "register"]


def print_heading(root: Path, stage: str, dataset: str = "") -> None:
    """Print a heading if a demo runs the stage; elsewhere DVC names the stages."""
    since = os.environ.get(SINCE)
    if not since or is_quiet():
        return
    stages = list_stages(load_params(root / "params.yaml").data.test_datasets)
    name = f"{stage} {dataset}".strip()
    minutes, seconds = divmod(int(time.time() - float(since)), 60)
    number = stages.index(name) + 1
    print(f"[{minutes}:{seconds:02}] {number}/{len(stages)} {name}: {_PURPOSES[stage]}", flush=True)
