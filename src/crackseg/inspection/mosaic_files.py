"""Write what was found in an orthomosaic: cloud-optimised GeoTIFFs, GeoJSON, GeoPackage, CSV."""

from __future__ import annotations

import json
import logging
import shutil
import struct
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import approximate_polygon

from crackseg.errors import CracksegError
from crackseg.files import format_csv, sole_writer, write_bytes
from crackseg.geometry.files import to_json
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import Grading
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inspection.least_lengths import MIN_CRACK_PX
from crackseg.inspection.mosaic_checks import check_geopackage, check_raster, crc_of, whole_or_said
from crackseg.inspection.mosaic_lines import MosaicCrack, measure_mosaic
from crackseg.inspection.mosaic_prediction import check_rows_suffice, count_rows, predict_into, write_rows
from crackseg.inspection.mosaic_reading import Mosaic
from crackseg.inspection.mosaic_rows import KeptRows
from crackseg.progress import name_step

_log = logging.getLogger("crackseg")
_LINE_TOLERANCE_PX = 0.3
_LAYER = "cracks"
_TEXTS = ("kind", "severity", "severity_range")
_COLUMNS = (
    "number", "score", "kind", "severity", "severity_range", "length_mm", "length_uncertainty_mm", "mean_width_mm",
    "mean_width_uncertainty_mm", "max_width_mm", "max_width_uncertainty_mm", "area_mm2", "length_px", "mean_width_px",
    "max_width_px", "area_px", "orientation_deg", "tortuosity", "num_cells", "cells_per_m2", "mm_per_px",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MosaicSummary:
    """Result of a mosaic.

    Attributes:
        name: of its files.
        files: paths.
        num_cracks: found.
        length: of all cracks, in ``unit``.
        unit: ``mm``, or ``px`` without a scale.
        data_fraction: part of the mosaic that has data, 0 to 1.
        remarks: how it was read, where that had to be decided.
        kept: whether it is the result of an earlier run.
    """

    name: str
    files: tuple[str, ...]
    num_cracks: int
    length: float
    unit: str
    data_fraction: float
    remarks: tuple[str, ...]
    kept: bool = False


def inspect_mosaic(
    mosaic: Mosaic,
    analyzer: CrackAnalyzer,
    out_dir: Path,
    *,
    name: str,
    model: str,
    threshold: float | None,
    grading: Grading,
    scale: Scale | None,
    scale_error: float = 0.0,
    min_length_px: float = MIN_CRACK_PX,
    maps: bool = False,
) -> MosaicSummary:
    """Find and measure the cracks of a mosaic, and write them into ``out_dir``.

    ``NAME_mask.tif`` (0, 1 crack, 255 no data), ``NAME_map.tif`` with ``maps`` (255 is probability 1), ``NAME.gpkg``
    and, with a CRS that leads to longitude and latitude, ``NAME.geojson``, a feature for each crack; ``NAME.csv``;
    ``NAME.json``, the summary. A result of the same mosaic, model and options that is there already is kept.

    Args:
        mosaic, analyzer: mosaic and model.
        out_dir: made if needed. Rows of tiles are kept in it until all is written, so that a run that was stopped
            resumes.
        name: of the files.
        model: identifier of the weights and settings.
        threshold: crack is where the probability is at least this; None for the model's own.
        grading: rules for kinds and width classes.
        scale: of a mosaic without ground, or None; for one with ground it must agree with it to 2 %.
        scale_error: standard uncertainty of the ground sample distance, as a fraction of it.
        min_length_px: shorter cracks are left out.
        maps: write the probabilities, too.
    Raises:
        CracksegError: the scale contradicts the mosaic's, the model cannot be used in rows, or out_dir is in use.
    """
    threshold = analyzer.settings.operating_threshold if threshold is None else threshold
    check_rows_suffice(analyzer)
    _check_scale(mosaic, scale)
    out_dir.mkdir(parents=True, exist_ok=True)
    part, summary_path = out_dir / f".{name}.part", out_dir / f"{name}.json"
    rows_from = _identify(mosaic, analyzer, model, threshold)
    made_from = rows_from | {
        "grading": grading.identify(), "scale": None if scale is None else scale.mm_per_px, "maps": maps,
        "scale_error": scale_error, "min_length_px": min_length_px,
    }  # fmt: skip
    busy = f"{out_dir}: another command is writing here; wait for it"
    with sole_writer(out_dir / ".mosaic.lock", busy):
        if kept := _take_up(summary_path, made_from):
            return kept
        _check_owner(summary_path, mosaic)
        summary_path.unlink(missing_ok=True)
        rows = KeptRows(part / "rows", rows_from)
        _predict(mosaic, analyzer, rows, threshold)
        with whole_or_said(out_dir):
            name_step("join the rows and find the cracks")
            mask_path, score_path = part / "mask.tif", part / "score.tif"
            fraction = write_rows(rows, mosaic, mask_path, score_path)
            measured = measure_mosaic(
                mosaic,
                mask_path,
                score_path,
                grading,
                scale=None if mosaic.has_ground else scale,
                scale_error=scale_error,
                min_length_px=min_length_px,
                min_side_px=analyzer.settings.postprocess.min_length_px,
            )
            cracks = list(measured)
            name_step("write the results")
            files = [out_dir / f"{name}_mask.tif"]
            _write_cog(mask_path, files[0])
            if maps:
                files.append(out_dir / f"{name}_map.tif")
                _write_cog(score_path, files[-1])
            files.append(out_dir / f"{name}.csv")
            lines = format_csv(_COLUMNS, ({k: crack.values.get(k) for k in _COLUMNS} for crack in cracks))
            write_bytes(files[-1], (line.encode() for line in lines))
            files.append(out_dir / f"{name}.gpkg")
            _write_geopackage(files[-1], mosaic, cracks, part)
            if mosaic.has_places:
                files.append(out_dir / f"{name}.geojson")
                write_bytes(files[-1], _to_geojson(mosaic, cracks))
        for former in (out_dir / f"{name}_map.tif", out_dir / f"{name}.geojson"):
            if former not in files:  # it would be of another run
                former.unlink(missing_ok=True)
        unit = "mm" if mosaic.has_ground or scale is not None else "px"
        length = sum(crack.values[f"length_{unit}"] for crack in cracks)
        summary = MosaicSummary(
            name, tuple(map(str, files)), len(cracks), length, unit, fraction, tuple(mosaic.remarks)
        )
        # Written last: it marks the other files as complete.
        write_bytes(summary_path, to_json(asdict(summary) | {"made_from": made_from}))
        shutil.rmtree(part)
    return summary


def _identify(mosaic: Mosaic, analyzer: CrackAnalyzer, model: str, threshold: float) -> dict[str, Any]:
    """Identify what the rows of a mosaic are made from, as JSON has it."""
    status, predict = mosaic.path.stat(), analyzer.settings.predict
    return {
        "mosaic": [str(mosaic.path.resolve()), status.st_size, status.st_mtime_ns],
        "bands": mosaic.bands,
        "model": model,
        "threshold": threshold,
        "tiles": [predict.tile_size_px, predict.overlap_px],
    }


def _take_up(summary_path: Path, made_from: dict[str, Any]) -> MosaicSummary | None:
    """Return the result of an earlier run with the same mosaic, model and options, if its files are there."""
    try:
        known = json.loads(summary_path.read_bytes())
        if known.pop("made_from") != made_from or not all(Path(path).is_file() for path in known["files"]):
            return None
        texts = {name: tuple(known.pop(name)) for name in ("files", "remarks")}
        return MosaicSummary(**known | texts | {"kept": True})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_owner(summary_path: Path, mosaic: Mosaic) -> None:
    """Check that the results to replace, if there are any, are those of the same file."""
    try:
        owner = json.loads(summary_path.read_bytes())["made_from"]["mosaic"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if owner != str(mosaic.path.resolve()):
        raise CracksegError(
            f"{summary_path} and the files beside it are the result of {owner}, and would be that of {mosaic.path}, "
            "too; choose another --out"
        )


def _predict(mosaic: Mosaic, analyzer: CrackAnalyzer, rows: KeptRows, threshold: float) -> None:
    """Predict the rows of tiles that an earlier run did not finish."""
    total = count_rows(mosaic, analyzer)
    if rows.num_kept:
        _log.info("%d of %d rows of tiles are kept from the run that was stopped", rows.num_kept, total)
    try:
        predict_into(rows, mosaic, analyzer, threshold)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped after {len(rows)} of {total} rows of tiles; the same command continues from there"
        ) from None


def _check_scale(mosaic: Mosaic, scale: Scale | None) -> None:
    if scale is None or not mosaic.has_ground:
        return
    own = mosaic.mm_per_px(np.array([mosaic.width / 2, mosaic.height / 2]))
    if abs(scale.mm_per_px / own - 1) > 0.02:
        raise CracksegError(
            f"the scale is {scale.mm_per_px:g} mm per pixel, but {mosaic.path} says {own:.4g} by its CRS; "
            "leave out the scale, or correct the mosaic"
        )


def _write_cog(source: Path, path: Path) -> None:
    """Write a cloud-optimised GeoTIFF next to its path and rename it."""
    from rasterio.shutil import copy

    ready = source.with_suffix(".cog.tif")
    copy(source, ready, driver="COG", COMPRESS="DEFLATE", BIGTIFF="IF_SAFER", OVERVIEW_RESAMPLING="NEAREST")
    check_raster(ready, crc_of(source))
    ready.replace(path)


def _simplify(line: np.ndarray) -> np.ndarray:
    return approximate_polygon(line, _LINE_TOLERANCE_PX)


def _to_geojson(mosaic: Mosaic, cracks: Sequence[MosaicCrack]) -> bytes:
    features = [
        {
            "type": "Feature",
            "properties": {name: crack.values.get(name) for name in _COLUMNS},
            "geometry": {
                "type": "MultiLineString",
                "coordinates": [np.round(mosaic.to_wgs84(_simplify(line)), 9).tolist() for line in crack.lines],
            },
        }
        for crack in cracks
    ]
    content = {"type": "FeatureCollection", "features": features}
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _write_geopackage(path: Path, mosaic: Mosaic, cracks: Sequence[MosaicCrack], part: Path) -> None:
    from pyogrio.raw import write

    ready = part / "cracks.gpkg"
    ready.unlink(missing_ok=True)
    geometry = np.array([_to_wkb([mosaic.to_crs(_simplify(line)) for line in c.lines]) for c in cracks], object)
    fields: list[np.ndarray] = []
    for name in _COLUMNS:
        values = [crack.values.get(name) for crack in cracks]
        if name in _TEXTS:
            fields.append(np.array(values, object))
        elif name in ("number", "num_cells", "area_px"):
            fields.append(np.array(values, np.int64))
        else:
            fields.append(np.array([np.nan if value is None else value for value in values], np.float64))
    crs: Any = None if mosaic.crs is None else mosaic.crs.to_wkt()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")  # it is said in the remarks
        write(
            str(ready), geometry=geometry, field_data=fields, fields=np.array(_COLUMNS, object), layer=_LAYER,
            driver="GPKG", geometry_type="MultiLineString", crs=crs,
        )  # fmt: skip
    check_geopackage(ready, _LAYER, len(cracks))
    ready.replace(path)


def _to_wkb(lines: Sequence[np.ndarray]) -> bytes:
    """Return a MultiLineString as well-known binary, little-endian."""
    parts = [struct.pack("<BII", 1, 2, len(line)) + np.ascontiguousarray(line, "<f8").tobytes() for line in lines]
    return struct.pack("<BII", 1, 5, len(lines)) + b"".join(parts)
