"""Looking up versions of a registered model: one that is not there and a store that does not answer differ."""

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError
from crackseg.experiments.compare.resolve_runs import find_runs
from crackseg.serving.deployment import find_model
from tests.registry_store import NAME, make_registry


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_version_that_is_not_there_is_named_with_what_lists_them(project: Path) -> None:
    store = make_registry(project, 1).store
    with pytest.raises(CracksegError, match=f"'{NAME}' has no version 7 in .*`crackseg models`"):
        find_model(f"models:/{NAME}/7")
    with pytest.raises(CracksegError, match="has no version 7"):
        find_runs(store, ["7", "8"], NAME)


def test_a_store_that_does_not_answer_is_no_missing_version(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("API request failed: Max retries exceeded")

    make_registry(project, 1)
    monkeypatch.setattr("mlflow.MlflowClient.get_model_version", fail)
    with pytest.raises(CracksegError, match="does not answer: API request failed"):
        find_model(f"models:/{NAME}/1")
