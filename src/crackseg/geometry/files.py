"""Measure mask files into tables, JSON, lines and annotated images, one after the other in constant memory."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from crackseg.data.image_files import Photograph
from crackseg.data.images.files import IMAGE_EXTENSIONS, read_image
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.masks.formats import MaskReader
from crackseg.data.masks.stored import read_stored_mask
from crackseg.errors import CracksegError, count_of
from crackseg.files import format_csv, sole_writer, write_bytes
from crackseg.geometry.components import Measurement, measure_mask
from crackseg.geometry.picture import draw_measurement
from crackseg.geometry.report import (
    CLASS_COLUMNS,
    CRACK_COLUMNS,
    TOTAL_COLUMNS,
    Report,
    class_rows,
    crack_rows,
    describe,
    list_polylines,
    total_row,
)
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.progress import progress

_log = logging.getLogger("crackseg")

NO_WARNINGS: Mapping[Path, str] = MappingProxyType({})
CRACKS_TABLE, TOTALS_TABLE, CLASSES_TABLE = "cracks.csv", "crack_totals.csv", "crack_classes.csv"
_PICTURES = 2  # way of colouring them by class; those of another one are drawn again
_MOST_KEPT_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """Settings of a measurement.

    Attributes:
        scale: None for pixels only.
        min_length_px: shorter cracks are left out.
        crack_values: mask values that mean crack; None for the rules of an import.
        grading: rules for kinds and width classes.
    """

    scale: Scale | None = None
    min_length_px: float = 0.0
    crack_values: tuple[CrackValue, ...] | None = None
    grading: Grading = OF_CONCRETE


@dataclass(slots=True)
class MeasureSummary:
    """Result of a run over masks: how many were measured or kept from an earlier run, and the errors of the others."""

    num_measured: int = 0
    num_kept: int = 0
    failed: list[str] = field(default_factory=list)


class ReadMasks:
    """Masks that were read to check their values, kept so that measuring them does not read them again.

    One bit a pixel, and at most 128 MiB together: the others are read again.
    """

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[int, tuple[int, ...], np.ndarray]] = {}
        self._num_bytes = 0

    def keep(self, path: Path, modified_ns: int, mask_HW: np.ndarray) -> None:
        """Keep a mask, uint8 (H, W) of {0, 1}, of a file that was modified at this time."""
        if self._num_bytes + mask_HW.size // 8 < _MOST_KEPT_BYTES:
            self._kept[path] = modified_ns, mask_HW.shape, np.packbits(mask_HW)
            self._num_bytes += mask_HW.size // 8

    def take(self, path: Path) -> np.ndarray | None:
        """Return a mask and keep it no longer; None if it was not kept or its file was modified since."""
        if path not in self._kept:
            return None
        modified_ns, (height, width), packed = self._kept.pop(path)
        self._num_bytes -= height * width // 8
        if not path.is_file() or path.stat().st_mtime_ns != modified_ns:
            return None
        return np.unpackbits(packed, count=height * width).reshape(height, width)


def measure_file(path: Path, options: MeasureOptions, read: ReadMasks | None = None) -> Measurement:
    """Measure the mask in a file, of any format that an import takes.

    Args:
        path: the file.
        options: see there; those that :func:`judge_masks` had.
        read: masks that need not be read again.
    Raises:
        CracksegError: it cannot be read, is no mask, or its values do not say what a crack is.
    """
    mask = read.take(path) if read is not None else None
    if mask is None:
        reader = MaskReader(options.crack_values)
        mask = reader.read(path)
        if options.crack_values is None and (problems := reader.find_problems()):
            raise CracksegError(f"{path}: not a mask that can be measured: {problems[0]}")
    return measure_mask(mask, min_length_px=options.min_length_px)


def judge_masks(masks: Sequence[Photograph], options: MeasureOptions) -> ReadMasks:
    """Check over all masks that the meaning of their values is clear, before any is measured.

    Masks that cannot be measured alone are skipped here and reported when it is their turn.

    Returns:
        What was read, for the functions that measure.
    Raises:
        CracksegError: together, the masks do not say what a crack is, e.g. cracks in red and patches in green in two
            files.
    """
    read = ReadMasks()
    if len(masks) == 1 and options.crack_values is None:
        return read  # measure_file judges a single mask
    together = MaskReader(options.crack_values)
    for mask in progress(masks, "read", "mask"):
        alone = MaskReader()
        try:
            modified_ns = mask.path.stat().st_mtime_ns
            stored = read_stored_mask(mask.path)
        except (CracksegError, OSError):
            continue
        if options.crack_values is None:
            alone.take(stored, mask.path.name)
        if not alone.find_problems():
            read.keep(mask.path, modified_ns, together.take(stored, mask.path.name))
    if problems := together.find_problems():
        raise CracksegError(f"no mask was measured: {'; '.join(problems)}")
    return read


def report_each(
    masks: Sequence[Photograph],
    options: MeasureOptions,
    failed: list[str],
    warnings: Mapping[Path, str] = NO_WARNINGS,
    read: ReadMasks | None = None,
) -> Iterator[Report]:
    """Measure masks one after the other without writing files; errors are added to ``failed``."""
    for mask in masks:
        try:
            yield describe(
                measure_file(mask.path, options, read),
                str(mask.path),
                options.scale,
                grading=options.grading,
                warning=warnings.get(mask.path, ""),
            )
        except CracksegError as error:
            failed.append(" ".join(str(error).split()))


def read_reports(masks: Sequence[Photograph], out_dir: Path) -> Iterator[Report]:
    """Read the reports that :func:`measure_files` wrote for these masks, without those that could not be read."""
    for mask in masks:
        if (report := _read_report(_files_of(out_dir, mask.name)[0])) is not None:
            del report["made_from"]
            yield report


def measure_files(
    masks: Sequence[Photograph],
    out_dir: Path,
    options: MeasureOptions,
    *,
    find_photograph: Callable[[Photograph], Path | None] = lambda mask: None,
    warnings: Mapping[Path, str] = NO_WARNINGS,
    read: ReadMasks | None = None,
) -> MeasureSummary:
    """Measure masks into a folder; results of the same mask and options that are there already are kept.

    Args:
        masks: files, and the names of their results.
        out_dir: for ``measurements/NAME.json``, ``polylines/NAME.geojson``, ``annotated/NAME.jpg``, and for
            ``cracks.csv``, ``crack_totals.csv`` and ``crack_classes.csv`` over all of ``measurements``.
        find_photograph: the background of a mask's annotated image, of the same shape; None for a plain one.
        warnings: by a mask's path, a reason not to trust it; written to the tables and reports.
        read: masks that need not be read again, of :func:`judge_masks` with the same options.
    Raises:
        CracksegError: out_dir is in use.
    """
    summary = MeasureSummary()
    out_dir.mkdir(parents=True, exist_ok=True)
    busy = f"{out_dir}: another command is measuring here; wait for it"
    try:
        with sole_writer(out_dir / ".measurements.lock", busy):
            bar = progress(masks, "measure", "mask")
            for mask in bar:
                try:
                    warning = warnings.get(mask.path, "")
                    if _measure_into(mask, out_dir, options, find_photograph(mask), warning, read):
                        summary.num_measured += 1
                    else:
                        summary.num_kept += 1
                except CracksegError as error:
                    message = " ".join(str(error).split())
                    summary.failed.append(message)
                    bar.write(f"left out: {message}", file=sys.stderr)
            _write_tables(out_dir, {mask.name for mask in masks})
    except KeyboardInterrupt:
        done = summary.num_measured + summary.num_kept
        raise KeyboardInterrupt(
            f"stopped after {done} of {len(masks)} masks; the same command continues from there"
        ) from None
    return summary


def find_beside(folder: Path) -> Callable[[Photograph], Path | None]:
    """Return a function that finds the photograph of a mask by its name (without extension) below a folder.

    Raises:
        CracksegError: there is no such folder.
    """
    if not folder.is_dir():
        raise CracksegError(f"{folder}: no such folder; expected the one with the masks' photographs")

    def find(mask: Photograph) -> Path | None:
        base = folder / mask.name
        for name in (base, folder / Path(mask.name).name):
            for extension in IMAGE_EXTENSIONS:
                for candidate in (
                    name.with_name(name.name + extension),
                    name.with_name(name.name + extension.upper()),
                ):
                    if candidate.is_file():
                        return candidate
        return None

    return find


def _measure_into(
    mask: Photograph,
    out_dir: Path,
    options: MeasureOptions,
    photograph: Path | None,
    warning: str,
    read: ReadMasks | None,
) -> bool:
    """Measure one mask unless its results are there already; return True if it was measured."""
    report_path, lines_path, picture_path = paths = _files_of(out_dir, mask.name)
    made_from = _identify(mask.path, options, photograph) | ({"warning": warning} if warning else {})
    known = _read_report(report_path) or {}
    if lines_path.is_file() and picture_path.is_file() and known.get("made_from") == made_from:
        return False
    for path in paths:  # of an earlier mask of this name
        path.unlink(missing_ok=True)
    measurement = measure_file(mask.path, options, read)
    background = read_image(photograph) if photograph else None
    if background is not None:
        height, width = background.shape[:2]
        if abs(height * measurement.width_px / width - measurement.height_px) > 2:
            raise CracksegError(
                f"{mask.path}: {measurement.width_px} x {measurement.height_px} pixels, but {photograph} has "
                f"{width} x {height}; expected the mask of this photograph"
            )
    name, scale = str(mask.path), options.scale
    write_bytes(picture_path, draw_measurement(measurement, background, scale, grading=options.grading))
    write_bytes(lines_path, to_json(list_polylines(measurement, name, scale, grading=options.grading)))
    report = describe(measurement, name, scale, grading=options.grading, warning=warning)
    # Written last: it marks the other files as complete.
    write_bytes(report_path, to_json(report | {"made_from": made_from}))
    return True


def _identify(path: Path, options: MeasureOptions, photograph: Path | None) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise CracksegError(f"{path}: cannot be read ({error.strerror})") from error
    pictures = {"pictures": _PICTURES} if options.scale else {}
    return pictures | {
        "size_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "mm_per_px": options.scale.mm_per_px if options.scale else None,
        "scale_error": options.scale.relative_error if options.scale else None,
        "grading": options.grading.identify(),
        "min_length_px": options.min_length_px,
        "crack_values": list(options.crack_values) if options.crack_values else None,
        "photograph": str(photograph) if photograph else None,
    }


def _read_report(path: Path) -> Report | None:
    """Return what was measured of a mask; None if the file is missing, damaged, or no such report."""
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    is_report = isinstance(report, dict) and "made_from" in report and isinstance(report.get("cracks"), list)
    return report if is_report else None


def remove_measurements(out_dir: Path, names: Iterable[str]) -> None:
    """Remove what was measured of masks that are gone or will be others, also from the tables."""
    found = False
    for name in names:
        for path in _files_of(out_dir, name):
            found |= path.is_file()
            path.unlink(missing_ok=True)
    if found:
        _write_tables(out_dir)


def _files_of(out_dir: Path, name: str) -> tuple[Path, Path, Path]:
    """Name the report, the lines and the picture of a mask."""
    return (
        out_dir / "measurements" / f"{name}.json",
        out_dir / "polylines" / f"{name}.geojson",
        out_dir / "annotated" / f"{name}.jpg",
    )


def _write_tables(out_dir: Path, asked: Set[str] | None = None) -> None:
    """Write the tables of all reports in a folder, and say whose they are but for ``asked``, and which are left out."""
    left_out: dict[Path, str] = {}
    names: set[str] = set()
    cracks = (row for report in _reports(out_dir, left_out, names) for row in crack_rows(report))
    totals = (total_row(report) for report in _reports(out_dir, left_out, names))
    classes = (row for report in _reports(out_dir, left_out, names) for row in class_rows(report))
    # Row by row: the tables of many masks are large.
    for name, columns, rows in (
        (CRACKS_TABLE, CRACK_COLUMNS, cracks), (TOTALS_TABLE, TOTAL_COLUMNS, totals),
        (CLASSES_TABLE, CLASS_COLUMNS, classes),
    ):  # fmt: skip
        lines = (line.encode("utf-8", "surrogateescape") for line in format_csv(columns, rows))
        write_bytes(out_dir / name, lines)
    if asked is not None and (earlier := names - asked):
        _log.info("the tables also have %s of earlier runs, e.g. %s", count_of(len(earlier), "mask"), min(earlier))
    if left_out:
        path, reason = min(left_out.items())
        _log.warning("left out of the tables: %s, e.g. %s: %s", count_of(len(left_out), "file"), path, reason)


def _reports(out_dir: Path, left_out: dict[Path, str], names: set[str]) -> Iterator[Report]:
    """Read all reports in a folder and note their names; of files that count for nothing note why."""
    folder = out_dir / "measurements"
    for path in sorted(folder.rglob("*.json")):
        report, name = _read_report(path), path.relative_to(folder).as_posix().removesuffix(".json")
        if report is None:
            left_out[path] = "damaged, or not of `crackseg measure`; measure its mask again, or delete the file"
        elif not (Path(report["file"]).exists() or (out_dir / "masks" / f"{name}.png").exists()):
            left_out[path] = f"its mask {report['file']} is not there any more; delete the file"
        else:
            names.add(name)
            yield report


def to_json(content: object) -> bytes:
    """Format as indented JSON; NaN is refused, since JSON has none."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
