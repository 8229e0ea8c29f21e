"""A store's database, migrated once for all tests: MLflow's migrations take 1.4 s of a processor for each new store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from functools import cache
from pathlib import Path

from filelock import FileLock


@cache
def _template() -> Path:
    """Migrate a database, once for all processes of this run of the tests; it has no experiment yet."""
    import mlflow
    from mlflow import MlflowClient

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    path = Path(tempfile.gettempdir()) / f"crackseg-tests-{run}-mlflow-{mlflow.__version__}.db"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            made = path.with_suffix(".part")
            MlflowClient(f"sqlite:///{made}").search_experiments()
            with sqlite3.connect(made) as database:  # the default experiment, which names its folder of artifacts
                database.execute("DELETE FROM experiments")
            made.rename(path)
    return path


def copy_migrated_store(path: Path) -> None:
    """Put an empty, migrated database at ``path``, unless there is one."""
    if not path.exists():
        shutil.copy(_template(), path)


def forget_template() -> None:
    """Delete the database at the end of a run of the tests."""
    if _template.cache_info().currsize:
        path = _template()
        for each in (path, path.with_suffix(".lock")):
            each.unlink(missing_ok=True)
