"""A registry with a few versions and no models in them, and writers of it in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from crackseg.data import dataset
from crackseg.errors import CracksegError
from crackseg.registry.production import Production
from crackseg.tracking.store import Store

NAME = "cracks"
WRITES = (
    "create_registered_model", "set_registered_model_tag", "delete_registered_model", "set_registered_model_alias",
    "delete_registered_model_alias", "transition_model_version_stage", "delete_model_version",
)  # fmt: skip
# MLflow takes seconds to import: a server imports it once, and every process is forked from there. Python has one
# server for all: where a test's loader of patches starts it, it imports these too.
PROCESSES = multiprocessing.get_context("forkserver")
dataset.PRELOAD += (
    "crackseg.registry.production",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
PROCESSES.set_forkserver_preload(list(dataset.PRELOAD))


def open_production(root: Path) -> Production:
    """The registered model in the store of the folder ``root``."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it to the store of the test before
    return Production(Store(root), NAME)


def make_registry(root: Path, versions: int) -> Production:
    """Register a model with so many versions in the store of the folder ``root``."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    store = Store(root)
    store.client.create_registered_model(NAME)
    for number in range(versions):
        source = root / "models" / str(number + 1)
        source.mkdir(parents=True)
        (source / "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
        store.client.create_model_version(NAME, source.as_uri())
    return Production(store, NAME)


def record_a_run(root: Path) -> None:
    """In a process: open the store, maybe the first of all, and record a run."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    store = Store(root)
    with store.record(store.create_run(None)) as recorder:
        recorder.log_metrics({"x": 1.0})
        recorder.end("FINISHED")


def promote(
    production: Production, version: str, *, barrier: Barrier | None = None, reason: str = "better"
) -> None:
    """Promote without a gate, as `crackseg promote` does around it; all wait at ``barrier`` before they write."""
    production.repair()
    state = production.read()
    if barrier:
        barrier.wait(60)
    production.promote(version, state, reason=reason, checks=(), data_md5="", forced=False)


def describe(production: Production) -> dict[str, Any]:
    """What a user would see: the chain of records, who is where."""
    state = production.read()
    return {
        "chain": [(r.action, r.from_version, r.to_version) for r in state.records],
        "production": state.aliases.get("production"),
        "previous": state.aliases.get("previous"),
        "stages": {v: state.stage_of(v) for v in state.versions},
    }


def count_writes(on_call: Callable[[int, str], None]) -> None:
    """Call ``on_call(number, name)`` before each call by which a client of this process writes."""
    number = 0

    def wrap(name: str) -> None:
        original = getattr(MlflowClient, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal number
            number += 1
            on_call(number, name)
            return original(*args, **kwargs)

        setattr(MlflowClient, name, counted)

    for name in WRITES:
        wrap(name)


def die_before_write(root: Path, fatal: int, action: str, version: str) -> None:
    """In a process: promote a version or roll back, and be killed before the write of this number."""

    def die(number: int, _name: str) -> None:
        if number == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    production = open_production(root)
    count_writes(die)
    if action == "promote":
        promote(production, version)
    else:
        production.rollback(to=None, reason="worse")


def promote_at_once(root: Path, version: str, barrier: Barrier, said: Any, one_machine: bool) -> None:
    """In a process: promote at the same moment as others, and say how that went."""
    if not one_machine:  # a lock file does not reach another machine
        Production._lock = lambda _self: contextlib.nullcontext()  # type: ignore[method-assign]
    production = open_production(root)
    try:
        promote(production, version, barrier=barrier)
        said.put((version, "won"))
    except CracksegError as error:
        said.put((version, str(error)))
