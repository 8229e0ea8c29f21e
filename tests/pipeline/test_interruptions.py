"""A training survives kill -9, Ctrl-C and the loss of its tracking server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest
import torch
from mlflow import MlflowClient

from tests.pipeline.conftest import Project

pytestmark = pytest.mark.slow
EPOCHS = 12


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def start_training(project: Project) -> subprocess.Popen:
    command = [sys.executable, "-m", "crackseg", "stage", "train"]
    log = (project.folder.parent / "train.log").open("a")
    return subprocess.Popen(command, cwd=project.folder, env=project.environment, stdout=log, stderr=log)


def checkpoints(project: Project) -> list[Path]:
    return list((project.folder / "mlruns" / "checkpoints").glob("*/last.pt"))


def read_weights(project: Project) -> dict[str, torch.Tensor]:
    return torch.load(project.folder / "outputs" / "model" / "weights.pt", weights_only=True)["state_dict"]


def run_id_of(project: Project) -> str:
    return json.loads((project.folder / "outputs" / "model" / "run.json").read_text())["run_id"]


def prepare(project: Project) -> Project:
    project.set_params({"train": {"epochs": EPOCHS, "patches_per_image": 4}})
    project.commit("More epochs")
    project.run("crackseg", "stage", "prepare")
    return project


@pytest.fixture
def prepared(fresh: Project) -> Project:
    return prepare(fresh)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_stopped_training_goes_on_in_its_run_to_the_same_weights(prepared: Project, how: signal.Signals) -> None:
    process = start_training(prepared)
    wait_for(lambda: checkpoints(prepared), "the first checkpoint")
    process.send_signal(how)
    assert process.wait(60) != 0
    client = MlflowClient(f"sqlite:///{prepared.folder / 'mlruns' / 'mlflow.db'}")
    (stopped,) = client.search_runs(["1"])
    assert stopped.info.status == ("RUNNING" if how is signal.SIGKILL else "KILLED")
    prepared.run("crackseg", "stage", "train")
    resumed = read_weights(prepared)

    (run,) = client.search_runs(["1"])
    assert run.info.run_id == stopped.info.run_id == run_id_of(prepared)
    assert run.info.status == "FINISHED"
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, EPOCHS + 1))

    prepared.run("crackseg", "stage", "train")  # its checkpoints are gone: from the beginning, in a run of its own
    assert run_id_of(prepared) != run.info.run_id
    straight = read_weights(prepared)
    assert [key for key in straight if not torch.equal(straight[key], resumed[key])] == []
    log = (prepared.folder.parent / "train.log").read_text()
    assert "Traceback" not in log


def test_a_training_killed_below_dvc_is_accounted_for(prepared: Project) -> None:
    log_path = prepared.folder.parent / "repro.log"
    with log_path.open("w") as log:
        command = [sys.executable, "-m", "dvc", "repro", "train"]
        process = subprocess.Popen(command, cwd=prepared.folder, env=prepared.environment, stdout=log, stderr=log)
    wait_for(lambda: checkpoints(prepared), "the first checkpoint")
    # The last started is the one that works, the other one waits for it.
    below = psutil.Process(process.pid).children(recursive=True)
    [child for child in below if child.cmdline()[-2:] == ["stage", "train"]][-1].kill()
    assert process.wait(60) != 0
    said = log_path.read_text()
    assert "the stage train was ended by signal SIGKILL: most likely the machine ran out of memory" in said
    assert "the checkpoint after epoch" in said
    assert "Traceback" not in said
    assert "resuming after epoch" in prepared.run("dvc", "repro", "train")


@contextmanager
def tracking_server(folder: Path, port: int) -> Iterator[None]:
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "store"),
    ]  # fmt: skip
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: answers(port), "the tracking server")
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return response.status == 200
    except (URLError, OSError):
        return False


def test_a_lost_server_ends_no_training_and_misses_nothing(prepared: Project, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    prepared.environment["MLFLOW_TRACKING_URI"] = uri
    with tracking_server(tmp_path, port):
        process = start_training(prepared)
        wait_for(lambda: checkpoints(prepared), "the first checkpoint")
    assert process.wait(150) == 0
    log = (prepared.folder.parent / "train.log").read_text()
    assert "keeping records locally" in log
    assert "Traceback" not in log
    assert "does not answer" in prepared.run("crackseg", "store", "deliver", fails=True)
    with tracking_server(tmp_path, port):
        assert "everything is delivered" in prepared.run("crackseg", "store", "deliver")
        client = MlflowClient(uri)
        run = client.get_run(run_id_of(prepared))
        assert run.info.status == "FINISHED"
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == list(range(1, EPOCHS + 1))
        assert "training" in {f.path for f in client.list_artifacts(run.info.run_id)}


def test_a_pipeline_without_its_server_ends_with_results_and_says_how_to_finish(
    fresh: Project, tmp_path: Path
) -> None:
    """Training, scoring and the report need no server; registering does, and is all that is left to do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    fresh.environment["MLFLOW_TRACKING_URI"] = uri
    said = fresh.run("dvc", "repro", fails=True)
    assert "Traceback" not in said
    assert f"the tracking server at {uri} does not answer" in said
    assert "`dvc repro`" in said
    outputs = fresh.folder / "outputs"
    for name in ("scores/CRKWH100.json", "scores/CrackTree260.json", "report/report.md", "model/weights.pt"):
        assert (outputs / name).is_file()
    with tracking_server(tmp_path, port):
        said = fresh.run("dvc", "repro")
        assert "registered: models:/crackseg/1" in said
        assert "Running stage 'train'" not in said
        client = MlflowClient(uri)
        (run,) = client.search_runs(["1"])
        assert run.info.status == "FINISHED"
        assert run.data.metrics.keys() >= {"CRKWH100/ods", "CrackTree260/ods", "mean/ods", "train/loss"}
        for key in ("train/loss", "CRKWH100/ods", "mean/ods"):
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps))
        assert {f.path for f in client.list_artifacts(run.info.run_id)} >= {"training", "report", "per_image"}
        assert client.get_model_version_by_alias("crackseg", "candidate").run_id == run.info.run_id
    assert not [f for f in (fresh.folder / "mlruns" / "outbox").iterdir() if f.name != "locks"]
