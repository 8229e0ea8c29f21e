"""A search whose database or tracking server is reached over a bad network loses nothing, makes nothing twice, and does
not hang.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crackseg.experiments.search import postgres_connection
from crackseg.experiments.search.storage import StorageGoneError, open_storage, outages_said
from tests.faults.proxy import Fault, Proxy, RelayProxy, plan_faults
from tests.faults.tracking_server import serve_tracking
from tests.pipeline.conftest import Project, make_project
from tests.pipeline.postgres import PostgresServer, postgres_server
from tests.pipeline.test_search import SETTINGS, check_agreement, database_of, load_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
postgres = pytest.fixture(postgres_server, scope="module")
_SEED = 1


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


def run_search(project: Project, *arguments: str, **variables: str) -> str:
    """Run a search to its end; returns what it printed."""
    log = project.folder.with_name("search.log")
    command = [
        sys.executable,
        "-m",
        "crackseg",
        "search",
        "--study",
        "night",
        "--jobs",
        "2",
        *arguments,
        *SETTINGS,
    ]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=project.folder, env=project.environment | variables, stdout=file, stderr=file
        )
    try:
        code = process.wait(600)
    finally:
        process.kill()
    said = log.read_text()
    assert (code, "Traceback" in said) == (0, False), said
    return said


def test_a_search_over_a_bad_network_loses_and_doubles_nothing(
    tmp_path: Path, postgres: PostgresServer, proxy: RelayProxy
) -> None:
    project = make_project(tmp_path / "project")
    direct = postgres.create_database("network")
    faults: dict[Fault, int] = {"reset": 10, "lost": 10, "half-open": 2, "slow": 10}
    # After the tables are made: at the first connection, a mistake in the address is said at once.
    proxy.plan = plan_faults(_SEED, faults, range(150, 500))
    address = address_through(proxy, direct, postgres)
    said = run_search(project, "--trials", "6", "--storage", address, "-S", "train.epochs=4")
    trials = load_trials(direct, "night")
    assert [trial.state.name for trial in trials if trial.state.name not in ("COMPLETE", "PRUNED")] == [], said
    assert len(trials) == 6
    check_agreement(project, "night", trials)
    assert {fault: proxy.counts[fault] for fault in faults} == faults  # each was met


def test_a_search_next_to_a_bad_tracking_server_records_each_trial_once(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    faults: dict[Fault, int] = {"reset": 4, "lost": 4, "503": 4, "half-open": 2, "slow": 4}
    with serve_tracking(tmp_path) as port:
        proxy = Proxy(port)
        proxy.plan = plan_faults(_SEED, faults, range(20, 90))  # it must be there when the search begins
        variables = {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
        said = run_search(project, "--trials", "5", **variables)
        project.environment |= variables
        project.run("crackseg", "store", "deliver")
        trials = load_trials(database_of(project), "night")
        assert [trial.state.name for trial in trials if trial.state.name not in ("COMPLETE", "PRUNED")] == [], said
        assert len(trials) == 5
        check_agreement(project, "night", trials, f"http://127.0.0.1:{port}")
        assert {fault: proxy.counts[fault] for fault in faults} == faults
        proxy.close()
