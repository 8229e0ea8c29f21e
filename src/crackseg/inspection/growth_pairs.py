"""Compare pairs of photographs of two visits: pair them by name, compare each, write JSON, pictures and tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crackseg.data.image_files import find_photographs
from crackseg.data.images.files import read_image
from crackseg.errors import CracksegError, join_some
from crackseg.files import format_csv, sole_writer, write_bytes
from crackseg.geometry.files import to_json
from crackseg.geometry.scale import Scale
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inspection.growth import Change, View, compare_views
from crackseg.inspection.growth_picture import draw_growth
from crackseg.inspection.joint_lines import PredictedPhotograph, find_views
from crackseg.inspection.least_lengths import MIN_GROWTH_PX
from crackseg.inspection.mosaic_detection import is_mosaic
from crackseg.inspection.registration import (
    NotRegistered,
    Registration,
    find_seen,
    register,
    warp_to_before,
    zoom_at,
)
from crackseg.progress import progress

_log = logging.getLogger("crackseg")
_METHOD = 3  # of finding cracks; results of another one are not kept
_SOFT_PX = 0.5  # standard deviation of a blur like that of resampling
TABLE, SUMMARY = "growth.csv", "growth.json"
COLUMNS = (
    "pair", "before", "after", "change", "cracks_before", "cracks_after", "length_before_px", "length_after_px",
    "longer_by_px", "longer_uncertainty_px", "shorter_by_px", "shorter_uncertainty_px", "wider_by_px",
    "wider_uncertainty_px", "length_before_mm", "length_after_mm", "longer_by_mm", "longer_uncertainty_mm",
    "shorter_by_mm", "shorter_uncertainty_mm", "wider_by_mm", "wider_uncertainty_mm", "refused",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs of one place, and the name of their results."""

    name: str
    before: Path
    after: Path


@dataclass(slots=True)
class Pairs:
    """Pairs, and the photographs that have no partner."""

    pairs: list[Pair] = field(default_factory=list)
    only_before: list[str] = field(default_factory=list)
    only_after: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GrowthOptions:
    """Settings of a comparison.

    Attributes:
        model: digest of the model.
        threshold: crack is where the map, not post-processed, is at least this, and what is connected to it.
        scale: of the earlier photographs; None for pixels.
        min_growth_px: shorter stretches count as no change.
    """

    model: str
    threshold: float
    scale: Scale | None
    min_growth_px: float = MIN_GROWTH_PX


@dataclass(frozen=True, slots=True)
class Compared:
    """Two photographs that were compared.

    Attributes:
        registration: of the later one onto the earlier one.
        warped_HW3: the later one in the frame of the earlier one, uint8.
        views: cracks of both in this frame.
        changes: of each crack.
    """

    registration: Registration
    warped_HW3: np.ndarray
    views: tuple[View, View]
    changes: list[Change]


@dataclass(slots=True)
class GrowthSummary:
    """Result of a run: pairs kept from an earlier run, pairs with changes, and why others could not be compared."""

    num_kept: int = 0
    num_changed: int = 0
    refused: list[str] = field(default_factory=list)


def find_pairs(before: Path, after: Path, out_dir: Path) -> Pairs:
    """Pair two photographs, or those of two folders that have the same name (without extension, with sub-folders).

    Raises:
        CracksegError: a file and a folder, nothing there, or no name is in both folders.
    """
    for path in (before, after):
        if not path.exists():
            raise CracksegError(f"{path}: no such file or folder; expected a photograph or a folder of them")
    if before.is_dir() != after.is_dir():
        raise CracksegError(f"{before} and {after}: expected two photographs or two folders, not one of each")
    if before.resolve() == after.resolve():
        raise CracksegError(
            f"{before}: the earlier and the later photographs are the same; name two different ones"
        )
    if not before.is_dir():
        return Pairs([Pair(before.stem, before, after)])
    found = [{p.name: p.path for p in find_photographs([str(folder)], out_dir)} for folder in (before, after)]
    common = [name for name in found[0] if name in found[1]]
    alone = [[name for name in ours if name not in common] for ours in found]
    if not common:
        raise CracksegError(
            f"no photograph of {before} has the name of one of {after}, so none can be compared; {before} has "
            f"{join_some(alone[0])}; {after} has {join_some(alone[1])}. Give the photographs of one place the same name"
        )
    return Pairs([Pair(name, found[0][name], found[1][name]) for name in common], *alone)


