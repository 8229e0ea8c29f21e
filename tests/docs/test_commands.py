"""What the documents tell people to type exists: commands, options, settings, messages."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise

import click
import pytest

from crackseg.cli import cli
from crackseg.params import Params, change_params, load_params, parse_setting
from tests.docs.pages import (
    LANGUAGES,
    ROOT,
    RUNNABLE,
    Block,
    all_blocks,
    commands_of,
    inline_code,
    list_pages,
    words_of,
)

BLOCKS = all_blocks()
CONSOLE = [(block, command) for block in BLOCKS if block.language == "console" for command in commands_of(block)]
OURS = [(block, words) for block, command in CONSOLE if (words := words_of(command))[:1] == ["crackseg"]]
SET = ("-S", "--set-param")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_says_what_it_is_and_only_commands_may_go_unrun(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.reason is None or block.language in RUNNABLE


def test_documents_show_commands() -> None:
    assert len(OURS) > 30


@pytest.mark.parametrize(
    ("block", "words"), OURS, ids=lambda value: " ".join(value) if isinstance(value, list) else str(value)
)
def test_command_in_a_block_is_one_of_the_command_line(block: Block, words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("page", list_pages())
def test_command_in_running_text_exists_with_its_options(page: str) -> None:
    for code in inline_code(page):
        words = code.split()
        if words[0] == "crackseg" and len(words) > 1:
            command, rest = find_command(words)
            known = {
                option for parameter in command.params for option in parameter.opts + parameter.secondary_opts
            }
            named = {word.strip("[]").split("=")[0] for word in rest if word.lstrip("[").startswith("-")}
            assert named <= known | {"--help", "-h"}, code


@pytest.mark.parametrize(("block", "command"), [pair for pair in CONSOLE if "-S" in pair[1]], ids=str)
def test_settings_of_a_command_are_taken_by_params(block: Block, command: str) -> None:
    words = words_of(command)
    texts = [text for option, text in pairwise(words) if option in SET]
    assert texts
    choices = [text for text in texts if "," in text and "[" not in text]  # DVC makes an experiment of each
    settings = dict(parse_setting(text) for text in texts if text not in choices)
    for text in choices:
        key, value = text.split("=")
        settings |= {key: parse_setting(f"{key}={value.split(',')[0]}")[1]}
    change_params(load_params(ROOT / "params.yaml"), settings, source=str(block))


@pytest.mark.parametrize("page", list_pages())
def test_setting_in_running_text_is_a_key_of_params(page: str) -> None:
    sections = {name: field.annotation.model_fields for name, field in Params.model_fields.items()}
    for code in inline_code(page):
        for key in re.findall(r"-S ['\"]?([a-z_]+\.[a-z_.]+)=", code):
            section, name, *_ = key.split(".")
            assert name in sections.get(section, {}), code


@pytest.mark.parametrize(
    "message",
    [
        row.split("`")[1]
        for row in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
        if row.startswith("| `") and "own)" not in row.split(" | ")[0]
    ],
)
def test_message_of_troubleshooting_is_one_of_the_program(message: str) -> None:
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    wanted = re.compile(".*".join(parts), re.DOTALL)
    assert any(wanted.search(text) for text in texts_of_the_program())


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``crackseg …`` names, and the words after it."""
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    assert command is not cli or not rest or rest[0].startswith("-"), f"no such command: {' '.join(words)}"
    return command, rest


def parse(words: list[str]) -> None:
    """Parse a command as click would, but for whether its files exist; nothing is run."""
    command: click.Command = cli
    rest = words[1:]
    while True:
        context = click.Context(command, info_name=command.name)
        values, rest, _ = command.make_parser(context).parse_args(rest)
        for parameter in command.params:
            value = values.get(parameter.name)
            given = isinstance(value, str | int | list | tuple) and value != ()
            assert given or not parameter.required, f"{' '.join(words)} lacks {parameter.name}"
            if given and not isinstance(parameter.type, click.Path):
                parameter.type_cast_value(context, value)
        if not isinstance(command, click.Group) or not rest:
            break
        assert rest[0] in command.commands, f"no such command: {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    assert rest == [], f"{' '.join(words)}: {rest} is too much"


@cache
def texts_of_the_program() -> tuple[str, ...]:
    """Every text in the source; what an f-string fills in is "…"."""
    found = []
    for path in (ROOT / "src" / "crackseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
    return tuple(found)
