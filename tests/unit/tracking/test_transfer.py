"""What an export carries must be in the new store: runs, histories, files, models, registry; once, and whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from crackseg.errors import CracksegError
from crackseg.tracking.runs import IMPORTED_TAG
from crackseg.tracking.store import Store
from crackseg.tracking.transfer import exporting
from crackseg.tracking.transfer.exporting import export_store
from crackseg.tracking.transfer.importing import import_store

NAME = "crackseg"
MODEL = """
import mlflow
from mlflow.pyfunc import PythonModel

class Constant(PythonModel):
    def load_context(self, context):
        self.text = open(context.artifacts["weights"]).read()
    def predict(self, context, model_input, params=None):
        return [self.text] * len(model_input)

mlflow.models.set_model(Constant())
"""


def open_store(folder: Path) -> Store:
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it to the store opened last
    return Store(folder)


@pytest.fixture(scope="module")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without experiments, because migrating takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@pytest.fixture
def make_store(tmp_path: Path, fresh_database: Path) -> Callable[[str], Store]:
    def make(name: str) -> Store:
        (tmp_path / name / "mlruns").mkdir(parents=True)
        shutil.copy(fresh_database, tmp_path / name / "mlruns" / "mlflow.db")
        return open_store(tmp_path / name)

    return make


@pytest.fixture(scope="module")
def source_dir(tmp_path_factory: pytest.TempPathFactory, fresh_database: Path) -> Iterator[Path]:
    """A store with a training, a rescored child, two registered versions (3 and 5), aliases and a stage."""
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    root = tmp_path_factory.mktemp("source")
    (root / "mlruns").mkdir()
    shutil.copy(fresh_database, root / "mlruns" / "mlflow.db")
    store = open_store(root)
    client = store.client
    (root / "figure.png").write_bytes(b"figure")
    run_id = store.create_run("first")
    with store.record(run_id) as recorder:
        recorder.log_params({f"loss.p{i}": i for i in range(130)})
        recorder.log_file(root / "figure.png", "report/figures")
        recorder.log_curve("D/precision_at_recall", {0: 1.0, 50: 0.8, 100: 0.25})
        recorder.log_dataset("D-train", "0123.dir", context="training", num_images=3, source="sample")
        recorder.end("FINISHED")
    points = [Metric("train/loss", 1 / (step + 1), 1_600_000_000_000 + step, step) for step in range(1200)]
    points += [Metric("val/ods", value, 7, step) for step, value in enumerate([0.5, float("nan"), float("inf")])]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    child_id = store.create_run("child", parent=run_id)
    client.log_metric(child_id, "mean/ods", 0.7)
    client.set_terminated(child_id, "FAILED")
    (root / "model.py").write_text(MODEL)
    client.create_registered_model(NAME, description="cracks")
    for text in ("one", "two"):
        (root / "weights.txt").write_text(text)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model", python_model=str(root / "model.py"), artifacts={"weights": str(root / "weights.txt")},
                pip_requirements=[],
            )  # fmt: skip
        for _ in range(3 if text == "one" else 2):  # numbers 1, 2 and 4 are deleted again
            version = client.create_model_version(
                NAME, logged.model_uri, run_id=run_id, model_id=logged.model_id, tags={"sha": text}
            )
            if (text == "one" and version.version < 3) or version.version == 4:
                client.delete_model_version(NAME, version.version)
    client.update_model_version(NAME, "3", description="the good one")
    client.set_registered_model_alias(NAME, "production", "3")
    client.set_registered_model_alias(NAME, "candidate", "5")
    client.transition_model_version_stage(NAME, "3", "Production")
    client.set_registered_model_tag(NAME, "history.000001", json.dumps({"to": "3", "run": run_id}))
    yield root
    patch.undo()


@pytest.fixture
def source(source_dir: Path, no_server: None) -> Store:
    return open_store(source_dir)


def runs_by_name(store: Store) -> dict[str, Run]:
    return {run.info.run_name: run for run in exporting.iterate_runs(store.client, [store.experiment_id])}


def describe(store: Store) -> dict[str, object]:
    """All that a user sees of a store, with names instead of ids."""
    client = store.client
    runs = runs_by_name(store)
    names = {run.info.run_id: name for name, run in runs.items()}
    described: dict[str, object] = {}
    for name, run in runs.items():
        history = {
            key: [(m.step, m.timestamp, repr(m.value)) for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        tags = {k: v for k, v in run.data.tags.items() if not k.startswith("crackseg.imported")}
        if "mlflow.parentRunId" in tags:
            tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
        described[name] = {
            "info": (run.info.status, run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": tags,
            "history": history,
            "inputs": [dict(i.dataset) | {t.key: t.value for t in i.tags} for i in run.inputs.dataset_inputs],
            "files": sorted(list_files(client, run.info.run_id)),
            "models": sorted(o.step for o in run.outputs.model_outputs),
        }
    registered = client.get_registered_model(NAME)
    described["registry"] = (
        registered.description,
        {alias: str(version) for alias, version in registered.aliases.items()},
        registered.tags,  # word for word
        sorted(
            (int(v.version), v.description, v.current_stage, v.tags["sha"], names[v.run_id])
            for v in client.search_model_versions(f"name = '{NAME}'")
        ),
    )
    return described


def list_files(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from list_files(client, run_id, item.path)
        else:
            yield item.path


def test_new_store_shows_everything_of_the_old_one(
    source: Store, make_store: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = describe(source)
    counts = export_store(source, tmp_path / "export")
    assert (counts.runs, counts.models, counts.versions, counts.notes) == (2, 2, 2, [])
    hidden = source.root.with_name("hidden")
    source.root.rename(hidden)  # nothing may lead back there
    try:
        target = make_store("target")
        imported = import_store(target, tmp_path / "export")
        assert (imported.runs, imported.models, imported.versions) == (2, 2, 2)
        assert describe(target) == expected
        new = runs_by_name(target)["first"].info.run_id
        figure = target.client.download_artifacts(new, "report/figures/figure.png", str(tmp_path))
        assert Path(figure).read_bytes() == b"figure"
        for version, text in (("models:/crackseg@production", "one"), ("models:/crackseg/5", "two")):
            model = mlflow.pyfunc.load_model(version)
            assert model.predict(pd.DataFrame({"image": ["x"]})) == [text]
            assert model.metadata.run_id == new
            assert model.metadata.model_id in {m.model_id for m in target.client.search_logged_models(["1"])}
    finally:
        hidden.rename(source.root)


def test_second_import_adds_nothing(source: Store, make_store: Callable[[str], Store], tmp_path: Path) -> None:
    export_store(source, tmp_path / "export")
    target = make_store("target")
    import_store(target, tmp_path / "export")
    expected = describe(target)
    again = import_store(target, tmp_path / "export")
    assert (again.runs, again.models, again.versions, again.known_runs, again.notes) == (0, 0, 0, 2, [])
    assert describe(target) == expected
    export_store(target, tmp_path / "back")
    home = import_store(open_store(source.root), tmp_path / "back")
    assert (home.runs, home.models, home.versions, home.known_runs) == (0, 0, 0, 2)


def test_import_that_was_stopped_goes_on(
    source: Store, make_store: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = describe(source)
    export_store(source, tmp_path / "export")
    target = make_store("target")
    calls = {"log_artifact": 1, "log_model_artifact": 3, "transition_model_version_stage": 1}
    for name, number in calls.items():  # stops there each time, and resumes
        real = getattr(target.client, name)
        left = [number]

        def fail(*args: object, real: Callable = real, left: list[int] = left, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise OSError("no space left on device")
            return real(*args, **options)

        monkeypatch.setattr(target.client, name, fail)
        with pytest.raises(CracksegError, match="the same command resumes"):
            import_store(target, tmp_path / "export")
    import_store(target, tmp_path / "export")
    assert describe(target) == expected


def test_runs_made_after_the_first_export_come_with_the_next(
    make_store: Callable[[str], Store], tmp_path: Path
) -> None:
    origin, target = make_store("origin"), make_store("target")
    first = origin.create_run("first")
    export_store(origin, tmp_path / "one")
    origin.client.log_metric(first, "mean/ods", 0.5)
    origin.client.set_terminated(first)
    origin.create_run("second")
    export_store(origin, tmp_path / "two")
    import_store(target, tmp_path / "one")
    assert runs_by_name(target)["first"].info.status == "RUNNING"
    import_store(target, tmp_path / "two")
    runs = runs_by_name(target)
    assert sorted(runs) == ["first", "second"]
    assert runs["first"].info.status == "FINISHED"
    assert runs["first"].data.metrics == {"mean/ods": 0.5}
    assert runs["first"].data.tags[IMPORTED_TAG] == first


def test_stages_go_on_with_a_run_by_the_id_it_had_before(
    source: Store, make_store: Callable[[str], Store], tmp_path: Path
) -> None:
    old = runs_by_name(source)["first"].info.run_id
    export_store(source, tmp_path / "export")
    target = make_store("target")
    import_store(target, tmp_path / "export")
    new = runs_by_name(target)["first"].info.run_id
    assert target.get_run(old).info.run_id == new != old
    assert target.run_for_settings(old, {"loss.p1": 1}) == new
    child = target.run_for_settings(old, {"loss.p1": 2})
    assert target.get_run(child).data.tags["mlflow.parentRunId"] == new


def test_two_members_of_a_team_keep_each_others_versions(
    source: Store, make_store: Callable[[str], Store], tmp_path: Path
) -> None:
    export_store(source, tmp_path / "export")
    target = make_store("target")
    run = target.create_run("theirs")
    target.client.create_registered_model(NAME)
    for _ in range(3):
        target.client.create_model_version(NAME, f"runs:/{run}/model", run_id=run)
    target.client.set_registered_model_alias(NAME, "production", "2")
    counts = import_store(target, tmp_path / "export")
    assert any("version 3 of 'crackseg' is version 4 here" in note for note in counts.notes)
    assert any("alias 'production' of 'crackseg' stays at version 2" in note for note in counts.notes)
    assert any("tags 'history' of 'crackseg' stay" in note for note in counts.notes)
    assert target.client.get_registered_model(NAME).tags == {}
    versions = {int(v.version): v.tags.get("sha") for v in target.client.search_model_versions(f"name = '{NAME}'")}
    assert versions == {1: None, 2: None, 3: None, 4: "one", 5: "two"}
    assert import_store(target, tmp_path / "export").versions == 0


def test_chosen_run_comes_with_its_children_alone(source: Store, tmp_path: Path) -> None:
    child = runs_by_name(source)["child"].info.run_id
    counts = export_store(source, tmp_path / "child", run_ids=[child])
    assert (counts.runs, counts.models, counts.versions) == (1, 0, 0)
    parent = runs_by_name(source)["first"].info.run_id
    assert export_store(source, tmp_path / "both", run_ids=[parent]).runs == 2
    with pytest.raises(CracksegError, match="no run nonsense"):
        export_store(source, tmp_path / "none", run_ids=["nonsense"])
    with pytest.raises(CracksegError, match=r"no experiment 'cracks'.*there are: Default, crackseg"):
        export_store(source, tmp_path / "none", experiments=["cracks"])
    with pytest.raises(CracksegError, match="exists already"):
        export_store(source, tmp_path / "both")


def test_export_that_was_stopped_goes_on_and_cannot_be_imported_before(
    source: Store, make_store: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(exporting, "download_artifacts", stop)
    with pytest.raises(CracksegError, match="no space left on device; the same command resumes"):
        export_store(source, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    with pytest.raises(CracksegError, match=r"was not finished; run `crackseg store export .*export`"):
        import_store(source, tmp_path / "export.part")
    monkeypatch.undo()
    fetched: list[str] = []
    real = source.client.download_artifacts
    monkeypatch.setattr(source.client, "download_artifacts", lambda *a: fetched.append(a[0]) or real(*a))
    assert export_store(source, tmp_path / "export").runs == 2
    assert fetched == []  # the runs were there from the first try
    assert import_store(make_store("target"), tmp_path / "export").runs == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def change(path: Path) -> None:
    path.write_bytes(b"F" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("pattern", "damage", "message"),
    [
        ("runs/*/artifacts/report/figures/figure.png", Path.unlink, "figure.png is missing"),
        ("runs/*/artifacts/report/figures/figure.png", cut, "has 4 bytes, not 6"),
        ("runs/*/artifacts/report/figures/figure.png", change, "was changed"),
        ("files.jsonl", cut, "files.jsonl is missing or not as it was written"),
        ("export.json", cut, "damaged"),
        ("export.json", Path.unlink, "not an export of a store"),
        ("export.json", lambda path: path.write_text('{"format": 99}'), "format 99, expected 1"),
    ],
)
def test_damaged_export_is_refused_whole(
    pattern: str, damage: Callable[[Path], None], message: str, source: Store,
    make_store: Callable[[str], Store], tmp_path: Path,
) -> None:  # fmt: skip
    export_store(source, tmp_path / "export")
    (path,) = (tmp_path / "export").glob(pattern)
    damage(path)
    target = make_store("target")
    with pytest.raises(CracksegError, match=message):
        import_store(target, tmp_path / "export")
    assert runs_by_name(target) == {}
    assert target.client.search_registered_models() == []


def test_export_may_not_name_files_outside_of_it(
    source: Store, make_store: Callable[[str], Store], tmp_path: Path
) -> None:
    export_store(source, tmp_path / "export", run_ids=[runs_by_name(source)["child"].info.run_id])
    (tmp_path / "secret").write_text("secret")
    listing = tmp_path / "export" / "files.jsonl"
    record = {"path": "runs/x/artifacts/../../../../secret", "bytes": 6, "sha256": "0"}
    listing.write_text(listing.read_text() + json.dumps(record) + "\n")
    manifest = json.loads((tmp_path / "export" / "export.json").read_text())
    manifest["listing_sha256"] = hashlib.sha256(listing.read_bytes()).hexdigest()
    (tmp_path / "export" / "export.json").write_text(json.dumps(manifest))
    with pytest.raises(CracksegError, match="outside of the folder"):
        import_store(make_store("target"), tmp_path / "export")


def test_moved_store_says_where_its_artifacts_should_be(
    make_store: Callable[[str], Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store("here")
    (tmp_path / "figure.png").write_bytes(b"figure")
    run_id = store.create_run("first")
    store.client.log_artifact(run_id, str(tmp_path / "figure.png"))
    assert caplog.text == ""
    (tmp_path / "here").rename(tmp_path / "there")
    moved = open_store(tmp_path / "there")
    assert f"should be in {tmp_path / 'here' / 'mlruns' / 'artifacts'}, and there is no such folder" in caplog.text
    with pytest.raises(CracksegError, match="the store was moved or copied"):
        export_store(moved, tmp_path / "export")
    (tmp_path / "here" / "mlruns").mkdir(parents=True)  # as the message says
    (tmp_path / "here" / "mlruns" / "artifacts").symlink_to(tmp_path / "there" / "mlruns" / "artifacts")
    export_store(moved, tmp_path / "export")
    assert (tmp_path / "export" / "runs" / run_id / "artifacts" / "figure.png").read_bytes() == b"figure"
