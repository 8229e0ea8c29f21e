"""A team's store by the commands of compose.yaml: what members do there, and a local store moved there."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.pipeline.conftest import Project, make_project
from tests.pipeline.postgres import PostgresServer, postgres_server
from tests.pipeline.team_server import TeamServer, team_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
REPORT_FIGURES = 3  # at least: PR curves of two datasets and both in one

postgres = pytest.fixture(postgres_server, scope="module")
server = pytest.fixture(team_server)


def load_and_predict(project: Project, uri: str) -> str:
    """Load a model in a process of its own, from the server alone; returns the output's columns."""
    code = (
        "import sys, mlflow, pandas as pd; from pathlib import Path;"
        "photo = next(Path('data/CRKWH100/images').iterdir()).read_bytes();"
        f"print(list(mlflow.pyfunc.load_model({uri!r}).predict(pd.DataFrame({{'image': [photo]}})).columns))"
    )
    return project.run(sys.executable, "-c", code)


def check_figures(server: TeamServer, run_id: str) -> None:
    """The figures of a run can be listed and fetched through the server."""
    pictures = [path for path in server.list_files(run_id) if path.endswith(".png")]
    assert len(pictures) >= REPORT_FIGURES
    for path in pictures:
        assert server.fetch_file(run_id, path).startswith(b"\x89PNG")


def run_id_of(project: Project) -> str:
    return str(json.loads((project.folder / "outputs" / "model" / "run.json").read_text())["run_id"])


def test_pipeline_and_registry_work_on_the_teams_store(
    server: TeamServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project")
    project.environment |= server.member
    project.run("dvc", "repro", timeout_s=1500)
    project.commit("First results")
    run_id = run_id_of(project)
    client = MlflowClient(server.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert run.data.metrics["mean/ods"] >= 0
    assert not (project.folder / "mlruns" / "mlflow.db").exists()
    check_figures(server, run_id)
    assert "crack_fraction" in load_and_predict(project, "models:/crackseg@candidate")

    photos = str(project.folder / "data" / "CRKWH100" / "images")
    project.run("crackseg", "promote", "1", "--force", "--reason", "the first")
    project.set_params({"train": {"seed": 2}})
    project.run("dvc", "repro", timeout_s=1500)
    project.commit("Another seed")
    project.run("crackseg", "promote", "2", "--force", "--reason", "a try")
    assert str(client.get_model_version_by_alias("crackseg", "production").version) == "2"
    project.run("crackseg", "rollback", "--reason", "no better")
    assert str(client.get_model_version_by_alias("crackseg", "production").version) == "1"
    history = project.run_json("crackseg", "history", "--json")
    assert "no better" in json.dumps(history)
    project.run("crackseg", "predict", photos, "--out", "found")
    assert (project.folder / "found" / "predictions.csv").stat().st_size > 0

    project.environment["MLFLOW_TRACKING_PASSWORD"] = "another"
    message = project.run("crackseg", "models", fails=True)
    assert "401" in message
    assert "Traceback" not in message
    project.environment |= server.member

    postgres.stop()  # the server answers, its database does not
    message = project.run("crackseg", "store", "deliver", fails=True)
    assert "does not answer" in message
    assert "Traceback" not in message
    postgres.start()
    assert "everything is delivered" in project.run("crackseg", "store", "deliver")


def test_local_store_moves_to_the_teams_store(finished: Project, server: TeamServer, tmp_path: Path) -> None:
    """Runs, figures and models of a local store are on the server, under it alone."""
    local = MlflowClient(f"sqlite:///{finished.folder / 'mlruns' / 'mlflow.db'}")
    finished.run("crackseg", "store", "export", str(tmp_path / "export"))
    project = Project(tmp_path / "elsewhere")  # another machine's clone, with nothing in it
    finished.run("git", "clone", "-q", ".", str(project.folder))
    project.environment |= server.member
    first = project.run("crackseg", "store", "import", str(tmp_path / "export"))
    again = project.run("crackseg", "store", "import", str(tmp_path / "export"))
    client = MlflowClient(server.uri)
    moved = {run.data.tags["crackseg.imported_from"]: run for run in client.search_runs(["1"])}
    runs = local.search_runs(["1"])
    assert sorted(moved) == sorted(run.info.run_id for run in runs)
    assert f"{len(runs)} runs" in first
    assert f"0 runs, 0 models, 0 registered versions imported; {len(runs)} runs were there" in again
    for run in runs:
        new = moved[run.info.run_id]
        assert (new.info.start_time, new.info.end_time) == (run.info.start_time, run.info.end_time)
        assert new.data.params == run.data.params
        assert new.data.metrics == run.data.metrics
        for key in run.data.metrics:
            there = [(m.step, m.timestamp, m.value) for m in client.get_metric_history(new.info.run_id, key)]
            assert there == [
                (m.step, m.timestamp, m.value) for m in local.get_metric_history(run.info.run_id, key)
            ]
        files = sorted(server.list_files(new.info.run_id))
        assert files == sorted(list_local_files(local, run.info.run_id))
    check_figures(server, moved[run_id_of(finished)].info.run_id)
    (version,) = client.search_model_versions("name = 'crackseg'")
    assert version.run_id == moved[run_id_of(finished)].info.run_id
    hidden = finished.folder.with_name("hidden")
    finished.folder.rename(hidden)  # the model must come from the server
    try:
        project.run("cp", "-r", str(hidden / "data"), ".")
        assert "crack_fraction" in load_and_predict(project, "models:/crackseg@candidate")
    finally:
        hidden.rename(finished.folder)


def list_local_files(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from list_local_files(client, run_id, item.path)
        else:
            yield item.path


def test_data_goes_to_the_teams_s3_store_and_comes_back(server: TeamServer, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.environment |= server.s3_member
    project.run("dvc", "remote", "add", "-d", "team", "s3://dvc/crackseg")
    project.run("dvc", "remote", "modify", "team", "endpointurl", server.s3_uri)
    files = {path: path.read_bytes() for path in (project.folder / "data").rglob("*") if path.is_file()}
    project.run("dvc", "push", "data.dvc")
    shutil.rmtree(project.folder / "data")
    shutil.rmtree(project.folder / ".dvc" / "cache")
    project.run("dvc", "pull", "data.dvc")
    assert {path: path.read_bytes() for path in files} == files
