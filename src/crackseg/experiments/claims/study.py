"""Study of the paper's claims with small models on a CPU: same budget for every configuration, several seeds.

The paper's own configurations need a GPU for days. This grid asks the same questions of small networks, in about half
an hour of processor time: does cross-entropy fail, is γ = 2 the best, do random weights beat pretrained ones? And one
more: is there a better loss?
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crackseg.child_processes import cores_each, end_quickly, end_with_parent
from crackseg.data.catalog import data_source, read_manifest
from crackseg.errors import CracksegError
from crackseg.experiments.trial import prepare_images, read_result, run_trial, trial_key
from crackseg.models import build_model
from crackseg.params import Params, change_params, load_params
from crackseg.progress import progress
from crackseg.tracking.store import Store

PAPER_LOSSES: dict[str, dict[str, Any]] = {
    "bce": {"loss.name": "bce"},
    "focal γ=1": {"loss.name": "focal", "loss.gamma": 1.0},
    "focal γ=2": {"loss.name": "focal", "loss.gamma": 2.0},
    "focal γ=4": {"loss.name": "focal", "loss.gamma": 4.0},
}
OUR_LOSS = "bce_soft_f"
LOSSES = PAPER_LOSSES | {OUR_LOSS: {"loss.name": OUR_LOSS}}
# All losses are compared on one network from random weights; the others answer what initial weights change.
_FEWER_LOSSES = ("focal γ=2", OUR_LOSS)


@dataclass(frozen=True, slots=True)
class System:
    """A network of the study.

    Attributes:
        settings: of params.yaml.
        num_steps: of training, so that all systems take about the same processor time.
        losses: by initial weights, the losses that they are trained with.
    """

    settings: Mapping[str, Any]
    num_steps: int
    losses: Mapping[str, Sequence[str]]


SYSTEMS: dict[str, System] = {
    "unet": System(
        {"model.architecture": "unet", "model.width": 8},
        num_steps=400,
        losses={"random": tuple(LOSSES), "scenes": _FEWER_LOSSES},
    ),
    "unet_encoder": System(
        {"model.architecture": "unet_encoder", "model.width": 8, "model.normalize": True},
        num_steps=175,
        losses={"random": _FEWER_LOSSES, "imagenet": _FEWER_LOSSES},
    ),
}
# The same for all: no system and no loss has its own learning rate.
BUDGET: dict[str, Any] = {
    "optimizer.name": "adamw",
    "optimizer.lr": 0.003,
    "scheduler.name": "onecycle",
    "augment.blur": 0.0,
    "augment.hue": 0.0,
    "augment.saturation": 0.0,
    "augment.brightness": 0.1,
    "augment.contrast": 0.1,
    "augment.crop_px": 128,
    "augment.crop_at_cracks": 0.5,
    "train.batch_size": 4,
    "train.num_workers": 0,
    "train.validate_every": 2,
}
NUM_EPOCHS = 4


@dataclass(frozen=True, slots=True)
class Configuration:
    """One training run of the study.

    Attributes:
        system: a key of ``SYSTEMS``.
        init: ``random``, ``scenes`` or ``imagenet``.
        loss: a key of ``LOSSES``.
        seed: of weights, order and augmentation.
    """

    system: str
    init: str
    loss: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run in MLflow, e.g. ``unet-random-focal γ=2-0``."""
        return f"{self.system}-{self.init}-{self.loss}-{self.seed}"

    def params(self, base: Params, dataset: str, num_images: int) -> Params:
        """Return the settings of this configuration, for so many training images."""
        system = SYSTEMS[self.system]
        patches = max(1, round(system.num_steps * BUDGET["train.batch_size"] / NUM_EPOCHS / num_images))
        changes = {"data.train_dataset": dataset, "model.init": self.init, "train.seed": self.seed}
        changes |= {"train.epochs": NUM_EPOCHS, "train.patches_per_image": patches}
        return change_params(base, BUDGET | dict(system.settings) | LOSSES[self.loss] | changes, source="study")


def list_configurations(*, num_seeds: int, pretrained: bool) -> list[Configuration]:
    """List all configurations, seed by seed, so that a study that is stopped early is complete for its first seeds.

    Args:
        num_seeds: 0, 1, … of each configuration.
        pretrained: with the system that ImageNet's weights are compared on.
    """
    return [
        Configuration(name, init, loss, seed)
        for seed in range(num_seeds)
        for name, system in SYSTEMS.items()
        if pretrained or "imagenet" not in system.losses
        for init, losses in system.losses.items()
        for loss in losses
    ]


