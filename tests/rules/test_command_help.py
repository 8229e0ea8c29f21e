"""What a stranger finds under `--help`: every command says how it is called, by an example that parses."""

import shlex
from collections.abc import Iterator

import click
import pytest

from crackseg.cli import cli


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _walk(below, (*path, name))


COMMANDS = {" ".join(path): command for path, command in _walk(cli, ("crackseg",))}


def _examples(name: str) -> list[list[str]]:
    """The example lines of a command's help as words; two spaces and more end one, as do shell redirections."""
    text = COMMANDS[name].get_help(click.Context(COMMANDS[name], info_name=name))
    lines = [line.strip() for line in text.splitlines() if line.startswith("  crackseg ")]
    return [shlex.split(line.split("  ")[0].split(" >")[0]) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_how_the_command_is_called(name: str) -> None:
    path = name.split()
    own = [words for words in _examples(name) if [w for w in words if not w.startswith("-")][: len(path)] == path]
    assert own, f"`{name} --help` has no example: a paragraph after \\b in its docstring"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_options_that_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in COMMANDS.values():  # parse, but do nothing
        monkeypatch.setattr(command, "callback", None)
        for param in command.params:
            if isinstance(param.type, click.Path):  # the example's files need not be there
                monkeypatch.setattr(param.type, "exists", False)
    for words in _examples(name):
        cli.main(words[1:], standalone_mode=False)
