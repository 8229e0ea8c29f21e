"""Read, write and hash files: bytes, JSON, tables as CSV and as Markdown."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crackseg.errors import CracksegError

if TYPE_CHECKING:
    import pandas as pd


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file next to its final path and rename it, so that no reader sees a part of it.

    Raises:
        CracksegError: the name is longer than the file system takes.
        OSError: the disk refuses.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp")  # short: with the file's name it could be too long
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise CracksegError(f"{path}: the name is longer than the file system takes; shorten it") from error
        raise


def hash_file(path: Path, algorithm: str = "md5") -> str:
    """Hash a file's bytes, by default as DVC does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys and a line for each value, so that changes are easy to read."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


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


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, six significant digits."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode())


def format_markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown: numbers right-aligned, floats with three decimals, missing values as a dash."""
    marks = ["---:" if table[column].dtype.kind in "iuf" else "---" for column in table]
    rows = [list(table.columns), marks]
    rows += [[_format_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _format_cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    return str(value)
