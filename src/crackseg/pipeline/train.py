"""outputs/prepared -> outputs/model: train, resume, record the run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from filelock import FileLock

from crackseg.child_processes import terminations_as_interrupts
from crackseg.data.catalog import list_splits
from crackseg.data.pixel_cache import CACHE_NAME
from crackseg.devices import choose_device
from crackseg.files import hash_file, sync_files, write_csv, write_json
from crackseg.lineage import hash_code, settings_behind
from crackseg.models import build_model
from crackseg.params import Params, flatten_params, load_params
from crackseg.params.effects import WEIGHTS
from crackseg.pipeline.killed import note_checkpoints
from crackseg.project import Layout, find_real_root, read_output, require_made
from crackseg.tracking.store import Store
from crackseg.training.checkpoint import checkpoint_key
from crackseg.training.distributed.launching import run_in_processes
from crackseg.training.distributed.processes import Processes, check_gpus, is_launched, joined
from crackseg.training.loop import TrainingRecipe, fit
from crackseg.training.run import Samples, build_first_network, record_training


def run(root: Path) -> None:
    """Train the model that params.yaml describes, or resume an interrupted training run.

    With ``train.num_processes`` above 1 this process only starts and watches the others; started by ``torchrun``, it is
    one of those.

    Raises:
        CracksegError: see ``fit``; also a tracking store whose address is wrong, or a process that failed.
    """
    layout = Layout(root)
    params = load_params(layout.params)
    device = choose_device(params.train.device)  # before anything is written
    if params.train.num_processes > 1 and not is_launched():
        if device.type == "cuda":
            check_gpus(params.train.num_processes)
        run_in_processes(params.train.num_processes, ["stage", "train"])
        return
    with joined(params.train.device) as processes:
        dataset = params.data.train_dataset
        splits = list_splits(require_made(layout.prepared), dataset)
        samples = splits["train"], splits["val"]
        processes.check_same(_training_key(layout, params, ""), "settings, images or code")
        if processes.is_first:
            _train_and_record(layout, params, samples, processes)
        else:
            _train_along(layout, params, samples, processes)


def _training_key(layout: Layout, params: Params, init_digest: str) -> str:
    return checkpoint_key(
        settings_behind(WEIGHTS, flatten_params(params)),
        hash_file(layout.prepared / params.data.train_dataset / "manifest.csv") + init_digest,
        hash_code("train"),
    )


def _train_along(layout: Layout, params: Params, samples: Samples, processes: Processes) -> None:
    """Train as a process other than the first, which sends the weights and records the run."""
    network = build_model(**dict(params.model) | {"init": "random"})
    fit(
        network,
        *samples,
        TrainingRecipe.of(params),
        checkpoint_dir=layout.root,  # the first one's is used
        on_epoch=lambda _epoch, _metrics: None,
        cache_dir=find_real_root(layout.root) / "mlruns" / CACHE_NAME,
        processes=processes,
    )


def _train_and_record(layout: Layout, params: Params, samples: Samples, processes: Processes) -> None:
    versions = read_output(layout.data_versions)
    dataset = params.data.train_dataset
    digest, source = versions["datasets"][dataset]["md5"], versions["datasets"][dataset]["source"]
    store = Store(layout.root, may_be_away=True)
    first = build_first_network(params, store)
    checkpoint_dir = store.home / "checkpoints" / _training_key(layout, params, first[1])
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    note_checkpoints(checkpoint_dir)
    tags = {f"data.{name}.{key}": value for name, v in versions["datasets"].items() for key, value in v.items()}
    described = {"digest": digest, "source": source}
    datasets = [
        described | {"name": f"{dataset}-{split}", "context": context, "num_images": len(used)}
        for context, split, used in zip(("training", "validation"), ("train", "val"), samples, strict=True)
    ]
    with (
        # A second start of the same training run waits for the first.
        FileLock(checkpoint_dir.with_suffix(".lock")),
        terminations_as_interrupts(),
        record_training(
            store,
            params,
            first,
            samples,
            checkpoint_dir,
            tags=tags | {"data.md5": versions["md5"], "data.source": source},
            datasets=datasets,
            processes=processes,
            system_metrics=True,
        ) as trained,
    ):
        trained.save(layout.weights, data_source=source)
        write_csv(pd.DataFrame(trained.progress.history), layout.history, digits=None)
        write_json(layout.run, {"run_id": trained.run_id})
        figures = {
            "best_epoch": trained.progress.best_epoch,
            "best_val_ods": trained.progress.best_ods,
            "best_val_loss": trained.progress.best_val_loss,
            "operating_threshold": trained.progress.operating_threshold,
            "training_seconds": round(trained.progress.seconds, 1),
        }
        write_json(layout.training, {"train": figures})
        sync_files([layout.history, layout.run, layout.training])  # the checkpoints are removed next
        trained.recorder.log_metrics(figures)
        trained.recorder.log_file(layout.params)
        trained.recorder.log_file(layout.history, "training")
