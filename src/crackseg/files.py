"""Read, write and hash files: bytes, JSON, tables as CSV and as Markdown."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from crackseg.errors import CracksegError

if TYPE_CHECKING:
    import pandas as pd

CACHE_VARIABLE = "CRACKSEG_CACHE_DIR"


def user_cache() -> Path:
    """Return the cache folder that all projects share: ``CRACKSEG_CACHE_DIR``, else ``~/.cache/crackseg``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crackseg"
    return Path(chosen) if chosen else default


def write_bytes(path: Path, content: bytes | Iterable[bytes], *, durable: bool = False) -> None:
    """Write a file next to its final path and rename it, so that no reader sees a part of it.

    Args:
        path: of the file.
        content: all of it, or one part after the other where it would not fit in memory.
        durable: return only when the file is on the disk, for what a power loss must not take. Without it, the file
            may be missing or empty after a power loss, but not after a kill.
    Raises:
        CracksegError: the name is longer than the file system takes.
        OSError: the disk refuses.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp")  # short: with the file's name it could be too long
    try:
        make_folder(path.parent, durable=durable)
        with temporary.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            if durable:
                sync(file)
        os.replace(temporary, path)
        if durable:
            sync_folders([path.parent])
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            # The file that was asked for: the other is gone, and the call that meets a full disk knows no name.
            error.filename, error.filename2 = str(path), None
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise CracksegError(f"{path}: the name is longer than the file system takes; shorten it") from error
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left of :func:`write_bytes`, also in subfolders; nothing else may write there."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def make_folder(path: Path, *, durable: bool = False) -> None:
    """Make a folder and those above it, unless they are there; ``durable`` as for :func:`write_bytes`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()] if durable else []
    path.mkdir(parents=True, exist_ok=True)
    sync_folders(folder.parent for folder in reversed(missing))


def sync(file: IO[Any]) -> None:
    """Write what was written to an open file to the disk.

    Raises:
        OSError: the disk is full or failing, which some file systems say only here.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_files(paths: Iterable[Path]) -> None:
    """Write files that were written before, and their names, to the disk.

    Raises:
        OSError: as for :func:`sync`.
    """
    paths = list(paths)
    for path in paths:
        with path.open("r+b" if os.name == "nt" else "rb") as file:
            os.fsync(file.fileno())
    sync_folders(path.parent for path in paths)


def sync_folders(folders: Iterable[Path]) -> None:
    """Write the names in these folders to the disk: of files that were made, renamed or removed in them."""
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):  # Windows opens no folder, and some network disks refuse
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def sync_tree(folder: Path) -> None:
    """Write a folder with thousands of files to the disk; where the system can, all at once."""
    if hasattr(os, "sync"):
        os.sync()  # of all programs, and waits for it; a call for each file takes longer
        return
    inside = list(folder.rglob("*"))
    sync_files(path for path in inside if path.is_file())
    sync_folders([folder, *(path for path in inside if path.is_dir())])


def keep_newest(folder: Path, name: str, number: int) -> None:
    """Make the folder ``name`` the newest of a cache's folders, and remove all but so many of the newest.

    Args:
        folder: of the cache, all of whose folders can be made again.
        name: of the one that is used now; made if it is not there.
        number: how many stay, this one included.
    """
    present = folder / name
    with contextlib.suppress(OSError):  # a full disk, or another process that removes the same
        present.mkdir(parents=True, exist_ok=True)
        os.utime(present)
        others = [path for path in folder.iterdir() if path.is_dir() and path != present]
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[number - 1 :]:
            shutil.rmtree(path, ignore_errors=True)


def hash_file(path: Path, algorithm: str = "md5") -> str:
    """Hash a file's bytes, by default as DVC does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, content: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write a JSON object with sorted keys and a line for each value, so that changes are easy to read."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode(), durable=durable)


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of the file, UTF-8.
        advice: what a user does about a damaged file, for the message.
    Raises:
        CracksegError: the file is damaged or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CracksegError(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise CracksegError(f"{path}: expected a JSON object, found {type(content).__name__}; {advice}")
    return content


def write_csv(table: pd.DataFrame, path: Path, *, digits: int | None = 6) -> None:
    """Write a table as CSV; floats with so many significant digits, None: with all."""
    style = None if digits is None else f"%.{digits}g"
    write_bytes(path, table.to_csv(index=False, lineterminator="\n", float_format=style).encode())


def format_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Write rows as the lines of a CSV table, one at a time; the header comes first.

    Args:
        columns: their names; a row that lacks one has an empty cell there.
        rows: values by column.
    """
    line = io.StringIO(newline="")
    writer = csv.DictWriter(line, columns, lineterminator="\n")
    for row in itertools.chain([dict(zip(columns, columns, strict=True))], rows):
        writer.writerow(row)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def format_markdown(
    header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "", *, padded: bool = False
) -> str:
    """Write a table as Markdown: floats with three decimals, NaN as a dash.

    Args:
        header: titles of the columns.
        rows: cells; line breaks and bars in their text stay in the cell.
        align: a letter for each column, "l" or "r"; all to the left without it.
        padded: fill up the cells, so that columns stand below each other in a terminal, too.
    """
    cells = [[_format_cell(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if padded else [0] * len(header)
    marks = ["---:" if letter == "r" else "---" for letter in align.ljust(len(header), "l")]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |\n" for row in cells
    ]
    rule = f"| {' | '.join('-' * width for width in widths)} |\n" if padded else f"|{'|'.join(marks)}|\n"
    return "".join([lines[0], rule, *lines[1:]])


def frame_to_markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown, columns of numbers to the right."""
    align = "".join("r" if table[column].dtype.kind in "iuf" else "l" for column in table)
    return format_markdown(list(table.columns), table.itertuples(index=False), align)


def _format_cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    return str(value).replace("|", "\\|").replace("\n", "<br>")


@contextlib.contextmanager
def sole_writer(lock_path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, so that no other process writes the same results.

    Args:
        lock_path: in a folder that exists.
        busy: error message if another process holds it.
    Raises:
        CracksegError: another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CracksegError(busy) from error
    try:
        yield
    finally:
        lock.release()
