"""The reference pages of the documentation site: every key of params.yaml, every command.

Made from the source at each build, so that they cannot say anything else than the program.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from ruamel.yaml import YAML

from crackseg.cli import cli
from crackseg.params import Params, SearchDimension


def settings_page(root: Path) -> str:
    """Every key of params.yaml: what it takes, what is committed, what it means."""
    committed = YAML(typ="safe", pure=True).load((root / "params.yaml").read_text(encoding="utf-8"))
    parts = [
        "# Settings\n",
        "Every key of `params.yaml`, made from `src/crackseg/params/sections.py`. The committed value is the "
        "paper's best model. `dvc exp run -S loss.gamma=4` changes one for a run; an unknown key, a wrong type or a "
        "value out of range is an error that names the key.\n",
    ]
    for section, field in Params.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        parts.append(f"## {section}\n\n{_keys_table(model, section, committed[section])}")
    parts.append(
        "## A dimension of search.space\n\n"
        "What stands for a key in `search.space`; a list alone stands for `choices`. [Search](../search.md) has "
        f"examples.\n\n{_keys_table(SearchDimension, '', None)}"
    )
    return "\n".join(parts)


def _keys_table(model: type[BaseModel], section: str, committed: dict[str, Any] | None) -> str:
    described = dict(docstrings_of_fields(model))
    schema = model.model_json_schema()["properties"]
    rows = ["| key | takes | committed | |", "|---|---|---|---|"]
    for name in model.model_fields:
        value = "" if committed is None else _committed(section, name, committed[name])
        key = f"{section}.{name}" if section else name
        meaning = described[name].replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{key}` | {_takes(schema[name])} | {value} | {meaning} |")
    if committed is None:
        rows = [" | ".join(cells[:2] + cells[3:]) for cells in (row.split(" | ") for row in rows[2:])]
        rows = ["| key | takes | |", "|---|---|---|", *rows]
    return "\n".join(rows) + "\n"


def _committed(section: str, name: str, value: Any) -> str:
    if (section, name) == ("search", "space"):
        return "[Search](../search.md)"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{json.dumps(value) if value in (None, '') or isinstance(value, bool) else value}`"


def docstrings_of_fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield each field with the string below it."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id, " ".join(inspect.cleandoc(ast.literal_eval(text.value)).split())


def _takes(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema of a field admits."""
    if "anyOf" in schema:
        return " or ".join(_takes(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if schema.get("type") == "array":
        return "list"
    words = {
        "integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`", "null": "`null`"
    }  # fmt: skip
    said = words.get(schema.get("type", ""), "section")
    limits = [
        f"{sign} {schema[bound]:g}" if abs(schema[bound]) < 1e6 else f"{sign} {schema[bound]}"
        for bound, sign in (
            ("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤")
        )
        if bound in schema
    ]  # fmt: skip
    return f"{said} {', '.join(limits)}" if limits else said


def commands_page(root: Path) -> str:
    """Every command of the command line, with its options."""
    del root
    parts = [
        "# Commands\n",
        "Made from the command line itself; `crackseg COMMAND --help` says the same. A user's mistake ends with one "
        "message and exit code 1, a misspelt option with 2, Ctrl-C with 130.\n",
    ]
    for command, context in _commands(cli, click.Context(cli, info_name="crackseg")):
        parts.append(_command_section(command, context))
    return "\n".join(parts)


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            if not child.hidden:
                yield from _commands(child, click.Context(child, info_name=name, parent=context))


def _command_section(command: click.Command, context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {context.command_path}\n", f"```text\n{context.command_path} {usage}".rstrip() + "\n```\n"]
    lines += [_paragraph(text) + "\n" for text in inspect.cleandoc(command.help or "").split("\n\n")]
    rows = [
        row
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and (row := parameter.get_help_record(context))
    ]
    if rows:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows]
    return "\n".join(lines) + "\n"


def _paragraph(text: str) -> str:
    """A paragraph of help; what click must not wrap (examples) becomes a block of code."""
    if text.startswith("\b"):
        return "```text\n" + text.removeprefix("\b").strip("\n") + "\n```"
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
