"""outputs/prepared -> outputs/model: train, resume, record the run."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch
from filelock import FileLock

from crackseg.data.catalog import list_splits
from crackseg.data.pixel_cache import CACHE_NAME
from crackseg.devices import choose_device, describe_device
from crackseg.files import hash_file, write_bytes, write_json
from crackseg.lineage import hash_code, settings_behind
from crackseg.models import build_model
from crackseg.models.weights_file import save_weights
from crackseg.params import Params, flatten_params, load_params
from crackseg.params.effects import WEIGHTS
from crackseg.pipeline.killed import note_checkpoints
from crackseg.project import Layout, find_real_root, read_output, require_made
from crackseg.tracking.store import RunRecorder, Store, describe_code, fetched_init
from crackseg.training.checkpoint import LAST_NAME, RUN_NAME, Progress, checkpoint_key
from crackseg.training.distributed.launching import run_in_processes
from crackseg.training.distributed.processes import Processes, check_gpus, is_launched, joined
from crackseg.training.loop import TrainingRecipe, fit
from crackseg.types import CrackSample

_Samples = tuple[list[CrackSample], list[CrackSample]]  # to train with and to validate with


def run(root: Path) -> None:
    """Train the model that params.yaml describes, or go on with a training of it that was killed.

    With ``train.num_processes`` above 1 this process only starts that many and watches them; started by ``torchrun``,
    it is one of those.

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


def _cache_dir(layout: Layout) -> Path:
    """One for all experiments, those in DVC's temporary clones too, and for searches."""
    return find_real_root(layout.root) / "mlruns" / CACHE_NAME


def _describe_recipe(params: Params) -> TrainingRecipe:
    return TrainingRecipe(
        params.augment, params.loss, params.optimizer, params.scheduler, params.train, params.predict
    )


def _train_along(layout: Layout, params: Params, samples: _Samples, processes: Processes) -> None:
    """Train as one of several processes that is not the first: its weights come from there, and it records nothing."""
    network = build_model(**dict(params.model) | {"init": "random"})
    fit(
        network,
        *samples,
        _describe_recipe(params),
        checkpoint_dir=layout.root,  # the first one's is used
        on_epoch=lambda _epoch, _metrics: None,
        cache_dir=_cache_dir(layout),
        processes=processes,
    )


def _train_and_record(layout: Layout, params: Params, samples: _Samples, processes: Processes) -> None:
    store = Store(layout.root, may_be_away=True)
    with fetched_init(params.model.init, store) as (init, init_digest):
        torch.manual_seed(params.train.seed)
        network = build_model(**dict(params.model) | {"init": init})
    checkpoint_dir = store.home / "checkpoints" / _training_key(layout, params, init_digest)
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    note_checkpoints(checkpoint_dir)
    with FileLock(checkpoint_dir.with_suffix(".lock")):  # the same training started twice waits for the first
        run_id, resumed = store.continue_run(checkpoint_dir / RUN_NAME)
        with (
            store.record(run_id, system_metrics=True, resumed=resumed) as recorder,
            _reported(recorder, checkpoint_dir),
        ):
            _describe_run(recorder, params, layout, samples, init_digest, processes)
            progress = fit(
                network,
                *samples,
                _describe_recipe(params),
                checkpoint_dir=checkpoint_dir,
                on_epoch=lambda epoch, metrics: recorder.log_metrics(metrics, step=epoch),
                cache_dir=_cache_dir(layout),
                processes=processes,
            )
            _write_outputs(layout, params, network, progress, run_id)
            recorder.log_metrics(read_output(layout.training)["train"])
            recorder.log_file(layout.params)
            recorder.log_file(layout.history, "training")
        shutil.rmtree(checkpoint_dir)  # its weights are outputs now; a forced repetition trains anew


@contextmanager
def _reported(recorder: RunRecorder, checkpoint_dir: Path) -> Iterator[None]:
    """Show in MLflow how the training ended; what ends it politely (SIGTERM) counts as Ctrl-C."""

    def interrupt(_signal: int, _frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    recorder.resume()
    try:
        yield
        recorder.end("FINISHED")
    except KeyboardInterrupt:
        recorder.end("KILLED")
        raise KeyboardInterrupt(
            f"training stopped; what is done is in {checkpoint_dir}, the same command goes on from there"
        ) from None
    except BaseException as error:
        recorder.set_tags({"error": str(error)[:500]})
        recorder.end("FAILED")
        if not (checkpoint_dir / LAST_NAME).exists():  # nothing to go on from
            shutil.rmtree(checkpoint_dir, ignore_errors=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, former)


def _describe_run(
    recorder: RunRecorder,
    params: Params,
    layout: Layout,
    samples: _Samples,
    init_digest: str,
    processes: Processes,
) -> None:
    versions = read_output(layout.data_versions)
    recorder.log_params(flatten_params(params))
    tags = {f"data.{name}.{key}": value for name, v in versions["datasets"].items() for key, value in v.items()}
    train = params.data.train_dataset
    recorder.set_tags(
        tags
        | describe_code(layout.root)
        | {
            "data.md5": versions["md5"],
            "data.source": versions["datasets"][train]["source"],
            "device": describe_device(choose_device(params.train.device)),
            "processes": str(processes.size),
            "model.init.md5": init_digest or "none",
        }
    )
    for context, split, used in zip(("training", "validation"), ("train", "val"), samples, strict=True):
        recorder.log_dataset(
            f"{train}-{split}",
            versions["datasets"][train]["md5"],
            context=context,
            num_images=len(used),
            source=versions["datasets"][train]["source"],
        )


def _write_outputs(layout: Layout, params: Params, network: Any, progress: Progress, run_id: str) -> None:
    spec = dict(params.model) | {"init": "random"}  # the weights replace whatever they began from
    extra = {
        "operating_threshold": progress.operating_threshold,
        "predict": dict(params.predict),
        "run_id": run_id,
        "data_source": read_output(layout.data_versions)["datasets"][params.data.train_dataset]["source"],
    }
    save_weights(layout.weights, network, spec=spec, extra=extra)
    history = pd.DataFrame(progress.history)
    write_bytes(layout.history, history.to_csv(index=False, lineterminator="\n").encode())
    write_json(layout.run, {"run_id": run_id})
    figures = {
        "best_epoch": progress.best_epoch,
        "best_val_ods": progress.best_ods,
        "best_val_loss": progress.best_val_loss,
        "operating_threshold": progress.operating_threshold,
        "training_seconds": round(progress.seconds, 1),
    }
    write_json(layout.training, {"train": figures})
