"""Predict folders of photographs, in order, into masks, overlays, probability maps and a table.

A photograph's row is written after its files, so a run that was stopped can continue from there.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from crackseg.data.image_files import Photograph
from crackseg.data.images.files import read_image
from crackseg.errors import CracksegError
from crackseg.files import remove_unfinished, sole_writer
from crackseg.geometry.files import MeasureOptions, MeasureSummary, measure_files, remove_measurements
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.inference.autotune import settle
from crackseg.inference.detector import CrackAnalyzer, ModelSettings
from crackseg.inference.drift import compare, warn_of_drift
from crackseg.inference.overlap import finish_behind, read_ahead
from crackseg.inference.steps import Job, describe_use, identify, is_large, name_files
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

# Columns of the table that hold paths, and the folders of these files.
_FILES = {"mask": "masks", "overlay": "overlays", "map": "maps"}


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
    """Predict photographs in order, in constant memory; the next one is read and the last one written meanwhile.

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
            for name in _FILES.values():
                remove_unfinished(out_dir / name)
            kept = _take_up(table_path, photographs, threshold, model, wanted, analyzer.settings)
            with (
                table_path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as table,
                progress(None, "predict", "image", total=len(photographs)) as bar,
            ):
                writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
                pending = [p for p in photographs if str(p.path) not in kept]
                _settle(analyzer, pending)
                job = Job(analyzer, out_dir, model, threshold, wanted)
                with (
                    closing(read_ahead(job.read, pending, alone=is_large)) as read,
                    closing(finish_behind(job.finish, map(job.predict, read), alone=is_large)) as new_rows,
                ):
                    for photograph in photographs:
                        row = kept.get(str(photograph.path))
                        if row is not None:
                            summary.num_kept += 1
                        else:
                            row = next(new_rows)
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
    """Find the rows of an earlier run that can be kept, by image.

    All others of these photographs are removed, with their files, which would be of the former model, threshold or
    photograph, or have a name that is used no more, and what was measured of their masks.
    """
    rows = read_table(table_path)
    by_image = {row["image"]: row for row in rows}
    owner = {row["mask"]: row["image"] for row in rows if row["mask"]}
    kept: dict[str, Row] = {}
    stale: set[str] = set()
    asked = {str(photograph.path) for photograph in photographs}
    for photograph in photographs:
        image, mask = str(photograph.path), name_files(photograph)["mask"]
        if owner.get(mask, image) != image and owner[mask] not in asked:
            raise CracksegError(
                f"{table_path.parent / mask} is the result of {owner[mask]}, and would be that of {image}, too; "
                "choose another --out"
            )
        row = by_image.get(image)
        if row is None:
            continue
        expected = identify(photograph.path) | {"model": model, "threshold": repr(threshold), "mask": mask}
        pictures = [row[column] for column in wanted]
        present = all(p and (table_path.parent / p).is_file() for p in pictures)
        if present and expected.items() <= row.items() and not row["error"]:
            kept[image] = row | {"warning": describe_use(settings, read_figures(row))}
            continue
        stale.update(filter(_is_result, (row[column] for column in _FILES)))
    stale -= {row[column] for row in kept.values() for column in _FILES}
    for path in stale:
        (table_path.parent / path).unlink(missing_ok=True)
    masks = (path for path in stale if path.startswith("masks/"))
    remove_measurements(table_path.parent, [path.removeprefix("masks/").removesuffix(".png") for path in masks])
    others = [row for image, row in by_image.items() if image not in asked]
    write_table(table_path, [*others, *kept.values()])
    return kept


def _is_result(path: str) -> bool:
    """Return whether a path in a table, which anyone can edit, leads to a result in its own folder."""
    parts = PurePosixPath(path).parts
    return len(parts) > 1 and parts[0] in _FILES.values() and ".." not in parts


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
