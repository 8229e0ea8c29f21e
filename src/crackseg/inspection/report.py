"""Write the report of an inspection: predict, measure, collect, then HTML, CSV, XLSX and the places."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crackseg.data.image_files import Photograph
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.inspection.collecting import Inspection, collect
from crackseg.inspection.page import Circumstances, write_page
from crackseg.inspection.places import point_features
from crackseg.inspection.workbook import write_photograph_table, write_workbook

PAGE, BOOK, TABLE, POINTS = "report.html", "report.xlsx", "photographs.csv", "photographs.geojson"


@dataclass(frozen=True, slots=True)
class Written:
    """The report's files, and how many photographs it holds and left out."""

    files: tuple[Path, ...]
    num_photographs: int
    num_left_out: int


def write_report(
    photographs: Sequence[Photograph],
    out_dir: Path,
    made: Circumstances,
    *,
    failed: Sequence[str] = (),
    num_pictures: int,
    with_workbook: bool,
) -> Written:
    """Write the report of photographs that were predicted and measured into ``out_dir``.

    Args:
        photographs: of the inspection.
        out_dir: of the results, and for the report.
        made: what the results were made with.
        failed: errors of masks that could not be measured.
        num_pictures: of the worst photographs that are shown.
        with_workbook: write the XLSX, too.
    Raises:
        CracksegError: not one photograph has a result; then no report is written.
    """
    inspection = collect(photographs, out_dir, made.grading, failed, with_scale=made.scale is not None)
    if not inspection.findings:
        file, reason = inspection.left_out[0]
        raise CracksegError(
            f"no report: none of {len(inspection.left_out)} photographs has a result, e.g. {file}: {reason}"
        )
    files = [out_dir / TABLE]
    write_photograph_table(files[0], inspection)
    if places := _list_places(inspection):
        files.append(out_dir / POINTS)
        write_bytes(files[-1], (json.dumps(point_features(places), indent=1) + "\n").encode())
    else:
        (out_dir / POINTS).unlink(missing_ok=True)
    if with_workbook:
        files.append(out_dir / BOOK)
        write_workbook(files[-1], inspection, out_dir, _facts(made))
    files.insert(0, out_dir / PAGE)
    write_bytes(files[0], write_page(inspection, made, num_pictures=num_pictures).encode("utf-8", "replace"))
    return Written(tuple(files), len(inspection.findings), len(inspection.left_out))


def _list_places(inspection: Inspection) -> list[tuple]:
    return [
        (
            found.place,
            {
                "photograph": found.photograph.name,
                "num_cracks": found.num_cracks,
                f"length_{inspection.unit}": found.length,
                f"max_width_{inspection.unit}": found.max_width,
                "severity": found.severity,
            },
        )
        for found in inspection.findings
        if found.place is not None
    ]


def _facts(made: Circumstances) -> dict[str, str]:
    scale = made.scale
    return {
        "title": made.title,
        "day": made.day,
        "photographs": made.source,
        "model": f"{made.model} ({made.digest})",
        "trained on": made.trained_on,
        "threshold": f"{made.threshold:g}",
        "surface": made.grading.surface,
        "mm per pixel": "none" if scale is None else f"{scale.mm_per_px:g}",
        "uncertainty of the scale, %": "none" if scale is None else f"{100 * scale.relative_error:g}",
        "program": made.program,
    } | {f"warning {k}": warning for k, warning in enumerate(made.warnings, start=1)}
