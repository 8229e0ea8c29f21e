"""Experiments beside each other: every run lands in the one store of the project folder, with its artifacts."""

import os
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from crackseg.cli.doctor.experiment_queue import check_queue
from tests.pipeline.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def finished_runs(project: Project) -> list[Run]:
    client = MlflowClient(f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    home = (project.folder / "mlruns" / "artifacts").as_uri()
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.info.artifact_uri.startswith(home)
        assert "mean/ods" in run.data.metrics
        assert {"report/pr_all.png", "report/report.md"} <= {
            f.path for f in client.list_artifacts(run.info.run_id, "report")
        }
    return runs


def test_first_runs_of_a_project_may_start_together(fresh: Project) -> None:
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp"]
    log = (fresh.folder.parent / "experiments.log").open("w")
    processes = [
        subprocess.Popen(
            [*command, "-n", f"seed{seed}", "-S", f"train.seed={seed}"],
            cwd=fresh.folder, env=fresh.environment, stdout=log, stderr=log,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    codes = [process.wait(250) for process in processes]
    assert codes == [0, 0], (fresh.folder.parent / "experiments.log").read_text()
    runs = finished_runs(fresh)
    assert {run.info.run_name for run in runs} == {"seed1", "seed2"}
    assert {run.data.tags["dvc.exp_name"] for run in runs} == {"seed1", "seed2"}
    versions = MlflowClient(f"sqlite:///{fresh.folder / 'mlruns' / 'mlflow.db'}").search_model_versions(
        "name = 'crackseg'"
    )
    assert {v.run_id for v in versions} == {run.info.run_id for run in runs}
    assert fresh.run("git", "status", "--porcelain") == ""


def test_the_queue_with_two_workers(fresh: Project) -> None:
    for gamma in (1, 4):
        fresh.run("dvc", "exp", "run", "--queue", "-n", f"gamma{gamma}", "-S", f"loss.gamma={gamma}")
    assert check_queue(fresh.folder, timeout_s=60).message == "2 queued, no worker running"
    # Not by `run`: the workers inherit its pipe, and it would wait for them.
    start = ("dvc", "queue", "start", "-j", "2")
    silent = subprocess.DEVNULL
    subprocess.run(start, cwd=fresh.folder, env=fresh.environment, check=True, stdout=silent, stderr=silent)
    assert check_queue(fresh.folder, timeout_s=60).message.endswith("workers: 2")
    deadline = time.monotonic() + 600
    status = ""
    while time.monotonic() < deadline:
        status = fresh.run("dvc", "queue", "status")
        if status.count("Success") + status.count("Failed") == 2:
            break
        time.sleep(2)
    fresh.run("dvc", "queue", "stop", "--kill")
    assert status.count("Success") == 2, status + "".join(
        fresh.run("dvc", "queue", "logs", f"gamma{g}") for g in (1, 4)
    )
    assert {run.data.params["loss.gamma"] for run in finished_runs(fresh)} == {"1.0", "4.0"}
    assert "CRKWH100.ods" in fresh.run("dvc", "exp", "show", "--csv")
    assert not [name for name in os.listdir(fresh.folder) if name.endswith(".db")]
    content = fresh.run_json("crackseg", "-q", "compare", "gamma1", "gamma4", "--out", "compared", "--json")
    assert content["differing"]["loss.gamma"] == ["1.0", "4.0"]
    assert content["remarks"] == []  # counts, curves, photographs, truth and maps of both are there
    without = {row["metric"].partition("/")[2] for row in content["scores"] if not row["differences"][1]}
    assert without == {"false_alarm_px_per_megapixel"}  # docs/comparing.md: it has no interval
    assert {"images_CRKWH100.png", "pr_CrackTree260.png"} <= set(os.listdir(fresh.folder / "compared"))
