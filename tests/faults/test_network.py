"""A network that is slow, cuts answers, stays silent or says 503 loses nothing and makes nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from crackseg.errors import CracksegError
from crackseg.registry.production import Production
from crackseg.tracking.store import Store
from tests.faults.proxy import Proxy
from tests.faults.tracking_server import serve_tracking
from tests.registry_store import NAME, promote

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_STEPS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real ``mlflow server``."""
    with serve_tracking(tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def root(tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    return tmp_path


def test_each_record_of_a_run_arrives_once(root: Path, proxy: Proxy, server: int) -> None:
    store = Store(root, may_be_away=True)
    run_id = store.create_run("trained")
    faults = threading.Thread(
        target=proxy.play,
        args=(("slow", 1.0), ("reset", 1.0), ("half-open", 2.0), ("503", 2.0), ("reset", 1.0), ("slow", 1.0)),
    )
    (root / "curve.png").write_bytes(bytes(200_000))
    longest = 0.0
    faults.start()
    with store.record(run_id) as recorder:
        for step in range(1, _STEPS + 1):
            started = time.monotonic()
            recorder.log_metrics({"train/loss": 1 / step, "val/ods": step / 100}, step=step)
            longest = max(longest, time.monotonic() - started)
            time.sleep(0.2)  # an epoch
        recorder.log_file(root / "curve.png", "report")
        recorder.end("FINISHED")
    faults.join()
    assert longest < 1.0  # training does not wait for the network
    assert Store(root).deliver().waiting == 0
    client = MlflowClient(f"http://127.0.0.1:{server}")
    assert client.get_run(run_id).info.status == "FINISHED"
    for key in ("train/loss", "val/ods"):
        assert [m.step for m in client.get_metric_history(run_id, key)] == list(range(1, _STEPS + 1))
    assert [file.path for file in client.list_artifacts(run_id, "report")] == ["report/curve.png"]
    assert {"slow", "reset", "503"} <= proxy.counts.keys()


@pytest.mark.parametrize("fault", ["slow", "reset", "lost", "503", "half-open"])
def test_a_run_whose_creation_was_not_answered_is_made_once(
    root: Path, proxy: Proxy, server: int, fault: str
) -> None:
    store = Store(root, may_be_away=True)
    name = f"made under {fault}"
    faults = threading.Thread(target=proxy.play, args=((fault, 3.0),))
    faults.start()
    time.sleep(0.05)
    try:
        run_id = store.continue_run(root / "run.json", name=name)[0]
    except CracksegError:
        faults.join()
        run_id = store.continue_run(root / "run.json", name=name)[0]
    faults.join()
    with store.record(run_id) as recorder:
        recorder.log_metrics({"x": 1.0})
        recorder.end("FINISHED")
    assert Store(root).deliver().waiting == 0
    client = MlflowClient(f"http://127.0.0.1:{server}")
    runs = [r for r in client.search_runs([store.experiment_id]) if r.info.run_name == name]
    assert [run.data.metrics for run in runs] == [{"x": 1.0}]


def test_a_promotion_is_made_once_or_not_at_all(root: Path, proxy: Proxy, server: int) -> None:
    client = MlflowClient(f"http://127.0.0.1:{server}")
    client.create_registered_model(NAME)
    run = client.create_run("0").info
    for _ in range(5):
        client.create_model_version(NAME, f"{run.artifact_uri}/model", run_id=run.run_id)
    production = Production(Store(root), NAME)
    promote(production, "1")
    chain = [(None, "1")]
    for version, fault in (("2", "reset"), ("3", "503"), ("4", "slow"), ("5", "lost")):
        faults = threading.Thread(target=proxy.play, args=((fault, 2.0),))
        faults.start()
        time.sleep(0.05)
        with suppress(CracksegError):  # the registry does not answer
            promote(production, version)
        faults.join()
        production.repair()
        state = production.read()
        assert production.find_fault(state) is None
        if state.in_production != version:  # it was not made: the same command makes it
            promote(production, version)
        chain.append((chain[-1][1], version))
        records = production.read().records
        assert [(r.from_version, r.to_version) for r in records] == chain
        assert all(r.intact for r in records)
    assert [m.name for m in client.search_registered_models()] == [NAME]
