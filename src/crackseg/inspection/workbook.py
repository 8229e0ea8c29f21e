"""Write the tables of an inspection as a spreadsheet (XLSX) and as CSV."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crackseg.data.image_files import Photograph
from crackseg.errors import CracksegError
from crackseg.files import format_csv, write_bytes
from crackseg.geometry.files import read_reports
from crackseg.geometry.report import CRACK_COLUMNS, crack_rows
from crackseg.inspection.collecting import Inspection

COLUMNS = (
    "photograph", "num_cracks", "length", "max_width", "unit", "severity", "latitude", "longitude", "warning", "remark",
    "left_out",
)  # fmt: skip
_ROWS_OF_EXCEL = 1_048_576
NEEDS = "a spreadsheet needs openpyxl: pip install 'crackseg[report]'"


def can_write_workbook() -> bool:
    """Return True if the library for spreadsheets is installed."""
    return importlib.util.find_spec("openpyxl") is not None


def photograph_rows(inspection: Inspection) -> Iterator[dict[str, Any]]:
    """Return a row of ``COLUMNS`` for each photograph, the worst first, those that were left out at the end."""
    for found in inspection.findings:
        place = found.place
        yield {
            "photograph": str(found.photograph.path),
            "num_cracks": found.num_cracks,
            "length": found.length,
            "max_width": found.max_width,
            "unit": inspection.unit,
            "severity": found.severity,
            "latitude": place and place.latitude,
            "longitude": place and place.longitude,
            "warning": found.warning,
            "remark": found.remark,
        }
    for file, reason in inspection.left_out:
        yield {"photograph": file, "left_out": reason}


def write_photograph_table(path: Path, inspection: Inspection) -> None:
    """Write a row for each photograph as CSV."""
    lines = format_csv(COLUMNS, photograph_rows(inspection))
    write_bytes(path, (line.encode("utf-8", "surrogateescape") for line in lines))


def write_workbook(path: Path, inspection: Inspection, out_dir: Path, facts: Mapping[str, str]) -> None:
    """Write a spreadsheet with the sheets Inspection, Severity, Photographs and Cracks.

    Args:
        path: of the XLSX file.
        inspection: the findings.
        out_dir: of the measurements, which are read one by one.
        facts: rows of the first sheet.
    Raises:
        CracksegError: openpyxl is not installed, or there are more cracks than a sheet has rows.
    """
    if not can_write_workbook():
        raise CracksegError(NEEDS)
    from openpyxl import Workbook

    num_cracks = sum(found.num_cracks for found in inspection.findings)
    if num_cracks >= _ROWS_OF_EXCEL:
        raise CracksegError(
            f"{num_cracks:,} cracks are more than the {_ROWS_OF_EXCEL:,} rows of a spreadsheet; use cracks.csv, "
            "and leave out the spreadsheet with --no-xlsx"
        )
    masks = [
        Photograph(out_dir / "masks" / f"{found.photograph.name}.png", found.photograph.name)
        for found in inspection.findings
    ]
    cracks = (row for report in read_reports(masks, out_dir) for row in crack_rows(report))
    book = Workbook(write_only=True)
    told = ({"what": name, "value": value} for name, value in facts.items())
    _add_sheet(book, "Inspection", ("what", "value"), told, header=False)
    classes = (
        {
            "severity": name,
            "num_cracks": t.num_cracks,
            "length_mm": round(t.length, 1),
            "photographs": t.num_photographs,
        }
        for name, t in inspection.classes.items()
    )
    _add_sheet(book, "Severity", ("severity", "num_cracks", "length_mm", "photographs"), classes)
    _add_sheet(book, "Photographs", COLUMNS, photograph_rows(inspection))
    _add_sheet(book, "Cracks", CRACK_COLUMNS, cracks)
    buffer = io.BytesIO()
    book.save(buffer)
    write_bytes(path, buffer.getvalue())


def _add_sheet(
    book: Any, title: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True
) -> None:
    sheet = book.create_sheet(title)
    sheet.column_dimensions["A"].width = 40
    if header:
        sheet.freeze_panes = "B2"
        sheet.append(list(columns))
    for row in rows:
        sheet.append([_to_cell(sheet, row.get(name)) for name in columns])


def _to_cell(sheet: Any, value: Any) -> Any:
    """Return a cell: text stays text, also where it begins like a formula; control characters are left out."""
    from openpyxl.cell import WriteOnlyCell

    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, "".join(c for c in value.encode("utf-8", "replace").decode() if c.isprintable()))
    cell.data_type = "s"
    return cell
