"""Tables as files and as Markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from crackseg.data.image_io import write_bytes


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
