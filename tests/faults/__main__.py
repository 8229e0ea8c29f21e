"""`make faults`: kill commands at random moments, start them again, and compare with an undisturbed run.

The last line is the summary; the exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests.faults.scenarios import SCENARIOS, Scenario, ask, describe_difference, find_left_overs
from tests.pipeline.conftest import Project, make_project

_PATIENCE_S = 1800
_LATEST = 0.98  # of an undisturbed run's seconds


def make_template(work: Path) -> Path:
    """Make a finished project with two versions, the first in production; copies take its place under its path."""
    template = work / "template"
    if template.exists():
        return template
    shutil.rmtree(work / "project", ignore_errors=True)
    project = make_project(work / "project")
    for seed in (0, 1):
        project.set_params({"train": {"seed": seed}})
        project.run("dvc", "repro", timeout_s=_PATIENCE_S)
        project.commit(f"Seed {seed}")
    project.run("crackseg", "promote", "1", "--force", "--reason", "the first", timeout_s=_PATIENCE_S)
    shutil.copytree(project.folder, template, symlinks=True)
    return template


def begin(work: Path, template: Path, scenario: Scenario) -> Project:
    """Put a fresh copy of the template in place, ready for the scenario's command."""
    shutil.rmtree(work / "project", ignore_errors=True)
    shutil.copytree(template, work / "project", symlinks=True)
    project = Project(work / "project")
    scenario.begin(project)
    return project


def start(project: Project, scenario: Scenario, log: Path) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own."""
    with log.open("ab") as file:
        return subprocess.Popen(
            scenario.command, cwd=project.folder, env=project.environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command's group, and the processes that it started in other groups, with -9."""
    with_children = [process.pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        with_children += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    for pid in with_children:
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(pid, signal.SIGKILL)
    process.wait()


def find_losses(project: Project, scenario: Scenario, expected: Any, log: Path) -> list[str]:
    """Start the command again and say what differs from an undisturbed run; empty if nothing does."""
    said_before = log.stat().st_size
    code = start(project, scenario, log).wait(_PATIENCE_S)
    said = log.read_bytes()[said_before:].decode(errors="replace")
    losses = []
    if code and not (scenario.done and scenario.done in said):
        losses.append(f"the second start ended with {code}: {said[-1500:]}")
    if "Traceback" in said:
        losses.append(f"a traceback: {said[-1500:]}")
    try:
        outcome = ask(scenario.outcome, project)
    except Exception as error:
        return [*losses, f"the outcome cannot be read: {error!r}"]
    if outcome != expected:
        losses.append(f"the outcome differs: {describe_difference(outcome, expected)}")
    return losses + ask(find_left_overs, project)


def main() -> int:
    """Kill, start again, compare; print a table."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[s.name for s in SCENARIOS], help="scenarios by name")
    parser.add_argument("--work", type=Path, help="folder to work in; kept, with its finished project")
    options = parser.parse_args()
    scenarios = [s for s in SCENARIOS if s.name in options.only]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="crackseg-faults-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        template = make_template(work)
        undisturbed: dict[str, tuple[float, Any]] = {}
        kills, lost = Counter[str](), Counter[str]()
        for number in range(options.kills):
            scenario = scenarios[number % len(scenarios)]
            log = work / f"{scenario.name.replace(' ', '-')}.log"
            if scenario.name not in undisturbed:
                project = begin(work, template, scenario)
                started = time.monotonic()
                code = start(project, scenario, log).wait(_PATIENCE_S)
                seconds = time.monotonic() - started
                assert code == 0, f"{scenario.name} does not run: {log.read_text(errors='replace')[-2000:]}"
                undisturbed[scenario.name] = (seconds, ask(scenario.outcome, project))
            seconds, expected = undisturbed[scenario.name]
            project = begin(work, template, scenario)
            after = rng.uniform(0, _LATEST) * seconds
            process = start(project, scenario, log)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
            kill(process)
            losses = find_losses(project, scenario, expected, log)
            kills[scenario.name] += 1
            lost[scenario.name] += bool(losses)
            print(f"{number + 1}: {scenario.name} killed after {after:.1f} of {seconds:.1f} s: "
                  + ("; ".join(losses) or "nothing lost"), flush=True)  # fmt: skip
            if losses:
                shutil.copytree(project.folder, work / f"lost-{number + 1}", symlinks=True, dirs_exist_ok=True)
    print("\n| command | kills | lost |\n|---|---:|---:|")
    for name, count in kills.items():
        print(f"| {name} | {count} | {lost[name]} |")
    print(f"{kills.total()} kills (seed {options.seed}), {lost.total()} losses")
    return 1 if lost.total() else 0


if __name__ == "__main__":
    sys.exit(main())
