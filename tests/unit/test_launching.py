"""Whoever starts several processes learns which of them failed, without a traceback."""

from __future__ import annotations

import pytest

from crackseg import __version__
from crackseg.errors import CracksegError
from crackseg.launching import run_in_processes


def test_each_process_runs_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    run_in_processes(2, ["--version"])
    assert capfd.readouterr().out.count(__version__) == 2


def test_a_command_that_fails_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CracksegError, match=r"process [01] of 2 ended with exit code 2, so the training ended"):
        run_in_processes(2, ["no-such-command"])
    said = capfd.readouterr().err
    assert "No such command" in said
    assert "Traceback" not in said
