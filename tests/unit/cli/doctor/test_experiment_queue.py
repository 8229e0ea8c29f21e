"""The doctor says when experiments wait in DVC's queue and no worker will run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from crackseg.cli.doctor.experiment_queue import check_queue
from tests.pipeline.conftest import make_project


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two experiments in DVC's queue."""
    project = make_project(tmp_path_factory.mktemp("queue") / "project")
    assert check_queue(project.folder, timeout_s=60).message == "empty"
    project.run("dvc", "exp", "run", "--queue", "-S", "loss.gamma=2,3")
    return project.folder


def test_experiments_without_a_worker_are_counted(root: Path) -> None:
    finding = check_queue(root, timeout_s=60)
    assert (finding.status, finding.message) == ("warning", "2 queued, no worker running")
    assert finding.advice.startswith("dvc queue start")


def test_a_worker_is_known_by_the_name_that_dvc_gives_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[list[str]] = []
    monkeypatch.setattr("dvc_task.proc.process.ManagedProcess.spawn", lambda words, **_: spawned.append(words))
    with Repo(str(root)) as repo:
        repo.experiments.celery_queue._spawn_worker(1)
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()", *spawned[0]]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as worker:
        finding = check_queue(root, timeout_s=60)
        worker.communicate()
    assert (finding.status, finding.message) == ("ok", "2 queued, 0 running, workers: 1")


def test_a_queue_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    Repo.init(str(tmp_path), no_scm=True).close()
    messages = tmp_path / ".dvc" / "tmp" / "exps" / "celery" / "broker" / "in"
    messages.mkdir(parents=True)
    (messages / "1.celery.msg").write_text("{")
    finding = check_queue(tmp_path, timeout_s=60)
    assert finding.status == "warning"
    assert finding.message.startswith("cannot be read")
