"""A run's description in MLflow: its ODS, and the settings that differ from the committed params.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from crackseg.errors import CracksegError
from crackseg.params import Params, flatten_params, parse_params
from crackseg.tracking.runs import ask_git

_WITH_SCORES = "**ODS** "
_WITHOUT_SCORES = "**Settings** "
BEGINNINGS = (_WITH_SCORES, _WITHOUT_SCORES)
"""Beginnings of what :func:`describe_run` writes; a description with another one is a person's."""


def describe_run(root: Path, params: Params, ods: Mapping[str, float] | None = None) -> str:
    """Describe a run in Markdown.

    Args:
        root: the project folder or DVC's clone of it.
        params: of the run.
        ods: by dataset and ``mean``; None before it is scored.
    """
    scores = _WITH_SCORES + ", ".join(f"{name} {value:.4f}" for name, value in (ods or {}).items()) + "\n\n"
    return (scores if ods else "") + _WITHOUT_SCORES + _describe_changes(root, params)


def _describe_changes(root: Path, params: Params) -> str:
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or ask_git(root, "rev-parse", "HEAD")
    text = ask_git(root, "show", f"{commit}:./params.yaml") if commit else ""
    try:
        committed = flatten_params(parse_params(text, "params.yaml"))
    except CracksegError:  # no commit yet, no git, or written by another version of crackseg
        return "in the run's parameters; there is no committed params.yaml to compare them with"
    now = flatten_params(params)
    changes = [f"`{key}` {committed[key]} → {now[key]}" for key in now if committed.get(key) != now[key]]
    which = f"params.yaml of commit {commit[:7]}"
    return f"{', '.join(changes)}; otherwise as in {which}" if changes else f"as in {which}"
