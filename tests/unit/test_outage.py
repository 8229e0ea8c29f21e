"""Without its tracking server a command goes on: everything is kept, and delivered once, to the right store."""

import math
import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from crackseg.errors import CracksegError
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.outbox import list_waiting
from crackseg.tracking.store import Store

SETTINGS = {"evaluate.tolerance_px": 2, "data.md5": "aa"}
OTHER_SETTINGS = {"evaluate.tolerance_px": 4, "data.md5": "aa"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    return tmp_path


class Switch:
    """A store, and whether its address is answered."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, monkeypatch

    def open(self, *, answers: bool) -> Store:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        with self._patch.context() as patch:
            if not answers:
                patch.setattr("crackseg.tracking.store.check_connection", _refuse)
                patch.setattr("crackseg.tracking.store.is_outage", lambda error, _uri: isinstance(error, OSError))
            return Store(self.root, may_be_away=True)

    def runs(self) -> list[Run]:
        store = self.open(answers=True)
        return list(store.client.search_runs([store.experiment_id]))


def _refuse(_uri: str) -> None:
    raise ConnectionRefusedError("connection refused")


@pytest.fixture
def switch(root: Path, monkeypatch: pytest.MonkeyPatch) -> Switch:
    return Switch(root, monkeypatch)


def record_training(store: Store, root: Path) -> str:
    run_id, _ = store.continue_run(root / "run.json", name="trained")
    with store.record(run_id) as recorder:
        recorder.log_params({"evaluate.tolerance_px": 2, "loss.gamma": 2.0})
        recorder.set_tags({"data.md5": "aa"})
        recorder.log_metrics({"train/loss": 0.5}, step=0)
        recorder.end("FINISHED")
    return run_id


def test_a_training_that_began_without_a_server_is_one_run_when_it_answers(switch: Switch, root: Path) -> None:
    run_id = record_training(switch.open(answers=False), root)
    (run,) = switch.runs()
    assert run.info.run_name == "trained"
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.gamma"] == "2.0"
    assert run.data.metrics == {"train/loss": 0.5}
    store = switch.open(answers=True)
    assert store.get_run(run_id).info.run_id == run.info.run_id  # outputs/ goes on naming it as before
    assert store.continue_run(root / "run.json") == (run.info.run_id, True)
    assert list_waiting(store.outbox_dir) == []
    assert len(switch.runs()) == 1


def test_a_run_whose_creation_was_not_confirmed_is_not_created_again(
    switch: Switch, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_training(switch.open(answers=False), root)
    create_run = MlflowClient.create_run

    def lose_the_answer(*arguments: object, **options: object) -> None:
        create_run(*arguments, **options)  # type: ignore[arg-type]
        raise ConnectionError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", lose_the_answer)
        store = switch.open(answers=True)
        assert len(list_waiting(store.outbox_dir)) == 1
    (run,) = switch.runs()
    assert run.data.metrics == {"train/loss": 0.5}


def test_a_training_resumed_without_a_server_repeats_no_step(switch: Switch, root: Path) -> None:
    run_id = record_training(switch.open(answers=True), root)
    store = switch.open(answers=False)
    assert store.continue_run(root / "run.json") == (run_id, True)
    with store.record(run_id, resumed=True) as recorder:
        recorder.log_metrics({"train/loss": 0.5}, step=0)
        recorder.log_metrics({"train/loss": 0.25}, step=1)
    client = switch.open(answers=True).client
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "train/loss")] == [(0, 0.5), (1, 0.25)]


def test_results_of_several_stages_without_a_server_go_to_the_trainings_run_once(
    switch: Switch, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = record_training(switch.open(answers=False), root)
    for dataset, ods in (("A", 0.5), ("B", 0.75)):  # evaluate, once for each
        store = switch.open(answers=False)
        caplog.clear()
        with store.record(store.run_for_settings(run_id, SETTINGS)) as recorder:
            recorder.log_metrics({f"{dataset}/ods": ods})
        (line,) = caplog.messages
        assert "does not answer: " in line
        assert f"records kept in {store.outbox_dir}" in line
        assert "delivered by the next" in line
    store = switch.open(answers=False)
    with store.record(store.run_for_settings(run_id, SETTINGS)) as recorder:  # report
        recorder.log_metrics({"A/ods": 0.5, "B/ods": 0.75}, only_new=True)
        recorder.log_file(root / "params.yaml", "report")
    (run,) = switch.runs()
    assert run.data.metrics == {"train/loss": 0.5, "A/ods": 0.5, "B/ods": 0.75}
    client = switch.open(answers=True).client
    assert len(client.get_metric_history(run.info.run_id, "A/ods")) == 1
    assert [f.path for f in client.list_artifacts(run.info.run_id, "report")] == ["report/params.yaml"]


def test_results_that_a_killed_stage_had_recorded_are_recorded_once_and_changed_ones_again(
    switch: Switch, root: Path
) -> None:
    run_id = record_training(switch.open(answers=True), root)
    for ods in (0.5, 0.5, 0.75, 0.75, 0.5):
        with switch.open(answers=True).record(run_id) as recorder:
            recorder.log_metrics({"A/ods": ods, "A/ois": math.nan}, only_new=True)
    client = switch.open(answers=True).client
    assert [metric.value for metric in client.get_metric_history(run_id, "A/ods")] == [0.5, 0.75, 0.5]
    assert len(client.get_metric_history(run_id, "A/ois")) == 1
    assert client.get_run(run_id).data.metrics["A/ods"] == 0.5


def test_results_under_other_settings_without_a_server_go_to_one_child(switch: Switch, root: Path) -> None:
    run_id = record_training(switch.open(answers=True), root)
    for _ in range(2):
        store = switch.open(answers=False)
        with store.record(store.run_for_settings(run_id, OTHER_SETTINGS)) as recorder:
            recorder.log_metrics({"A/ods": 0.5})
        child, parent = sorted(switch.runs(), key=lambda run: run.info.run_id == run_id)
    assert parent.data.metrics == {"train/loss": 0.5}
    assert child.data.tags["mlflow.parentRunId"] == run_id
    assert child.data.params == {"evaluate.tolerance_px": "4", "loss.gamma": "2.0"}
    assert switch.open(answers=True).run_for_settings(run_id, OTHER_SETTINGS) == child.info.run_id


def test_results_of_a_run_that_was_deleted_block_nothing(switch: Switch, root: Path) -> None:
    run_id = record_training(switch.open(answers=True), root)
    store = switch.open(answers=False)
    with store.record(store.run_for_settings(run_id, SETTINGS)) as recorder:
        recorder.log_metrics({"A/ods": 0.5})
    MlflowClient(store.uri).delete_run(run_id)
    store = switch.open(answers=True)
    assert list_waiting(store.outbox_dir) == []
    assert "A/ods" in next((store.outbox_dir / "refused").iterdir()).read_text()


def test_records_for_another_store_stay(switch: Switch, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_training(switch.open(answers=False), root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/other.db")
    other = Store(root)
    assert other.client.search_runs([other.experiment_id]) == []
    assert other.deliver().elsewhere == 1
    assert len(switch.runs()) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:{}", "postgresql+psycopg://me:secret@127.0.0.1:{}/x"])
def test_an_address_on_which_no_one_listens_is_told_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(probe.getsockname()[1]))
        monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
        with pytest.raises(StoreAwayError, match=r"the tracking server at .* does not answer") as caught:
            Store(root)
        assert "secret" not in str(caught.value)
        store = Store(root, may_be_away=True)
        run_id = record_training(store, root)
    assert (store.outbox_dir / run_id / "records.jsonl").stat().st_size > 0
    with pytest.raises(StoreAwayError, match="records of 1 runs are kept in"):
        Store(root)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as server:  # takes connections and says nothing
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr("crackseg.tracking.connection._SAY_AFTER_S", 0.2)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_wait_for_a_silent_server_is_said_and_ends(
    root: Path, silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="crackseg")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    with pytest.raises(StoreAwayError, match="does not answer"):
        Store(root)
    assert f"waiting for the tracking store {silent}" in caplog.messages


def test_a_server_that_is_no_mlflow_is_a_mistake_and_no_outage(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(CracksegError, match="cannot be opened") as caught:
            Store(root, may_be_away=True)
        server.shutdown()
    assert not isinstance(caught.value, StoreAwayError)
