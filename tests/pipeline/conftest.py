"""A whole project in a temporary folder: git, DVC, MLflow and our own code, with tiny images and a tiny network."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from crackseg.cli import main
from crackseg.data.synthetic.sample import write_sample
from tests.dvc_in_process import run_dvc
from tests.migrated_store import copy_migrated_store
from tests.warm_commands import warm_commands

ROOT = Path(__file__).parents[2]
TINY = {
    "data": {"test_datasets": ["CrackTree260", "CRKWH100"], "size_px": 64},
    "augment": {"crop_px": 48},
    "model": {"architecture": "unet", "width": 4},
    "optimizer": {"name": "adamw", "lr": 0.003},
    "scheduler": {"name": "cosine"},
    "train": {"epochs": 2, "num_workers": 0, "device": "cpu", "precision": "float32"},
    "predict": {"tile_size_px": 64, "overlap_px": 8},
}


class Project:
    """A project folder, and commands run in it as a user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
        self.environment |= {
            "PATH": path, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org",
        }  # fmt: skip

    def run(self, *command: str, fails: bool = False, timeout_s: float = 250) -> str:
        """Run a command; returns what it printed, and checks its exit code."""
        result = subprocess.run(
            command, cwd=self.folder, env=self._warm_environment(), text=True, check=False, timeout=timeout_s,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert (result.returncode != 0) == fails, f"{' '.join(command)}: {result.returncode}\n{result.stdout}"
        return result.stdout

    def run_json(self, *command: str) -> Any:
        """Run a command that prints JSON, and nothing else, to standard output; messages go to standard error."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self._warm_environment(),
            text=True,
            check=False,
            timeout=250,
            capture_output=True,
        )
        assert result.returncode == 0, f"{' '.join(command)}: {result.returncode}\n{result.stderr}"
        return json.loads(result.stdout)

    def _warm_environment(self) -> dict[str, str]:
        """The environment for commands that are waited for, without the seconds of their imports."""
        return self.environment | {"PATH": f"{warm_commands()}{os.pathsep}{self.environment['PATH']}"}

    def call(self, *arguments: str, fails: bool = False) -> tuple[str, str]:
        """Run a command of crackseg in this process, which has imported torch and MLflow already.

        Returns:
            What it printed to standard output and to standard error; remarks that are logged are not among it.
        """
        out, errors = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(out),
            redirect_stderr(errors),
            chdir(self.folder),
        ):
            patch.setattr(sys, "argv", ["crackseg", *arguments])
            for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
                patch.delenv(name)
            code: object = 0
            try:
                main()
            except SystemExit as end:
                code = end.code
        assert bool(code) == fails, f"{' '.join(arguments)}: {code}\n{out.getvalue()}{errors.getvalue()}"
        return out.getvalue(), errors.getvalue()

    def set_params(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Change keys of params.yaml."""
        yaml = YAML()
        content = yaml.load(self.folder / "params.yaml")
        for section, values in changes.items():
            content[section].update(values)
        yaml.dump(content, self.folder / "params.yaml")

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)


def make_project(folder: Path) -> Project:
    """Make a project with two datasets of a few scenes, committed, nothing run yet."""
    shutil.copytree(_first_project().name, folder, symlinks=True)
    return Project(folder)


@cache
def _first_project() -> tempfile.TemporaryDirectory:
    """Make the project that all others are copied from: git and DVC take two seconds."""
    kept = tempfile.TemporaryDirectory(prefix="crackseg-test-")
    folder = Path(kept.name)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".gitignore", "mlruns/README.md", "mlruns/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("*.egg-info", "*.pyc.*")  # not __pycache__: the commands need not compile it
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    project = Project(folder)
    project.set_params(TINY)
    counts = {"CrackTree260": (4, 2, 2), "CRKWH100": (0, 0, 2)}
    write_sample(folder / "data", seed=1, counts=counts, size=(96, 96))
    project.run("git", "init", "-q", "-b", "main")
    run_dvc(folder, "init")
    shutil.copy(ROOT / ".dvcignore", folder / ".dvcignore")
    run_dvc(folder, "add", "data")
    project.commit("Begin")
    return kept


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after `dvc repro`, committed; tests leave it as they found it."""
    base = tmp_path_factory.getbasetemp()
    template = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    log = template / "repro.log"
    with FileLock(f"{template}.lock"):  # the first of several workers makes it, which takes half a minute
        if not log.exists():
            shutil.rmtree(template, ignore_errors=True)
            making = make_project(template / "project")
            copy_migrated_store(making.folder / "mlruns" / "mlflow.db")
            printed = making.run("dvc", "repro")
            making.commit("First results")
            log.write_text(printed, encoding="utf-8")
    copy = base / "copy"  # its store's artifacts stay in the template, whose path MLflow has written down
    shutil.copytree(template, copy, symlinks=True)
    return Project(copy / "project")


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A project in which nothing was run."""
    return make_project(tmp_path / "project")
