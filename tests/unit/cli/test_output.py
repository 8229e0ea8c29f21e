"""What a user hears of a command: quiet, verbose, colours, completion, JSON."""

import contextlib
import json
import logging
import os
import pty
import subprocess
import termios
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.data.synthetic.sample import write_sample
from tests.warm_commands import warm_python


def _run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, since it changes logging and bars for good."""
    known = {k: v for k, v in os.environ.items() if k not in ("CRACKSEG_QUIET", "CRACKSEG_VERBOSE", "NO_COLOR")}
    command = [warm_python(), "-m", "crackseg", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=known | environment, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).write_text("{}\n", encoding="utf-8")
    write_sample(folder / "data", counts={"CRKWH100": (0, 0, 1)}, size=(64, 64))
    return folder


def _run_on_terminal(*arguments: str, cwd: Path, **environment: str) -> tuple[str, str]:
    """The result, and what a terminal shows of the error stream."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [warm_python(), "-m", "crackseg", *arguments]
    known = {k: v for k, v in os.environ.items() if k not in ("CRACKSEG_QUIET", "CRACKSEG_VERBOSE", "NO_COLOR")}
    done = subprocess.run(
        command, cwd=cwd, env=known | environment, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so at the end of a terminal
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    return done.stdout, shown.decode()


def test_quiet_hides_bars_and_keeps_the_result(project: Path) -> None:
    usual, bars = _run_on_terminal("data", "validate", cwd=project)
    assert "validate CRKWH100" in bars
    assert _run_on_terminal("-q", "data", "validate", cwd=project) == (usual, "")


def test_verbose_says_the_time_and_where_an_error_came_from(project: Path) -> None:
    loud = _run("-v", "data", "validate", "NONE", cwd=project)
    usual = _run("data", "validate", "NONE", cwd=project)
    assert loud.returncode == usual.returncode == 1
    assert "Traceback" in loud.stderr
    assert "took " in loud.stderr
    assert "Traceback" not in usual.stderr
    assert "took " not in usual.stderr


def test_stages_that_dvc_starts_are_as_quiet_as_the_command(project: Path) -> None:
    _, shown = _run_on_terminal("data", "validate", cwd=project, CRACKSEG_QUIET="1")
    assert shown == ""


def test_quiet_and_verbose_together_are_refused(project: Path) -> None:
    result = _run("-q", "-v", "data", "validate", cwd=project)
    assert result.returncode == 2
    assert "exclude each other" in result.stderr


def test_validation_as_json_names_each_dataset_and_finding(project: Path) -> None:
    result = _run("data", "validate", "--json", cwd=project)
    (report,) = json.loads(result.stdout)
    assert report["dataset"] == "CRKWH100"
    assert report["split_counts"] == {"train": 0, "val": 0, "test": 1}
    assert report["errors"] == []


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)]
)
def test_no_color_takes_colours_away(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def paint() -> None:
        click.secho("red", fg="red")

    monkeypatch.setitem(cli.commands, "paint", paint)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(logging.getLogger("crackseg"), "level", logging.INFO)
    result = CliRunner().invoke(cli, ["paint"], env=variables, color=True)
    assert ("\x1b[" in result.output) == coloured


def test_colours_are_off_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def paint() -> None:
        click.secho("red", fg="red")

    monkeypatch.setitem(cli.commands, "paint", paint)
    monkeypatch.setattr(logging.getLogger("crackseg"), "level", logging.INFO)
    assert CliRunner().invoke(cli, ["paint"]).output == "red\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_for_crackseg(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert f"_CRACKSEG_COMPLETE={shell}_complete" in script


def test_bash_completes_a_subcommand(tmp_path: Path) -> None:
    result = _run(
        cwd=tmp_path, _CRACKSEG_COMPLETE="bash_complete", COMP_WORDS="crackseg search sh", COMP_CWORD="2"
    )
    assert result.stdout.split() == ["plain,show"]
