"""Write settings into params.yaml; its comments and the order of its keys stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.params.loading import change_params, flatten_params, load_params, parse_params


def write_settings(path: Path, changes: Mapping[str, Any], *, source: str) -> dict[str, tuple[Any, Any]]:
    """Write settings into params.yaml, checked as a whole before.

    Args:
        path: of params.yaml.
        changes: values by dotted key.
        source: where the changes come from, for messages.
    Returns:
        The changes: key, value before and after; keys that have their value already are left out.
    Raises:
        CracksegError: params.yaml cannot have a setting, or is written in a way that cannot be changed; it is then as
            it was.
    """
    before_params = load_params(path)
    before = flatten_params(before_params)
    after = flatten_params(change_params(before_params, changes, source=source))
    stored = path.read_bytes().decode()
    text = stored.replace("\r\n", "\n")
    changed = {key: (before[key], after[key]) for key in changes if before[key] != after[key]}
    new = replace_values(text, {key: value for key, (_, value) in changed.items()})
    if not _says(new, after):
        raise CracksegError(
            f"{path} is written in a way that crackseg cannot change; set these yourself: "
            + ", ".join(f"{key}: {value}" for key, (_, value) in changed.items())
        )
    write_bytes(path, (new.replace("\n", "\r\n") if "\r\n" in stored else new).encode())
    return changed


def _says(text: str, settings: Mapping[str, Any]) -> bool:
    """Return True if the text is a params.yaml with these settings."""
    try:
        return flatten_params(parse_params(text, "params.yaml")) == settings
    except CracksegError:
        return False


def replace_values(text: str, values: Mapping[str, Any]) -> str:
    """Replace single values in the text of a YAML file; everything else stays unchanged.

    Args:
        text: of the file.
        values: by dotted key ``SECTION.NAME``; each stands on one line of the text, or is a list with a line for each
            item, which becomes one line. A key that its section lacks, in a file of an older version, becomes the
            section's last line.
    """
    content = YAML(pure=True).load(text)
    lines = text.split("\n")
    missing: dict[int, list[str]] = {}  # by line before which they go
    items: set[int] = set()  # lines of lists, which go
    for key, value in values.items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section[part]
        if name not in section:
            last_line, last_column = max(section.lc.key(other) for other in section)
            missing.setdefault(last_line + 1, []).append(f"{' ' * last_column}{name}: {_as_yaml(value)}")
            continue
        line_number, column = section.lc.value(name)
        key_line, key_column = section.lc.key(name)
        if isinstance(section[name], list) and line_number != key_line:
            items |= {section[name].lc.item(i)[0] for i in range(len(section[name]))}
            line_number, column = key_line, key_column + len(name) + 1
            lines[line_number] = f"{lines[line_number][:column]}  {lines[line_number][column:].lstrip()}"
            column += 1
        line = lines[line_number]
        old, comment = _split_comment(line[column:])
        new = _as_yaml(value)
        # The comment stays in its column if there is room.
        space = comment[: len(comment) - len(comment.lstrip())]
        width = max(len(old) + len(space) - len(new), 1) if comment else 0
        lines[line_number] = line[:column] + new + " " * width + comment.lstrip()
    for place in sorted(items | missing.keys(), reverse=True):
        lines[place : place + (place in items)] = missing.get(place, [])
    return "\n".join(lines)


def _split_comment(rest: str) -> tuple[str, str]:
    """Split off the blanks and the comment after a value."""
    quote = rest[0] if rest[:1] in ("'", '"') else ""
    end = rest.find(quote, 1) + 1 if quote else 0
    place = rest.find(" #", end)
    value = (rest if place < 0 else rest[:place]).rstrip()
    return value, rest[len(value) :] if place >= 0 else ""


def _as_yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
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
