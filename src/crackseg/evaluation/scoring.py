"""Score saved maps; separate from predicting them, so that a new metric needs neither a GPU nor torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from crackseg.data.images.files import IMAGE_EXTENSIONS
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.masks.formats import MaskReader
from crackseg.errors import CracksegError, join_some
from crackseg.evaluation.false_alarms import FalseAlarms
from crackseg.evaluation.metrics import PROTOCOLS, ImageCounts, ScoreAccumulator, Scores
from crackseg.evaluation.stored_maps import ScoredMap, read_scored_map
from crackseg.files import write_bytes, write_csv
from crackseg.geometry.centerlines import LineCounts
from crackseg.params import EvaluateParams, PostprocessParams
from crackseg.progress import progress
from crackseg.types import CrackSample

FALSE_ALARM_COLUMNS = {"false_crack_pixels": "crack_pixels", "false_crack_length_px": "length_px"}
"""Columns of ``DATASET_images.csv`` for crack-free images, and the attribute of FalseAlarms that each holds."""
MAP_EXTENSIONS = (".png", ".npy", ".tif", ".tiff", ".bmp")  # no JPEG: its noise would be scored


def score_split(
    samples: Iterable[CrackSample],
    predictions_dir: Path,
    params: EvaluateParams,
    postprocessing: PostprocessParams,
    *,
    operating_threshold: float,
    on_counts: Callable[[str, ImageCounts], None] | None = None,
) -> tuple[Scores, LineCounts, dict[str, FalseAlarms]]:
    """Score saved maps of a dataset, after post-processing.

    Args:
        samples: whose maps to score.
        predictions_dir: holds ``STEM.png`` of each.
        params: tolerances, thresholds, whether regions of interest count.
        postprocessing: applied to each map first.
        operating_threshold: raw probability at which lines and false alarms are counted; unlike the thresholds of
            ODS it was chosen without looking at these images.
        on_counts: called with the stem and the counts of each image.
    Returns:
        Scores under the three protocols; the pooled counts of centre lines and connected components; and the false
        alarms by stem, of the crack-free images alone.
    Raises:
        CracksegError: a map is missing, damaged or of another size than the ground truth.
    """
    scores = ScoreAccumulator(num_thresholds=params.num_thresholds)
    lines = LineCounts(0, 0, 0, 0, 0, 0)
    alarms: dict[str, FalseAlarms] = {}
    for sample in samples:
        scored = read_scored_map(sample, predictions_dir / f"{sample.stem}.png", use_roi=params.use_roi)
        counts = scored.count(
            postprocessing, tolerance_px=params.tolerance_px, num_thresholds=params.num_thresholds
        )
        scores.add(counts, sample.stem)
        if on_counts is not None:
            on_counts(sample.stem, counts)
        crack_mask_HW = scored.mark(operating_threshold, postprocessing)
        lines += scored.count_lines(crack_mask_HW, tolerance_px=params.line_tolerance_px)
        if not counts.truth:
            alarms[sample.stem] = scored.count_false_alarms(crack_mask_HW)
    return scores.result(), lines, alarms


def score_folder(
    predictions_dir: Path,
    masks_dir: Path,
    *,
    tolerance_px: int = 2,
    num_thresholds: int = 256,
    crack_values: tuple[CrackValue, ...] | None = None,
) -> Scores:
    """Score maps of any origin with the stems of their masks: 8- or 16-bit grey, or floats in [0, 1].

    Args:
        predictions_dir: one map for each mask, an image, ``.npy`` or float TIFF.
        masks_dir: ground truth, in any format that can be imported.
        crack_values: mask values that mean crack, if that is not clear.
    Raises:
        CracksegError: a partner is missing or duplicate, or a pair cannot be read or differs in size.
    """
    predictions = list_by_stem(predictions_dir, MAP_EXTENSIONS)
    masks = list_by_stem(masks_dir, (*IMAGE_EXTENSIONS, ".mat"))
    for kind, without, these, others in (
        ("mask", "prediction", masks, predictions),
        ("prediction", "mask", predictions, masks),
    ):
        alone = sorted(these.keys() - others.keys())
        if alone:
            raise CracksegError(
                f"{len(alone)} of {len(these)} files have no {without} of the same stem, e.g. the {kind} "
                f"{these[alone[0]]}: {join_some(alone)}"
            )
    reader = MaskReader(crack_values)
    scores = ScoreAccumulator(num_thresholds=num_thresholds)
    for stem in progress(sorted(masks), "score", "image"):
        mask_HW = reader.read(masks[stem])
        scored = ScoredMap.read(predictions[stem], mask_HW)
        scores.add(scored.count(tolerance_px=tolerance_px, num_thresholds=num_thresholds), stem)
    if problems := reader.find_problems():
        raise CracksegError(f"{masks_dir}: {'; '.join(problems)}")
    return scores.result()


def write_scores(
    scores: Scores,
    lines: LineCounts,
    alarms: Mapping[str, FalseAlarms],
    dataset: str,
    out_dir: Path,
    *,
    extra: dict[str, object],
) -> None:
    """Write the files that DVC and the report read: ``DATASET.json``, ``DATASET_pr.csv``, ``DATASET_images.csv``.

    The JSON holds one key, the dataset's name, so that `dvc exp show` has a column for each dataset.
    """
    of_lines = {
        "centerline_iou": lines.centerline_iou,
        "continuity": lines.continuity,
        "predicted_pieces": lines.predicted_pieces,
        "truth_pieces": lines.truth_pieces,
        "stray_pieces": lines.stray_pieces,
    }
    others = {name: getattr(scores, name).to_dict() for name in PROTOCOLS[1:]}
    of_alarms = FalseAlarms.pool(alarms.values()).to_dict()
    of_dataset = {"num_images": scores.num_images} | scores.paper.to_dict() | others | of_lines | of_alarms | extra
    content = {dataset: of_dataset}
    write_bytes(out_dir / f"{dataset}.json", (json.dumps(content, indent=2) + "\n").encode())
    columns: dict[str, np.ndarray] = {}
    for protocol in PROTOCOLS:
        curve = getattr(scores, protocol).curve
        prefix = "" if protocol == "paper" else f"{protocol}_"
        columns.setdefault("threshold", curve.thresholds)
        columns |= {
            f"{prefix}precision": curve.precision,
            f"{prefix}recall": curve.recall,
            f"{prefix}f": curve.f,
        }
    write_csv(pd.DataFrame(columns), out_dir / f"{dataset}_pr.csv")
    images = pd.DataFrame([asdict(image) for image in scores.images])
    for column, attribute in FALSE_ALARM_COLUMNS.items():  # empty for images with cracks
        found = {stem: getattr(of_image, attribute) for stem, of_image in alarms.items()}
        images[column] = images["stem"].map(found).astype(float)
    write_csv(images, out_dir / f"{dataset}_images.csv")


def format_scores(scores: Scores) -> str:
    """Format the scores under the three protocols as a table for the terminal."""
    names = ("ods", "precision", "recall", "threshold", "ois", "ois_std", "ap")
    lines = [f"{scores.num_images} images", f"{'protocol':<10}" + "".join(f"{name:>11}" for name in names)]
    for protocol in PROTOCOLS:
        values = getattr(scores, protocol).to_dict()
        lines.append(f"{protocol:<10}" + "".join(f"{values[name]:>11.4f}" for name in names))
    return "\n".join(lines)


def list_by_stem(folder: Path, extensions: tuple[str, ...]) -> dict[str, Path]:
    """List the files below a folder that end in one of these, by their path in it without extension.

    Hidden ones are left out.

    Raises:
        CracksegError: there is none, or two differ by their extension alone.
    """
    if not folder.is_dir():
        raise CracksegError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or path.suffix.lower() not in extensions or not path.is_file():
            continue
        stem = inside.with_suffix("").as_posix()
        if stem in files:
            raise CracksegError(f"two files with the stem {stem!r}: {files[stem]} and {path}; keep one")
        files[stem] = path
    if not files:
        raise CracksegError(f"{folder}: no file ends in {', '.join(extensions)}")
    return files
