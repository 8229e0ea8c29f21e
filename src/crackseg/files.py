"""Write files in one piece, and hash them; tables as CSV and as Markdown."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from crackseg.errors import CracksegError

if TYPE_CHECKING:
    import pandas as pd


def hash_file(path: Path) -> str:
    """md5 of a file's bytes, as DVC computes it."""
    digest = hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file next to its place and rename it, so that no one ever sees half of it.

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


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, six significant digits."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode())


def format_markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown: numbers to the right, floats with three decimals, what is missing as a dash."""
    marks = ["---:" if table[column].dtype.kind in "iuf" else "---" for column in table]
    rows = [list(table.columns), marks]
    rows += [[_format_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _format_cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    return str(value)
