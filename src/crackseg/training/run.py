"""One recorded training run, for the pipeline, for a search's trials and for a study alike."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crackseg.data.dataset import PatchSource
from crackseg.data.pixel_cache import CACHE_NAME
from crackseg.devices import choose_device, describe_device
from crackseg.lineage import describe_training
from crackseg.models import build_model
from crackseg.models.network import CrackNetwork
from crackseg.models.weights_file import save_weights
from crackseg.params import Params, flatten_params
from crackseg.tracking.fetching import fetched_init
from crackseg.tracking.run_notes import BEGINNINGS, describe_run
from crackseg.tracking.store import RunRecorder, Store, describe_code
from crackseg.training.checkpoint import RUN_NAME, Progress, has_checkpoint
from crackseg.training.distributed.processes import ALONE, Processes
from crackseg.training.loop import TrainingRecipe, fit
from crackseg.types import CrackSample

Samples = tuple[list[CrackSample] | PatchSource, list[CrackSample]]
"""Prepared pairs to train with and to validate with."""


class TrialStopped(Exception):
    """Raised by ``on_epoch`` to end a trial early; its run ends KILLED.

    Args:
        tag: name of the tag with the reason, e.g. ``pruned``.
    """

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained network and its run, which is still open.

    Attributes:
        network: holds the best weights.
        params: the settings of the training.
        progress: of the training, at its end.
        run_id: of the run.
        recorder: records more into the run.
    """

    network: CrackNetwork
    params: Params
    progress: Progress
    run_id: str
    recorder: RunRecorder

    def save(self, path: Path, *, data_source: str, half: bool = False) -> None:
        """Write the weights in the form that the registry needs.

        Args:
            path: of the file.
            data_source: ``source`` of the training images' manifest.
            half: store float16.
        """
        spec = dict(self.params.model) | {"init": "random"}  # the file's weights replace the initial ones
        extra = {
            "operating_threshold": self.progress.operating_threshold,
            "predict": dict(self.params.predict),
            "run_id": self.run_id,
            "data_source": data_source,
        }
        save_weights(path, self.network, spec=spec, extra=extra, half=half)


def build_first_network(params: Params, store: Store) -> tuple[CrackNetwork, str]:
    """Build the initial network; also return the digest of its initial weights ("" if not from a file).

    Raises:
        CracksegError: the weights of ``model.init`` cannot be loaded.
    """
    with fetched_init(params.model.init, store) as (init, digest):
        torch.manual_seed(params.train.seed)
        return build_model(**dict(params.model) | {"init": init}), digest


@contextmanager
def record_training(
    store: Store,
    params: Params,
    first: tuple[CrackNetwork, str],
    samples: Samples,
    checkpoint_dir: Path,
    *,
    tags: Mapping[str, str],
    datasets: Sequence[Mapping[str, Any]] = (),
    name: str | None = None,
    parent: str | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    processes: Processes = ALONE,
    system_metrics: bool = False,
    checks: Mapping[str, Sequence[CrackSample]] | None = None,
    take_last: bool = False,
) -> Iterator[TrainedModel]:
    """Train in a run of MLflow, or resume an interrupted training run; the run ends FINISHED after the block.

    If the training or the block fails, the run shows the error and ends FAILED; KILLED if it was stopped. The
    checkpoint then stays, if there is one, and is removed otherwise.

    Args:
        store: of the run.
        params: the settings.
        first: see :func:`build_first_network`.
        samples: to train with and to validate with.
        checkpoint_dir: of the training run; also holds the name of its run.
        tags: of the run, in addition to those of code, device and first weights.
        datasets: arguments of ``RunRecorder.log_dataset``.
        name: of a new run; None: the name of the DVC experiment, or the main settings.
        parent: id of the parent of a new run.
        on_epoch: called after each epoch with its number, from 0, and its metrics; may raise TrialStopped.
        processes: that train together; this one is the first.
        system_metrics: also record the load of processor, memory and GPU.
        checks, take_last: see ``fit``.
    Raises:
        CracksegError: see ``fit``.
        TrialStopped: ``on_epoch`` raised it; the checkpoint stays.
        KeyboardInterrupt: it was stopped; the checkpoint stays.
    """
    network, init_digest = first

    def report_epoch(epoch: int, metrics: dict[str, float]) -> None:
        recorder.log_metrics(metrics, step=epoch + 1)  # counted from 1, as in the bar and the history
        if on_epoch is not None:
            on_epoch(epoch, metrics)

    settings = flatten_params(params)
    name = name or os.environ.get("DVC_EXP_NAME") or describe_training(settings)
    run_id, resumed = store.continue_run(checkpoint_dir / RUN_NAME, name=name, parent=parent)
    with (
        store.record(run_id, system_metrics=system_metrics, resumed=resumed) as recorder,
        _reported(recorder, checkpoint_dir),
    ):
        recorder.log_params(settings)
        about = {
            "device": describe_device(choose_device(params.train.device)),
            "processes": str(processes.size),
            "model.init.md5": init_digest or "none",
        }
        recorder.set_tags({**tags, **describe_code(store.root), **about})
        recorder.describe(describe_run(store.root, params), over=BEGINNINGS)
        for dataset in datasets:
            recorder.log_dataset(**dataset)
        progress = fit(
            network,
            *samples,
            TrainingRecipe.of(params),
            checkpoint_dir=checkpoint_dir,
            on_epoch=report_epoch,
            cache_dir=store.home / CACHE_NAME,
            processes=processes,
            checks=checks,
            take_last=take_last,
        )
        yield TrainedModel(network, params, progress, run_id, recorder)
    shutil.rmtree(checkpoint_dir)  # the block has saved the weights; a forced repetition trains again


@contextmanager
def _reported(recorder: RunRecorder, checkpoint_dir: Path) -> Iterator[None]:
    """Record in MLflow how training ended."""
    recorder.resume()
    try:
        yield
        recorder.end("FINISHED")
    except TrialStopped as stopped:
        recorder.set_tags({stopped.tag: "true"})
        recorder.end("KILLED")
        raise
    except KeyboardInterrupt:
        recorder.end("KILLED")
        raise KeyboardInterrupt(
            f"training stopped; its progress is in {checkpoint_dir}, the same command resumes from there"
        ) from None
    except BaseException as error:
        recorder.set_tags({"error": str(error)[:500]})
        recorder.end("FAILED")
        if not has_checkpoint(checkpoint_dir):  # nothing to resume from
            shutil.rmtree(checkpoint_dir, ignore_errors=True)
        raise