def compare_pairs(
    pairs: Sequence[Pair], analyzer: CrackAnalyzer, out_dir: Path, options: GrowthOptions
) -> GrowthSummary:
    """Compare pairs one after the other into ``out_dir``; results of the same files and options are kept.

    Writes ``pairs/NAME.json``, ``pictures/NAME.jpg``, ``growth.csv`` with a row for each crack that has changed and
    for each pair that was refused, and ``growth.json`` with all pairs.

    Raises:
        CracksegError: out_dir is in use.
    """
    summary = GrowthSummary()
    for path in (path for pair in pairs for path in (pair.before, pair.after) if is_mosaic(path)):
        _log.warning("%s: an orthomosaic, compared as a plain photograph: the scale in it is not used", path)
    out_dir.mkdir(parents=True, exist_ok=True)
    with sole_writer(
        out_dir / ".growth.lock", f"{out_dir}: another `crackseg growth` is writing here; wait for it"
    ):
        reports: list[dict[str, Any]] = []
        for pair in progress(pairs, "compare", "pair"):
            report = _take_up(pair, out_dir, options)
            if report is None:
                try:
                    report = _compare(pair, analyzer, out_dir, options)
                except KeyboardInterrupt:
                    raise KeyboardInterrupt(
                        f"stopped after {len(reports)} of {len(pairs)} pairs; the same command continues from there"
                    ) from None
            else:
                summary.num_kept += not report["refused"]
            if report["refused"]:
                summary.refused.append(f"{pair.name}: {report['refused']}")
            summary.num_changed += any(change["change"] for change in report["cracks"])
            reports.append(report)
        lines = format_csv(COLUMNS, (row for report in reports for row in _rows(report)))
        write_bytes(out_dir / TABLE, (line.encode("utf-8", "surrogateescape") for line in lines))
        write_bytes(
            out_dir / SUMMARY, to_json([{k: v for k, v in r.items() if k != "made_from"} for r in reports])
        )
    return summary


def _take_up(pair: Pair, out_dir: Path, options: GrowthOptions) -> dict[str, Any] | None:
    path = out_dir / "pairs" / f"{pair.name}.json"
    try:
        report = json.loads(path.read_bytes())
        made_from = report.get("made_from")
    except (OSError, ValueError, AttributeError):  # missing, damaged, or no report
        return None
    there = (out_dir / "pictures" / f"{pair.name}.jpg").is_file() or report.get("refused")
    return report if there and made_from == _identify(pair, options) else None


def _identify(pair: Pair, options: GrowthOptions) -> dict[str, Any]:
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else [str(path)]
        for path in (pair.before, pair.after)
    ]
    return json.loads(json.dumps({"method": _METHOD, "files": files} | asdict(options)))


def _compare(pair: Pair, analyzer: CrackAnalyzer, out_dir: Path, options: GrowthOptions) -> dict[str, Any]:
    path, picture_path = out_dir / "pairs" / f"{pair.name}.json", out_dir / "pictures" / f"{pair.name}.jpg"
    path.unlink(missing_ok=True)
    report: dict[str, Any] = {
        "pair": pair.name,
        "before": str(pair.before),
        "after": str(pair.after),
        "mm_per_px": None if options.scale is None else options.scale.mm_per_px,
        "refused": "",
        "registration": None,
        "cracks": [],
    }
    try:
        before_HW3, after_HW3 = read_image(pair.before), read_image(pair.after)
        compared = compare_photographs(
            before_HW3,
            after_HW3,
            analyzer.predictor.predict_prob,
            options.threshold,
            min_length_px=analyzer.settings.postprocess.min_length_px,
            min_growth_px=options.min_growth_px,
        )
    except (NotRegistered, CracksegError) as error:
        picture_path.unlink(missing_ok=True)
        report["refused"] = " ".join(str(error).split())
    else:
        registration = compared.registration
        report["registration"] = {
            "to_before": registration.to_before.tolist(),
            "error_px": round(registration.error_px, 3),
            "num_matches": registration.num_matches,
            "overlap": round(registration.overlap, 4),
        }
        report["cracks"] = [_describe(change, options.scale) for change in compared.changes]
        picture = draw_growth(before_HW3, compared.warped_HW3, compared.views, compared.changes, options.scale)
        write_bytes(picture_path, picture)
    write_bytes(path, to_json(report | {"made_from": _identify(pair, options)}))
    return report


