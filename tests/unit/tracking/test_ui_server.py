"""`crackseg ui` shows this project's pages, or says why not."""

import socket
from pathlib import Path

import pytest

from crackseg.errors import CracksegError
from crackseg.tracking.store import Store
from crackseg.tracking.ui_server import serve_ui


def test_a_port_that_another_server_has_is_named_and_its_pages_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CracksegError, match=f"port {port} of 127.0.0.1 cannot be used.*choose another --port"):
            serve_ui(Store(tmp_path), port, run_ids=None, opens_browser=False, say=said.append)
    assert said == []
