"""Make a store's SQLite database in one step: one that a kill left half migrated can never be opened again."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock
from mlflow.store.db import utils

from crackseg.files import sync_files, sync_folders


def make_database(path: Path | None) -> None:
    """Make the database with MLflow's tables, unless it is there or its folder is not; None: it is no file."""
    if path is None or _is_there(path) or not path.parent.is_dir():
        return
    with FileLock(f"{path}.lock"):
        if _is_there(path):
            return
        unfinished = path.with_name(f"{path.name}.new")
        for left in path.parent.glob(f"{unfinished.name}*"):  # by a kill: the database and its journal
            left.unlink()
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{unfinished}")
        try:
            utils._initialize_tables(engine)
        finally:
            engine.dispose()
        sync_files([unfinished])
        os.replace(unfinished, path)
        sync_folders([path.parent])


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
