"""Write a trial's settings into params.yaml, keeping its comments and order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from crackseg.errors import CracksegError
from crackseg.experiments.search.results import choose_trial
from crackseg.experiments.search.study import Search
from crackseg.files import write_bytes
from crackseg.lineage import keys_behind
from crackseg.params import change_params, flatten_params, load_params
from crackseg.params.effects import RESULTS, VERSION


def settings_of_trial(search: Search, number: int | None, *, searched_only: bool) -> dict[str, Any]:
    """Return the changes to params.yaml for a trial: the searched settings, and those that ``-S`` set for all trials.

    Args:
        number: of the trial; None: the best.
        searched_only: leave out those that ``-S`` set, e.g. to train with params.yaml's own number of epochs.
    """
    trial = choose_trial(search, number)
    overrides = {} if searched_only else search.overrides
    # The others control how the search runs and have no effect on results.
    kept = keys_behind(RESULTS, VERSION, settings=flatten_params(search.params) | trial.params)
    return {key: value for key, value in overrides.items() if key in kept} | trial.params


def apply_trial(
    root: Path, search: Search, number: int | None, *, searched_only: bool
) -> dict[str, tuple[Any, Any]]:
    """Write a trial's settings into params.yaml.

    Returns:
        The changes: key, value before and after.
    Raises:
        CracksegError: the trial is not complete, or params.yaml cannot have a setting, e.g. a key that is gone.
    """
    path = root / "params.yaml"
    before = flatten_params(load_params(path))
    changes = settings_of_trial(search, number, searched_only=searched_only)
    after = flatten_params(change_params(load_params(path), changes, source=f"study {search.name}"))
    text = path.read_text(encoding="utf-8")
    changed = {key: (before[key], after[key]) for key in changes if before[key] != after[key]}
    write_bytes(path, replace_values(text, {key: value for key, (_, value) in changed.items()}).encode())
    if flatten_params(load_params(path)) != after:
        write_bytes(path, text.encode())
        raise CracksegError(
            f"{path} is written in a way that `crackseg search apply` cannot change; set these yourself: "
            + ", ".join(f"{key}: {value}" for key, (_, value) in changed.items())
        )
    return changed


def find_left_out(root: Path, search: Search, number: int | None) -> dict[str, tuple[Any, Any]]:
    """Find settings that ``-S`` set for all trials and that differ in params.yaml: its value, and the trial's."""
    ours = flatten_params(load_params(root / "params.yaml"))
    theirs = settings_of_trial(search, number, searched_only=False)
    searched = settings_of_trial(search, number, searched_only=True)
    return {key: (ours[key], theirs[key]) for key in theirs if key not in searched and ours[key] != theirs[key]}


def replace_values(text: str, values: Mapping[str, Any]) -> str:
    """Replace single values in the text of a YAML file; everything else stays unchanged.

    Args:
        text: of the file.
        values: by dotted key; each stands on one line of the text.
    """
    content = YAML(pure=True).load(text)
    lines = text.split("\n")
    for key, value in values.items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section[part]
        line_number, column = section.lc.value(name)
        line = lines[line_number]
        old, comment = _split_comment(line[column:])
        new = _as_yaml(value)
        # The comment stays in its column if there is room.
        space = comment[: len(comment) - len(comment.lstrip())]
        width = max(len(old) + len(space) - len(new), 1) if comment else 0
        lines[line_number] = line[:column] + new + " " * width + comment.lstrip()
    return "\n".join(lines)


def _split_comment(rest: str) -> tuple[str, str]:
    """Split off the blanks and the comment after a value."""
    quote = rest[0] if rest[:1] in ("'", '"') else ""
    end = rest.find(quote, 1) + 1 if quote else 0
    place = rest.find(" #", end)
    value = (rest if place < 0 else rest[:place]).rstrip()
    return value, rest[len(value) :] if place >= 0 else ""


def _as_yaml(value: Any) -> str:
    if (
        isinstance(value, str)
        and value
        and value.replace("_", "").replace("-", "").isalnum()
        and value[0].isalpha()
    ):
        return (
            value
            if value.lower() not in ("null", "true", "false", "yes", "no", "on", "off")
            else json.dumps(value)
        )
    return json.dumps(value, ensure_ascii=False)  # JSON is YAML
