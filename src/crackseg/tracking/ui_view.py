"""The first pages of the MLflow UI: columns, order and charts of an experiment's runs, as MLflow's shared views.

MLflow keeps a shared view as a tag of the experiment; an address names it. Written for MLflow 3.17.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

from mlflow import MlflowClient

from crackseg.tracking.runs import MODEL_TRAINING, list_datasets

PRECISION_AT_RECALL = "precision_at_recall"
"""Metric ``DATASET/precision_at_recall``: precision in [0, 1] over the step, which is recall in percent."""

HIDDEN_TAG = "mlflow.crackseg."
"""Beginning of tags that MLflow's pages do not show: they leave out every tag that begins with ``mlflow.``."""

_VIEW_TAG = "mlflow.sharedViewState."
_RUNS, _COMPARISON = "crackseg", "crackseg-comparison"
_SETTINGS = ("optimizer.lr", "model.architecture", "model.init", "loss.name", "train.seed")
_COMPARED = ("loss.gamma", "optimizer.lr", "model.init")
_MEAN = "mean/ods"
_WIDTH_PX = 95
_SCORES = ("ois", "ap", "centerline_iou", "false_alarm_rate", "strict/ods", "symmetric/ods")
"""Scores that each dataset's group of charts begins with; the rest stands in the last group."""


def save_view(
    client: MlflowClient, experiment_id: str, metrics: Iterable[str], *, run_ids: Sequence[str] | None = None
) -> str:
    """Store the view of an experiment's runs, or the comparison of some of them.

    Args:
        client: of the store.
        experiment_id: of the runs.
        metrics: names of the runs' metrics.
        run_ids: the compared ones; empty for all; None for the table of runs.
    Returns:
        The part of the address after the server's.
    """
    compares = run_ids is not None
    state = _describe_view(sorted(set(metrics)), run_ids or ())
    name = _COMPARISON if compares else _RUNS
    text = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    for key, value in MODEL_TRAINING.items():
        client.set_experiment_tag(experiment_id, key, value)
    client.set_experiment_tag(experiment_id, _VIEW_TAG + name, f"deflate;{text}")
    query = {"viewStateShareKey": name, "workflowType": "machine_learning"}
    charts = {"compareRunsMode": "CHART"} if compares else {}
    return f"/#/experiments/{experiment_id}/runs?{urlencode(query | charts)}"


def _describe_view(metrics: Sequence[str], run_ids: Sequence[str]) -> dict[str, object]:
    datasets = list_datasets(metrics)
    ods = [_MEAN, *(f"{dataset}/ods" for dataset in datasets)]
    sections: dict[str, list[dict[str, object]]] = {
        "ODS": [_bar(name) for name in ods],
        "Settings and ODS": [_parallel(ods)],
        "Precision over recall in %": [
            _line(name) for dataset in datasets if (name := f"{dataset}/{PRECISION_AT_RECALL}") in metrics
        ],
    }
    shown = {*ods, *(f"{dataset}/{PRECISION_AT_RECALL}" for dataset in datasets)}
    for dataset in datasets:
        names = [name for score in _SCORES if (name := f"{dataset}/{score}") in metrics]
        sections[dataset] = [_bar(name) for name in names]
        shown.update(names)
    # MLflow's own charts of training and of the machine follow by themselves.
    rest = [name for name in metrics if name not in shown and name.split("/")[0] in {*datasets, "mean"}]
    sections["Thresholds, counts and deviations"] = [_bar(name) for name in rest]
    sections = {name: charts for name, charts in sections.items() if charts}
    quoted = ", ".join(f"'{run_id}'" for run_id in run_ids)
    scores = [f"metrics.`{name}`" for name in ods]
    columns = ["params.`loss.gamma`", *scores, *(f"params.`{name}`" for name in _SETTINGS)]
    return {
        "searchFilter": f"attributes.run_id IN ({quoted})" if run_ids else "",
        "orderByKey": f"metrics.`{_MEAN}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, _WIDTH_PX),
        "compareRunCharts": [
            chart | {"uuid": f"{section}-{number}", "metricSectionId": section, "runsCountToCompare": 10,
                     "deleted": False, "isGenerated": chart["type"] != "PARALLEL"}
            for section, charts in sections.items()
            for number, chart in enumerate(charts)
        ],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": name != list(sections)[-1], "isReordered": True,
             "deleted": False, "isGenerated": True, "columns": 1 if name == "Settings and ODS" else 3}
            for name in sections
        ],
        "isAccordionReordered": True,
    }  # fmt: skip


def _bar(metric: str) -> dict[str, object]:
    return {"type": "BAR", "metricKey": metric, "displayName": metric}


def _line(metric: str) -> dict[str, object]:
    return {
        "type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], "displayName": metric,
        "xAxisKey": "step", "useGlobalXaxisKey": False, "lineSmoothness": 0, "useGlobalLineSmoothing": False,
        "xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "yAxisKey": "metric", "yAxisExpressions": [],
        "ignoreOutliers": False, "selectedXAxisMetricKey": "",
    }  # fmt: skip


def _parallel(metrics: Sequence[str]) -> dict[str, object]:
    return {
        "type": "PARALLEL", "selectedParams": list(_COMPARED), "selectedMetrics": list(metrics), "showAllRuns": True,
        "displayName": "settings and ODS",
    }  # fmt: skip
