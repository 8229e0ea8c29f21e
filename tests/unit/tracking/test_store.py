"""A run's records must reach the store once, whatever happens to the server, the disk or the process."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError
from crackseg.project import find_real_root, find_root
from crackseg.tracking import new_database
from crackseg.tracking import store as store_module
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.outbox import Outbox, deliver_left_over
from crackseg.tracking.store import Store
from crackseg.tracking.store_address import local_uri
from tests.registry_store import PROCESSES, record_a_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "mlruns").mkdir()
    return tmp_path


@pytest.fixture
def store(root: Path) -> Store:
    return Store(root)


class Unreachable:
    """Stands before a real client; while it is down, every call fails as a lost server's would."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self.down = True

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise MlflowException("connection refused")
        return getattr(self.client, name)


def history(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store.client.get_metric_history(run_id, key)]


def test_everything_said_of_a_run_is_in_the_store(store: Store, tmp_path: Path) -> None:
    run_id = store.create_run("one")
    with store.record(run_id) as recorder:
        recorder.log_params({"loss.gamma": 2.0})
        recorder.set_tags({"device": "cpu"})
        recorder.log_metrics({"train/loss": 0.5}, step=0)
        recorder.log_metrics({"train/loss": 0.4}, step=1)
        recorder.log_file(tmp_path / "params.yaml", "settings")
        recorder.log_dataset("D-train", "0123.dir", context="training", num_images=3, source="sample")
        recorder.end("FINISHED")
    run = store.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.params == {"loss.gamma": "2.0"}
    assert run.data.tags["device"] == "cpu"
    assert history(store, run_id, "train/loss") == [(0, 0.5), (1, 0.4)]
    assert [f.path for f in store.client.list_artifacts(run_id, "settings")] == ["settings/params.yaml"]
    assert run.inputs.dataset_inputs[0].dataset.name == "D-train"
    assert not (store.outbox_dir / run_id).exists()


def test_records_of_a_lost_server_are_delivered_later(store: Store, tmp_path: Path) -> None:
    run_id = store.create_run(None)
    client = Unreachable(store.client)
    outbox = Outbox(store.outbox_dir / run_id, client)
    outbox.put("metrics", values={"train/loss": 1.0}, step=0)
    (tmp_path / "figure.png").write_bytes(b"figure")
    outbox.put_file(tmp_path / "figure.png", "report")
    (tmp_path / "figure.png").unlink()  # the copy counts
    outbox.put("status", value="FINISHED")
    assert outbox.close(timeout=5) is False
    assert history(store, run_id, "train/loss") == []

    assert deliver_left_over(store.outbox_dir, client) == (0, 1, 0)
    client.down = False
    assert deliver_left_over(store.outbox_dir, client) == (1, 0, 0)
    assert history(store, run_id, "train/loss") == [(0, 1.0)]
    assert [f.path for f in store.client.list_artifacts(run_id, "report")] == ["report/figure.png"]
    assert store.get_run(run_id).info.status == "FINISHED"


def test_the_next_command_delivers_what_was_left(root: Path, store: Store) -> None:
    run_id = store.create_run(None)
    outbox = Outbox(store.outbox_dir / run_id, Unreachable(store.client))
    outbox.put("metrics", values={"val/ods": 0.7}, step=3)
    outbox.close(timeout=5)
    Store(root)
    assert history(store, run_id, "val/ods") == [(3, 0.7)]


def test_an_epoch_gone_through_again_is_recorded_once(store: Store) -> None:
    run_id = store.create_run(None)
    outbox = Outbox(store.outbox_dir / run_id, Unreachable(store.client))
    outbox.put("metrics", values={"train/loss": 1.0}, step=0)
    outbox.close(timeout=5)
    with store.record(run_id, resumed=True) as recorder:
        recorder.log_metrics({"train/loss": 1.0}, step=0)
        recorder.log_metrics({"train/loss": 0.9}, step=1)
    assert history(store, run_id, "train/loss") == [(0, 1.0), (1, 0.9)]


def test_a_curve_is_recorded_once_also_after_an_outage(store: Store) -> None:
    run_id = store.create_run(None)
    name, points = "A/precision_at_recall", {0: 1.0, 50: 0.8, 100: 0.25}
    outbox = Outbox(store.outbox_dir / run_id, Unreachable(store.client))
    outbox.put("curve", name=name, values=points)
    assert outbox.close(timeout=5) is False
    store.client.log_metric(run_id, name, 1.0, step=0)  # arrived, but its receipt was lost
    for _ in range(2):
        with store.record(run_id) as recorder:
            recorder.log_curve(name, points)
        assert sorted(history(store, run_id, name)) == sorted(points.items())


