"""Format a measurement as JSON, table rows, GeoJSON-like lines and text; in pixels, and in mm with a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.measure import approximate_polygon

from crackseg.geometry.components import NUM_DIRECTIONS, Branch, Crack, Measurement

CRACK_COLUMNS = (
    "file", "number", "length_px", "mean_width_px", "max_width_px", "area_px", "orientation_deg", "tortuosity",
    "num_branches", "box_x_px", "box_y_px", "box_width_px", "box_height_px", "length_mm", "mean_width_mm",
    "max_width_mm", "area_mm2", "warning",
)  # fmt: skip
TOTAL_COLUMNS = (
    "file", "width_px", "height_px", "mm_per_px", "num_cracks", "length_px", "area_px", "crack_fraction",
    "mean_width_px", "max_width_px", "length_per_area_px_per_px2", "length_mm", "area_mm2", "mean_width_mm",
    "max_width_mm", "length_per_area_m_per_m2", "warning",
)  # fmt: skip
_MAX_ROWS = 20
_LINE_TOLERANCE_PX = 0.3  # of the simplified polylines

Report = dict[str, Any]


def describe(measurement: Measurement, file: str, mm_per_px: float | None = None, *, warning: str = "") -> Report:
    """Return all measured values of one mask, for JSON.

    Args:
        file: name of the mask.
        mm_per_px: adds a value in mm for each value in pixels.
        warning: a reason not to trust the mask, e.g. that its model must not be used; "" for none.
    Returns:
        ``file``, ``width_px``, ``height_px``, ``mm_per_px``, ``warning``, ``cracks`` (the longest first), ``totals``.
    """
    m = measurement
    area_of_image = m.width_px * m.height_px
    directions = m.direction_lengths_px()
    step = 180 // NUM_DIRECTIONS
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
        | _values(crack, mm_per_px)
        | {"bounding_box_px": list(crack.box_px)}
        | {"branches": [_values(branch, mm_per_px) for branch in crack.branches]}
        for number, crack in enumerate(m.cracks, start=1)
    ]
    if mm_per_px is not None:
        totals |= _in_mm(totals, mm_per_px)
        totals["length_per_area_m_per_m2"] = 1000 * totals["length_per_area_px_per_px2"] / mm_per_px
    return {
        "file": file,
        "width_px": m.width_px,
        "height_px": m.height_px,
        "mm_per_px": mm_per_px,
        "warning": warning,
        "cracks": cracks,
        "totals": {name: _rounded(value, 6) for name, value in totals.items()}
        | {
            "orientation_histogram": [
                {"from_deg": i * step, "to_deg": (i + 1) * step, "length_px": _rounded(length)}
                | ({} if mm_per_px is None else {"length_mm": _rounded(length * mm_per_px)})
                for i, length in enumerate(directions)
            ]
        },
    }


def _values(thing: Crack | Branch, mm_per_px: float | None) -> Report:
    values: Report = {
        "length_px": thing.length_px,
        "mean_width_px": thing.mean_width_px,
        "max_width_px": thing.max_width_px,
        "orientation_deg": thing.orientation_deg,
        "tortuosity": thing.tortuosity,
    }
    if isinstance(thing, Crack):
        values["area_px"] = thing.area_px
    if mm_per_px is not None:
        values |= _in_mm(values, mm_per_px)
    return {name: _rounded(value) for name, value in values.items()}


def _in_mm(values: Report, mm_per_px: float) -> Report:
    converted: Report = {}
    for name in ("length_px", "mean_width_px", "max_width_px", "area_px"):
        if name in values:
            value = values[name]
            factor, unit = (mm_per_px**2, "mm2") if name == "area_px" else (mm_per_px, "mm")
            converted[name.removesuffix("px") + unit] = None if value is None else value * factor
    return converted


def _rounded(value: float | int | None, digits: int = 3) -> float | int | None:
    return value if value is None or isinstance(value, int) else round(float(value), digits)


def list_polylines(measurement: Measurement, file: str, mm_per_px: float | None = None) -> Report:
    """Return the centre lines as a GeoJSON feature collection, a feature for each branch.

    Coordinates are pixels of the image, x to the right and y downwards, (0, 0) the centre of the first pixel; they are
    not geographic.
    """
    features = []
    for number, crack in enumerate(measurement.cracks, start=1):
        for branch in crack.branches:
            points = approximate_polygon(branch.line.points, _LINE_TOLERANCE_PX)
            features.append(
                {
                    "type": "Feature",
                    "properties": {"file": file, "crack": number} | _values(branch, mm_per_px),
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


def to_text(report: Report) -> str:
    """Format a report for the terminal: the longest cracks and the totals."""
    unit = "px" if report["mm_per_px"] is None else "mm"
    totals = report["totals"]
    lines = [f"{report['file']}: {totals['num_cracks']} cracks, {totals[f'length_{unit}']:.1f} {unit}"]
    if not report["cracks"]:
        return f"{report['file']}: no cracks"
    lines.append(
        f"{'':>6}{'length':>10}{'width':>9}{'max':>8}{'direction':>11}{'tortuosity':>12}  {unit}, degrees"
    )
    for crack in report["cracks"][:_MAX_ROWS]:
        direction = "-" if crack["orientation_deg"] is None else f"{crack['orientation_deg']:.0f}"
        tortuosity = "-" if crack["tortuosity"] is None else f"{crack['tortuosity']:.2f}"
        lines.append(
            f"{crack['number']:>6}{crack[f'length_{unit}']:>10.1f}{crack[f'mean_width_{unit}']:>9.2f}"
            f"{crack[f'max_width_{unit}']:>8.2f}{direction:>11}{tortuosity:>12}"
        )
    if len(report["cracks"]) > _MAX_ROWS:
        lines.append(f"   and {len(report['cracks']) - _MAX_ROWS} shorter ones; --json or --out gives all")
    return "\n".join(lines)
