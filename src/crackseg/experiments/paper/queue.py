"""Queue the paper's configurations in DVC: skip finished and waiting ones, estimate the time, queue the rest.

DVC's Python API is used instead of its command: `dvc exp run --queue` starts Python and reads the project again for
each experiment. Each takes the workspace as it is, uncommitted changes included, and leaves it so.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from json import dumps
from pathlib import Path
from typing import Any

import torch

from crackseg.data.catalog import list_samples
from crackseg.data.guard import parse_pointer, read_pointer
from crackseg.data.versioning import open_dvc
from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import (
    Configuration,
    apply_configuration,
    find_departures,
    runs_alike,
    settings_of,
)
from crackseg.experiments.paper.durations import Duration, describe_durations, describe_machine, estimate_duration
from crackseg.models import build_model
from crackseg.params import Params, flatten_params, load_params
from crackseg.tracking.store import FinishedRun, Store

logging.getLogger("kombu").setLevel(logging.ERROR)  # DVC's queue uses files; it warns of a missing host name


@dataclass(frozen=True)
class Plan:
    """Effect of queueing some configurations."""

    configurations: tuple[Configuration, ...]
    overrides: Mapping[str, Any]
    finished: Mapping[str, FinishedRun]
    """By the configuration's name: its newest finished run with scores for every test dataset."""
    waiting: Mapping[str, str]
    """By the configuration's name: the experiment in DVC's queue that waits or runs."""
    to_queue: Mapping[str, str]
    """By the configuration's name: the experiment to queue."""
    durations: tuple[Duration, ...]
    """Training times of those to queue."""
    machine: str
    departures: Mapping[str, tuple[Any, str | None]]
    """Settings of those to queue that differ from the paper's recipe: key, the paper's value, theirs."""


def make_plan(
    root: Path, store: Store, configurations: Sequence[Configuration], overrides: Mapping[str, Any]
) -> Plan:
    """Find the configurations that are finished, that wait and that are to be queued; change nothing.

    Args:
        root: the project folder.
        store: is searched for finished runs.
        configurations: to queue.
        overrides: params.yaml keys and values, of all configurations.
    Raises:
        CracksegError: a setting is unknown, wrong, or one that distinguishes configurations; there is no data.dvc; or
            DVC's queue cannot be read.
    """
    base = load_params(root / "params.yaml")
    _check_overrides(configurations, overrides)
    planned = {
        configuration.name: apply_configuration(base, configuration, overrides) for configuration in configurations
    }
    _check_buildable(planned)
    data_md5 = read_pointer(root)
    if not data_md5:
        raise CracksegError(f"no data.dvc in {root}; `crackseg data import` makes one")
    runs = store.finished_runs(of_stages=True)
    finished = find_finished(runs, planned, data_md5)
    with open_dvc(root) as repo:
        entries = [*repo.experiments.celery_queue.iter_active(), *repo.experiments.celery_queue.iter_queued()]
        taken = {entry.name for entry in entries} | {
            name for group in repo.experiments.ls().values() for name, _ in group
        }
    waiting = _find_waiting(root, entries, planned, data_md5)
    to_queue = {}
    for name in planned:
        if name not in finished and name not in waiting:
            to_queue[name] = _free_name(name, taken)
    anyone = next(iter(planned.values()))  # configurations differ neither in device nor in data
    machine = describe_machine(anyone)
    num_images = len(list_samples(root / "data", anyone.data.train_dataset, "train"))
    durations = tuple(
        estimate_duration(planned[name], runs, machine=machine, data_md5=data_md5, num_images=num_images)
        for name in to_queue
    )
    departures: dict[str, tuple[Any, str | None]] = {}
    for configuration in configurations:
        if configuration.name in to_queue:
            recorded = {key: str(value) for key, value in flatten_params(planned[configuration.name]).items()}
            departures |= find_departures(configuration, recorded)
    return Plan(
        tuple(configurations), dict(overrides), finished, waiting, to_queue, durations, machine, departures
    )


def find_finished(
    runs: Sequence[FinishedRun], planned: Mapping[str, Params], data_md5: str
) -> dict[str, FinishedRun]:
    """Find the newest finished run of each planned training run, by its name.

    A run matches if all params that results depend on are equal, its version of ``data/`` is the same, and every test
    dataset has its final scores.

    Args:
        runs: the newest first.
        planned: settings by name.
        data_md5: the version of ``data/``.
    """
    candidates = [run for run in runs if run.tags.get("data.md5") == data_md5]
    found = {}
    for name, params in planned.items():
        scores = {f"{dataset}/ods" for dataset in params.data.test_datasets}
        for run in candidates:
            if scores <= run.metrics.keys() and runs_alike(params, run.params):
                found[name] = run
                break
    return found


