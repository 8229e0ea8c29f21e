"""Score saved maps: apart from predicting them, so that a new metric needs no GPU, nor torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from crackseg.centerlines import LineCounts, count_lines
from crackseg.data.crack_values import CrackValue
from crackseg.data.image_io import (
    IMAGE_EXTENSIONS,
    read_mask,
    read_probability_map,
    read_stored_map,
    write_bytes,
)
from crackseg.data.mask_formats import MaskReader
from crackseg.errors import CracksegError
from crackseg.metrics import PROTOCOLS, ImageCounts, ScoreAccumulator, Scores, count_image
from crackseg.params import EvaluateParams, PostprocessParams
from crackseg.postprocessing import postprocess, postprocess_map
from crackseg.records import CrackSample
from crackseg.tables import write_csv

MAP_EXTENSIONS = (".png", ".npy", ".tif", ".tiff", ".bmp")  # no JPEG: its noise would be scored


def score_split(
    samples: Iterable[CrackSample],
    predictions_dir: Path,
    params: EvaluateParams,
    postprocessing: PostprocessParams,
    *,
    operating_threshold: float,
    on_counts: Callable[[str, ImageCounts], None] | None = None,
) -> tuple[Scores, LineCounts]:
    """Score saved maps of a dataset, after post-processing.

    Args:
        samples: whose maps to score.
        predictions_dir: holds ``STEM.png`` of each.
        params: tolerances, thresholds, whether regions of interest count.
        postprocessing: what is done to each map first.
        operating_threshold: raw probability at which the lines are counted; unlike the thresholds of ODS it was
            chosen without looking at these images.
        on_counts: called with the stem and the counts of each image.
    Returns:
        The three protocols, and the pooled counts of centre lines and pieces.
    Raises:
        CracksegError: a map is missing, damaged or of another size than the truth.
    """
    scores = ScoreAccumulator(num_thresholds=params.num_thresholds)
    lines = LineCounts(0, 0, 0, 0, 0, 0)
    for sample in samples:
        path = predictions_dir / f"{sample.stem}.png"
        mask_HW = read_mask(sample.mask_path)
        roi_HW = read_mask(sample.roi_path) if params.use_roi and sample.roi_path else None
        stored_HW = read_map(path, mask_HW)
        if changes_maps(postprocessing):
            # Stretched first, as the protocols want it: afterwards, a map may have lost its own maximum.
            stretched_HW = stretch_map(stored_HW, roi_HW)
            scored_HW = postprocess_map(stretched_HW, **postprocessing.model_dump())
        else:
            scored_HW = stored_HW
        counts = count_image(
            scored_HW,
            mask_HW,
            tolerance_px=params.tolerance_px,
            num_thresholds=params.num_thresholds,
            min_max=scored_HW is stored_HW,
            roi_HW=roi_HW,
            name=str(path),
        )
        scores.add(counts, sample.stem)
        if on_counts is not None:
            on_counts(sample.stem, counts)
        inside_HW = roi_HW if roi_HW is not None else np.ones_like(mask_HW)
        crack_mask_HW = postprocess(
            read_probability_map(path), threshold=operating_threshold, **postprocessing.model_dump()
        )
        lines += count_lines(
            crack_mask_HW & (inside_HW > 0), mask_HW * inside_HW, tolerance_px=params.line_tolerance_px
        )
    return scores.result(), lines


def changes_maps(postprocessing: PostprocessParams) -> bool:
    """Whether these settings change any map."""
    return postprocessing.method != "none" or postprocessing.min_length_px > 1


def score_folder(
    predictions_dir: Path,
    masks_dir: Path,
    *,
    tolerance_px: int = 2,
    num_thresholds: int = 256,
    crack_values: tuple[CrackValue, ...] | None = None,
) -> Scores:
    """Score anybody's maps, with the stem of their mask: 8- or 16-bit grey, or floats in [0, 1] (``.npy``, TIFF).

    Args:
        predictions_dir: one map for each mask.
        masks_dir: truth, in any format that can be imported.
        crack_values: mask values that mean crack, where that is not plain.
    Raises:
        CracksegError: a partner is missing or doubled, or a pair cannot be read or differs in size.
    """
    predictions = list_by_stem(predictions_dir, MAP_EXTENSIONS)
    masks = list_by_stem(masks_dir, (*IMAGE_EXTENSIONS, ".mat"))
    for kind, without, these, others in (
        ("mask", "prediction", masks, predictions),
        ("prediction", "mask", predictions, masks),
    ):
        alone = sorted(these.keys() - others.keys())
        if alone:
            rest = f" and {len(alone) - 10} more" if len(alone) > 10 else ""
            raise CracksegError(
                f"{len(alone)} of {len(these)} files have no {without} of the same stem, e.g. the {kind} "
                f"{these[alone[0]]}: {', '.join(alone[:10])}{rest}"
            )
    reader = MaskReader(crack_values)
    scores = ScoreAccumulator(num_thresholds=num_thresholds)
    for stem in tqdm(sorted(masks), desc="score", unit="image", disable=None):
        mask_HW = reader.read(masks[stem])
        counts = count_image(
            read_map(predictions[stem], mask_HW),
            mask_HW,
            tolerance_px=tolerance_px,
            num_thresholds=num_thresholds,
            name=str(predictions[stem]),
        )
        scores.add(counts, stem)
    if problems := reader.find_problems():
        raise CracksegError(f"{masks_dir}: {'; '.join(problems)}")
    return scores.result()


def write_scores(
    scores: Scores, lines: LineCounts, dataset: str, out_dir: Path, *, extra: dict[str, object]
) -> None:
    """Write what DVC and the report read: ``DATASET.json``, ``DATASET_pr.csv``, ``DATASET_images.csv``.

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
    content = {dataset: {"num_images": scores.num_images} | scores.paper.to_dict() | others | of_lines | extra}
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
    write_csv(pd.DataFrame([asdict(image) for image in scores.images]), out_dir / f"{dataset}_images.csv")


