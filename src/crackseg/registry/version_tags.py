"""Tags of a registered version: a few that MLflow's table of tags shows, all others as JSON in one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion

SHOWN = ("mean/ods", "architecture")
"""Kept as tags of their own; ``results.run_id`` is one too, which a card sets."""
ABOUT_TAG = "crackseg"


def pack_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return what to set as the tags of a version: scores of datasets, digests and the like go into one."""
    rest = {key: str(value) for key, value in tags.items() if key not in SHOWN}
    shown = {key: str(tags[key]) for key in SHOWN if key in tags}
    return shown | {ABOUT_TAG: json.dumps(rest, ensure_ascii=False)}


def read_tags(version: ModelVersion) -> dict[str, str]:
    """Return the tags of a version by their own names; former versions of crackseg set each as a tag of its own."""
    tags = dict(version.tags)
    try:
        packed = json.loads(tags.pop(ABOUT_TAG, "{}"))
    except ValueError:  # changed by hand
        packed = {}
    return {key: str(value) for key, value in packed.items()} | tags if isinstance(packed, dict) else tags


def read_score(tags: Mapping[str, str], name: str) -> float | None:
    """Return a score among the tags of a version; None if it is absent or no number, e.g. changed by hand."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None
