"""Cells into the DVC queue: what is finished, what waits, how long the rest will take, and queueing it.

DVC's Python API is used instead of its command: `dvc exp run --queue` starts Python and reads the project anew for
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
from ruamel.yaml import YAML

from crackseg.data.catalog import list_samples
from crackseg.data.versioning import open_dvc
from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import Cell, apply_cell, find_departures, runs_alike, settings_of
from crackseg.experiments.paper.durations import Duration, describe_durations, describe_machine, estimate_duration
from crackseg.models import build_model
from crackseg.params import Params, flatten_params, load_params
from crackseg.tracking.store import FinishedRun, Store

logging.getLogger("kombu").setLevel(logging.ERROR)  # DVC's queue is files; it warns of a missing host name


@dataclass(frozen=True)
class Plan:
    """What queueing some cells would do."""

    cells: tuple[Cell, ...]
    overrides: Mapping[str, Any]
    finished: Mapping[str, FinishedRun]
    """By the cell's name: its newest finished run with figures for every test dataset."""
    waiting: Mapping[str, str]
    """By the cell's name: the experiment of DVC's queue that waits or runs."""
    to_queue: Mapping[str, str]
    """By the cell's name: the experiment to queue."""
    durations: tuple[Duration, ...]
    """Of those to queue."""
    machine: str
    departures: Mapping[str, tuple[Any, str | None]]
    """Where the cells to queue will not follow the paper's recipe: key, the paper's value, theirs."""


def make_plan(root: Path, store: Store, cells: Sequence[Cell], overrides: Mapping[str, Any]) -> Plan:
    """Find out which cells are finished, which wait and what to queue; changes nothing.

    Args:
        root: the project folder.
        store: where finished runs are looked for.
        cells: which cells.
        overrides: params.yaml keys and values, of all cells.
    Raises:
        CracksegError: a setting is unknown, wrong, or one that tells cells apart; there is no data.dvc; or DVC cannot
            tell what is in its queue.
    """
    base = load_params(root / "params.yaml")
    _check_overrides(cells, overrides)
    planned = {cell.name: apply_cell(base, cell, overrides) for cell in cells}
    _check_buildable(planned)
    data_md5 = _read_data_md5((root / "data.dvc").read_text(encoding="utf-8"))
    runs = store.finished_runs()
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
    anyone = next(iter(planned.values()))  # cells differ neither in device nor in data
    machine = describe_machine(anyone)
    num_images = len(list_samples(root / "data", anyone.data.train_dataset, "train"))
    durations = tuple(
        estimate_duration(planned[name], runs, machine=machine, data_md5=data_md5, num_images=num_images)
        for name in to_queue
    )
    departures: dict[str, tuple[Any, str | None]] = {}
    for cell in cells:
        if cell.name in to_queue:
            recorded = {key: str(value) for key, value in flatten_params(planned[cell.name]).items()}
            departures |= find_departures(cell, recorded)
    return Plan(tuple(cells), dict(overrides), finished, waiting, to_queue, durations, machine, departures)


def find_finished(
    runs: Sequence[FinishedRun], planned: Mapping[str, Params], data_md5: str
) -> dict[str, FinishedRun]:
    """The newest finished run of each planned training, by its name.

    A run is one of it when all params that results follow from are equal, it is of the same version of ``data/``, and
    every test dataset has its final figures.

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


def queue_cells(root: Path, plan: Plan) -> Iterator[str]:
    """Put the cells into DVC's queue, one after the other; yields the name of each when it is in.

    Raises:
        CracksegError: DVC refuses; those already yielded stay in the queue.
    """
    with open_dvc(root) as repo:
        for cell in plan.cells:
            if cell.name not in plan.to_queue:
                continue
            name = plan.to_queue[cell.name]
            settings = settings_of(cell, plan.overrides)
            # JSON is what both YAML and Hydra, which DVC reads settings with, take for the value it is.
            params = [f"{key}={dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
            with _interrupts_held_back(), redirect_stdout(StringIO()):
                repo.experiments.run(queue=True, params=params, name=name)
            yield name


def describe_plan(plan: Plan, *, list_cells: bool) -> str:
    """Say what was found and what queueing will do.

    Args:
        plan: the plan.
        list_cells: name every cell, too.
    """
    lines = [
        f"{len(plan.cells)} cells: {len(plan.finished)} finished, {len(plan.waiting)} waiting or running in the queue, "
        f"{len(plan.to_queue)} to queue"
    ]
    if list_cells:
        for cell in plan.cells:
            if cell.name in plan.finished:
                lines.append(f"  finished  {cell.name}: run {plan.finished[cell.name].run_id}")
            elif cell.name in plan.waiting:
                lines.append(f"  waiting   {cell.name}: experiment {plan.waiting[cell.name]}")
            else:
                lines.append(f"  to queue  {plan.to_queue[cell.name]}")
    if plan.departures:
        ours = [f"{key} {value} (paper: {paper})" for key, (paper, value) in plan.departures.items()]
        lines.append(f"not the paper's recipe: {', '.join(ours)}")
    if plan.to_queue:
        lines.append(describe_durations(plan.durations, machine=plan.machine))
    return "\n".join(lines)


def _check_overrides(cells: Sequence[Cell], overrides: Mapping[str, Any]) -> None:
    for cell in cells:
        for key, value in cell.settings:
            if key in overrides:
                raise CracksegError(
                    f"-S {key}={overrides[key]}: this is what tells the cells apart ({cell.name} has {value}); choose "
                    f"other cells with --cell, or run it outside of the paper: dvc exp run --queue -S {key}=…"
                )


def _check_buildable(planned: Mapping[str, Params]) -> None:
    """Refuse settings that the architectures cannot have, now and not in each training."""
    seen = set()
    for name, params in planned.items():
        spec = dict(params.model) | {"init": "random", "train_layers": "all"}
        if (key := tuple(spec.items())) in seen:
            continue
        seen.add(key)
        try:
            with torch.device("meta"):  # shapes without numbers
                build_model(**spec)
        except CracksegError as error:
            raise CracksegError(f"cell {name}: {error}") from error


def _find_waiting(
    root: Path, entries: Sequence[Any], planned: Mapping[str, Params], data_md5: str
) -> dict[str, str]:
    """The experiments of the queue that will do what is planned, by the planned one's name."""
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
    """The settings of an experiment in the queue; None if it is of other data or of another version's params.yaml."""
    try:
        if _read_data_md5(_git_show(root, revision, "data.dvc")) != data_md5:
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


def _read_data_md5(text: str) -> str:
    return YAML(typ="safe", pure=True).load(text)["outs"][0]["md5"]


def _free_name(name: str, taken: set[str | None]) -> str:
    """The cell's name, or with a number where this commit has an experiment of that name with other settings."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Answer Ctrl-C and SIGTERM at the end: until then the user's changes are in a git stash."""
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
