"""Tags of a registered version: two that MLflow's tables show, all others as JSON in one that they do not show."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion

from crackseg.tracking.ui_view import HIDDEN_TAG

SHOWN = ("mean/ods", "architecture")
"""Kept as tags of their own. A third would make each row of MLflow's table of versions a line higher."""
RESULTS_TAG = HIDDEN_TAG + "results.run_id"
"""The run with a version's scores, which the card sets; without the hidden beginning in former versions of crackseg."""
_ABOUT_TAG = HIDDEN_TAG + "about"
_FORMER_ABOUT_TAG = "crackseg"


def pack_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return what to set as the tags of a version: scores of datasets, digests and the like go into one."""
    rest = {key: str(value) for key, value in tags.items() if key not in SHOWN}
    shown = {key: str(tags[key]) for key in SHOWN if key in tags}
    return shown | {_ABOUT_TAG: json.dumps(rest, ensure_ascii=False)}


def find_results_run(version: ModelVersion) -> str | None:
    """Return the run with a version's scores as its card noted it; None if it has no card yet."""
    return version.tags.get(RESULTS_TAG) or version.tags.get(RESULTS_TAG.removeprefix(HIDDEN_TAG))


def read_tags(version: ModelVersion) -> dict[str, str]:
    """Return the tags of a version by their own names; former versions of crackseg set each as a tag of its own."""
    tags = dict(version.tags)
    former = tags.pop(_FORMER_ABOUT_TAG, "{}")
    try:
        packed = json.loads(tags.pop(_ABOUT_TAG, former))
    except ValueError:  # changed by hand
        packed = {}
    return {key: str(value) for key, value in packed.items()} | tags if isinstance(packed, dict) else tags


def read_score(tags: Mapping[str, str], name: str) -> float | None:
    """Return a score among the tags of a version; None if it is absent or no number, e.g. changed by hand."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None
