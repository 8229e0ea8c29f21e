"""What the doctor says of a project's settings, data, store and remote; nothing is waited for for ever."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.cli.doctor import examination, project
from crackseg.cli.doctor.findings import Finding
from crackseg.cli.doctor.project import check_data, check_remote, check_settings, check_store
from tests.dvc_in_process import run_dvc

ROOT = Path(__file__).parents[4]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "mlruns").mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@contextmanager
def _silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def _server(code: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_settings_with_a_mistake_stop_the_pipeline(root: Path) -> None:
    assert check_settings(root)[0].status == "ok"
    text = (root / "params.yaml").read_text(encoding="utf-8").replace("gamma: 2", "gama: 2")
    (root / "params.yaml").write_text(text, encoding="utf-8")
    finding, params = check_settings(root)
    assert (finding.status, params) == ("failed", None)
    assert "gama" in finding.message


def test_missing_data_stops_the_pipeline_and_says_how_to_fetch_it(root: Path) -> None:
    finding = check_data(root, None)
    assert finding.status == "failed"
    assert "dvc pull" in finding.message


def test_a_server_that_takes_the_connection_and_never_answers_is_given_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _silent_server() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        finding = check_store(root, timeout_s=0.3)
        assert time.monotonic() - begun < 20
    assert finding.status == "failed"
    assert "does not answer within 0.3 s" in finding.message


def test_a_server_that_is_not_there_and_a_database_that_is_not_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _silent_server() as port:
        pass  # closed again: nobody listens there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    assert check_store(root, timeout_s=5).status == "failed"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user:secret@127.0.0.1:{port}/runs")
    finding = check_store(root, timeout_s=5)
    assert finding.status == "failed"
    assert "secret" not in finding.message


@pytest.mark.parametrize(("code", "status"), [(200, "ok"), (500, "failed")])
def test_a_server_that_answers(code: int, status: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(code) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}/")
        assert check_store(root, timeout_s=20).status == status


def test_the_local_store_is_read_and_not_made(root: Path) -> None:
    path = root / "mlruns" / "mlflow.db"
    assert check_store(root, timeout_s=1).status == "ok"
    assert not path.exists()
    path.write_bytes(b"no database" * 100)
    assert check_store(root, timeout_s=1).status == "failed"
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table runs (id text)")
        database.execute("create table experiments (name text, artifact_location text)")
        database.execute(
            "insert into experiments values ('crackseg', ?)", [(root / "gone" / "artifacts").as_uri()]
        )
        database.commit()
    finding = check_store(root, timeout_s=1)
    assert finding.status == "warning"
    assert "moved or copied" in finding.message
    (root / "gone").mkdir()
    assert check_store(root, timeout_s=1).message.endswith("0 runs")
    (root / "mlruns" / "outbox" / ("0" * 32)).mkdir(parents=True)
    assert "crackseg store deliver" in check_store(root, timeout_s=1).advice


def _play_dvc(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(project, "_ASK_REMOTE", f"import sys, time\n{code}")


def test_a_remote_that_never_answers_is_given_up_and_its_process_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = root / "pid"
    _play_dvc(
        monkeypatch,
        f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
        "print('origin\\tssh://10.255.255.1/x', flush=True); time.sleep(600)",
    )
    finding = check_remote(root, timeout_s=0.3)
    assert finding.status == "warning"
    assert "origin (ssh://10.255.255.1/x) does not answer within 0.3 s" in finding.message
    assert not Path(f"/proc/{pid_file.read_text()}").exists()


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("print('r\\t/data'); print('there')", "ok", "r (/data)"),
        ("print('r\\t/data'); print('absent')", "warning", "nothing there"),
        ("print('\\t')", "warning", "no default remote"),
        ("print('r\\ts3://b'); sys.exit('no access')", "warning", "no access"),
        ("sys.exit('not a repository')", "failed", "not a repository"),
    ],
)
def test_what_dvc_says_of_the_remote(
    code: str, status: str, said: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play_dvc(monkeypatch, code)
    finding = check_remote(root, timeout_s=30)
    assert (finding.status, said in finding.message) == (status, True)


def test_the_real_dvc_finds_a_remote_that_is_a_folder(root: Path) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=root, check=True, capture_output=True)

    run("git", "init", "-q")
    run_dvc(root, "init")
    assert check_remote(root, timeout_s=60).message == "no default remote"
    (root / "kept").mkdir()
    config = '[core]\n    remote = kept\n    analytics = false\n["remote \\"kept\\""]\n    url = ../kept\n'
    (root / ".dvc" / "config").write_text(config.replace('["remote \\"kept\\""]', "['remote \"kept\"']"))
    finding = check_remote(root, timeout_s=60)
    assert finding.status == "ok", finding.message
    shutil.rmtree(root / "kept")
    assert "nothing there" in check_remote(root, timeout_s=60).message


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_the_exit_code_tells_whether_the_pipeline_would_stop(
    broken: bool, code: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    data = Finding("data", "failed" if broken else "ok", "seen", "mend it" if broken else "")
    monkeypatch.setattr(examination, "check_data", lambda *_: data)
    monkeypatch.setattr(examination, "check_pipeline_files", lambda *_: Finding("pipeline", "ok", "read"))
    monkeypatch.setattr(examination, "check_remote", lambda *_, **__: Finding("DVC remote", "warning", "none"))
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    assert result.exit_code == code, result.output
    content = json.loads(result.output)
    assert content["ok"] == (not broken)
    names = [check["name"] for check in content["checks"]]
    assert {"Python", "torch", "GPU", "OpenCV", "extras", "weights cache", "free disk", "params.yaml", "data", "store",
            "DVC remote"} <= set(names)  # fmt: skip
    assert ("mend it" in result.output) == broken


def test_outside_a_project_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "no crackseg project here" in result.output
    assert "OpenCV" in result.output
