"""Commands of DVC that only prepare a test, without the start of a process for each."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

from dvc.cli import main


def run_dvc(folder: Path, *arguments: str) -> None:
    """Run a command of DVC in this process, in ``folder``."""
    with chdir(folder):
        assert main([*arguments, "-q"]) == 0, arguments
