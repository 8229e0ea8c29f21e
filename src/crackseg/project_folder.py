"""Where the project is: the folder with params.yaml and dvc.yaml, also seen from DVC's temporary clones of it."""

from __future__ import annotations

from pathlib import Path

from crackseg.errors import CracksegError

_TEMPORARY = (".dvc", "tmp", "exps")


def find_root(start: Path | None = None) -> Path:
    """The folder with params.yaml and dvc.yaml, at or above ``start`` (default: here); maybe DVC's clone."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise CracksegError(f"no crackseg project at {start} or above it: expected params.yaml and dvc.yaml")


def find_real_root(root: Path) -> Path:
    """The project folder itself, also from inside a temporary clone of a DVC experiment.

    DVC clones the whole git repository; a project in a sub-folder of it is in the same sub-folder of the clone.
    """
    parts = root.parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == _TEMPORARY:
            repository, below = Path(*parts[:i]), parts[i + 3 :]
            found = (repository.joinpath(*below[start:]) for start in range(len(below)))
            return next((folder for folder in found if (folder / "dvc.yaml").is_file()), repository)
    return root
