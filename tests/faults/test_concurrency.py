"""Many at once on a new project land in one store, once each."""

from __future__ import annotations

from pathlib import Path

import pytest

from crackseg.tracking.store import Store
from tests.registry_store import PROCESSES, record_a_run

pytestmark = pytest.mark.slow
_STARTS = 24


def test_two_dozen_first_starts_are_two_dozen_runs_of_one_experiment(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    processes = [PROCESSES.Process(target=record_a_run, args=(tmp_path,)) for _ in range(_STARTS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)
    assert [process.exitcode for process in processes] == [0] * _STARTS
    store = Store(tmp_path)
    runs = {e.name: store.client.search_runs([e.experiment_id]) for e in store.client.search_experiments()}
    assert [run.data.metrics for run in runs.pop(store.client.get_experiment(store.experiment_id).name)] == [
        {"x": 1.0}
    ] * _STARTS
    assert not any(runs.values())
    assert not [path for path in (tmp_path / "mlruns" / "outbox").glob("*") if path.name != "locks"]
