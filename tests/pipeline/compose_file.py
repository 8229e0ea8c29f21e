"""compose.yaml as Docker Compose reads it, for tests on machines without Docker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
# Compose's syntax: $$, $NAME, ${NAME}, and with -, :-, ?, :? and what follows.
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<bare>\w+)|\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<text>[^}]*))?\})")


class MissingVariable(Exception):
    """A variable that compose.yaml needs is not set: Compose stops with this message."""


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Read compose.yaml with its variables filled in.

    Args:
        variables: those of .env.
    Raises:
        MissingVariable: a `${NAME:?message}` has no value.
    """
    content = YAML(typ="safe", pure=True).load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    filled = _fill(content, variables)
    assert isinstance(filled, dict)
    return filled


def list_variables() -> dict[str, str]:
    """The variables in compose.yaml, each with how Compose treats it if it is not set, e.g. ``:?``."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    return {match["name"] or match["bare"]: match["how"] or "" for match in _VARIABLE.finditer(text)}


def _fill(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, variables) for part in value]
    return _VARIABLE.sub(lambda match: _value_of(match, variables), value) if isinstance(value, str) else value


def _value_of(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match["dollar"]:
        return "$"
    name, how = match["name"] or match["bare"], match["how"] or ""
    value = variables.get(name)
    if value is None or (value == "" and how.startswith(":")):
        if how.endswith("?"):
            raise MissingVariable(f"required variable {name} is missing a value: {match['text']}")
        return match["text"] or ""
    return value
