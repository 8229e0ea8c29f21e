"""List the DVC experiments of the latest commits: what was changed, and the ODS of each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException
from dvc.scm import SCMError

from crackseg.errors import CracksegError, first_line
from crackseg.lineage import ANSWERS

_SECONDS = "train.seconds"
_UNREADABLE = "!"


def list_experiments(root: Path, *, num_commits: int = 1) -> list[dict[str, Any]]:
    """List commits, their experiments and the workspace, the highest mean ODS first.

    Args:
        root: the project folder, a git repository.
        num_commits: so many commits, from the current one backwards.
    Returns:
        For each: ``experiment``, ``changed`` (settings that differ from those of the commit that it began from, as
        text), ``ods`` (by dataset, and ``mean``), ``minutes`` of training (None before it is scored), ``created``,
        ``state`` (Queued, Running, Failed or "").
    Raises:
        CracksegError: there is no git repository or no commit, or DVC cannot read it.
    """
    try:
        rows = dvc.api.exp_show(str(root), num=num_commits)
    except (DvcException, SCMError) as error:
        raise CracksegError(
            f"{root}: DVC cannot list experiments ({first_line(error)}); expected a git repository with DVC and a "
            "commit: `git init`, `dvc init`, `git add -A`, `git commit`"
        ) from error
    if not rows:
        raise CracksegError(f"{root}: no commit yet, so there is no experiment; `git add -A`, `git commit`")
    workspace, *committed = rows  # each commit is followed by its experiments
    listed, base = [], {}
    for row in committed:
        if row["typ"] == "baseline":
            base = row
        listed.append(_describe(row, base))
    current = committed[0] if committed else {}
    if _settings(workspace) != _settings(current):  # else it has nothing of its own to compare
        listed.append(_describe(workspace, current))
    return sorted(listed, key=lambda row: -row["ods"].get("mean", -1))


def _describe(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    # DVC has text, e.g. ``!``, where a commit's file cannot be read.
    numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
    ods = {key.removesuffix(".ods"): value for key, value in numbers.items() if key.endswith(".ods")}
    before, now = _settings(base), _settings(row)
    changed = [f"{key}={_short(value)}" for key, value in now.items() if before.get(key) != value]
    if now and not before:
        changed = ["unknown: params.yaml of the commit cannot be read"]
    seconds = numbers.get(_SECONDS)
    return {
        "experiment": row["Experiment"] or row["rev"],
        "changed": ", ".join(changed),
        "ods": ods,
        "minutes": None if seconds is None else round(seconds / 60, 1),
        "created": row["Created"] or "",
        "state": row["State"] or "",
    }


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ANSWERS if row.get(key) not in (None, _UNREADABLE)}


def _short(value: object) -> str:
    if value == "None":  # DVC's text for null
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
