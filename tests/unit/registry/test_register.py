"""What is registered can be loaded by whoever comes with its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
