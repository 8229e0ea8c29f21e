"""Settings for all tests."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.migrated_store import copy_migrated_store

# Two test processes with two OpenMP threads each on two cores wait for each other most of the time.
os.environ["OMP_NUM_THREADS"] = "1"
# Each command of DVC would start another process that reports on it to DVC's makers.
os.environ["DVC_NO_ANALYTICS"] = "1"
# A shell lets the commands that it starts in the background ignore Ctrl-C, and nohup SIGHUP; what the tests start would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Collecting the tests imports everything and frees nothing: a quarter of its time was spent looking for cycles. What is
# there at its end is not looked at again.
gc.disable()

# Their project, after `dvc repro`, takes a minute to make; a process that has it runs them all.
SHARE_A_PROJECT = ("tests/pipeline/test_repro.py", "tests/pipeline/test_promotion.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, tests of one file, and of the files that share a project, run in one process."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return SHARE_A_PROJECT[0] if file in SHARE_A_PROJECT else file

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """Look for cycles from now on, among what the tests make; seldom, which saves a tenth of their time."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 50, 20)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Leave out the last looks for cycles, pytest's and Python's, among all that was imported: two seconds."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs CUDA where there is none, and count it as left out, not as skipped."""
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if not needy:
        return
    import torch  # takes seconds, hence only here

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if item not in needy]


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    """Undo what a command sets in the environment, e.g. that libraries show no bars; processes inherit it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _stores_begin_migrated() -> Iterator[None]:
    """Give each new store of this process a copy of one migrated database; other processes migrate their own."""
    store = sys.modules.get("crackseg.tracking.store")  # absent: no test that was collected opens one
    if store is None:
        yield
        return
    from crackseg.tracking.store_address import database_path

    def make_place(uri: str, real_root: Path) -> None:
        original(uri, real_root)
        path = database_path(uri)
        if path is not None and path.parent.is_dir():
            copy_migrated_store(path)

    original = store.make_place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "make_place", make_place)
        yield


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Keep the modules of MLflow's and Optuna's migrations: each database that is opened reads fifty files anew."""
    pyfiles = sys.modules.get("alembic.util.pyfiles")
    if pyfiles is None:
        yield
        return
    load = pyfiles.load_module_py
    load_once = cache(load)
    with pytest.MonkeyPatch.context() as patch:  # env.py is no migration: to load it is to migrate
        patch.setattr(
            pyfiles,
            "load_module_py",
            lambda name, path: (load if path.name == "env.py" else load_once)(name, path),
        )
        yield
