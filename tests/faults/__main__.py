"""`make faults`: kill commands at random moments and fill disks, start them again, and compare with undisturbed runs.

The last line is the summary; the exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.faults.disk import CASES, can_mount, try_case
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


class Bench:
    """Projects for the scenarios, one at a time under one path, and the outcomes of undisturbed runs."""

    def __init__(self, work: Path) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self._template = make_template(work)
        self._undisturbed: dict[str, tuple[float, Any]] = {}

    def begin(self, scenario: Scenario) -> Project:
        """Put a fresh project in place, ready for the scenario's command."""
        return begin(self.work, self._template, scenario)

    def log_of(self, scenario: Scenario) -> Path:
        """Return the file with what the scenario's commands print."""
        return self.work / f"{scenario.name.replace(' ', '-')}.log"

    def undisturbed(self, scenario: Scenario) -> tuple[float, Any]:
        """Return seconds and outcome of the command without a fault; it runs once."""
        if scenario.name not in self._undisturbed:
            project, log = self.begin(scenario), self.log_of(scenario)
            started = time.monotonic()
            code = start(project, scenario, log).wait(_PATIENCE_S)
            seconds = time.monotonic() - started
            assert code == 0, f"{scenario.name} does not run: {log.read_text(errors='replace')[-2000:]}"
            self._undisturbed[scenario.name] = (seconds, ask(scenario.outcome, project))
        return self._undisturbed[scenario.name]


def try_kills(bench: Bench, scenarios: Sequence[Scenario], number: int, seed: int) -> Iterator[tuple[str, bool]]:
    """Kill commands at random moments; yields each one's name, and whether something was lost."""
    rng = random.Random(seed)
    for i, scenario in enumerate(itertools.islice(itertools.cycle(scenarios), number), start=1):
        seconds, expected = bench.undisturbed(scenario)
        project, log = bench.begin(scenario), bench.log_of(scenario)
        after = rng.uniform(0, _LATEST) * seconds
        process = start(project, scenario, log)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        kill(process)
        losses = find_losses(project, scenario, expected, log)
        said = "; ".join(losses) or "nothing lost"
        print(f"{i}: {scenario.name} killed after {after:.1f} of {seconds:.1f} s: {said}", flush=True)
        if losses:
            shutil.copytree(project.folder, bench.work / f"lost-{i}", symlinks=True, dirs_exist_ok=True)
        yield scenario.name, bool(losses)


def try_disks(bench: Bench) -> Iterator[tuple[str, bool]]:
    """Fill the disk under one folder after the other; yields its name, and whether something was wrong."""
    for case in CASES:
        wrong = try_case(case, bench.begin, lambda scenario: bench.undisturbed(scenario)[1])
        print(f"{case.folder} full: " + ("; ".join(wrong) or "said, kept, and finished with room"), flush=True)
        yield f"{case.folder} full", bool(wrong)


def main() -> int:
    """Kill, start again, compare; fill disks; print a table."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", nargs="*", default=[s.name for s in SCENARIOS], help="scenarios to kill, by name"
    )
    parser.add_argument("--no-disks", action="store_true", help="fill no disks, which takes the rights of root")
    parser.add_argument("--work", type=Path, help="folder to work in; kept, with its finished project")
    options = parser.parse_args()
    scenarios = [s for s in SCENARIOS if s.name in options.only]
    tried, lost = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="crackseg-faults-") as scratch:
        bench = Bench((options.work or Path(scratch)).resolve())
        results = try_kills(bench, scenarios, options.kills, options.seed)
        if not options.no_disks and can_mount():
            results = itertools.chain(results, try_disks(bench))
        for name, is_lost in results:
            tried[name] += 1
            lost[name] += is_lost
    print("\n| fault | tried | lost |\n|---|---:|---:|")
    for name, count in tried.items():
        print(f"| {name if name.endswith(' full') else f'{name} killed'} | {count} | {lost[name]} |")
    if not options.no_disks and not can_mount():
        print("full disks were not tried: mounting takes the rights of root")
    print(f"{tried.total()} faults (kills with seed {options.seed}), {lost.total()} losses")
    return 1 if lost.total() else 0


if __name__ == "__main__":
    sys.exit(main())