def compare_photographs(
    before_HW3: np.ndarray,
    after_HW3: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    *,
    min_length_px: float,
    min_growth_px: float = MIN_GROWTH_PX,
) -> Compared:
    """Register two photographs and compare their cracks.

    Args:
        before_HW3, after_HW3: uint8, RGB.
        predict: function from a photograph to its map, float32 (H, W).
        threshold: see :class:`GrowthOptions`.
        min_length_px: leave out shorter cracks.
        min_growth_px: see :class:`GrowthOptions`.
    Raises:
        NotRegistered: the later one cannot be registered onto the earlier one.
    """
    registration = register(before_HW3, after_HW3)
    size = before_HW3.shape[1::-1]
    warped_HW3 = warp_to_before(after_HW3, registration, size, outside=200)
    seen_HW = find_seen(registration, after_HW3.shape[:2], before_HW3.shape[:2])
    # Each photograph is predicted as it is, and resampled: the later one in the frame, the earlier one as softly.
    soft_HW3 = cv2.GaussianBlur(before_HW3, (0, 0), _SOFT_PX)
    views = find_views(
        PredictedPhotograph([predict(before_HW3), predict(soft_HW3)], before_HW3),
        PredictedPhotograph(
            [warp_to_before(predict(after_HW3), registration, size), predict(warped_HW3)], warped_HW3
        ),
        threshold,
        seen_HW,
        error_px=registration.error_px,
        min_length_px=min_length_px,
    )
    middle = np.array([[after_HW3.shape[1] / 2, after_HW3.shape[0] / 2]])
    changes = compare_views(
        *views,
        seen_HW,
        error_px=registration.error_px,
        zoom=float(zoom_at(registration.to_before, middle)[0]),
        min_growth_px=min_growth_px,
    )
    return Compared(registration, warped_HW3, views, changes)


def _describe(change: Change, scale: Scale | None) -> dict[str, Any]:
    values: dict[str, float | None] = {
        "length_before_px": change.length_before_px,
        "length_after_px": change.length_after_px,
        "longer_by_px": change.grown_px,
        "longer_uncertainty_px": change.grown_error_px,
        "shorter_by_px": change.lost_px,
        "shorter_uncertainty_px": change.lost_error_px,
        "wider_by_px": change.wider_by_px,
        "wider_uncertainty_px": change.wider_error_px,
    }
    if scale is not None:
        for name in list(values):
            value = values[name]
            values[name.replace("_px", "_mm")] = None if value is None else value * scale.mm_per_px
        for what in ("longer", "shorter", "wider"):
            error, amount = values[f"{what}_uncertainty_mm"], values[f"{what}_by_mm"]
            if error is not None and amount is not None:
                values[f"{what}_uncertainty_mm"] = float(np.hypot(error, amount * scale.relative_error))
    return {
        "change": ", ".join(change.words),
        "cracks_before": list(change.before),
        "cracks_after": list(change.after),
    } | {name: None if value is None else round(value, 3) for name, value in values.items()}


def _rows(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pair = {name: report[name] for name in ("pair", "before", "after")}
    if report["refused"]:
        yield pair | {"refused": report["refused"]}
    for crack in report["cracks"]:
        if crack["change"]:
            numbers = {k: " ".join(map(str, crack[k])) for k in ("cracks_before", "cracks_after")}
            yield pair | {name: crack.get(name) for name in COLUMNS[3:-1]} | numbers
