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

from crackseg.checkpoint import LAST_NAME, RUN_NAME, checkpoint_key
from crackseg.data.catalog import list_samples
from crackseg.data.image_io import write_bytes
from crackseg.data.versioning import hash_file
from crackseg.devices import choose_device, describe_device
from crackseg.models import build_model
from crackseg.models.weights_file import save_weights
from crackseg.params import Params, flatten_params, load_params
from crackseg.stages.layout import Layout, read_json, write_json
from crackseg.tracking import RunRecorder, Store, describe_code, fetched_init
from crackseg.training import Progress, TrainingRecipe, fit

_SECTIONS = ("augment", "model", "loss", "optimizer", "scheduler", "train", "predict")
_NO_EFFECT = ("train.num_workers", "predict.engine")  # on the weights


def run(root: Path) -> None:
    """Train the model that params.yaml describes, or go on with a training of it that was killed.

    Raises:
        CracksegError: see ``fit``; also a tracking store that cannot be opened at the start.
    """
    layout = Layout(root)
    params = load_params(layout.params)
    choose_device(params.train.device)  # before anything is written
    store = Store(root)
    train_dataset = params.data.train_dataset
    train_samples = list_samples(layout.prepared, train_dataset, "train")
    val_samples = list_samples(layout.prepared, train_dataset, "val")
    with fetched_init(params.model.init, store) as (init, init_digest):
        torch.manual_seed(params.train.seed)
        network = build_model(**dict(params.model) | {"init": init})
    key = checkpoint_key(
        {k: v for k, v in flatten_params(params).items() if k.split(".")[0] in _SECTIONS and k not in _NO_EFFECT},
        hash_file(layout.prepared / train_dataset / "manifest.csv") + init_digest,
    )
    checkpoint_dir = store.home / "checkpoints" / key
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(checkpoint_dir.with_suffix(".lock")):  # the same training started twice waits for the first
        run_id, resumed = store.continue_run(checkpoint_dir / RUN_NAME)
        with (
            store.record(run_id, system_metrics=True, resumed=resumed) as recorder,
            _reported(recorder, checkpoint_dir),
        ):
            _describe_run(recorder, params, layout, init_digest)
            progress = fit(
                network,
                train_samples,
                val_samples,
                TrainingRecipe(
                    params.augment, params.loss, params.optimizer, params.scheduler, params.train, params.predict
                ),
                checkpoint_dir=checkpoint_dir,
                on_epoch=lambda epoch, metrics: recorder.log_metrics(metrics, step=epoch),
            )
            _write_outputs(layout, params, network, progress, run_id)
            recorder.log_metrics(read_json(layout.training)["train"])
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


def _describe_run(recorder: RunRecorder, params: Params, layout: Layout, init_digest: str) -> None:
    versions = read_json(layout.data_versions)
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
            "model.init.md5": init_digest or "none",
        }
    )
    for context, split in (("training", "train"), ("validation", "val")):
        recorder.log_dataset(
            f"{train}-{split}",
            versions["datasets"][train]["md5"],
            context=context,
            num_images=len(list_samples(layout.prepared, train, split)),
            source=versions["datasets"][train]["source"],
        )


def _write_outputs(layout: Layout, params: Params, network: Any, progress: Progress, run_id: str) -> None:
    spec = dict(params.model) | {"init": "random"}  # the weights replace whatever they began from
    extra = {
        "operating_threshold": progress.operating_threshold,
        "predict": dict(params.predict),
        "run_id": run_id,
        "data_source": read_json(layout.data_versions)["datasets"][params.data.train_dataset]["source"],
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