def queue_configurations(root: Path, plan: Plan) -> Iterator[str]:
    """Put the configurations into DVC's queue, one after the other; yield the name of each when it is queued.

    Raises:
        CracksegError: DVC refuses; those already yielded stay in the queue.
    """
    with open_dvc(root) as repo:
        for configuration in plan.configurations:
            if configuration.name not in plan.to_queue:
                continue
            name = plan.to_queue[configuration.name]
            settings = settings_of(configuration, plan.overrides)
            # DVC reads settings with YAML and Hydra; both read JSON values correctly.
            params = [f"{key}={dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
            with _interrupts_held_back(), redirect_stdout(StringIO()):
                repo.experiments.run(queue=True, params=params, name=name)
            yield name


def describe_plan(plan: Plan, *, list_configurations: bool) -> str:
    """Describe a plan: counts, expected time, and departures from the paper.

    Args:
        plan: the plan.
        list_configurations: also name every configuration.
    """
    lines = [
        f"{len(plan.configurations)} configurations: {len(plan.finished)} finished, "
        f"{len(plan.waiting)} waiting or running in the queue, {len(plan.to_queue)} to queue"
    ]
    if list_configurations:
        for configuration in plan.configurations:
            if configuration.name in plan.finished:
                lines.append(f"  finished  {configuration.name}: run {plan.finished[configuration.name].run_id}")
            elif configuration.name in plan.waiting:
                lines.append(f"  waiting   {configuration.name}: experiment {plan.waiting[configuration.name]}")
            else:
                lines.append(f"  to queue  {plan.to_queue[configuration.name]}")
    if plan.departures:
        ours = [f"{key} {value} (paper: {paper})" for key, (paper, value) in plan.departures.items()]
        lines.append(f"not the paper's recipe: {', '.join(ours)}")
    if plan.to_queue:
        lines.append(describe_durations(plan.durations, machine=plan.machine))
    return "\n".join(lines)


def _check_overrides(configurations: Sequence[Configuration], overrides: Mapping[str, Any]) -> None:
    for configuration in configurations:
        for key, value in configuration.settings:
            if key in overrides:
                raise CracksegError(
                    f"-S {key}={overrides[key]}: this key distinguishes the configurations ({configuration.name} "
                    f"has {value}); choose others with --cell, or run it outside of the paper: dvc exp run --queue "
                    f"-S {key}=…"
                )


def _check_buildable(planned: Mapping[str, Params]) -> None:
    """Refuse settings that the architectures cannot have, before anything is queued."""
    seen = set()
    for name, params in planned.items():
        spec = dict(params.model) | {"init": "random", "train_layers": "all"}
        if (key := tuple(spec.items())) in seen:
            continue
        seen.add(key)
        try:
            with torch.device("meta"):  # shapes without memory for values
                build_model(**spec)
        except CracksegError as error:
            raise CracksegError(f"configuration {name}: {error}") from error


def _find_waiting(
    root: Path, entries: Sequence[Any], planned: Mapping[str, Params], data_md5: str
) -> dict[str, str]:
    """Find experiments in the queue with the planned settings, by the planned one's name."""
    waiting: dict[str, str] = {}
    for entry in entries:
        params = _read_queued_params(root, entry.stash_rev, data_md5)
        if params is not None:
            recorded = {key: str(value) for key, value in flatten_params(params).items()}
            for name in planned.keys() - waiting.keys():
                if runs_alike(planned[name], recorded):
                    waiting[name] = entry.name or entry.stash_rev[:7]
                    break
    return waiting


def _read_queued_params(root: Path, revision: str, data_md5: str) -> Params | None:
    """Read an experiment's settings in the queue; None if its data or its version of params.yaml is another."""
    try:
        if parse_pointer(_git_show(root, revision, "data.dvc")) != data_md5:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "params.yaml"
            path.write_text(_git_show(root, revision, "params.yaml"), encoding="utf-8")
            return load_params(path)
    except CracksegError:
        return None


def _git_show(root: Path, revision: str, name: str) -> str:
    command = ["git", "show", f"{revision}:./{name}"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise CracksegError(f"{name} is not in {revision}: {shown.stderr.strip()}")
    return shown.stdout


def _free_name(name: str, taken: set[str | None]) -> str:
    """Return the name, with a number if this commit has an experiment of that name with other settings."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM to the end: until then the user's changes are in a git stash."""
    received: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt("stopped; the experiments named above are in the queue (`dvc queue status`)")
