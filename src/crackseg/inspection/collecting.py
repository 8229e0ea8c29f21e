"""Collect the measurements of all photographs of an inspection, the worst photograph first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crackseg.data.image_files import Photograph
from crackseg.geometry.files import read_reports
from crackseg.geometry.report import Report
from crackseg.geometry.severity import Grading
from crackseg.inference.table import TABLE_NAME, Row, read_table
from crackseg.inspection.places import Place, read_place

_MOST_CRACKS = 8  # of a photograph, in the report; the tables have all


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings of one photograph.

    Attributes:
        photograph: file, and name of its results.
        picture: the annotated picture.
        num_cracks: may be 0.
        length, max_width: in the unit of the inspection; the width is None without cracks.
        severity: widest class; None without cracks or without a scale.
        class_lengths_mm: by class; empty without a scale.
        cracks: the worst ones, of :func:`crackseg.geometry.report.describe`.
        warning, remark: of the prediction; "" for none.
        place: from EXIF.
    """

    photograph: Photograph
    picture: Path
    num_cracks: int
    length: float
    max_width: float | None
    severity: str | None
    class_lengths_mm: Mapping[str, float]
    cracks: tuple[Report, ...]
    warning: str
    remark: str
    place: Place | None


@dataclass(slots=True)
class ClassTotal:
    """Cracks of one width class or kind in all photographs."""

    num_cracks: int = 0
    length: float = 0.0
    num_photographs: int = 0


@dataclass(slots=True)
class Inspection:
    """All photographs of an inspection.

    Attributes:
        unit: ``mm`` with a scale, else ``px``.
        findings: the worst photograph first.
        left_out: file and reason of each photograph that has no result.
        classes: by width class, the finest first; empty without a scale.
        kinds: by kind of crack.
    """

    unit: str
    findings: list[Findings] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    classes: dict[str, ClassTotal] = field(default_factory=dict)
    kinds: dict[str, ClassTotal] = field(default_factory=dict)


def collect(
    photographs: Sequence[Photograph],
    out_dir: Path,
    grading: Grading,
    failed: Sequence[str],
    *,
    with_scale: bool,
) -> Inspection:
    """Collect the results of ``predict_files`` and ``measure_masks`` in a folder.

    Args:
        photographs: those of the inspection; the folder may hold results of others.
        out_dir: of the results.
        grading: width classes.
        failed: errors of masks that could not be measured.
        with_scale: values in mm and classes.
    """
    unit = "mm" if with_scale else "px"
    inspection = Inspection(unit)
    names = [each.name for each in grading.classes] if with_scale else []
    inspection.classes = {name: ClassTotal() for name in names}
    rows = {row["image"]: row for row in read_table(out_dir / TABLE_NAME)}
    for photograph in photographs:
        row = rows.get(str(photograph.path), {})
        mask = Photograph(out_dir / "masks" / f"{photograph.name}.png", photograph.name)
        report = None if row.get("error") or not row else next(read_reports([mask], out_dir), None)
        if report is None:
            reason = row.get("error") or next((f for f in failed if str(mask.path) in f), "it has no result")
            inspection.left_out.append((str(photograph.path), reason.removeprefix(f"{photograph.path}: ")))
            continue
        inspection.findings.append(_read_findings(photograph, out_dir, row, report, names, unit))
        _count(inspection, report)
    rank = {name: k for k, name in enumerate(names)}
    inspection.findings.sort(key=lambda found: _badness(found, rank), reverse=True)
    return inspection


def _read_findings(
    photograph: Photograph, out_dir: Path, row: Row, report: Report, names: Sequence[str], unit: str
) -> Findings:
    totals = report["totals"]
    rank = {name: k for k, name in enumerate(names)}
    worst = sorted(report["cracks"], key=lambda c: (-rank.get(c["severity"], 0), -c[f"length_{unit}"]))
    return Findings(
        photograph=photograph,
        picture=out_dir / "annotated" / f"{photograph.name}.jpg",
        num_cracks=totals["num_cracks"],
        length=totals[f"length_{unit}"],
        max_width=totals[f"max_width_{unit}"],
        severity=totals["severity"],
        class_lengths_mm={each["severity"]: each["length_mm"] for each in totals["classes"] or ()},
        cracks=tuple(worst[:_MOST_CRACKS]),
        warning=row["warning"],
        remark=row["remark"],
        place=read_place(photograph.path),
    )


def _count(inspection: Inspection, report: Report) -> None:
    for each in report["totals"]["classes"] or ():
        total = inspection.classes[each["severity"]]
        total.num_cracks += each["num_cracks"]
        total.length += each["length_mm"]
        total.num_photographs += each["length_mm"] > 0
    for kind in {crack["kind"] for crack in report["cracks"]}:
        lengths = [c[f"length_{inspection.unit}"] for c in report["cracks"] if c["kind"] == kind]
        total = inspection.kinds.setdefault(kind, ClassTotal())
        total.num_cracks += len(lengths)
        total.length += sum(lengths)
        total.num_photographs += 1


def _badness(found: Findings, rank: Mapping[str, int]) -> tuple[float, ...]:
    """Widest class first, then by the length in it and in the finer ones; without classes by length."""
    lengths = [found.class_lengths_mm[name] for name in sorted(rank, key=lambda name: -rank[name])]
    return (rank.get(found.severity or "", -1), *lengths, found.length)
