"""Replace datasets in one step: written next to ``data/``, then swapped in by renames.

Killed at any moment, an import leaves the earlier data as they were; or, if it was already swapping, the next
import (or :func:`finish_interrupted_import`) finishes the swap.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from crackseg.errors import CracksegError
from crackseg.files import make_folder, sync_folders, sync_tree, write_bytes

_LOCK_TIMEOUT_S = 600


class StagingArea:
    """Folder on the file system of ``data/`` that DVC never sees.

    Attributes:
        data_dir: where the datasets go; the folder itself, where ``data/`` is a link to it.
        folder: ``.import-data`` next to it; in it, where it is a mounted disk or its parent cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(os.path.realpath(data_dir))
        parent = self.data_dir.parent
        if self.data_dir.is_dir() and (
            self.data_dir.stat().st_dev != parent.stat().st_dev or not os.access(parent, os.W_OK | os.X_OK)
        ):
            parent = self.data_dir
        self.folder = parent / f".import-{self.data_dir.name}"
        self._new = self.folder / "new"
        self._old = self.folder / "old"
        self._commit = self.folder / "commit.json"  # there once everything is written, until all is swapped

    def new(self, dataset: str) -> Path:
        """Return the folder in which to write a dataset."""
        path = self._new / dataset
        path.mkdir(parents=True, exist_ok=True)
        return path

    def swap_in(self, datasets: Sequence[str]) -> None:
        """Put the written datasets in place of those of the same name.

        Raises:
            OSError: the file system refuses; what was swapped already is swapped back.
        """
        sync_tree(self.folder)
        write_bytes(self._commit, json.dumps(list(datasets)).encode(), durable=True)
        try:
            self._finish()
        except OSError:
            with suppress(OSError):  # else the next import finishes the swap
                self._swap_back(datasets)
            raise

    def _swap_back(self, datasets: Sequence[str]) -> None:
        for dataset in datasets:
            written, place, former = self._new / dataset, self.data_dir / dataset, self._old / dataset
            if not written.exists():
                os.replace(place, written)
            if former.exists():
                os.replace(former, place)
        self._commit.unlink()

    def recover(self) -> list[str]:
        """Finish an interrupted swap, or clear away what an interrupted import wrote.

        Returns:
            The datasets whose swap was under way.
        """
        if self._commit.is_file():
            return self._finish()
        _remove(self.folder)
        return []

    def _finish(self) -> list[str]:
        datasets: list[str] = json.loads(self._commit.read_bytes())
        make_folder(self.data_dir, durable=True)
        for dataset in datasets:
            written, place = self._new / dataset, self.data_dir / dataset
            if not written.exists():
                continue  # swapped before the interruption
            if place.exists():
                self._old.mkdir(exist_ok=True)
                os.replace(place, self._old / dataset)
            os.replace(written, place)
        # Before the record of what is left to do goes: a power loss may take the renames, and not its removal.
        sync_folders([self.data_dir, self._new, self._old])
        self._commit.unlink()
        sync_folders([self.folder])
        _remove(self.folder)
        return datasets


@contextmanager
def open_staging_area(data_dir: Path) -> Iterator[tuple[StagingArea, list[str]]]:
    """Take the import's lock, repair what an earlier import left, and clean up afterwards.

    Yields:
        The staging area, and the datasets of an earlier import that was finished now.
    Raises:
        CracksegError: another import holds the lock for ten minutes, or the disk refuses (full, read-only).
    """
    staging = StagingArea(data_dir)
    try:
        staging.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with sole_import(staging.folder.with_name(staging.folder.name + ".lock"), staging.data_dir):
            finished = staging.recover()
            try:
                yield staging, finished
            finally:
                if not staging._commit.exists():
                    _remove(staging.folder)
    except OSError as error:
        place = error.filename or staging.folder
        raise CracksegError(f"the import stopped at {place}: {error.strerror or error}") from error


def finish_interrupted_import(data_dir: Path) -> list[str]:
    """Repair what an import that was killed left next to ``data_dir``.

    Returns:
        The datasets that were put in place now; mostly none.
    """
    if not StagingArea(data_dir).folder.exists():
        return []
    with open_staging_area(data_dir) as (_, finished):
        return finished


@contextmanager
def sole_import(lock_path: Path, data_dir: Path) -> Iterator[None]:
    """Hold a lock of imports into ``data_dir``, and say so if another one must end first.

    Raises:
        CracksegError: another import holds the lock for ten minutes.
    """
    lock = FileLock(lock_path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another import into {data_dir} is running: waiting for it", file=sys.stderr)
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout as error:
        raise CracksegError(
            f"another import into {data_dir} has been running for {_LOCK_TIMEOUT_S // 60} minutes "
            f"(it holds {lock_path}); try again when it has ended"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        # DVC may have made files read-only (cache.type hardlink or symlink), which Windows does not delete.
        for path in [folder, *folder.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IWUSR)
        shutil.rmtree(folder)
