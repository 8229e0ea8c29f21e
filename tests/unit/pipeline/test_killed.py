"""A stage that is killed is accounted for; one that is told to stop, or that ends by itself, ends as it always did."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from crackseg.pipeline.killed import _describe_death
from crackseg.training.checkpoint import LAST_NAME, RUN_NAME, save_state

ROOT = Path(__file__).parents[3]
STAGE = """
import os, signal, sys, time
from pathlib import Path
from crackseg.pipeline.killed import note_checkpoints, work_in_child

root = Path(sys.argv[1])
work_in_child(root, "train")
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
note_checkpoints(root / "checkpoints")
(root / "works").write_text(str(os.getpid()))
{work}
"""
WAIT = "while True: time.sleep(0.1)"  # one long sleep would miss a signal that comes just before it


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def start(project: Path, work: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE.format(work=work), str(project)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(project)},
    )  # fmt: skip
    wait_for(lambda: (project / "works").exists() and (project / "works").read_text())
    return process


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def worker_of(project: Path) -> psutil.Process:
    return psutil.Process(int((project / "works").read_text()))


def save_checkpoint(folder: Path) -> None:
    folder.mkdir()
    save_state(folder / LAST_NAME, {"progress": json.dumps({"epoch": 7})})
    (folder / RUN_NAME).write_text(json.dumps({"run_id": "0123abcd"}))


def test_a_killed_training_says_what_died_why_and_what_goes_on_from_where(project: Path) -> None:
    save_checkpoint(project / "checkpoints")
    process = start(project, "os.kill(os.getpid(), signal.SIGKILL)")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGKILL  # as a shell has it
    for words in (
        "the stage train was ended by signal SIGKILL: most likely the machine ran out of memory",
        "train.num_workers (now 2), train.cache_gb (now 10.0): changes no result",
        "train.batch_size (now 2)",
        f"the checkpoint after epoch 7 of MLflow run 0123abcd, in {project / 'checkpoints'}",
        "the same command (dvc repro, dvc exp run, crackseg demo) resumes from there",
    ):
        assert words in said
    assert "Traceback" not in said
    assert not list(project.glob("crackseg-stage-*"))


def test_a_stage_that_ends_by_itself_says_nothing_more_and_keeps_its_exit_code(project: Path) -> None:
    process = start(project, "print('done'); sys.exit(3)")
    assert process.communicate(timeout=60) == ("done\n", "")
    assert process.returncode == 3
    assert not list(project.glob("crackseg-stage-*"))


def test_sigterm_reaches_the_work(project: Path) -> None:
    process = start(project, WAIT)
    process.terminate()
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_sigterm_reaches_the_work_also_before_the_waiting_begins(project: Path) -> None:
    script = """
import os, signal, sys, time
from pathlib import Path
from crackseg.pipeline.killed import work_in_child

waiting, fork = os.getpid(), os.fork

def fork_and_be_told():
    if pid := fork():
        os.kill(waiting, signal.SIGTERM)
    return pid

def write_records(*_):
    print("the one that waits" if os.getpid() == waiting else "the work", flush=True)
    sys.exit(130)

os.fork = fork_and_be_told
signal.signal(signal.SIGTERM, write_records)
work_in_child(Path(sys.argv[1]), "train")
while True: time.sleep(0.1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(project)],
        capture_output=True, text=True, timeout=60, env=os.environ | {"TMPDIR": str(project)}, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("the work\n", 130), done.stderr


def test_ctrl_c_reaches_the_work_once_where_a_group_is_told(project: Path) -> None:
    """Told twice, a training would be interrupted while it writes its records."""
    work = "time.sleep(0.5) if told else [signal.pause(), time.sleep(0.5)]; print(len(told))"
    command = [sys.executable, "-c", STAGE.format(work=work), str(project)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: (project / "works").exists() and (project / "works").read_text())
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "1\n"


def test_the_work_ends_where_the_command_is_killed(project: Path) -> None:
    process = start(project, WAIT)
    worker = worker_of(project)
    process.kill()
    process.wait()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("stage", ["threshold", "register"])
def test_a_stage_that_predicts_says_which_setting_needs_less_memory(project: Path, stage: str) -> None:
    said = _describe_death(project, stage, -signal.SIGKILL, project / "no-note")
    assert "end other programs; or lower predict.tile_size_px (now 512): trains again from the beginning" in said


def test_stages_without_checkpoints_begin_again(project: Path) -> None:
    said = _describe_death(project, "predict", -signal.SIGKILL, project / "no-note")
    assert "the stage predict was ended by signal SIGKILL" in said
    assert "predict.batch_size (now 4)" in said
    assert "begins this stage again" in said
    assert "memory" not in _describe_death(project, "evaluate", -signal.SIGSEGV, project / "no-note")


def test_a_training_without_a_checkpoint_begins_again(project: Path) -> None:
    (project / "note").write_text(str(project / "checkpoints"))
    said = _describe_death(project, "train", -signal.SIGKILL, project / "note")
    assert "begins the training again: no epoch was complete" in said