def test_a_batch_whose_receipt_was_lost_is_not_sent_twice(store: Store) -> None:
    run_id = store.create_run(None)
    folder = store.outbox_dir / run_id
    outbox = Outbox(folder, Unreachable(store.client))
    outbox.put("metrics", values={"train/loss": 1.0}, step=0)
    outbox.close(timeout=5)
    store.client.log_metric(run_id, "train/loss", 1.0, step=0)  # it had arrived after all
    assert Outbox(folder, store.client).close()
    assert history(store, run_id, "train/loss") == [(0, 1.0)]


def test_a_full_local_disk_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = store.create_run(None)
    outbox = Outbox(store.outbox_dir / run_id, store.client)
    real_open = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "records.jsonl" and arguments[:1] == ("a",):
            raise OSError(28, "No space left on device")
        return real_open(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        outbox.put("metrics", values={"train/loss": 1.0}, step=0)
    outbox.put("metrics", values={"train/loss": 0.5}, step=1)
    assert outbox.close()
    assert history(store, run_id, "train/loss") == [(0, 1.0), (1, 0.5)]


def test_a_line_cut_by_a_kill_is_passed_over(store: Store) -> None:
    run_id = store.create_run(None)
    folder = store.outbox_dir / run_id
    folder.mkdir(parents=True)
    whole = json.dumps({"kind": "metrics", "time_ms": 1, "values": {"a": 1.0}, "step": 0})
    (folder / "records.jsonl").write_text(f'{whole}\n{{"kind": "met')
    outbox = Outbox(folder, store.client)
    outbox.put("metrics", values={"a": 2.0}, step=1)
    outbox.put("metrics", values={"a": 3.0}, step=2)
    assert outbox.close()
    assert history(store, run_id, "a") == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_a_resumed_run_asks_the_store_what_it_has(store: Store) -> None:
    run_id = store.create_run(None)
    with store.record(run_id) as recorder:  # delivered and gone from the disk
        recorder.log_metrics({"train/loss": 1.0}, step=0)
    with store.record(run_id, resumed=True) as recorder:
        recorder.log_metrics({"train/loss": 1.0}, step=0)
        recorder.log_metrics({"train/loss": 0.5}, step=1)
    assert history(store, run_id, "train/loss") == [(0, 1.0), (1, 0.5)]


def test_records_of_a_deleted_run_block_nothing(store: Store) -> None:
    gone, alive = store.create_run(None), store.create_run(None)
    outbox = Outbox(store.outbox_dir / gone, store.client)
    store.client.delete_run(gone)
    outbox.put("metrics", values={"a": 1.0}, step=0)
    assert outbox.close()
    kept = (store.outbox_dir / "refused" / f"{gone}.jsonl").read_text()
    assert '"a": 1.0' in kept
    with store.record(alive) as recorder:
        recorder.log_metrics({"a": 1.0})
    assert history(store, alive, "a") == [(0, 1.0)]
    assert deliver_left_over(store.outbox_dir, store.client) == (0, 0, 0)
    with pytest.raises(CracksegError, match="deleted"):
        store.get_run(gone)


def test_an_outbox_in_use_is_left_to_its_process(store: Store) -> None:
    run_id = store.create_run(None)
    outbox = Outbox(store.outbox_dir / run_id, Unreachable(store.client))
    outbox.put("metrics", values={"a": 1.0}, step=0)
    assert deliver_left_over(store.outbox_dir, store.client) == (0, 0, 0)
    assert history(store, run_id, "a") == []
    outbox.close(timeout=5)


def test_several_at_once_on_a_fresh_store_land_in_one_experiment(root: Path) -> None:
    processes = [PROCESSES.Process(target=record_a_run, args=(root,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = Store(root)
    runs = store.client.search_runs([store.experiment_id])
    assert [run.data.metrics for run in runs] == [{"x": 1.0}] * 3
    assert all(run.info.artifact_uri.startswith((root / "mlruns" / "artifacts").as_uri()) for run in runs)


def test_experiments_in_a_temporary_clone_use_the_real_store(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = root / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    (clone / "src").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (clone / name).touch()
    monkeypatch.chdir(clone / "src")
    assert find_root() == clone
    assert find_real_root(clone) == root
    assert Store(find_root()).uri == local_uri(root / "mlruns")


def test_outside_a_project_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match="no crackseg project"):
        find_root(tmp_path)


def test_a_store_that_cannot_be_reached_is_an_error_at_the_start(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(CracksegError, match=r"the tracking server at http://127\.0\.0\.1:9 does not answer"):
        Store(root)


def test_results_under_other_settings_go_to_one_child_run(store: Store) -> None:
    run_id = store.create_run("trained")
    with store.record(run_id) as recorder:
        recorder.log_params({"loss.gamma": 2.0, "evaluate.tolerance_px": 2})
        recorder.set_tags({"data.md5": "aa"})
        recorder.end("FINISHED")
    assert store.run_for_settings(run_id, {"evaluate.tolerance_px": 2, "data.md5": "aa"}) == run_id
    child = store.run_for_settings(run_id, {"evaluate.tolerance_px": 4, "data.md5": "aa"})
    assert child != run_id
    assert store.run_for_settings(run_id, {"evaluate.tolerance_px": 4, "data.md5": "aa"}) == child
    run = store.get_run(child)
    assert run.data.params == {"loss.gamma": "2.0", "evaluate.tolerance_px": "4"}
    assert run.data.tags["mlflow.parentRunId"] == run_id


def test_a_run_of_another_store_is_named(store: Store) -> None:
    with pytest.raises(CracksegError, match="run nowhere is not in the store"):
        store.get_run("nowhere")


def test_runs_are_found_by_their_ids_some_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`crackseg models` asks for the runs of its versions only: all runs of a large store took it 8 s."""
    monkeypatch.setattr("crackseg.tracking.runs._RUNS_AT_ONCE", 2)
    ids = [store.create_run(f"run {number}") for number in range(5)]
    found = store.find_runs([*ids[:3], "0" * 32])
    assert {run_id: run.info.run_name for run_id, run in found.items()} == {
        run_id: f"run {number}" for number, run_id in enumerate(ids[:3])
    }
    assert store.find_runs([]) == {}


def test_a_run_is_made_once_also_if_the_process_is_killed_while_it_is_created(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, written = root / "run.json", []
    write = store_module.write_bytes

    def die_at(number: int) -> None:
        """Kill the process before it writes the note of this number, from 0."""

        def write_or_die(*arguments: Any, **options: Any) -> None:
            if len(written) == number:
                raise KeyboardInterrupt
            written.append(arguments)
            write(*arguments, **options)

        with monkeypatch.context() as dying:
            dying.setattr(store_module, "write_bytes", write_or_die)
            with pytest.raises(KeyboardInterrupt):
                store.continue_run(path, name="trained")
        written.clear()

    for number in (0, 1, 0, 0):
        die_at(number)
    run_id, resumed = store.continue_run(path, name="trained")
    assert store.continue_run(path) == (run_id, True)
    assert not resumed
    (run,) = store.client.search_runs([store.experiment_id], "attributes.run_name = 'trained'")
    assert run.info.run_id == run_id
    assert not [key for key in run.data.tags if key.startswith("crackseg.")]


def test_a_run_that_a_server_away_cannot_show_is_continued_and_not_made_again(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, _ = store.continue_run(root / "run.json", name="trained")
    training = Store(root, may_be_away=True)

    def be_away(*_: object) -> None:
        raise StoreAwayError("the tracking server does not answer")

    for opened in (training, store):
        monkeypatch.setattr(opened, "get_run", be_away)
    assert training.continue_run(root / "run.json") == (run_id, True)
    with pytest.raises(StoreAwayError):
        store.continue_run(root / "run.json")


def test_a_kill_while_the_database_is_made_does_not_spoil_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "mlflow.db"
    for module, step in ((new_database.utils, "_upgrade_db"), (new_database, "sync_files")):
        with monkeypatch.context() as dying:
            dying.setattr(module, step, die)
            with pytest.raises(KeyboardInterrupt):
                new_database.make_database(path)
        assert not path.exists()
        assert path.with_name("mlflow.db.new").exists()
    new_database.make_database(path)
    assert MlflowClient(f"sqlite:///{path}").create_experiment("cracks")
    assert not list(tmp_path.glob("mlflow.db.new*"))
    before = path.read_bytes()
    new_database.make_database(path)
    assert path.read_bytes() == before
