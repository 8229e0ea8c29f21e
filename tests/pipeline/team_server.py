"""The services of compose.yaml as processes: the same commands, on this machine's PostgreSQL and a stand-in for S3."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from tests.pipeline.compose_file import read_compose
from tests.pipeline.postgres import PostgresServer

PASSWORD = "a p@ssword/of 24 letters"  # with letters that an address would need to escape
MEMBER = "ada"


class TeamServer:
    """The server of compose.yaml, reached by HTTP only, with a member besides the administrator.

    Args:
        folder: for logs.
        postgres: in which the database ``mlflow`` is made anew.
    """

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        ports = [_free_port(), _free_port()]
        self.uri, self.s3_uri = (f"http://127.0.0.1:{port}" for port in ports)
        variables = {
            "POSTGRES_PASSWORD": PASSWORD,
            "POSTGRES_ADDRESS": f"127.0.0.1:{postgres.port}",
            "S3_ACCESS_KEY": "team",
            "S3_SECRET_KEY": PASSWORD,
            "S3_ENDPOINT": self.s3_uri,
            "MLFLOW_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "0" * 48,
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": b64encode(bytes(32)).decode(),
            "MLFLOW_ALLOWED_HOSTS": f"127.0.0.1:{ports[0]}",
            "MLFLOW_WORKERS": "1",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        }
        content = read_compose(variables)
        self._services: dict[str, Any] = content["services"]
        self._auth_path = folder / "auth.ini"
        self._auth_path.write_text(content["configs"]["auth"]["content"], encoding="utf-8")
        self._ports = ports
        postgres.create_owned_database("mlflow", PASSWORD)

    @property
    def member(self) -> dict[str, str]:
        """The environment in which a member works."""
        return {
            "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_TRACKING_USERNAME": MEMBER, "MLFLOW_TRACKING_PASSWORD": PASSWORD
        }  # fmt: skip

    @property
    def s3_member(self) -> dict[str, str]:
        """The environment in which DVC reaches the S3 store."""
        return self._environment("buckets")

    def start(self) -> None:
        """Start all, in compose.yaml's order, and make the member."""
        s3 = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._ports[1])]
        self._start(s3, dict(os.environ), self.s3_uri + "/moto-api/")
        buckets = self._services["buckets"]["command"]
        assert buckets[:2] == ["python", "-c"]
        for _ in range(2):  # it runs at each start
            subprocess.run(
                [sys.executable, *buckets[1:]],
                env=os.environ | self._environment("buckets"),
                check=True,
                timeout=60,
            )
        self._start(
            [sys.executable, "-m", *self._mlflow_command()], self._mlflow_environment(), f"{self.uri}/health"
        )
        self.post("/api/2.0/mlflow/users/create", {"username": MEMBER, "password": PASSWORD})

    def stop(self) -> None:
        """Kill all."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _mlflow_command(self) -> list[str]:
        inside = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={self._ports[0]}"}
        command = self._services["mlflow"]["command"]
        assert inside.keys() <= set(command)
        return [inside.get(word, word) for word in command]

    def _mlflow_environment(self) -> dict[str, str]:
        return dict(os.environ) | self._environment("mlflow") | {"MLFLOW_AUTH_CONFIG_PATH": str(self._auth_path)}

    def _environment(self, service: str) -> dict[str, str]:
        return {key: str(value) for key, value in self._services[service]["environment"].items()}

    def _start(self, command: Sequence[str], environment: dict[str, str], health: str) -> None:
        path = self._folder / "server.log"
        with path.open("a") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        deadline = time.monotonic() + 240
        while True:
            try:
                urlopen(health, timeout=60).read()
                return
            except (URLError, OSError):
                assert process.poll() is None, path.read_text()
                assert time.monotonic() < deadline, "waited in vain for the server\n" + path.read_text()
            time.sleep(0.2)

    def get(self, path: str) -> bytes:
        """Ask as the administrator."""
        return self._ask(Request(self.uri + path))

    def post(self, path: str, content: dict[str, object]) -> bytes:
        """Send JSON as the administrator."""
        headers = {"Content-Type": "application/json"}
        return self._ask(Request(self.uri + path, json.dumps(content).encode(), headers))

    def _ask(self, request: Request) -> bytes:
        request.add_header("Authorization", "Basic " + b64encode(f"admin:{PASSWORD}".encode()).decode())
        with urlopen(request, timeout=60) as response:
            content: bytes = response.read()
            return content

    def list_files(self, run_id: str, folder: str = "") -> Iterator[str]:
        """Paths of a run's artifacts, as MLflow's web page asks for them."""
        answer = json.loads(self.get(f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path={quote(folder)}"))
        for item in answer.get("files", []):
            if item.get("is_dir"):
                yield from self.list_files(run_id, item["path"])
            else:
                yield item["path"]

    def fetch_file(self, run_id: str, path: str) -> bytes:
        """Fetch an artifact as MLflow's web page does."""
        return self.get(f"/get-artifact?run_id={run_id}&path={quote(path)}")


def team_server(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TeamServer]:
    """A running server; clients in the test's process are the member. Use it as ``pytest.fixture(team_server)``."""
    team = TeamServer(tmp_path, postgres)
    try:
        team.start()
        for name, value in team.member.items():
            monkeypatch.setenv(name, value)
        yield team
    finally:
        team.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
