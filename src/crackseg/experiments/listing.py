"""List the DVC experiments of the current commit: what was changed, and the ODS of each dataset."""

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
    """List the commit, its experiments and the workspace, the highest mean ODS first.

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
        raise CracksegError(f"{root}: DVC cannot list experiments ({first_line(error)})") from error
    listed, base = [], {}
    workspace, *others = rows
    for row in (*others, workspace):
        if row["typ"] == "baseline" and row is not workspace:
            base = row
        if row is workspace:
            base = next((other for other in others if other["typ"] == "baseline"), {})
            if _settings(row) == _settings(base):  # nothing of its own to compare
                continue
        listed.append(_describe(row, base))
    return sorted(listed, key=lambda row: -row["ods"].get("mean", -1))


def _describe(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    # DVC has text, e.g. ``!``, where a commit's file cannot be read.
    numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
    ods = {key.removesuffix(".ods"): value for key, value in numbers.items() if key.endswith(".ods")}
    before, now = _settings(base), _settings(row)
    changed = [f"{key}={_short(now[key])}" for key in now if before.get(key) != now[key]]
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
    return f"{value:g}" if isinstance(value, float) else str(value)
