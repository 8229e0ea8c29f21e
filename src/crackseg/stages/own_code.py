"""An experiment runs the code of its own commit.

DVC runs experiments in a clone of the project, but `crackseg` on the PATH is the package of the project folder itself,
which may have changed since the experiment was queued.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import crackseg


def run_own_code(root: Path) -> None:
    """Start this command again with the package in ``root/src``, if it is running from elsewhere."""
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
