"""Progress bars: on terminals, in logs, and with `--quiet`."""

import io
import os
import subprocess
import sys

import pytest

from crackseg import progress as module
from crackseg.progress import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress([1, 2], "score", "image")) == [1, 2]
    return stream.getvalue()


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "score: 100%" in _shown(monkeypatch, _Terminal())


def test_a_log_is_free_of_what_ends_at_once_and_shows_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown(monkeypatch, io.StringIO()) == ""
    monkeypatch.setattr(module, "_LOG_AFTER_S", 1e-9)
    assert "score: 100%" in _shown(monkeypatch, io.StringIO())


def test_quiet_shows_no_bar_also_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.QUIET, "1")
    assert _shown(monkeypatch, _Terminal()) == ""
    code = (
        "import logging; from crackseg.progress import hide_bars_of_libraries as hide; hide();"
        "from huggingface_hub.utils import are_progress_bars_disabled as disabled;"
        "from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR as of_mlflow;"
        "from tqdm import tqdm; import dvc.progress;"
        "print(disabled(), of_mlflow.get(), tqdm([]).disable, dvc.progress.logger.getEffectiveLevel())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True", "50"]


def test_a_process_whose_bars_are_disabled_shows_none() -> None:
    code = "from crackseg import progress as p; p._LOG_AFTER_S = 1e-9; list(p.progress([1, 2], 'train', 'step'))"
    known = {key: value for key, value in os.environ.items() if key not in (module.QUIET, "TQDM_DISABLE")}
    command = [sys.executable, "-c", code]
    free, disabled = (
        subprocess.run(command, env=known | more, capture_output=True, text=True, check=True).stderr
        for more in ({}, {"TQDM_DISABLE": "1"})
    )
    assert "train: 100%" in free
    assert disabled == ""
