"""A promotion on a team's server calls the receiver of docs/team-store.md, and no one else can."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from mlflow import MlflowClient

from crackseg.registry.production import Production
from crackseg.tracking.store import Store
from tests.docs.pages import read_blocks
from tests.pipeline.postgres import postgres_server
from tests.pipeline.team_server import TeamServer, team_server
from tests.registry_store import NAME, promote

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECRET = "shared with the receiver"

postgres = pytest.fixture(postgres_server, scope="module")
server = pytest.fixture(team_server)


class Receiver:
    """The receiver of the document, as a process."""

    def __init__(self, folder: Path) -> None:
        (code,) = [
            block.text for block in read_blocks("docs/team-store.md") if "X-MLflow-Signature" in block.text
            and block.language == "python"
        ]  # fmt: skip
        (folder / "receiver.py").write_text(code, encoding="utf-8")
        with closing(socket.create_server(("127.0.0.1", 0))) as probe:
            port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}/promotions"
        self._said = folder / "said"
        environment = os.environ | {"PORT": str(port), "WEBHOOK_SECRET": SECRET}
        with self._said.open("w") as said, (folder / "receiver.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(folder / "receiver.py")], env=environment, stdout=said, stderr=log
            )
        deadline = time.monotonic() + 60
        while self.call({}) is None:
            assert self._process.poll() is None, (folder / "receiver.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def call(self, headers: dict[str, str]) -> int | None:
        """Send a message that no MLflow sent; returns the answer's status, None without an answer."""
        body = b'{"data": {"name": "cracks", "alias": "production", "version": "66"}}'
        try:
            with urlopen(Request(self.uri, body, headers), timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except OSError:
            return None

    def wait_for(self, count: int) -> list[str]:
        """Wait for so many lines; returns all lines."""
        deadline = time.monotonic() + 90
        while len(lines := self._said.read_text().splitlines()) < count:
            assert time.monotonic() < deadline, lines
            time.sleep(0.1)
        return lines

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def test_a_promotion_and_a_rollback_call_the_receiver(server: TeamServer, tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    try:
        for name in ("params.yaml", "dvc.yaml"):
            (tmp_path / name).touch()
        (tmp_path / "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:  # the administrator, who also owns the model
            patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            client = MlflowClient(server.uri)
            client.create_webhook(
                name="promotions", url=receiver.uri, events=["model_version_alias.created"], secret=SECRET
            )
            client.create_registered_model(NAME)
            run = client.create_run("0").info
            client.log_artifact(run.run_id, str(tmp_path / "MLmodel"), "model")
            for _ in range(2):
                client.create_model_version(NAME, f"{run.artifact_uri}/model", run_id=run.run_id)
        production = Production(Store(tmp_path), NAME)
        promote(production, "1")
        promote(production, "2")
        production.rollback(to=None, reason="no better")
        said = receiver.wait_for(3)
        assert [line.split()[1] for line in said] == ["1", "2", "1"], said
        forged = {"X-MLflow-Delivery-Id": "1", "X-MLflow-Timestamp": str(int(time.time()))}
        assert receiver.call(forged | {"X-MLflow-Signature": "v1,AAAA"}) == 403
        assert receiver.wait_for(3) == said
    finally:
        receiver.stop()
