"""Predict folders of photographs, one after the other, into masks, overlays, probability maps and a table.

A photograph's row is written after its files, so a run that was stopped can continue from there.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from crackseg.data.image_files import Photograph
from crackseg.data.images.files import read_image, read_photograph, write_mask, write_probability_map
from crackseg.errors import CracksegError
from crackseg.files import sole_writer, write_bytes
from crackseg.geometry.files import MeasureOptions, MeasureSummary, measure_files
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.inference.autotune import settle
from crackseg.inference.detector import CrackAnalyzer, ModelSettings
from crackseg.inference.drift import compare, measure_photograph, warn_of_drift, warn_of_use
from crackseg.inference.table import (
    COLUMNS,
    TABLE_NAME,
    Row,
    add_warning,
    describe_remarks,
    find_warnings,
    read_figures,
    read_table,
    write_table,
)
from crackseg.models.network import MIN_SIDE_PX
from crackseg.progress import progress

_OVERLAY_PX = 4096  # longest side
_OVERLAY_QUALITY = 90
_CRACK_RGB = (255, 40, 0)


@dataclass(slots=True)
class Summary:
    """Result of a run over files."""

    num_images: int
    num_predicted: int = 0
    num_kept: int = 0  # from an earlier run
    remarks: list[str] = field(default_factory=list)  # decisions made when a photograph was read
    failed: list[str] = field(default_factory=list)  # error of each photograph that was left out, with its path
    seconds: float = 0.0


def predict_files(
    analyzer: CrackAnalyzer,
    photographs: Sequence[Photograph],
    out_dir: Path,
    *,
    model: str,
    threshold: float | None = None,
    overlays: bool = True,
    maps: bool = False,
) -> tuple[Summary, list[dict[str, float]]]:
    """Predict photographs one after the other, in constant memory.

    The result of an earlier run is kept if the photograph, the model and the threshold are the same and the files of
    the result are there. A photograph that cannot be read has a row with the reason, and is tried again by the next
    run.

    Args:
        analyzer: the model.
        photographs: from :func:`crackseg.data.image_files.find_photographs`.
        out_dir: for ``masks/``, ``overlays/``, ``maps/`` and ``predictions.csv``; rows of other photographs in it stay.
        model: identifier of the weights and settings.
        threshold: in [0, 1]; None takes the model's.
        overlays: draw the cracks on the photographs, as JPEG of at most 4,096 px.
        maps: write the probabilities, too: 16-bit PNG at the photograph's size, full scale is 1, before
            post-processing and threshold.
    Returns:
        Summary, and the measured values of each photograph that could be read.
    Raises:
        CracksegError: out_dir is in use, or holds results of other photographs under the same names.
    """
    started = time.monotonic()
    threshold = analyzer.settings.operating_threshold if threshold is None else threshold
    out_dir.mkdir(parents=True, exist_ok=True)
    table_path = out_dir / TABLE_NAME
    summary = Summary(len(photographs))
    wanted = {"mask", *(["overlay"] if overlays else []), *(["map"] if maps else [])}
    figures: list[dict[str, float]] = []
    busy = f"{out_dir}: another `crackseg predict` is writing here; wait for it"
    try:
        with sole_writer(out_dir / ".predictions.lock", busy):
            kept = _take_up(table_path, photographs, threshold, model, wanted, analyzer.settings)
            with (
                table_path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as table,
                progress(None, "predict", "image", total=len(photographs)) as bar,
            ):
                writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
                _settle(analyzer, [p for p in photographs if str(p.path) not in kept])
                for photograph in photographs:
                    row = kept.get(str(photograph.path))
                    if row is not None:
                        summary.num_kept += 1
                    else:
                        row = _predict_file(analyzer, photograph, out_dir, model, threshold, wanted)
                        writer.writerow(row)
                        table.flush()
                        summary.num_predicted += not row["error"]
                    if row["error"]:
                        summary.failed.append(row["error"])
                        bar.write(f"left out: {row['error']}", file=sys.stderr)
                    else:
                        figures.append(read_figures(row))
                        if row["remark"]:
                            summary.remarks.append(f"{photograph.path}: {row['remark']}")
                    bar.update()
            if drift := warn_of_drift(compare(analyzer.settings.reference, figures)):
                asked = {str(photograph.path) for photograph in photographs}
                write_table(table_path, [add_warning(r, drift, asked) for r in read_table(table_path)])
    except KeyboardInterrupt:
        done = summary.num_predicted + summary.num_kept
        raise KeyboardInterrupt(
            f"stopped after {done} of {len(photographs)} photographs; the same command continues from there"
        ) from None
    summary.seconds = time.monotonic() - started
    return summary, figures


def _settle(analyzer: CrackAnalyzer, photographs: Sequence[Photograph]) -> None:
    """Choose the engine with the first photograph; if it cannot be read or is too small, its row tells that later."""
    if not photographs:
        return
    try:
        image_HW3 = read_image(photographs[0].path)
    except CracksegError:
        return
    if min(image_HW3.shape[:2]) >= MIN_SIDE_PX:
        settle(analyzer.predictor, image_HW3, len(photographs))


def _take_up(
    table_path: Path,
    photographs: Sequence[Photograph],
    threshold: float,
    model: str,
    wanted: Set[str],
    settings: ModelSettings,
) -> dict[str, Row]:
    """Find the rows of an earlier run that can be kept, by image, and remove all others of these photographs."""
    rows = read_table(table_path)
    by_image = {row["image"]: row for row in rows}
    owner = {row["mask"]: row["image"] for row in rows if row["mask"]}
    kept: dict[str, Row] = {}
    asked = {str(photograph.path) for photograph in photographs}
    for photograph in photographs:
        image, mask = str(photograph.path), _name_files(photograph)["mask"]
        if owner.get(mask, image) != image and owner[mask] not in asked:
            raise CracksegError(
                f"{table_path.parent / mask} is the result of {owner[mask]}, and would be that of {image}, too; "
                "choose another --out"
            )
        row = by_image.get(image)
        if row is None:
            continue
        expected = _identify(photograph.path) | {"model": model, "threshold": repr(threshold), "mask": mask}
        pictures = [row[column] for column in wanted]
        present = all(p and (table_path.parent / p).is_file() for p in pictures)
        if present and expected.items() <= row.items() and not row["error"]:
            kept[image] = row | {"warning": _warn(settings, read_figures(row))}
            continue
        # What is not written again would be of the former model or photograph.
        for column, path in _name_files(photograph).items():
            if column not in wanted and row[column] == path:
                (table_path.parent / path).unlink(missing_ok=True)
    others = [row for image, row in by_image.items() if image not in asked]
    write_table(table_path, [*others, *kept.values()])
    return kept


def _name_files(photograph: Photograph) -> dict[str, str]:
    """Name the files of a photograph's result, by column of the table, relative to its folder."""
    name = photograph.name
    return {"mask": f"masks/{name}.png", "overlay": f"overlays/{name}.jpg", "map": f"maps/{name}.png"}


