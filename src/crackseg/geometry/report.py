"""Format a measurement as JSON, table rows, GeoJSON-like lines and text; in pixels, with a scale in mm and classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from crackseg.geometry.components import NUM_DIRECTIONS, Branch, Crack, Measurement
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import (
    OF_CONCRETE,
    Grade,
    Grading,
    class_lengths_px,
    grade_crack,
    length_uncertainty_mm,
    width_uncertainty_mm,
)

CRACK_COLUMNS = (
    "file", "number", "length_px", "mean_width_px", "max_width_px", "area_px", "orientation_deg", "tortuosity",
    "num_branches", "box_x_px", "box_y_px", "box_width_px", "box_height_px", "length_mm", "mean_width_mm",
    "max_width_mm", "area_mm2", "warning", "kind", "num_cells", "cells_per_m2", "severity", "severity_range",
    "length_uncertainty_mm", "mean_width_uncertainty_mm", "max_width_uncertainty_mm",
)  # fmt: skip
TOTAL_COLUMNS = (
    "file", "width_px", "height_px", "mm_per_px", "num_cracks", "length_px", "area_px", "crack_fraction",
    "mean_width_px", "max_width_px", "length_per_area_px_per_px2", "length_mm", "area_mm2", "mean_width_mm",
    "max_width_mm", "length_per_area_m_per_m2", "warning", "scale_error_pct", "severity",
)  # fmt: skip
CLASS_COLUMNS = ("file", "severity", "from_mm", "to_mm", "num_cracks", "length_mm")
NO_CLASS = "without a scale there are no millimetres and so no width classes; give --mm-per-px or --scale"
_MAX_ROWS = 20
_LINE_TOLERANCE_PX = 0.3  # of the simplified polylines

Report = dict[str, Any]


def describe(
    measurement: Measurement,
    file: str,
    scale: Scale | None = None,
    *,
    grading: Grading = OF_CONCRETE,
    warning: str = "",
) -> Report:
    """Return all measured values of one mask, for JSON.

    Args:
        file: name of the mask.
        scale: adds a value in mm for each value in pixels, with uncertainties, and the width classes.
        grading: rules for kinds and classes.
        warning: a reason not to trust the mask, e.g. that its model must not be used; "" for none.
    Returns:
        ``file``, ``width_px``, ``height_px``, ``mm_per_px``, ``scale_error_pct``, ``warning``, ``cracks`` (the
        longest first), ``totals``.
    """
    m = measurement
    area_of_image = m.width_px * m.height_px
    grades = grade_cracks(m, grading, scale)
    totals: Report = {
        "num_cracks": len(m.cracks),
        "length_px": m.length_px,
        "area_px": m.area_px,
        "crack_fraction": m.area_px / area_of_image,
        "mean_width_px": m.mean_width_px,
        "max_width_px": m.max_width_px,
        "length_per_area_px_per_px2": m.length_px / area_of_image,
    }
    cracks = [
        {"number": number}
        | measured_values(crack, scale)
        | grade_values(grade)
        | {"bounding_box_px": list(crack.box_px)}
        | {"branches": [measured_values(branch, scale) for branch in crack.branches]}
        for number, (crack, grade) in enumerate(zip(m.cracks, grades, strict=True), start=1)
    ]
    if scale is not None:
        totals |= _in_mm(totals, scale)
        totals["length_per_area_m_per_m2"] = 1000 * totals["length_per_area_px_per_px2"] / scale.mm_per_px
    return {
        "file": file,
        "width_px": m.width_px,
        "height_px": m.height_px,
        "mm_per_px": None if scale is None else scale.mm_per_px,
        "scale_error_pct": None if scale is None else round(100 * scale.relative_error, 3),
        "warning": warning,
        "cracks": cracks,
        "totals": {name: _rounded(value, 6) for name, value in totals.items()}
        | _class_values(m, grades, grading, scale)
        | {"orientation_histogram": _histogram(m, scale)},
    }


def grade_cracks(measurement: Measurement, grading: Grading, scale: Scale | None) -> list[Grade]:
    """Grade each crack of a measurement, in its order."""
    return [grade_crack(crack, grading, scale) for crack in measurement.cracks]


def grade_values(grade: Grade) -> Report:
    low, high = grade.severity_range or (None, None)
    return {
        "kind": grade.kind,
        "num_cells": grade.num_cells,
        "cells_per_m2": _rounded(grade.cells_per_m2),
        "severity": grade.severity,
        "severity_range": low if low == high else f"{low} to {high}",
    }


def _class_values(measurement: Measurement, grades: list[Grade], grading: Grading, scale: Scale | None) -> Report:
    """Return the widest class, and the cracks and the length of each class; None without a scale."""
    if scale is None:
        return {"severity": None, "classes": None}
    lengths = class_lengths_px(measurement.cracks, grades, grading, scale)
    counts = [sum(grade.severity == each.name for grade in grades) for each in grading.classes]
    present = [each.name for each, count in zip(grading.classes, counts, strict=True) if count]
    return {
        "severity": present[-1] if present else None,
        "classes": [
            {
                "severity": each.name,
                "from_mm": each.from_mm,
                "to_mm": each.to_mm,
                "num_cracks": count,
                "length_mm": _rounded(length * scale.mm_per_px),
            }
            for each, count, length in zip(grading.classes, counts, lengths, strict=True)
        ],
    }


def _histogram(measurement: Measurement, scale: Scale | None) -> list[Report]:
    step = 180 // NUM_DIRECTIONS
    return [
        {"from_deg": i * step, "to_deg": (i + 1) * step, "length_px": _rounded(length)}
        | ({} if scale is None else {"length_mm": _rounded(length * scale.mm_per_px)})
        for i, length in enumerate(measurement.direction_lengths_px())
    ]


def measured_values(thing: Crack | Branch, scale: Scale | None) -> Report:
    values: Report = {
        "length_px": thing.length_px,
        "mean_width_px": thing.mean_width_px,
        "max_width_px": thing.max_width_px,
        "orientation_deg": thing.orientation_deg,
        "tortuosity": thing.tortuosity,
    }
    if isinstance(thing, Crack):
        values["area_px"] = thing.area_px
    if scale is not None:
        values |= _in_mm(values, scale)
        values["length_uncertainty_mm"] = length_uncertainty_mm(thing.length_px, scale)
        for name in ("mean_width", "max_width"):
            values[f"{name}_uncertainty_mm"] = width_uncertainty_mm(values[f"{name}_px"], scale)
    return {name: _rounded(value) for name, value in values.items()}


def _in_mm(values: Report, scale: Scale) -> Report:
    converted: Report = {}
    for name in ("length_px", "mean_width_px", "max_width_px", "area_px"):
        if name in values:
            value = values[name]
            factor, unit = (scale.mm_per_px**2, "mm2") if name == "area_px" else (scale.mm_per_px, "mm")
            converted[name.removesuffix("px") + unit] = None if value is None else value * factor
    return converted


def _rounded(value: float | int | None, digits: int = 3) -> float | int | None:
    return value if value is None or isinstance(value, int) else round(float(value), digits)


def list_polylines(
    measurement: Measurement, file: str, scale: Scale | None = None, *, grading: Grading = OF_CONCRETE
) -> Report:
    """Return the centre lines as a GeoJSON feature collection, a feature for each branch.

    Coordinates are pixels of the image, x to the right and y downwards, (0, 0) the centre of the first pixel; they are
    not geographic.
    """
    from skimage.measure import approximate_polygon  # half a second, only for lines

    features = []
    grades = grade_cracks(measurement, grading, scale)
    for number, (crack, grade) in enumerate(zip(measurement.cracks, grades, strict=True), start=1):
        for branch in crack.branches:
            points = approximate_polygon(branch.line.points, _LINE_TOLERANCE_PX)
            features.append(
                {
                    "type": "Feature",
                    "properties": {"file": file, "crack": number}
                    | measured_values(branch, scale)
                    | {"kind": grade.kind, "severity": grade.severity},
                    "geometry": {"type": "LineString", "coordinates": np.round(points, 2).tolist()},
                }
            )
    return {"type": "FeatureCollection", "features": features}


def crack_rows(report: Report) -> list[Report]:
    """Return rows of ``CRACK_COLUMNS`` for a report of :func:`describe`."""
    rows = []
    for crack in report["cracks"]:
        box = dict(
            zip(("box_x_px", "box_y_px", "box_width_px", "box_height_px"), crack["bounding_box_px"], strict=True)
        )
        row = (
            {"file": report["file"], "warning": report.get("warning"), "num_branches": len(crack["branches"])}
            | crack
            | box
        )
        rows.append({name: row.get(name) for name in CRACK_COLUMNS})
    return rows


def total_row(report: Report) -> Report:
    """Return the row of ``TOTAL_COLUMNS`` for a report of :func:`describe`."""
    row = report | report["totals"]
    return {name: row.get(name) for name in TOTAL_COLUMNS}


def class_rows(report: Report) -> list[Report]:
    """Return rows of ``CLASS_COLUMNS`` for a report of :func:`describe`; none without a scale."""
    return [{"file": report["file"]} | row for row in report["totals"].get("classes") or ()]


def to_text(report: Report) -> str:
    """Format a report for the terminal: the longest cracks and the totals."""
    unit = "px" if report["mm_per_px"] is None else "mm"
    totals = report["totals"]
    lines = [f"{report['file']}: {totals['num_cracks']} cracks, {totals[f'length_{unit}']:.1f} {unit}"]
    if not report["cracks"]:
        return f"{report['file']}: no cracks"
    lines.append(
        f"{'':>6}{'length':>10}{'width':>9}{'max':>8}{'direction':>11}{'tortuosity':>12}  {'kind':<13}"
        f"{'' if unit == 'px' else 'class'}  ({unit}, degrees)"
    )
    for crack in report["cracks"][:_MAX_ROWS]:
        direction = "-" if crack["orientation_deg"] is None else f"{crack['orientation_deg']:.0f}"
        tortuosity = "-" if crack["tortuosity"] is None else f"{crack['tortuosity']:.2f}"
        lines.append(
            f"{crack['number']:>6}{crack[f'length_{unit}']:>10.1f}{crack[f'mean_width_{unit}']:>9.2f}"
            f"{crack[f'max_width_{unit}']:>8.2f}{direction:>11}{tortuosity:>12}  {crack['kind']:<13}"
            f"{crack['severity_range'] or ''}".rstrip()
        )
    if len(report["cracks"]) > _MAX_ROWS:
        lines.append(f"   and {len(report['cracks']) - _MAX_ROWS} shorter ones; --json or --out gives all")
    if unit == "mm":
        shares = ", ".join(
            f"{row['severity']} {row['length_mm']:.1f} mm" for row in totals["classes"] if row["length_mm"]
        )
        lines.append(f"   length by class: {shares}")
    return "\n".join(lines)
