"""Measure the cracks of a photograph at a threshold: table for the page, forms for download."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_image, write_mask
from crackseg.files import format_csv, write_bytes
from crackseg.geometry.components import Measurement, measure_mask
from crackseg.geometry.files import to_json
from crackseg.geometry.picture import choose_colours, draw_measurement
from crackseg.geometry.report import CRACK_COLUMNS, Report, crack_rows, describe, list_polylines
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.inference.steps import draw_overlay
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.pictures import encode_cracks

_MOST_ROWS = 500  # of the table on the page; the CSV has them all


@dataclass(frozen=True, slots=True)
class Findings:
    """Measured cracks of a photograph, as ``crackseg measure`` measures them.

    Attributes:
        inspection: of the photograph.
        threshold: in [0, 1].
        scale: None for pixels.
        grading: rules for kinds and width classes.
        crack_mask: bool (H, W).
        measurement, report: of this mask.
    """

    inspection: Inspection
    threshold: float
    scale: Scale | None
    grading: Grading
    crack_mask: np.ndarray
    measurement: Measurement
    report: Report

    def summarize(self) -> str:
        """Return the totals and the legend, HTML."""
        own = self.threshold == self.inspection.operating_threshold
        return _summarize(self.report, self.threshold, self.scale, own=own) + _show_legend(
            self.report, self.grading
        )

    def show_table(self) -> str:
        """Return the table of cracks, HTML."""
        return _show_table(self.report, self.grading)

    def draw_cracks(self) -> bytes:
        """Draw the cracks to lie on the photograph, PNG; with a scale in the colours of the width classes."""
        if self.scale is None:
            return encode_cracks(self.crack_mask)
        _, colours = choose_colours(self.measurement, self.scale, self.grading)
        return encode_cracks(self.crack_mask, self.measurement, colours)


def measure_findings(
    inspection: Inspection, threshold: float, scale: Scale | None, grading: Grading = OF_CONCRETE
) -> Findings:
    """Measure the cracks of a photograph at a threshold in [0, 1]; a scale of None measures in pixels."""
    crack_mask = np.array(inspection.find_cracks(threshold))
    measurement = measure_mask(crack_mask)
    report = describe(measurement, inspection.name, scale, grading=grading, warning=inspection.warning)
    return Findings(inspection, threshold, scale, grading, crack_mask, measurement, report)


@dataclass(frozen=True, slots=True)
class Form:
    """A form that findings can be downloaded in.

    Attributes:
        label: words on its button.
        ending: of its file's name.
        write: writes the file; gets the findings, the photograph as uint8 (H, W, 3) and the path.
    """

    label: str
    ending: str
    write: Callable[[Findings, np.ndarray, Path], None]


def _write_picture(found: Findings, image_HW3: np.ndarray, path: Path) -> None:
    write_bytes(path, draw_measurement(found.measurement, image_HW3, found.scale, grading=found.grading))


def _write_csv(found: Findings, _: np.ndarray, path: Path) -> None:
    write_bytes(path, "".join(format_csv(CRACK_COLUMNS, crack_rows(found.report))).encode())


def _write_lines(found: Findings, _: np.ndarray, path: Path) -> None:
    lines = list_polylines(found.measurement, found.inspection.name, found.scale, grading=found.grading)
    write_bytes(path, to_json(lines))


def _link_map(found: Findings, _: np.ndarray, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.hardlink_to(found.inspection.probability_path)


# The files are what `crackseg predict --maps --measure` writes.
FORMS = {
    "mask": Form("Mask", "_mask.png", lambda found, _, path: write_mask(path, found.crack_mask)),
    "overlay": Form(
        "Overlay",
        "_overlay.jpg",
        lambda found, image_HW3, path: write_bytes(path, draw_overlay(image_HW3, found.crack_mask)),
    ),
    "picture": Form("Annotated picture", "_annotated.jpg", _write_picture),
    "csv": Form("Table (CSV)", "_cracks.csv", _write_csv),
    "lines": Form("Centre lines (GeoJSON)", "_lines.geojson", _write_lines),
    "json": Form(
        "Measurements (JSON)",
        "_measurements.json",
        lambda found, _, path: write_bytes(path, to_json(found.report)),
    ),
    "map": Form("Probabilities (PNG)", "_probabilities.png", _link_map),
}


def write_forms(found: Findings, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the findings in all forms into ``folder``, one after the other; yields name and file of each."""
    image_HW3 = read_image(found.inspection.image_path)
    for name, form in FORMS.items():
        path = folder / f"{Path(found.inspection.name).stem}{form.ending}"
        form.write(found, image_HW3, path)
        yield name, path


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
        scale, grading: see :class:`Findings`.
        folder: gets the file.
    Yields:
        None before each photograph, and then the file.
    """
    path = folder / "cracks.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, inspection in inspections.items():
            yield None
            found = measure_findings(inspection, inspection.exact_threshold(threshold), scale, grading)
            for _, written in write_forms(found, folder / "packing"):
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
    return f"<i style='background: rgb{grading.colour_of(name)}'></i>"


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