def _warn(settings: ModelSettings, figures: Mapping[str, float]) -> str:
    """Return the column ``warning``: the model must not be used, or the photograph is unlike its own."""
    return " ".join(warn_of_use(settings, [figures]))


def _identify(path: Path) -> Row:
    """Identify a version of a file without reading it, by size and time; empty if the file is missing."""
    try:
        status = path.stat()
    except OSError:
        return {"image": str(path), "size_bytes": "", "modified_ns": ""}
    return {"image": str(path), "size_bytes": str(status.st_size), "modified_ns": str(status.st_mtime_ns)}


def _predict_file(
    analyzer: CrackAnalyzer,
    photograph: Photograph,
    out_dir: Path,
    model: str,
    threshold: float,
    wanted: Set[str],
) -> Row:
    row = dict.fromkeys(COLUMNS, "") | _identify(photograph.path)
    row |= {"model": model, "threshold": repr(threshold)}
    try:
        return row | _predict_into(analyzer, photograph, out_dir, threshold, wanted)
    except CracksegError as error:
        message = " ".join(str(error).split())
        return row | {"error": message if str(photograph.path) in message else f"{photograph.path}: {message}"}


def _predict_into(
    analyzer: CrackAnalyzer, photograph: Photograph, out_dir: Path, threshold: float, wanted: Set[str]
) -> Row:
    """Predict a photograph, write the wanted files, and return the columns of the result."""
    decoded = read_photograph(photograph.path)
    image_HW3, remark = decoded.image_HW3, decoded.remark
    del decoded
    measured = measure_photograph(image_HW3)
    crack_prob_HW = analyzer.predictor.predict_prob(image_HW3)  # refuses a photograph of a few pixels
    height, width = image_HW3.shape[:2]
    # With a hundred megapixels, a photograph and its map leave no memory for a third array of that size.
    background_hw3 = _reduce(image_HW3)
    del image_HW3
    paths = {column: path for column, path in _name_files(photograph).items() if column in wanted}
    if "map" in paths:
        write_probability_map(out_dir / paths["map"], crack_prob_HW)
    prediction = analyzer.describe_map(crack_prob_HW, threshold=threshold)
    crack_mask_HW = prediction.crack_mask
    for name in ("crack_fraction", "crack_length_px", "score", "confidence"):
        measured[name] = getattr(prediction, name)
    del prediction, crack_prob_HW
    write_mask(out_dir / paths["mask"], crack_mask_HW)
    if "overlay" in paths:
        write_bytes(out_dir / paths["overlay"], draw_overlay(background_hw3, crack_mask_HW))
    return {name: f"{value:.6g}" for name, value in measured.items()} | {
        "width": str(width),
        "height": str(height),
        **paths,
        "remark": remark,
        "warning": _warn(analyzer.settings, measured),
    }


