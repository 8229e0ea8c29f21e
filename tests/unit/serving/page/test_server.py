"""`crackseg app` that cannot start says why."""

import sys

import pytest

from crackseg.errors import CracksegError
from crackseg.serving.page.server import run_app


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets for its process is not left to the other tests."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(CracksegError, match=r"pip install 'crackseg\[app\]'"):
        run_app(7860, print)
