"""Where the stages read and write, below the project folder (or DVC's clone of it)."""

from __future__ import annotations

import json
from pathlib import Path

from crackseg.data.image_io import write_bytes
from crackseg.errors import CracksegError


class Layout:
    """The paths of the pipeline; dvc.yaml names the same."""

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
        self.predictions = outputs / "predictions"
        self.scores = outputs / "scores"
        self.report = outputs / "report"
        self.registered = outputs / "registered.json"


def is_made(path: Path) -> bool:
    """Tell whether a stage made an output: in a clone, `dvc pull` leaves empty files and folders in its place."""
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0


def require_made(path: Path) -> Path:
    """Return an output that an earlier stage made.

    Raises:
        CracksegError: it did not.
    """
    if not is_made(path):
        raise CracksegError(f"{path} was not made yet; run the whole pipeline with `dvc repro`")
    return path


def write_json(path: Path, content: dict) -> None:
    """Write JSON that diffs well."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict:
    """Read what an earlier stage wrote.

    Raises:
        CracksegError: it did not, or the file is damaged.
    """
    try:
        return json.loads(require_made(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CracksegError(f"{path} is damaged ({error}); run `dvc repro --force`") from error
