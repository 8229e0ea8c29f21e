"""Tags of a registered version: the mean ODS, and all others as JSON in one, so that MLflow's tables stay short."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

_SHOWN = "mean/ods"
_ABOUT_TAG = "crackseg"
RESULTS_TAG = "results.run_id"
THRESHOLD_TAG = "operating_threshold"


def pack_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return what to set as the tags of a version, in this order: scores of datasets, digests and the like go into one.

    MLflow shows them in the order in which they were set, and after the last one a button: with the short one last,
    it needs no line of its own.
    """
    rest = {key: str(value) for key, value in tags.items() if key != _SHOWN}
    return {_ABOUT_TAG: json.dumps(rest, ensure_ascii=False)} | (
        {_SHOWN: str(tags[_SHOWN])} if _SHOWN in tags else {}
    )


def find_results_run(version: ModelVersion) -> str | None:
    """Return the run with a version's scores as its card noted it; None if it has no card yet."""
    return read_tags(version).get(RESULTS_TAG)


def note_results_run(client: MlflowClient, version: ModelVersion, run_id: str) -> None:
    """Note the run with a version's scores."""
    present = client.get_model_version(version.name, version.version)
    if RESULTS_TAG in present.tags:  # of a former version of crackseg, which had a tag for it
        client.set_model_version_tag(version.name, version.version, RESULTS_TAG, run_id)
        return
    packed = pack_tags(read_tags(present) | {RESULTS_TAG: run_id})
    client.set_model_version_tag(version.name, version.version, _ABOUT_TAG, packed[_ABOUT_TAG])


def read_tags(version: ModelVersion) -> dict[str, str]:
    """Return the tags of a version by their own names; former versions of crackseg set each as a tag of its own."""
    tags = dict(version.tags)
    try:
        packed = json.loads(tags.pop(_ABOUT_TAG, "{}"))
    except ValueError:  # changed by hand
        packed = {}
    return {key: str(value) for key, value in packed.items()} | tags if isinstance(packed, dict) else tags


def read_score(tags: Mapping[str, str], name: str) -> float | None:
    """Return a score among the tags of a version; None if it is absent or no number, e.g. changed by hand."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None
