"""Table of predictions, ``predictions.csv``: a row for each photograph, with measured values and warnings."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import numpy as np

from crackseg.errors import CracksegError
from crackseg.files import format_csv, write_bytes

TABLE_NAME = "predictions.csv"
COLUMNS = (
    "image", "size_bytes", "modified_ns", "model", "threshold", "width", "height", "crack_fraction",
    "crack_length_px", "score", "confidence", "brightness", "contrast", "sharpness", "mask", "overlay", "map", "remark",
    "warning", "error",
)  # fmt: skip
_VALUES = COLUMNS[COLUMNS.index("crack_fraction") : COLUMNS.index("mask")]  # measured, as numbers
_ADDED = {"map", "remark", "warning"}
_log = logging.getLogger("crackseg")

Row = dict[str, str]


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write the table, replacing an older one in one step."""
    write_bytes(
        path, (line.encode("utf-8", "surrogateescape") for line in format_csv(COLUMNS, rows)), durable=True
    )


def is_table(header: Sequence[str]) -> bool:
    """Return True if the columns are those of a table of predictions; older ones lack some."""
    return list(header) == [c for c in COLUMNS if c in header] and set(COLUMNS) - set(header) <= _ADDED


def read_table(path: Path) -> list[Row]:
    """Read the complete rows; the last one may be cut short by a kill or a full disk."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    header, _, body = text.partition("\n")
    columns = header.split(",")
    if not is_table(columns):
        raise CracksegError(f"{path}: not a table of this version of crackseg; choose another --out")
    rows = []
    reader = csv.reader(io.StringIO(body, newline=""))
    try:
        for values in reader:
            row = dict.fromkeys(COLUMNS, "") | dict(zip(columns, values, strict=False))
            if len(values) == len(columns) and (row["error"] or _is_complete(row)):
                rows.append(row)
    except csv.Error:
        _log.warning("%s is damaged after row %d; what is missing is predicted again", path, len(rows))
    if not body.endswith("\n") and rows and rows[-1]["error"]:  # a row that ends in text may be cut short
        rows.pop()
    return rows


def _is_complete(row: Row) -> bool:
    try:
        return all(np.isfinite(float(row[name])) for name in _VALUES) and bool(row["mask"])
    except ValueError:
        return False


def read_figures(row: Row) -> dict[str, float]:
    """Return the measured values of a row without an error, by name."""
    return {name: float(row[name]) for name in _VALUES}


def add_warning(row: Row, warning: str, asked: Container[str]) -> Row:
    """Append a warning to a row, if its image is asked for and was predicted."""
    if row["image"] not in asked or row["error"]:
        return row
    return row | {"warning": " ".join(filter(None, (row["warning"], warning)))}


def describe_remarks(count: int, example: str) -> str:
    """Describe in a line how many photographs were read with a remark, with an example."""
    return f"read with a remark: {count} (column remark), e.g. {example}"


def find_warnings(masks: Iterable[Path]) -> dict[Path, str]:
    """Look up the warnings of `crackseg predict` for these masks, ``masks/NAME.png`` next to its table.

    Returns:
        By mask, the column ``warning`` if it is not empty.
    """
    tables: dict[Path, dict[Path, str]] = {}
    found = {}
    for mask in masks:
        folder = next((p.parent for p in mask.absolute().parents if p.name == "masks"), None)
        if folder is None:
            continue
        if folder not in tables:
            try:
                rows = read_table(folder / TABLE_NAME)
            except CracksegError:  # someone else's table
                rows = []
            tables[folder] = {folder / row["mask"]: row["warning"] for row in rows if row["warning"]}
        if warning := tables[folder].get(mask.absolute()):
            found[mask] = warning
    return found
