"""Measure the cracks of a photograph at a threshold: table for the page, files for download."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_image, write_mask
from crackseg.errors import CracksegError
from crackseg.files import format_csv, write_bytes
from crackseg.geometry.components import measure_mask
from crackseg.geometry.picture import crack_colours, draw_measurement
from crackseg.geometry.report import CRACK_COLUMNS, Report, crack_rows, describe
from crackseg.geometry.scale import check_mm_per_px, choose_scale
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.pictures import encode_cracks

_MOST_ROWS = 500  # of the table on the page; the CSV has them all


@dataclass(frozen=True, slots=True)
class Findings:
    """Measured cracks, for the page and for download.

    Attributes:
        summary, table: HTML.
        cracks: PNG to lie on the photograph; with a scale in the colours of the width classes.
        files: mask (PNG), table (CSV), annotated picture (JPEG).
    """

    summary: str
    table: str
    cracks: bytes
    files: tuple[Path, Path, Path]


def measure_findings(
    inspection: Inspection,
    threshold: float,
    mm_per_px: float | None,
    folder: Path,
    grading: Grading = OF_CONCRETE,
) -> Findings:
    """Measure the cracks of a photograph at a threshold as ``crackseg measure`` does, and write the files.

    Args:
        threshold: in [0, 1].
        mm_per_px: the scale, above 0; None measures in pixels.
        folder: gets the files.
        grading: rules for kinds and width classes.
    """
    scale = choose_scale(mm_per_px)
    crack_mask = np.array(inspection.find_cracks(threshold))
    measurement = measure_mask(crack_mask)
    report = describe(measurement, inspection.name, scale, grading=grading, warning=inspection.warning)
    stem = Path(inspection.name).stem
    files = (folder / f"{stem}_mask.png", folder / f"{stem}_cracks.csv", folder / f"{stem}_annotated.jpg")
    write_mask(files[0], crack_mask)
    write_bytes(files[1], "".join(format_csv(CRACK_COLUMNS, crack_rows(report))).encode())
    write_bytes(files[2], draw_measurement(measurement, read_image(inspection.image_path), scale, grading=grading))
    colours = None if scale is None else crack_colours(measurement, scale, grading)
    own = threshold == inspection.operating_threshold
    return Findings(
        _summarize(report, threshold, own=own) + _show_legend(report, grading),
        _show_table(report, grading),
        encode_cracks(crack_mask, measurement, colours),
        files,
    )


def parse_scale(text: str) -> float | None:
    """Read millimetres per pixel, with a point or a comma; nothing for pixels.

    Raises:
        CracksegError: it is no number above 0.
    """
    if not text.strip():
        return None
    try:
        scale = float(text.strip().replace(",", "."))
    except ValueError as error:
        raise CracksegError(
            f"the scale is {text.strip()!r}; expected millimetres per pixel, over 0, e.g. 0.25, or nothing for pixels"
        ) from error
    return check_mm_per_px(scale)


def _summarize(report: Report, threshold: float, *, own: bool) -> str:
    unit, totals = _unit(report), report["totals"]
    num = totals["num_cracks"]
    return (
        f"<p class='says'>{num} crack{'' if num == 1 else 's'}, {totals[f'length_{unit}']:,.0f} {unit} long in all, "
        f"{totals['crack_fraction']:.2%} of the picture, at threshold {threshold:.4g}"
        f"{' (the model’s own)' if own else ''}.</p>"
    )


def _show_legend(report: Report, grading: Grading) -> str:
    """Return the width classes with their colours and lengths; without a scale, that there are none."""
    classes = report["totals"]["classes"]
    if classes is None:
        return "<p class='legend'>Width classes need millimetres per pixel.</p>" if report["cracks"] else ""
    entries = (
        f"<span>{_swatch(each.name, grading)}{escape(each.name)} ({escape(each.range_text)}): "
        f"{row['length_mm']:,.0f} mm</span>"
        for each, row in zip(grading.classes, classes, strict=True)
    )
    return f"<p class='legend'>{' '.join(entries)}</p>"


def _swatch(name: str, grading: Grading) -> str:
    colour = dict(zip((each.name for each in grading.classes), grading.colours(), strict=True))[name]
    return f"<i style='background: rgb{colour}'></i>"


def _show_table(report: Report, grading: Grading) -> str:
    cracks, unit = report["cracks"], _unit(report)
    if not cracks:
        return "<p>No crack at this threshold.</p>"
    digits = 1 if unit == "px" else 2
    columns = {
        "crack": ("number", 0),
        f"length, {unit}": (f"length_{unit}", 1),
        f"mean width, {unit}": (f"mean_width_{unit}", digits),
        f"max width, {unit}": (f"max_width_{unit}", digits),
        "direction, °": ("orientation_deg", 0),
        "tortuosity": ("tortuosity", 2),
    }
    graded = ["kind", *(["class"] if unit == "mm" else [])]
    titles = "".join(f"<th>{title}</th>" for title in (*columns, *graded))
    rows = []
    for crack in cracks[:_MOST_ROWS]:
        cells = [_format(crack[name], n) for name, n in columns.values()] + [crack["kind"]]
        if unit == "mm":
            cells.append(_swatch(crack["severity"], grading) + escape(crack["severity_range"]))
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    more = f"<p>The {_MOST_ROWS} longest of {len(cracks)}.</p>" if len(cracks) > _MOST_ROWS else ""
    return (
        f"<div class='scroll'><table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"{more}"
    )


def _unit(report: Report) -> str:
    return "px" if report["mm_per_px"] is None else "mm"


def _format(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
