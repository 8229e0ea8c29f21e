"""Many at once on a new project land in one store, once each."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from crackseg.tracking.store import Store
from tests.pipeline.conftest import make_project
from tests.registry_store import PROCESSES, record_a_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_STARTS = 24


def test_two_dozen_first_starts_are_two_dozen_runs_of_one_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it to the store of the test before
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


def test_the_pipeline_next_to_two_workers_of_dvcs_queue_runs_each_once(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for gamma in (1, 4):
        project.run("dvc", "exp", "run", "--queue", "-n", f"gamma{gamma}", "-S", f"loss.gamma={gamma}")
    # To nowhere: the workers inherit a pipe, and reading it would wait for them.
    subprocess.run(
        ("dvc", "queue", "start", "-j", "2"), cwd=project.folder, env=project.environment, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        project.run("dvc", "repro", timeout_s=600)
        deadline = time.monotonic() + 600
        while (status := project.run("dvc", "queue", "status")).count("Success") < 2:
            assert time.monotonic() < deadline, status
            assert "Failed" not in status, status
            time.sleep(2)
    finally:
        project.run("dvc", "queue", "stop", "--kill")
    client = MlflowClient(f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    trained = sorted((run.data.params.get("loss.gamma", ""), run.info.status) for run in runs)
    assert trained == [("1.0", "FINISHED"), ("2.0", "FINISHED"), ("4.0", "FINISHED")]
    assert len(client.search_model_versions("name = 'crackseg'")) == 3