def run_study(
    root: Path, data_dir: Path, dataset: str, *, num_seeds: int, pretrained: bool, jobs: int
) -> pd.DataFrame:
    """Train all configurations that are not finished, several at a time.

    Args:
        root: the project folder.
        data_dir: holds ``dataset`` in the canonical layout.
        num_seeds, pretrained: see :func:`list_configurations`.
        jobs: training runs at a time, each on its part of the processor's cores.
    Returns:
        A row for each configuration: its fields and its values (see ``run_trial``).
    Raises:
        CracksegError: the dataset lacks training or validation images, or a training run failed.
    """
    store = Store(root)
    folder = store.home / "studies" / dataset
    base = load_params(root / "params.yaml")
    prepared_dir = prepare_images(data_dir, dataset, folder, base)
    counts = read_manifest(prepared_dir, dataset)["split"].value_counts()
    for split in ("train", "val"):
        if not counts.get(split, 0):
            raise CracksegError(f"dataset {dataset} has no {split} images; import it with other splits")
    folders = {}
    waiting = []
    configurations = list_configurations(num_seeds=num_seeds, pretrained=pretrained)
    _check_pretrained_weights(configurations, base, dataset)
    for configuration in configurations:
        params = configuration.params(base, dataset, counts["train"])
        folders[configuration] = folder / "trials" / trial_key(params, prepared_dir, store)
        if read_result(folders[configuration]) is None:
            waiting.append((configuration, params))
    parent, _ = store.continue_run(folder / "run.json", name=f"study-{dataset}")
    with store.record(parent) as recorder:
        recorder.set_tags({"study": dataset, "data.source": data_source(prepared_dir, dataset)})
        recorder.resume()
        tasks = [
            (root, params, prepared_dir, folders[configuration], configuration.name, parent, cores_each(jobs))
            for configuration, params in waiting
        ]
        with progress(None, "study", "run", total=len(folders), initial=len(folders) - len(tasks)) as bar:
            for _ in _run_all(tasks, jobs):
                bar.update()
        recorder.end("FINISHED")
    rows = [
        {"system": c.system, "init": c.init, "loss": c.loss, "seed": c.seed, **(read_result(f) or {})}
        for c, f in folders.items()
    ]
    return pd.DataFrame(rows)


def record_study(root: Path, dataset: str, paths: Sequence[Path]) -> None:
    """Log the study's page and figures to its run."""
    store = Store(root)
    run_id, _ = store.continue_run(store.home / "studies" / dataset / "run.json")
    with store.record(run_id) as recorder:
        for path in paths:
            recorder.log_file(path, "study")


def _check_pretrained_weights(configurations: Sequence[Configuration], base: Params, dataset: str) -> None:
    """Check before the first hour of training that pretrained weights can be loaded."""
    configuration = next(
        (configuration for configuration in configurations if configuration.init == "imagenet"), None
    )
    if configuration is None:
        return
    settings = dict(configuration.params(base, dataset, 1).model)
    try:
        build_model(**settings)
    except CracksegError as error:
        raise CracksegError(f"{error}\n  or leave the comparison out: --no-pretrained") from error


def _begin(parent_pid: int) -> None:
    """Tie a worker's end to that of the process that started it."""
    end_with_parent(parent_pid)
    end_quickly()


def _run_all(tasks: list[tuple], jobs: int) -> Iterator[None]:
    os.environ["TQDM_DISABLE"] = "1"  # read by the workers when they start: one bar is enough
    # Fresh processes: a fork would inherit the locks of MLflow's and OpenCV's threads.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),))
    with pool:
        futures = [pool.submit(_run_one, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BrokenProcessPool as error:
            raise CracksegError(
                "a process of the study was killed; most likely the machine ran out of memory. The same command "
                "resumes; fewer --jobs need less"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_one(
    root: Path, params: Params, prepared_dir: Path, folder: Path, name: str, parent: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        run_trial(Store(root), params, prepared_dir, folder, name=name, parent=parent, tags={"study": "cell"})
