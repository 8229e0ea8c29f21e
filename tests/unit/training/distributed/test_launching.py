"""Whoever starts several processes learns which of them failed, without a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crackseg import __version__
from crackseg.errors import CracksegError
from crackseg.training.distributed.launching import run_in_processes


def test_each_process_runs_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    run_in_processes(2, ["--version"])
    assert capfd.readouterr().out.count(__version__) == 2


def test_a_command_that_fails_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CracksegError, match=r"process [01] of 2 ended with exit code 2, so the training ended"):
        run_in_processes(2, ["no-such-command"])
    said = capfd.readouterr().err
    assert "No such command" in said
    assert "Traceback" not in said


def test_the_process_that_failed_is_named_and_not_those_that_the_launcher_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_start = "import os, time\nif os.environ.get('LOCAL_RANK') == '1':\n    time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(slow_start)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(CracksegError, match="process 0 of 2 ended with exit code 2"):
        run_in_processes(2, ["no-such-command"])