def format_scores(scores: Scores) -> str:
    """Write the three protocols as a table for the terminal."""
    names = ("ods", "precision", "recall", "threshold", "ois", "ois_std", "ap")
    lines = [f"{scores.num_images} images", f"{'protocol':<10}" + "".join(f"{name:>11}" for name in names)]
    for protocol in PROTOCOLS:
        figures = getattr(scores, protocol).to_dict()
        lines.append(f"{protocol:<10}" + "".join(f"{figures[name]:>11.4f}" for name in names))
    return "\n".join(lines)


def read_map(path: Path, mask_HW: np.ndarray) -> np.ndarray:
    """Read a map as it is stored (:func:`crackseg.data.image_io.read_stored_map`); it must have its truth's size."""
    stored_HW = read_stored_map(path)
    if stored_HW.shape != mask_HW.shape:
        raise CracksegError(
            f"{path}: the map is {stored_HW.shape[1]} x {stored_HW.shape[0]} pixels and its truth "
            f"{mask_HW.shape[1]} x {mask_HW.shape[0]}; predict at the truth's size"
        )
    return stored_HW


def stretch_map(stored_HW: np.ndarray, roi_HW: np.ndarray | None) -> np.ndarray:
    """Stretch a map to [0, 1] by its extremes inside the region of interest; outside it, all is 0; float64."""
    map_HW = stored_HW.astype(np.float64)
    inside = map_HW if roi_HW is None else map_HW[roi_HW > 0]
    low, high = float(inside.min()), float(inside.max())
    stretched_HW = (map_HW - low) / ((high - low) or 1.0)
    return stretched_HW if roi_HW is None else np.where(roi_HW > 0, stretched_HW, 0.0)


def list_by_stem(folder: Path, extensions: tuple[str, ...]) -> dict[str, Path]:
    """List a folder's files that end in one of these; CracksegError if there is none, or two of one stem."""
    if not folder.is_dir():
        raise CracksegError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix.lower() not in extensions or path.name.startswith("."):
            continue
        if path.stem in files:
            raise CracksegError(f"two files with the stem {path.stem!r}: {files[path.stem]} and {path}; keep one")
        files[path.stem] = path
    if not files:
        raise CracksegError(f"{folder}: no file ends in {', '.join(extensions)}")
    return files
