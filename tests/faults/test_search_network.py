"""A search whose database is reached over a bad network loses no trial, runs none twice, and does not hang."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crackseg.experiments.search import postgres_connection
from crackseg.experiments.search.storage import StorageGoneError, open_storage, outages_said
from tests.faults.proxy import Fault, RelayProxy, plan_faults
from tests.pipeline.conftest import make_project
from tests.pipeline.postgres import PostgresServer, postgres_server
from tests.pipeline.test_search import SETTINGS, check_agreement, load_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
postgres = pytest.fixture(postgres_server, scope="module")
_SEED = 1
_FAULTS: dict[Fault, int] = {"reset": 10, "lost": 10, "half-open": 2, "slow": 10}


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[RelayProxy]:
    proxy = RelayProxy(postgres.port)
    yield proxy
    proxy.close()


def address_through(proxy: RelayProxy, direct: str, postgres: PostgresServer) -> str:
    return direct.replace(f":{postgres.port}/", f":{proxy.port}/")


def test_a_silent_database_is_given_up_and_releases_its_locks(
    postgres: PostgresServer, proxy: RelayProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "ANSWER_S", 1.5)
    direct = postgres.create_database("silent")
    storage = open_storage(address_through(proxy, direct, postgres))
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t AS SELECT 1 AS x")
    started = time.monotonic()

    def change_on_a_line_that_goes_silent() -> None:
        with outages_said(), storage.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE t SET x = 2")
            proxy.fault = "half-open"
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(StorageGoneError, match="did not answer for"):
        change_on_a_line_that_goes_silent()
    assert time.monotonic() - started < 10
    proxy.fault = "none"
    # The row is still locked for a moment: by the transaction whose client is gone.
    other = open_storage(direct, patience_s=60)

    def change() -> None:
        with other.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE t SET x = x + 10")

    other.patiently(change)
    with storage.engine.begin() as connection:  # the pool has thrown the dead connection away
        assert connection.exec_driver_sql("SELECT x FROM t").scalar() == 11


def test_a_search_over_a_bad_network_loses_and_doubles_nothing(
    tmp_path: Path, postgres: PostgresServer, proxy: RelayProxy
) -> None:
    project = make_project(tmp_path / "project")
    direct = postgres.create_database("network")
    # From the first statements on an address that was right is waited for; before, a mistake in it is said at once.
    proxy.plan = plan_faults(_SEED, _FAULTS, range(150, 500))
    command = [
        sys.executable, "-m", "crackseg", "search", "--study", "night", "--trials", "6", "--jobs", "2", "--storage",
        address_through(proxy, direct, postgres), *SETTINGS, "-S", "train.epochs=4",
    ]  # fmt: skip
    log = tmp_path / "search.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=project.folder, env=project.environment, stdout=file, stderr=file)
    try:
        assert process.wait(600) == 0, log.read_text()
    finally:
        process.kill()
    trials = load_trials(direct, "night")
    assert len(trials) == 6
    assert [trial.state.name for trial in trials].count("FAIL") == 0, log.read_text()
    check_agreement(project, "night", trials)
    assert {fault: proxy.counts[fault] for fault in _FAULTS} == _FAULTS  # each was met
    assert "Traceback" not in log.read_text()
