"""The views that MLflow's pages open with: settings, ODS and PR curves of the runs, not its own choice."""

import base64
import json
import zlib
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from crackseg.tracking.store import Store
from crackseg.tracking.ui_view import save_view

METRICS = [
    "mean/ods", "A/ods", "A/ois", "A/num_images", "A/precision_at_recall", "B/ods", "B/threshold", "train/loss",
    "val/ods", "best/ods", "system/cpu_utilization_percentage",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    root = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Store(root)


def open_view(store: Store, address: str) -> dict:
    key = parse_qs(urlsplit(address.removeprefix("/#")).query)["viewStateShareKey"][0]
    text = store.client.get_experiment(store.experiment_id).tags[f"mlflow.sharedViewState.{key}"]
    return json.loads(zlib.decompress(base64.b64decode(text.removeprefix("deflate;"))))


def test_a_new_experiment_is_shown_as_model_training(store: Store) -> None:
    tags = store.client.get_experiment(store.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_table_shows_gamma_and_the_ods_of_each_dataset_and_the_best_run_first(store: Store) -> None:
    view = open_view(store, save_view(store.client, store.experiment_id, METRICS))
    first = ["params.`loss.gamma`", "metrics.`mean/ods`", "metrics.`A/ods`", "metrics.`B/ods`"]
    assert view["selectedColumns"][:4] == view["columnOrder"][:4] == first
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`mean/ods`", False)


def test_the_charts_begin_with_ods_and_end_with_counts(store: Store) -> None:
    address = save_view(store.client, store.experiment_id, METRICS, run_ids=["a", "b"])
    view = open_view(store, address)
    assert "compareRunsMode=CHART" in address
    assert view["searchFilter"] == "attributes.run_id IN ('a', 'b')"
    names = [section["name"] for section in view["compareRunSections"]]
    assert names[:3] == ["ODS", "Settings and ODS", "Precision over recall in %"]
    of = {
        name: [c.get("metricKey") for c in view["compareRunCharts"] if c["metricSectionId"] == name]
        for name in names
    }
    assert of["ODS"] == ["mean/ods", "A/ods", "B/ods"]
    assert of[names[-1]] == ["A/num_images", "B/threshold"]
    (parallel,) = (c for c in view["compareRunCharts"] if c["type"] == "PARALLEL")
    assert parallel["selectedParams"] == ["loss.gamma", "optimizer.lr", "model.init"]
    assert parallel["selectedMetrics"] == ["mean/ods", "A/ods", "B/ods"]


def test_a_view_of_ten_datasets_fits_into_a_tag(store: Store) -> None:
    scores = ("ods", "ois", "ap", "threshold", "strict/ods", "strict/ois", "symmetric/ods", "num_images")
    metrics = [f"a rather long name of a dataset {d}/{score}" for d in range(10) for score in scores]
    save_view(store.client, store.experiment_id, metrics, run_ids=[])
