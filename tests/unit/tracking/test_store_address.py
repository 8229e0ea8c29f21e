"""A relative address of the store means the project, or runs vanish with a temporary copy or into a stray database."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from crackseg.cli.doctor.project import check_store
from crackseg.errors import CracksegError
from crackseg.experiments.search.storage import open_storage
from crackseg.project import find_real_root, find_root
from crackseg.tracking.artifact_places import describe_lost_artifacts
from crackseg.tracking.store import Store
from crackseg.tracking.store_address import find_registry_uri, find_tracking_uri, local_uri


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # MLflow itself sets the variables to what was opened last; monkeypatch puts them back afterwards.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def make_clone(root: Path, *below: str) -> Path:
    """A temporary copy as `dvc exp run --temp` makes it."""
    clone = root.joinpath(".dvc", "tmp", "exps", "standalone", "tmpab12", *below)
    clone.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (clone / name).touch()
    return clone


def from_everywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The address as found in the project, in a sub-folder, in DVC's copy and in a folder of the copy."""
    clone = make_clone(root)
    found = []
    for folder in (root, root / "data", clone, clone / "data"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        found.append(find_tracking_uri(find_root()))
    return found


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("sqlite:///runs.db", "sqlite:///{root}/runs.db"),
        ("sqlite:///sub/../sub/x.db", "sqlite:///{root}/sub/x.db"),
        ("sqlite+pysqlite:///x.db?timeout=5", "sqlite+pysqlite:///{root}/x.db?timeout=5"),
        ("sqlite:///file:x.db?uri=true", "sqlite:///file:{root}/x.db?uri=true"),
        ("sqlite:////srv/x.db", "sqlite:////srv/x.db"),
        ("./mlruns", "file://{root}/mlruns"),
        ("mlruns", "file://{root}/mlruns"),
        ("file:mlruns", "file://{root}/mlruns"),
        ("file:./mlruns", "file://{root}/mlruns"),
        ("file:///srv/mlruns", "file:///srv/mlruns"),
        ("/srv/mlruns", "/srv/mlruns"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql+psycopg://u:p@h/mlflow", "postgresql+psycopg://u:p@h/mlflow"),
        ("databricks", "databricks"),
    ],
)
def test_a_relative_address_means_the_project_wherever_a_command_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: str, meant: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", said)
    assert set(from_everywhere(root, monkeypatch)) == {meant.format(root=root)}
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", said)
    assert find_registry_uri(find_root()) == meant.format(root=root)


def test_the_link_in_the_root_is_the_local_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mlflow.db").symlink_to("mlruns/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert find_tracking_uri(root) == local_uri(root / "mlruns")


@pytest.mark.parametrize("said", ["sqlite://", "sqlite:///:memory:", "sqlite:///", "sqlite:///file:x?mode=memory"])
def test_a_database_in_memory_is_refused_before_anything_is_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", said)
    with pytest.raises(CracksegError, match="in memory, which keeps nothing; expected"):
        Store(root)
    assert check_store(root, timeout_s=1).status == "failed"


@pytest.mark.parametrize("said", ["sqlite://mlflow.db", "file://mlruns", "file://./mlruns"])
def test_a_misspelt_address_is_refused_with_the_right_spelling(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", said)
    with pytest.raises(CracksegError, match=r"expected (e\.g\. sqlite:///|file:FOLDER)"):
        Store(root)


def test_runs_and_artifacts_made_in_a_temporary_copy_are_kept_in_the_project(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = make_clone(root)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///stores/runs.db")
    store = Store(find_root())
    run_id = store.create_run("kept")
    with store.record(run_id) as recorder:
        recorder.log_file(clone / "params.yaml")
    with closing(sqlite3.connect(root / "stores" / "runs.db")) as database:
        assert database.execute("select name from runs").fetchall() == [("kept",)]
    assert [path.parent.parent.name for path in (root / "mlruns").rglob("params.yaml")] == [run_id]
    assert sorted(path.name for path in clone.iterdir()) == ["dvc.yaml", "params.yaml"]
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{root}/stores/runs.db"  # child processes use the same


def test_a_store_of_files_says_what_to_set_and_works_when_it_is_allowed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_clone(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(CracksegError, match=r"MLFLOW_ALLOW_FILE_STORE=true; better unset MLFLOW_TRACKING_URI"):
        Store(find_root())
    finding = check_store(root, timeout_s=1)
    assert (finding.status, "MLFLOW_ALLOW_FILE_STORE" in finding.message) == ("failed", True)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = Store(find_root())
    run_id = store.create_run("kept")
    with store.record(run_id) as recorder:
        recorder.log_metrics({"val/ods": 0.5})
        recorder.end("FINISHED")
    assert Store(root).finished_runs()[0].run_id == run_id
    assert [path.parent.name for path in (root / "mlruns").rglob(run_id)] != []


def test_a_study_in_a_file_is_kept_when_a_temporary_copy_is_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_clone(root))
    for address in ("sqlite:///study.db", "other.db"):
        open_storage(address).get_all_studies()
    assert {"study.db", "other.db"} <= {path.name for path in root.iterdir()}
    (root / "data").mkdir()
    monkeypatch.chdir(root / "data")  # an option means what it means to every command there
    open_storage("other.db")
    assert (root / "data" / "other.db").exists()


def test_an_experiment_whose_artifacts_would_be_deleted_with_a_temporary_copy_is_named(root: Path) -> None:
    location = (make_clone(root) / "mlruns" / "0").as_uri()
    assert "a temporary copy that DVC deletes" in (describe_lost_artifacts("Default", location) or "")


def test_a_project_in_a_sub_folder_of_the_repository_is_found_from_a_temporary_copy(root: Path) -> None:
    project = root / "tools" / "cracks"
    project.mkdir(parents=True)
    (project / "dvc.yaml").touch()
    assert find_real_root(make_clone(root, "tools", "cracks")) == project
