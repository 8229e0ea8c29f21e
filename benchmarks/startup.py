"""How soon the command line answers, and what `dvc repro` costs when there is nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dvc.repo import Repo

from benchmarks.measure import ROOT, Effort, Row, measure_in_turn

_MOST_HELP_S = 0.5
_FILES = 20  # in each folder


def run(effort: Effort) -> list[Row]:
    """Rows ``startup`` and ``startup-dvc``."""
    repeats = effort.pick(3, 1)
    help_s, mlflow_s = measure_in_turn(
        [lambda: _call("-m", "crackseg", "--help"), lambda: _call("-m", "mlflow", "--version")], repeats=repeats
    )
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        _make_project(project)
        repro_s, status_s = measure_in_turn(
            [lambda: _call("-m", "dvc", "repro", cwd=project), lambda: _call("-m", "dvc", "status", cwd=project)],
            repeats=repeats,
        )
        assert "up to date" in _call("-m", "dvc", "status", cwd=project)
    note = f"asked: ours < {_MOST_HELP_S} s"
    dvc_note = "nothing to do, all stages of dvc.yaml; asked: repro at most 1.3 times status"
    return [
        Row("startup", help_s, mlflow_s, "mlflow --version", "s", note, target=mlflow_s / _MOST_HELP_S),
        Row("startup-dvc", repro_s, status_s, "dvc status", "s", dvc_note, target=1 / 1.3),
    ]


def _make_project(folder: Path) -> None:
    """A project in which every stage is up to date: its outputs are stand-ins, committed to DVC as they are."""
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    _git(folder, "init", "-q", "-b", "main")
    _call("-m", "dvc", "init", "-q", cwd=folder)
    for number in range(_FILES):
        _write(folder / "data" / f"{number}.png", str(number))
    _call("-m", "dvc", "add", "-q", "data", cwd=folder)
    with Repo(str(folder)) as repo:
        places = {Path(item.fs_path) for item in (*repo.index.deps, *repo.index.outs)}
    for place in sorted(places, reverse=True):  # what lies in a folder before the folder
        if place.exists():
            continue
        if place.suffix:
            _write(place, "{}")
        else:
            for number in range(_FILES):
                _write(place / f"{number}.png", f"{place.name} {number}")
    _call("-m", "dvc", "commit", "-q", "-f", cwd=folder)
    _git(folder, "add", "-A")
    _git(folder, "-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-qm", "stand-ins")


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def _call(*arguments: str, cwd: Path = ROOT) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1"}
    return _run([sys.executable, *arguments], cwd, environment)


def _git(folder: Path, *arguments: str) -> None:
    _run(["git", *arguments], folder, dict(os.environ))


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(result.stdout + result.stderr)[-2000:]}")
    return result.stdout
