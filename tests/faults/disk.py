"""Commands on a disk that is full: one message, what was there stays whole, and with room the same command finishes.

A small disk in memory is mounted on one folder at a time, which takes the rights of root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.scenarios import SCENARIOS, Scenario, ask, describe_difference, hash_tree
from tests.pipeline.conftest import Project

_PATIENCE_S = 1800
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True)
class Case:
    """A folder with little room, and the command that writes there.

    Attributes:
        folder: below the project.
        scenario: by name.
        room: bytes besides what is there.
        goes_on: the command may end well without the room (the tracking store waits).
        runs_again: DVC keeps nothing of a stage that it cannot put into its cache, and runs it again: in a second run.
        kept: files that must be as before are those below the folder, except what the command replaces.
    """

    folder: str
    scenario: str
    room: int
    goes_on: bool = False
    kept: Callable[[str], bool] = lambda _: True
    runs_again: bool = False


CASES = (
    Case("data", "import", 12_000),
    Case("outputs", "train", 8_000, kept=lambda _: False),  # DVC removes a stage's outputs before it runs
    Case("mlruns", "train", 8_000, goes_on=True, kept=lambda name: name.startswith("artifacts/")),
    Case(".dvc/cache", "train", 8_000, runs_again=True),
    Case("found", "predict", 60_000, kept=lambda _: False),
)


def can_mount() -> bool:
    """Return whether this process may mount a disk in memory."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """Mount a disk with little room on a folder, with its files; gives a function that makes room."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f"{folder.name}-aside")
    shutil.copytree(folder, aside, symlinks=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], check=True)

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    try:
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        disk = os.statvfs(folder)
        resize((disk.f_blocks - disk.f_bfree) * disk.f_frsize + room)
        yield lambda: resize(2**28)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(aside, ignore_errors=True)


def try_case(
    case: Case, begin: Callable[[Scenario], Project], undisturbed: Callable[[Scenario], Any]
) -> list[str]:
    """Run a case; return what was wrong, empty if nothing was.

    Args:
        case: folder and command.
        begin: gives a project ready for a scenario.
        undisturbed: gives the outcome without a full disk.
    """
    scenario = _BY_NAME[case.scenario]
    expected = undisturbed(scenario)
    project = begin(scenario)
    wrong = []

    def run() -> tuple[int, str]:
        done = subprocess.run(
            scenario.command, cwd=project.folder, env=project.environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=_PATIENCE_S,
        )  # fmt: skip
        return done.returncode, done.stdout

    with small_disk(project.folder / case.folder, case.room) as make_room:
        before = {k: v for k, v in hash_tree(project.folder / case.folder).items() if case.kept(k)}
        code, said = run()
        print(
            f"  {case.folder} full, {' '.join(scenario.command)}: exit {code}\n    "
            + "\n    ".join(said.splitlines()[-6:])
        )
        if code == 0 and not case.goes_on:
            wrong.append("it ended well although the disk was full: the room was too large for the case")
        if code and "No space left" not in said:
            wrong.append(f"no message says that the disk is full: {said[-800:]}")
        if "Traceback" in said:
            wrong.append("a traceback")
        after = hash_tree(project.folder / case.folder)
        if changed := [name for name, digest in before.items() if after.get(name) != digest]:
            wrong.append(f"changed or gone: {changed[:5]}")
        make_room()
        code, said = run()
        if code:
            wrong.append(f"with room it ended with {code}: {said[-800:]}")
        else:
            outcome = ask(scenario.outcome, project)
            if case.runs_again:
                outcome, expected = (
                    part[:1] + part[2:] for part in (outcome, expected)
                )  # without the number of runs
            if difference := describe_difference(outcome, expected):
                wrong.append(f"the outcome differs: {difference}")
    return wrong
