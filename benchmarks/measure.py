"""How the rows are measured: in turn, so that whatever else the machine does hits both sides alike."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: `make bench` or `make bench-quick`."""

    quick: bool

    def pick(self, full: int, quick: int) -> int:
        """One of two numbers."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Attributes:
        name: as in the table of docs/performance.md.
        ours, peer: medians, in ``unit``; of both, less is better.
        peer_name: what a user would use instead.
        unit: of ours and peer.
        note: how it was found that both do the same, and what else was measured.
        target: the least ``ratio`` that is asked for; None if none is.
    """

    name: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    note: str = ""
    target: float | None = None

    @property
    def ratio(self) -> float:
        """Over 1: ours is faster or smaller."""
        return self.peer / self.ours


def measure_in_turn(
    sides: Sequence[Callable[[], Any]],
    *,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
) -> list[float]:
    """Run the sides in turn and return the median seconds of each.

    Args:
        sides: what to time.
        repeats: of each.
        clock: ``time.thread_time`` for work on one core leaves out the time in which others had it.
        warm_up: run each once before.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(-1 if warm_up else 0, repeats):
        for side, taken in zip(sides, seconds, strict=True):
            start = clock()
            side()
            if turn >= 0:
                taken.append(clock() - start)
    return [median(taken) for taken in seconds]


def run_family(family: str, effort: Effort) -> list[Row]:
    """Run a module of this package in a process of its own: families set threads, and one may run out of memory.

    It is a copy of a process that has imported torch and torchvision, which saves each family the seconds of that.
    """
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["torchvision"])
    with ProcessPoolExecutor(max_workers=1, mp_context=forkserver) as pool:
        return pool.submit(_run_here, family, effort).result()


def _run_here(family: str, effort: Effort) -> list[Row]:
    return importlib.import_module(f"benchmarks.{family}").run(effort)


def run_apart(module: str, *arguments: object) -> dict[str, Any]:
    """Run ``python -m benchmarks.MODULE`` in a process of its own and read the JSON of its last line."""
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"benchmarks.{module} failed: {result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; its ru_maxrss would begin with what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
