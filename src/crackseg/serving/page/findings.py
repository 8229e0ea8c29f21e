"""Measure the cracks of a photograph at a threshold: table for the page, files for download."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_image, write_mask
from crackseg.files import format_csv, write_bytes
from crackseg.geometry.components import measure_mask
from crackseg.geometry.files import to_json
from crackseg.geometry.picture import crack_colours, draw_measurement
from crackseg.geometry.report import CRACK_COLUMNS, Report, crack_rows, describe, list_polylines
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.inference.steps import draw_overlay
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.pictures import encode_cracks

# Name of a form, and the words on its button; the files are what `crackseg predict --maps --measure` writes.
FORMS = (
    ("mask", "Mask"), ("overlay", "Overlay"), ("picture", "Annotated picture"), ("csv", "Table (CSV)"),
    ("lines", "Centre lines (GeoJSON)"), ("json", "Measurements (JSON)"), ("map", "Probabilities (PNG)"),
)  # fmt: skip
_ENDINGS = {
    "mask": "_mask.png", "overlay": "_overlay.jpg", "picture": "_annotated.jpg", "csv": "_cracks.csv",
    "lines": "_lines.geojson", "json": "_measurements.json", "map": "_probabilities.png",
}  # fmt: skip
_MOST_ROWS = 500  # of the table on the page; the CSV has them all


@dataclass(frozen=True, slots=True)
class Findings:
    """Measured cracks, for the page and for download.

    Attributes:
        summary, table: HTML.
        cracks: PNG to lie on the photograph; with a scale in the colours of the width classes.
        files: by the name of the form, see ``FORMS``.
    """

    summary: str
    table: str
    cracks: bytes
    files: dict[str, Path]


def measure_findings(
    inspection: Inspection,
    threshold: float,
    scale: Scale | None,
    folder: Path,
    grading: Grading = OF_CONCRETE,
) -> Findings:
    """Measure the cracks of a photograph at a threshold as ``crackseg measure`` does, and write the files.

    Args:
        threshold: in [0, 1].
        scale: None measures in pixels.
        folder: gets the files.
        grading: rules for kinds and width classes.
    """
    crack_mask = np.array(inspection.find_cracks(threshold))
    measurement = measure_mask(crack_mask)
    report = describe(measurement, inspection.name, scale, grading=grading, warning=inspection.warning)
    files = {name: folder / f"{Path(inspection.name).stem}{ending}" for name, ending in _ENDINGS.items()}
    image_HW3 = read_image(inspection.image_path)
    write_mask(files["mask"], crack_mask)
    write_bytes(files["overlay"], draw_overlay(image_HW3, crack_mask))
    write_bytes(files["picture"], draw_measurement(measurement, image_HW3, scale, grading=grading))
    write_bytes(files["csv"], "".join(format_csv(CRACK_COLUMNS, crack_rows(report))).encode())
    write_bytes(files["lines"], to_json(list_polylines(measurement, inspection.name, scale, grading=grading)))
    write_bytes(files["json"], to_json(report))
    files["map"].unlink(missing_ok=True)
    files["map"].hardlink_to(inspection.probability_path)
    colours = None if scale is None else crack_colours(measurement, scale, grading)
    own = threshold == inspection.operating_threshold
    return Findings(
        _summarize(report, threshold, scale, own=own) + _show_legend(report, grading),
        _show_table(report, grading),
        encode_cracks(crack_mask, measurement, colours),
        files,
    )


def pack_all(
    inspections: Mapping[str, Inspection],
    threshold: float,
    scale: Scale | None,
    folder: Path,
    grading: Grading = OF_CONCRETE,
) -> Iterator[Path | None]:
    """Write all forms of all photographs into one ZIP file, a folder for each photograph.

    Args:
        inspections: by the name that the page shows; the folders in the file have the same names.
        threshold: in [0, 1], for all; at the slider's place of the model's own, exactly that one.
        scale, grading: see :func:`measure_findings`.
        folder: gets the file.
    Yields:
        None before each photograph, and then the file.
    """
    path = folder / "cracks.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, inspection in inspections.items():
            yield None
            exact = inspection.exact_threshold(threshold)
            found = measure_findings(inspection, exact, scale, folder / "packing", grading)
            for written in found.files.values():
                packed = written.suffix in (".png", ".jpg")  # pictures are compressed already
                kind = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                archive.write(written, f"{name}/{written.name}", kind)
                written.unlink()
    yield path


def _summarize(report: Report, threshold: float, scale: Scale | None, *, own: bool) -> str:
    unit, totals = _unit(report), report["totals"]
    num = totals["num_cracks"]
    at_scale = ""
    if scale is not None:
        error = f" ± {100 * scale.relative_error:.2g} %" if scale.relative_error else ""
        at_scale = f" and {scale.mm_per_px:.4g} mm per pixel{error}"
    return (
        f"<p class='says'>{num} crack{'' if num == 1 else 's'}, {totals[f'length_{unit}']:,.0f} {unit} long in all, "
        f"{totals['crack_fraction']:.2%} of the picture, at threshold {threshold:.4g}"
        f"{' (the model’s own)' if own else ''}{at_scale}.</p>"
    )


def _show_legend(report: Report, grading: Grading) -> str:
    """Return the width classes with their colours and lengths; without a scale, that there are none."""
    classes = report["totals"]["classes"]
    if not report["cracks"]:
        return ""
    if classes is None:
        return (
            "<p class='legend'>No width classes: they need millimetres, so a scale. Type one, or click two "
            "points of known distance on the photograph.</p>"
        )
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
        f"length, {unit}": (f"length_{unit}", 1),
        f"max width, {unit}": (f"max_width_{unit}", digits),
        f"mean width, {unit}": (f"mean_width_{unit}", digits),
        "direction, °": ("orientation_deg", 0),
        "tortuosity": ("tortuosity", 2),
    }
    graded = ("class", "kind") if unit == "mm" else ("kind",)
    titles = "".join(f"<th>{title}</th>" for title in ("crack", *graded, *columns))
    rows = []
    for crack in cracks[:_MOST_ROWS]:
        cells = [str(crack["number"])]
        if unit == "mm":
            cells.append(_swatch(crack["severity"], grading) + escape(crack["severity_range"]))
        cells.append(crack["kind"])
        for name, n in columns.values():
            error = crack.get(name.replace("_mm", "_uncertainty_mm")) if name.endswith("_mm") else None
            cells.append(_format(crack[name], n) + ("" if error is None else f" ± {_format(error, n)}"))
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    more = f"<p>The {_MOST_ROWS} longest of {len(cracks)}.</p>" if len(cracks) > _MOST_ROWS else ""
    return wrap_table(titles, rows) + more


def wrap_table(titles: str, rows: list[str]) -> str:
    """Return a table that scrolls within itself, from its cells."""
    return (
        f"<div class='scroll' tabindex='0'><table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody>"
        "</table></div>"
    )


def _unit(report: Report) -> str:
    return "px" if report["mm_per_px"] is None else "mm"


def _format(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
