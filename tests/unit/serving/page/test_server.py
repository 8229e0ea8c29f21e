"""`crackseg app` that cannot start says why."""

import socket
import sys

import pytest

from crackseg.errors import CracksegError
from crackseg.serving.deployment import check_port
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


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CracksegError, match=f"port {port} of 127.0.0.1 cannot be used.*choose another --port"):
            check_port("127.0.0.1", port)
