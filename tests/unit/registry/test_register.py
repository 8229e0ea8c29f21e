"""What is registered can be loaded by whoever comes with its name."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from crackseg.registry import register
from crackseg.registry.loading import load_model
from crackseg.registry.register import register_model
from crackseg.tracking.fetching import fetch_weights
from crackseg.tracking.store import Store
from tests.tiny_model import make_model


def test_weights_under_any_name_become_a_version_that_predicts_and_initialises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    analyzer = make_model(tmp_path / "files")
    weights_path = (tmp_path / "files" / "weights.pt").rename(tmp_path / "0030.pt")  # as a search keeps it
    store = Store(tmp_path)
    version = register_model(
        store,
        run_id=store.create_run("trial"),
        weights_path=weights_path,
        settings_path=tmp_path / "files" / "settings.json",
        probe_dir=tmp_path / "files" / "probe",
        name="cracks",
        tags={"val/ods": "0.5"},
    )
    uri = f"models:/cracks/{version.version}"
    photograph = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    loaded = load_model(uri, tmp_path)
    assert loaded.analyzer.analyze(photograph).score == pytest.approx(analyzer.analyze(photograph).score, abs=0.02)
    assert "models:/cracks@production" in store.client.get_registered_model("cracks").description
    assert fetch_weights(uri, tmp_path / "fetched").read_bytes() == weights_path.read_bytes()


@pytest.mark.parametrize("is_made", [True, False])
def test_a_version_whose_answer_was_lost_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path)
    store.client.create_registered_model("cracks")
    logged = SimpleNamespace(model_uri=(tmp_path / "model").as_uri(), model_id=None)
    create, sent = store.client.create_model_version, []

    def lose_the_first_answer(*args: Any, **kwargs: Any) -> ModelVersion:
        sent.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        made = create(*args, **kwargs) if is_made or len(sent) > 1 else None
        if len(sent) == 1:
            raise MlflowException("API request failed with error code 503")
        return made

    monkeypatch.setattr(store.client, "create_model_version", lose_the_first_answer)
    monkeypatch.setattr(register, "is_outage", lambda *_: True)
    run_id = store.create_run("trial")
    version = register._create_version(store, run_id, logged, "cracks")  # type: ignore[arg-type]
    assert (str(version.version), version.run_id) == ("1", run_id)
    assert len(store.client.search_model_versions("name = 'cracks'")) == 1
    assert sent == ["0"] * (1 if is_made else 2)  # MLflow's own client sent none of them again
