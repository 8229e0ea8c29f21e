"""Measure the cracks of a photograph at a threshold: table for the page, files for download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_image, write_mask
from crackseg.errors import CracksegError
from crackseg.files import format_csv, write_bytes
from crackseg.geometry.components import measure_mask
from crackseg.geometry.picture import draw_measurement
from crackseg.geometry.report import CRACK_COLUMNS, Report, crack_rows, describe
from crackseg.geometry.scale import check_mm_per_px
from crackseg.serving.page.inspection import Inspection

_MOST_ROWS = 500  # of the table on the page; the CSV has them all


@dataclass(frozen=True, slots=True)
class Findings:
    """Measured cracks, for the page and for download.

    Attributes:
        summary, table: HTML.
        files: mask (PNG), table (CSV), annotated picture (JPEG).
    """

    summary: str
    table: str
    files: tuple[Path, Path, Path]


def measure_findings(inspection: Inspection, threshold: float, mm_per_px: float | None, folder: Path) -> Findings:
    """Measure the cracks of a photograph at a threshold as ``crackseg measure`` does, and write the files.

    Args:
        threshold: in [0, 1].
        mm_per_px: the scale, above 0; None measures in pixels.
        folder: gets the files.
    """
    crack_mask = np.array(inspection.find_cracks(threshold))
    measurement = measure_mask(crack_mask)
    report = describe(measurement, inspection.name, mm_per_px, warning=inspection.warning)
    stem = Path(inspection.name).stem
    files = (folder / f"{stem}_mask.png", folder / f"{stem}_cracks.csv", folder / f"{stem}_annotated.jpg")
    write_mask(files[0], crack_mask)
    write_bytes(files[1], "".join(format_csv(CRACK_COLUMNS, crack_rows(report))).encode())
    write_bytes(files[2], draw_measurement(measurement, read_image(inspection.image_path), mm_per_px))
    own = threshold == inspection.operating_threshold
    return Findings(_summarize(report, threshold, own=own), _show_table(report), files)


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


def _show_table(report: Report) -> str:
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
    titles = "".join(f"<th>{title}</th>" for title in columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_format(crack[name], n)}</td>' for name, n in columns.values())}</tr>"
        for crack in cracks[:_MOST_ROWS]
    )
    more = f"<p>The {_MOST_ROWS} longest of {len(cracks)}.</p>" if len(cracks) > _MOST_ROWS else ""
    return f"<div class='scroll'><table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>{more}"


def _unit(report: Report) -> str:
    return "px" if report["mm_per_px"] is None else "mm"


def _format(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
