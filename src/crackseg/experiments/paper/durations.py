"""Estimate training times: from runs on this machine if there are any, else from the paper's Table 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from crackseg.devices import choose_device, describe_device
from crackseg.errors import CracksegError
from crackseg.experiments.paper.published import read_table4
from crackseg.lineage import keys_changing
from crackseg.params import Params, flatten_params
from crackseg.params.effects import PACE
from crackseg.tracking.store import FinishedRun
from crackseg.training.pace import format_duration

# Table 4: 300 epochs over 200 images on one RTX 2080. It has no time for DeepCrack.
_PAPER_EPOCHS, _PAPER_IMAGES = 300, 200


@dataclass(frozen=True)
class Duration:
    """Seconds of training and their source: ``measured``, ``paper`` or (``seconds`` 0) ``unknown``."""

    seconds: float
    source: str


def describe_machine(params: Params) -> str:
    """Return the hardware that would train here, as in the tags of runs; "" if the requested device is missing."""
    try:
        return describe_device(choose_device(params.train.device))
    except CracksegError:  # queued here, trained elsewhere
        return ""


def estimate_duration(
    params: Params, runs: Sequence[FinishedRun], *, machine: str, data_md5: str, num_images: int
) -> Duration:
    """Estimate how long a training run takes.

    Args:
        params: its settings.
        runs: the time of an epoch is taken from those of this architecture, size, data and machine.
        machine: see :func:`describe_machine`.
        data_md5: the version of ``data/``.
        num_images: training images in it.
    """
    flat = flatten_params(params)
    pace = keys_changing(PACE) - {"model.train_layers"}
    alike = [
        run
        for run in runs
        if run.metrics.get("training_seconds", 0) > 0
        and run.tags.get("device") == machine
        and run.tags.get("data.md5") == data_md5
        and all(run.params.get(key) == str(flat[key]) for key in pace)
    ]
    # Training only the classifier is faster: such runs are compared only with each other.
    closest = [run for run in alike if run.params["model.train_layers"] == params.model.train_layers] or alike
    if closest:
        epoch_s = median(run.metrics["training_seconds"] / int(run.params["train.epochs"]) for run in closest)
        return Duration(epoch_s * params.train.epochs, "measured")
    table = read_table4().set_index("system")["training_s_300_epochs"].dropna()
    if params.model.architecture not in table:
        return Duration(0.0, "unknown")
    share = params.train.epochs / _PAPER_EPOCHS * num_images * params.train.patches_per_image / _PAPER_IMAGES
    return Duration(table[params.model.architecture] * share, "paper")


def describe_durations(durations: Sequence[Duration], *, machine: str) -> str:
    """Describe in a line or two how long the training runs take one after the other, and the source of the estimate."""
    measured = [d.seconds for d in durations if d.source == "measured"]
    paper = [d.seconds for d in durations if d.source == "paper"]
    parts = []
    if measured:
        parts.append(f"{len(measured)} by runs measured on {machine}: {format_duration(sum(measured))}")
    if paper:
        parts.append(
            f"{len(paper)} by the paper's Table 4, on its RTX 2080 (no such run on this machine yet): "
            f"{format_duration(sum(paper))}"
        )
    if unknown := len(durations) - len(measured) - len(paper):
        parts.append(f"{unknown} of unknown duration: not measured here, and the paper has no time for DeepCrack")
    total = format_duration(sum(measured) + sum(paper))
    least = "at least " if unknown else ""
    return f"training alone, one after the other: {least}about {total}\n  " + "\n  ".join(parts)
