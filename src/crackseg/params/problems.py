"""Messages for errors in params.yaml: the key, the value, what was expected, the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any


def explain_problem(source: str, error: Any, valid_keys: Mapping[str, Collection[str]]) -> str:
    """Explain an error of pydantic in one line.

    Args:
        source: where the settings come from, e.g. a path.
        error: an entry of pydantic's ``ValidationError.errors()``.
        valid_keys: the keys of each section; those of a searched key under ``search.space``, of a width class under
            ``measure.classes``.
    """
    location = tuple(error["loc"])
    key = ".".join(str(part) for part in location) or "params"
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown key {key}{_nearest(location, valid_keys)}"
    if error["type"] == "missing":
        return f"{source}: the key {key} is missing; restore it from the committed params.yaml"
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    shown = "" if isinstance(value, dict) else f" = {value!r}"
    return f"{source}: {key}{shown}: {message[0].lower()}{message[1:]}"


def _nearest(location: tuple[Any, ...], valid_keys: Mapping[str, Collection[str]]) -> str:
    """Suggest the valid key most similar to the unknown one, in its section or in any other."""
    sections = {name: keys for name, keys in valid_keys.items() if "." not in name}
    word = str(location[-1])
    inner = ".".join(map(str, location[:2]))
    if len(location) > 2 and inner in valid_keys:
        return f"; valid here: {', '.join(valid_keys[inner])}"
    homes = [f"{s}.{word}" for s, keys in sections.items() if word in keys]
    candidates = list(sections) if len(location) == 1 else sorted(sections.get(str(location[0]), ()))
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.4)
    if homes:
        return f"; did you mean {homes[0]}?"
    if close:
        prefix = "".join(f"{part}." for part in location[:-1])
        return f"; did you mean {prefix}{close[0]}?"
    return f"; valid here: {', '.join(candidates)}"