def measure_masks(
    photographs: Sequence[Photograph],
    out_dir: Path,
    *,
    scale: Scale | None = None,
    grading: Grading = OF_CONCRETE,
) -> MeasureSummary:
    """Measure the cracks in the masks of :func:`predict_files`, into the same folder, drawn on the photographs.

    In constant memory; earlier measurements are kept, and nothing is predicted again.

    Args:
        photographs: of the predictions; those that could not be read have no mask and no measurement.
        scale: None for pixels only.
        grading: rules for kinds and width classes.
    """
    path_of = {photograph.name: photograph.path for photograph in photographs}
    masks = [Photograph(out_dir / "masks" / f"{name}.png", name) for name in path_of]
    failed = {row["image"] for row in read_table(out_dir / TABLE_NAME) if row["error"]}
    masks = [mask for mask in masks if str(path_of[mask.name]) not in failed]
    options = MeasureOptions(scale, crack_values=(255,), grading=grading)
    return measure_files(
        masks,
        out_dir,
        options,
        find_photograph=lambda mask: path_of[mask.name],
        warnings=find_warnings(m.path for m in masks),
    )


def draw_overlay(image_hw3: np.ndarray, crack_mask_HW: np.ndarray) -> bytes:
    """Draw crack pixels in red on a photograph.

    If the photograph is smaller than the mask, a pixel is red if any of its mask pixels is crack, so that hair-thin
    cracks stay visible.

    Args:
        image_hw3: uint8 (h, w, 3), RGB, of the mask's size or smaller.
        crack_mask_HW: bool (H, W).
    Returns:
        A JPEG file's content.
    """
    height, width = image_hw3.shape[:2]
    crack_hw: np.ndarray = crack_mask_HW.astype(np.uint8) * np.uint8(255)
    if crack_hw.shape != (height, width):
        crack_hw = cv2.resize(crack_hw, (width, height), interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(image_hw3, cv2.COLOR_RGB2BGR)
    on = crack_hw > 0
    picture[on] = (0.3 * picture[on] + 0.7 * np.array(_CRACK_RGB[::-1])).astype(np.uint8)
    ok, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _OVERLAY_QUALITY])
    assert ok
    return content.tobytes()


def _reduce(image_HW3: np.ndarray) -> np.ndarray:
    """Reduce a photograph to the largest size of an overlay, if it is larger."""
    height, width = image_HW3.shape[:2]
    scale = _OVERLAY_PX / max(height, width)
    if scale >= 1:
        return image_HW3
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)


def describe_summary(summary: Summary, out_dir: Path, total_s: float) -> str:
    """Describe the result in one or two lines.

    Args:
        summary: of the run.
        out_dir: of the results.
        total_s: seconds that the command took so far, with loading the model and measuring.
    """
    kept = f", {summary.num_kept} kept from before" if summary.num_kept else ""
    failed = f", {len(summary.failed)} could not be read (column error)" if summary.failed else ""
    done = (
        f"{summary.num_predicted} of {summary.num_images} photographs predicted{kept}{failed}, "
        f"in {total_s:.1f} s ({summary.seconds:.1f} s of them predicting): {out_dir / TABLE_NAME}"
    )
    if summary.remarks:
        done += f"\n{describe_remarks(len(summary.remarks), summary.remarks[0])}"
    return done
