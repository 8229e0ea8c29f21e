"""Compare all post-processing methods on the same saved maps: scores, connected components, time and examples.

`crackseg compare-postprocessing` makes the figures of docs/post-processing.md with it.

Shape legend: H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from crackseg.data.images.files import IMAGE_EXTENSIONS, encode_png
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.masks.formats import MaskReader
from crackseg.errors import CracksegError, join_some
from crackseg.evaluation.metrics import ScoreAccumulator, Scores
from crackseg.evaluation.scoring import MAP_EXTENSIONS, list_by_stem
from crackseg.evaluation.stored_maps import ScoredMap
from crackseg.geometry.centerlines import LineCounts, count_lines, count_pieces, make_disk, thin
from crackseg.geometry.postprocessing import METHODS, postprocess_map
from crackseg.params import EvaluateParams, PostprocessParams
from crackseg.progress import progress

_DETAIL_PX = 128
PIECE_THRESHOLDS = np.arange(1, 20) / 20  # at which continuity is measured, on stretched maps


class MapFiles(NamedTuple):
    """A saved map with its ground truth, and the region of interest if there is one."""

    map_path: Path
    mask_path: Path
    roi_path: Path | None


class Comparison(NamedTuple):
    """Result of :func:`compare_methods`.

    Attributes:
        table: a row for each variant: ``method``, ``min_length_px``; ODS under ``paper``, ``symmetric`` (with
            precision, recall and ``threshold``) and ``strict``; at that threshold ``centerline_iou``, ``pieces``,
            of these ``pieces_on_cracks``, ``truth_pieces`` and ``continuity``, predicted components for each true one;
            and ``ms``, the median processor time for 512 x 512 pixels.
        continuity: ``method``, ``min_length_px``, ``threshold``, ``continuity`` and ``continuity_on_cracks``, of
            pieces with a pixel within the tolerance of the true line, at each of ``PIECE_THRESHOLDS``.
        examples: a detail: ``map``, float (H, W) in [0, 1]; at its threshold each variant that keeps all components;
            ``truth``; and the others, as ``METHOD, from N px``; bool (H, W).
    """

    table: pd.DataFrame
    continuity: pd.DataFrame
    examples: dict[str, np.ndarray]


def find_maps(predictions_dir: Path, masks_dir: Path, rois_dir: Path | None = None) -> list[MapFiles]:
    """Pair each map with its ground truth and region of interest, by stem; ground truth without a map is left out.

    Raises:
        CracksegError: a folder holds none of the kind, a map has no ground truth, or two files one stem.
    """
    maps = list_by_stem(predictions_dir, MAP_EXTENSIONS)
    masks = list_by_stem(masks_dir, (*IMAGE_EXTENSIONS, ".mat"))
    rois = list_by_stem(rois_dir, IMAGE_EXTENSIONS) if rois_dir else {}
    for kind, folder, files in (("mask", masks_dir, masks), ("region of interest", rois_dir, rois)):
        alone = sorted(maps.keys() - files.keys())
        if folder and alone:
            raise CracksegError(
                f"{len(alone)} of {len(maps)} maps in {predictions_dir} have no {kind} of the same stem in {folder}: "
                f"{join_some(alone)}"
            )
    return [MapFiles(path, masks[stem], rois.get(stem)) for stem, path in sorted(maps.items())]


def make_variants(
    *, min_length_px: int, low_ratio: float = 0.6, max_gap_px: int = 10, floor: float = 0.25
) -> list[PostprocessParams]:
    """Make each method with all components, then each without short ones (not if ``min_length_px`` drops none)."""
    settings = {"low_ratio": low_ratio, "max_gap_px": max_gap_px, "floor": floor}
    lengths = (0, min_length_px) if min_length_px > 1 else (0,)
    return [
        PostprocessParams.model_validate({"method": method, "min_length_px": length} | settings)
        for length in lengths
        for method in METHODS
    ]


def compare_methods(
    maps: Sequence[MapFiles],
    variants: Sequence[PostprocessParams],
    evaluate: EvaluateParams,
    *,
    crack_values: tuple[CrackValue, ...] | None = None,
) -> Comparison:
    """Post-process every map in every way and score it.

    Lines and connected components are counted at each variant's threshold of the symmetric ODS, an oracle like
    ODS itself, so that each variant is measured at its best.

    Args:
        maps: at least one.
        variants: post-processing settings; the detail shown is where the first breaks cracks most.
        evaluate: tolerances, thresholds, and whether regions of interest count.
        crack_values: mask values that mean crack, if they are ambiguous.
    Raises:
        CracksegError: a file that cannot be read, a map of another size than its ground truth, or no crack at all.
    """
    reader = MaskReader(crack_values)
    levels = np.arange(evaluate.num_thresholds) / (evaluate.num_thresholds - 1)
    scores = [ScoreAccumulator(num_thresholds=evaluate.num_thresholds) for _ in variants]
    times_ms: list[list[float]] = [[] for _ in variants]
    processed_pngs: list[list[bytes]] = []  # of each map and variant, the threshold that each pixel reaches
    pieces = np.zeros((len(variants), len(PIECE_THRESHOLDS), 2), np.int64)  # all, and on cracks
    num_truth_pieces = 0
    for files in progress(maps, "post-process and score", "map"):
        loaded = _load_map(files, reader, evaluate)
        stretched_HW = loaded.stretched_HW  # once, before the times are taken
        num_truth_pieces += count_pieces(loaded.truth_HW)
        near_HW = cv2.dilate(thin(loaded.truth_HW).astype(np.uint8), make_disk(evaluate.line_tolerance_px)) > 0
        if not processed_pngs:
            for variant in variants:  # the first time imports what a variant needs
                postprocess_map(stretched_HW, **variant.model_dump())
        processed_pngs.append([])
        for i, variant in enumerate(variants):
            begun = time.process_time()
            processed_HW = postprocess_map(stretched_HW, **variant.model_dump())
            times_ms[i].append((time.process_time() - begun) * 1e3 * 512**2 / processed_HW.size)
            counts = loaded.count(
                variant,
                tolerance_px=evaluate.tolerance_px,
                num_thresholds=evaluate.num_thresholds,
                processed_HW=processed_HW,
            )
            scores[i].add(counts, loaded.name)
            pieces[i] += [
                _count_pieces_near((processed_HW >= t) & loaded.inside_HW, near_HW) for t in PIECE_THRESHOLDS
            ]
            reached_HW = np.searchsorted(levels, processed_HW, side="right") - 1
            processed_pngs[-1].append(encode_png(reached_HW.astype(np.uint16)))
    if problems := reader.find_problems():
        raise CracksegError(f"{maps[0].mask_path.parent}: {'; '.join(problems)}")
    if not num_truth_pieces:
        raise CracksegError(f"{maps[0].mask_path.parent}: no mask shows a crack; expected at least one that does")

    results = [accumulator.result() for accumulator in scores]
    best_levels = [round(result.symmetric.threshold * (evaluate.num_thresholds - 1)) for result in results]
    lines = [LineCounts(0, 0, 0, 0, 0, 0)] * len(variants)
    most_pieces, examples = -1.0, {}
    for files, pngs in zip(maps, processed_pngs, strict=True):
        loaded = _load_map(files, reader, evaluate)
        crack_masks = [
            (_decode_levels(png) >= level) & loaded.inside_HW for png, level in zip(pngs, best_levels, strict=True)
        ]
        for i, crack_mask_HW in enumerate(crack_masks):
            lines[i] += count_lines(crack_mask_HW, loaded.truth_HW, tolerance_px=evaluate.line_tolerance_px)
        num_pieces, window = _find_most_broken(crack_masks[0], loaded.truth_HW)
        if num_pieces > most_pieces:
            most_pieces, examples = num_pieces, _cut_example(loaded, crack_masks, variants, window)
    rows = [_describe(*row) for row in zip(variants, results, lines, times_ms, strict=True)]
    steps = [
        _name(variant)
        | {
            "threshold": threshold,
            "continuity": number / num_truth_pieces,
            "continuity_on_cracks": number_near / num_truth_pieces,
        }
        for variant, of_variant in zip(variants, pieces.tolist(), strict=True)
        for threshold, (number, number_near) in zip(PIECE_THRESHOLDS.tolist(), of_variant, strict=True)
    ]
    return Comparison(pd.DataFrame(rows), pd.DataFrame(steps), examples)


def _load_map(files: MapFiles, reader: MaskReader, evaluate: EvaluateParams) -> ScoredMap:
    mask_HW = reader.read(files.mask_path)
    roi_HW = MaskReader(may_fill=True).read(files.roi_path) if evaluate.use_roi and files.roi_path else None
    return ScoredMap.read(files.map_path, mask_HW, roi_HW)


def _describe(
    variant: PostprocessParams, scores: Scores, lines: LineCounts, times_ms: Sequence[float]
) -> dict[str, object]:
    return {
        **_name(variant),
        "paper": scores.paper.ods,
        "symmetric": scores.symmetric.ods,
        "precision": scores.symmetric.precision,
        "recall": scores.symmetric.recall,
        "strict": scores.strict.ods,
        "threshold": scores.symmetric.threshold,
        "centerline_iou": lines.centerline_iou,
        "pieces": lines.predicted_pieces,
        "pieces_on_cracks": lines.predicted_pieces - lines.stray_pieces,
        "truth_pieces": lines.truth_pieces,
        "continuity": lines.continuity,
        "ms": float(np.median(times_ms)),
    }


def _name(variant: PostprocessParams) -> dict[str, object]:
    return {"method": variant.method, "min_length_px": variant.min_length_px}


def _count_pieces_near(crack_mask_HW: np.ndarray, near_truth_HW: np.ndarray) -> tuple[int, int]:
    """Count the 8-connected components, and those with a pixel near the ground truth."""
    num_labels, piece_HW = cv2.connectedComponents(crack_mask_HW.astype(np.uint8), connectivity=8)
    return num_labels - 1, len(np.unique(piece_HW[crack_mask_HW & near_truth_HW]))


def _decode_levels(png: bytes) -> np.ndarray:
    """Decode a 16-bit PNG of our own; uint16 (H, W)."""
    levels_HW = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert levels_HW is not None
    return levels_HW


def _find_most_broken(crack_mask_HW: np.ndarray, truth_HW: np.ndarray) -> tuple[float, tuple[slice, slice]]:
    """Find the window with most components of the prediction on the ground truth, and their number."""
    near_HW = cv2.dilate(truth_HW.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    found_HW = (crack_mask_HW & near_HW).astype(np.uint8)
    _, _, _, centres = cv2.connectedComponentsWithStats(found_HW, connectivity=8)
    dots_HW = np.zeros(found_HW.shape, np.float32)
    np.add.at(dots_HW, tuple(np.rint(centres[1:, ::-1]).astype(int).T), 1)
    window = np.ones((_DETAIL_PX, _DETAIL_PX), np.float32)
    # Anchored at the upper left corner: the sum at a pixel is that of the window that begins there.
    sums_HW = cv2.filter2D(dots_HW, -1, window, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    height, width = found_HW.shape
    sums_HW = sums_HW[: max(1, height - _DETAIL_PX + 1), : max(1, width - _DETAIL_PX + 1)]
    top, left = (int(place) for place in np.unravel_index(int(sums_HW.argmax()), sums_HW.shape))
    return float(sums_HW[top, left]), (slice(top, top + _DETAIL_PX), slice(left, left + _DETAIL_PX))


def _cut_example(
    loaded: ScoredMap,
    crack_masks: Sequence[np.ndarray],
    variants: Sequence[PostprocessParams],
    window: tuple[slice, slice],
) -> dict[str, np.ndarray]:
    all_pieces, long_pieces = {}, {}
    for variant, crack_mask_HW in zip(variants, crack_masks, strict=True):
        if variant.min_length_px > 1:
            long_pieces[f"{variant.method}, from {variant.min_length_px} px"] = crack_mask_HW[window]
        else:
            all_pieces[variant.method] = crack_mask_HW[window]
    return {"map": loaded.stretched_HW[window]} | all_pieces | {"truth": loaded.truth_HW[window]} | long_pieces
