"""The pipeline's training in two processes: one run, one that dies ends all, and the same command resumes."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest
from mlflow import MlflowClient

from tests.pipeline.conftest import Project
from tests.pipeline.test_interruptions import checkpoints, run_id_of, start_training, wait_for

pytestmark = pytest.mark.slow
EPOCHS = 12


@pytest.fixture
def prepared(fresh: Project) -> Project:
    train = {"epochs": EPOCHS, "patches_per_image": 4, "batch_size": 3, "num_processes": 2}
    fresh.set_params({"train": train})
    fresh.commit("Two processes")
    fresh.run("crackseg", "stage", "prepare")
    return fresh


def find_ranks(launcher: subprocess.Popen) -> dict[str, psutil.Process]:
    ranks = {}
    command = psutil.Process(launcher.pid)
    launchers = {process.pid for process in (command, *command.children())}  # a stage works in a child
    for child in command.children(recursive=True):
        try:
            if "RANK" in child.environ() and child.ppid() in launchers:
                ranks[child.environ()["RANK"]] = child
        except psutil.Error:
            continue
    return ranks


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_dies_ends_all_and_the_same_command_goes_on(prepared: Project, rank: str) -> None:
    launcher = start_training(prepared)
    wait_for(lambda: checkpoints(prepared), "the first checkpoint", seconds=200)
    ranks = find_ranks(launcher)
    assert sorted(ranks) == ["0", "1"]
    ranks[rank].kill()
    assert launcher.wait(90) == 1
    log = (prepared.folder.parent / "train.log").read_text()
    assert f"process {rank} of 2 ended by signal SIGKILL, so the training ended" in log
    assert "Traceback" not in log
    assert not [process for process in ranks.values() if process.is_running()]

    prepared.run("crackseg", "stage", "train")
    client = MlflowClient(f"sqlite:///{prepared.folder / 'mlruns' / 'mlflow.db'}")
    (run,) = client.search_runs(["1"])
    assert run.info.run_id == run_id_of(prepared)
    assert (run.info.status, run.data.tags["processes"]) == ("FINISHED", "2")
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, EPOCHS + 1))


def test_a_stopped_launcher_stops_its_processes(prepared: Project) -> None:
    launcher = start_training(prepared)
    wait_for(lambda: checkpoints(prepared), "the first checkpoint", seconds=200)
    ranks = find_ranks(launcher)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(90) == 130
    assert not [process for process in ranks.values() if process.is_running()]
    log = (prepared.folder.parent / "train.log").read_text()
    assert "training stopped; the same command resumes" in log
    assert "Traceback" not in log


def test_a_killed_launcher_leaves_no_process(prepared: Project) -> None:
    launcher = start_training(prepared)
    wait_for(lambda: checkpoints(prepared), "the first checkpoint", seconds=200)
    ranks = find_ranks(launcher)
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not [process for process in ranks.values() if process.is_running()], "their end")


def test_torchrun_trains_as_the_stage_does(prepared: Project) -> None:
    prepared.set_params({"train": {"epochs": 2}})
    prepared.run("crackseg", "stage", "train")
    history = prepared.folder / "outputs" / "model" / "history.csv"
    losses = [line.split(",")[1] for line in history.read_text().splitlines()]
    history.unlink()
    prepared.run(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "crackseg", "train",
    )  # fmt: skip
    assert [line.split(",")[1] for line in history.read_text().splitlines()] == losses
