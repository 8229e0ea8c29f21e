"""The project folder, also from inside a temporary clone of a DVC experiment; the layout of its files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import crackseg
from crackseg.errors import CracksegError
from crackseg.files import read_json

_TEMPORARY = (".dvc", "tmp", "exps")


class NoProject(CracksegError):
    """Raised where no project is at or above the working directory."""


def find_root(start: Path | None = None) -> Path:
    """Find the folder with params.yaml and dvc.yaml, at or above ``start`` (default: the working directory).

    Inside a temporary clone of a DVC experiment it is the clone; see :func:`find_real_root`.

    Raises:
        NoProject: there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise NoProject(f"no crackseg project at {start} or above it: expected params.yaml and dvc.yaml")


def find_real_root(root: Path) -> Path:
    """Find the project folder itself, also from inside a temporary clone of a DVC experiment.

    DVC clones the whole git repository; a project in a sub-folder of it is in the same sub-folder of the clone.
    """
    parts = root.parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == _TEMPORARY:
            repository, below = Path(*parts[:i]), parts[i + 3 :]
            found = (repository.joinpath(*below[start:]) for start in range(len(below)))
            return next((folder for folder in found if (folder / "dvc.yaml").is_file()), repository)
    return root


class Layout:
    """Paths of the pipeline's inputs and outputs, as in dvc.yaml."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.params = root / "params.yaml"
        self.data = root / "data"
        outputs = root / "outputs"
        self.prepared = outputs / "prepared"
        self.data_versions = outputs / "data_versions.json"
        self.weights = outputs / "model" / "weights.pt"
        self.run = outputs / "model" / "run.json"
        self.history = outputs / "model" / "history.csv"
        self.training = outputs / "training.json"
        self.threshold = outputs / "threshold.json"
        self.predictions = outputs / "predictions"
        self.scores = outputs / "scores"
        self.report = outputs / "report"
        self.registered = outputs / "registered.json"


def is_made(path: Path) -> bool:
    """Return True if a stage made an output; in a clone, `dvc pull` leaves empty files and folders in its place."""
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0


def require_made(path: Path) -> Path:
    """Return an output that an earlier stage made.

    Raises:
        CracksegError: it was not made.
    """
    if not is_made(path):
        raise CracksegError(f"{path} was not made yet; run the whole pipeline with `dvc repro`")
    return path


def read_output(path: Path) -> dict[str, Any]:
    """Read the JSON that an earlier stage wrote.

    Raises:
        CracksegError: it was not made, or is damaged.
    """
    return read_json(require_made(path), advice="run `dvc repro --force`")


def read_data_version(layout: Layout, dataset: str) -> dict[str, Any]:
    """Read the version of a dataset that the stage `prepare` has recorded.

    Raises:
        CracksegError: it did not prepare this dataset.
    """
    versions = read_output(layout.data_versions)["datasets"]
    if dataset not in versions:
        raise CracksegError(
            f"no dataset {dataset!r} among the prepared ones: {', '.join(versions)}. Those of data.train_dataset and "
            "data.test_datasets in params.yaml are; run `dvc repro` after a change"
        )
    return versions[dataset]


def run_own_code(root: Path) -> None:
    """Start this command again with the package in ``root/src`` (an experiment's own), if another one is running."""
    source = root / "src"
    running = Path(crackseg.__file__).resolve().parent
    if not (source / "crackseg").is_dir() or running == (source / "crackseg").resolve():
        return
    command = [sys.executable, "-m", "crackseg", *sys.argv[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(sys.executable, command, environment)  # the same process, so that signals reach it
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)
