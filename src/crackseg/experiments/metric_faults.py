"""Score artificial predictions with known faults under each protocol, and measure how resizing changes ground truth.

`crackseg explain-scores` makes the figures and tables of docs/why-three-protocols.md with it.

Shape legend: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from crackseg.data.images.files import IMAGE_EXTENSIONS
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.masks.formats import MaskReader
from crackseg.data.preprocessing import resize_mask
from crackseg.data.synthetic.scenes import render_scene
from crackseg.errors import CracksegError, count_of
from crackseg.evaluation.metrics import PROTOCOLS, ImageCounts, ScoreAccumulator, count_image
from crackseg.files import frame_to_markdown
from crackseg.geometry.centerlines import LineCounts, count_lines, count_pieces
from crackseg.progress import progress

SCENE_SIZE_PX = (800, 600)  # width and height of CrackTree260's photographs
NUM_SCENES = 20
SHIFTS_PX = (1, 2, 3, 4, 5)
WIDTHS_PX = (3, 5, 7, 9)
GAP_PX = 3
PIXELS_PER_GAP = 12
SPECK_PX = 5
SERIES = {  # cases that differ in one measure only, by that measure
    "shifted down, px": {0: "exact"} | {n: f"shifted {n} px" for n in SHIFTS_PX},
    "drawn this thick, px": {1: "exact"} | {n: f"{n} px thick" for n in WIDTHS_PX},
}
RESIZINGS = ("nearest", "nearest, corner", "line")
_NO_LINES = LineCounts(0, 0, 0, 0, 0, 0)


class Overlay(NamedTuple):
    """A prediction and its ground truth; bool (H, W) each."""

    crack_mask: np.ndarray
    mask: np.ndarray


def draw_procedural_masks() -> Iterator[np.ndarray]:
    """Draw the ground truth of twenty procedural scenes in the look of CrackTree260; uint8 (600, 800) of {0, 1}."""
    for seed in range(NUM_SCENES):
        yield render_scene("CrackTree260", seed, size=SCENE_SIZE_PX).mask


def read_masks(folders: Sequence[Path], *, crack_values: tuple[CrackValue, ...] | None = None) -> list[np.ndarray]:
    """Read all ground truth in these folders, in any format that can be imported.

    Args:
        folders: each holds masks; other files in it are skipped.
        crack_values: mask values that mean crack, if they are ambiguous.
    Returns:
        uint8 (H, W) of {0, 1} each.
    Raises:
        CracksegError: a folder without masks, a mask that cannot be read, values that do not say what a crack is,
            or no crack at all.
    """
    reader = MaskReader(crack_values)
    masks = []
    for folder in folders:
        if not folder.is_dir():
            raise CracksegError(f"{folder}: no such folder; expected one with ground truth masks")
        paths = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in (*IMAGE_EXTENSIONS, ".mat") and not path.name.startswith(".")
        ]
        if not paths:
            raise CracksegError(f"{folder}: no file ends in {', '.join((*IMAGE_EXTENSIONS, '.mat'))}")
        masks += [reader.read(path) for path in paths]
    where = " and ".join(map(str, folders))
    if problems := reader.find_problems():
        raise CracksegError(f"{where}: {'; '.join(problems)}")
    if not any(mask.any() for mask in masks):
        raise CracksegError(f"{where}: no mask shows a crack; expected ground truth with cracks in it")
    return masks


def make_cases(mask_HW: np.ndarray, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Make predictions whose faults are known.

    Args:
        mask_HW: ground truth, uint8 (H, W) of {0, 1}, lines of one pixel.
        seed: of the places of gaps and specks.
    Returns:
        bool (H, W) by name, the same names for every mask: ``exact``; ``shifted N px`` (downwards); ``N px thick``;
        ``half missing`` (of the crack pixels, the half further right) and the same ``5 px thick``; ``broken`` (gaps
        of 3 px at random, one for each 12 pixels of crack); ``specks`` (the exact one, and as many pixels again in
        specks of 5 x 5 at random places).
    """
    truth_HW = mask_HW > 0
    rng = np.random.default_rng(seed)
    pixels = np.argwhere(truth_HW)
    cases = {"exact": truth_HW}
    cases |= {f"shifted {n} px": _shift_down(truth_HW, n) for n in SHIFTS_PX}
    cases |= {f"{n} px thick": _thicken(truth_HW, n) for n in WIDTHS_PX}
    half_HW = np.zeros_like(truth_HW)
    found = pixels[np.argsort(pixels[:, 1], kind="stable")][: len(pixels) // 2]
    half_HW[tuple(found.T)] = True
    cases["half missing"] = half_HW
    cases["half missing, 5 px thick"] = _thicken(half_HW, 5)
    gaps = _scatter(rng.permutation(pixels)[: len(pixels) // PIXELS_PER_GAP], truth_HW.shape)
    cases["broken"] = truth_HW & ~_thicken(gaps, GAP_PX)
    places = rng.integers(0, truth_HW.shape, (-(-len(pixels) // SPECK_PX**2), 2))
    cases["specks"] = truth_HW | _thicken(_scatter(places, truth_HW.shape), SPECK_PX)
    return cases


def score_cases(masks: Iterable[np.ndarray], *, tolerance_px: int = 2, line_tolerance_px: int = 4) -> pd.DataFrame:
    """Score every case of :func:`make_cases` over all masks, pixels pooled.

    Args:
        masks: ground truth, uint8 (H, W) of {0, 1} each; sizes may differ.
        tolerance_px: of the three protocols.
        line_tolerance_px: of centre-line IoU.
    Returns:
        A row for each case: ``case``; F under ``paper``, ``symmetric`` and ``strict``; ``centerline_iou``;
        ``continuity``, connected components for each component of the ground truth.
    Raises:
        CracksegError: no masks, or a mask that is none.
    """
    accumulators: dict[str, ScoreAccumulator] = {}
    lines: dict[str, LineCounts] = {}
    for i, mask_HW in enumerate(progress(masks, "score the cases", "mask")):
        for case, crack_mask_HW in make_cases(mask_HW, seed=i).items():
            counts = _count_mask(crack_mask_HW, mask_HW, tolerance_px)
            accumulators.setdefault(case, ScoreAccumulator(num_thresholds=2)).add(counts, str(i))
            found = count_lines(crack_mask_HW, mask_HW, tolerance_px=line_tolerance_px)
            lines[case] = lines.get(case, _NO_LINES) + found
    if not accumulators:
        raise CracksegError("no masks; expected at least one with a crack")
    return pd.DataFrame(
        [{"case": case, **_f_scores(scores), **_line_scores(lines[case])} for case, scores in accumulators.items()]
    )


def measure_resizing(
    masks: Iterable[np.ndarray], *, size_px: int = 512, tolerance_px: int = 2, line_tolerance_px: int = 4
) -> pd.DataFrame:
    """Measure how shrinking to a square changes ground truth, and the scores of a perfect prediction.

    The perfect prediction is the full-size ground truth, every pixel moved to its place in the square (which is what
    ``line`` does): an unbroken line where the crack is.

    Args:
        masks: ground truth at full size, uint8 (H, W) of {0, 1}; those that are no larger than the square are left out.
        size_px: side of the square.
        tolerance_px, line_tolerance_px: as for :func:`score_cases`.
    Returns:
        A row for each of ``RESIZINGS`` (:func:`shrink`), none if no mask with a crack shrinks: ``masks``;
        ``pixels_before``, ``pixels_after``; ``kept``, pixels for each pixel of the moved line (where several at full
        size may become one); ``pieces_before``, ``pieces_after``; and of the perfect prediction against this ground
        truth F under the three protocols, ``centerline_iou`` and ``continuity``.
    """
    shrinking = [mask for mask in masks if _shrinks(mask, size_px)]
    rows = []
    for method in RESIZINGS if any(mask.any() for mask in shrinking) else ():
        scores, lines = ScoreAccumulator(num_thresholds=2), _NO_LINES
        num_before = num_after = num_moved = pieces_before = 0
        for i, mask_HW in enumerate(shrinking):
            small_HW, perfect_HW = shrink(mask_HW, size_px, method), shrink(mask_HW, size_px, "line") > 0
            scores.add(_count_mask(perfect_HW, small_HW, tolerance_px), str(i))
            lines += count_lines(perfect_HW, small_HW, tolerance_px=line_tolerance_px)
            num_before += int(mask_HW.sum())
            num_after += int(small_HW.sum())
            num_moved += int(perfect_HW.sum())
            pieces_before += count_pieces(mask_HW)
        figures = {
            "resizing": method,
            "masks": len(shrinking),
            "pixels_before": num_before,
            "pixels_after": num_after,
            "kept": num_after / num_moved if num_moved else 0.0,
            "pieces_before": pieces_before,
            "pieces_after": lines.truth_pieces,
        }
        rows.append(figures | _f_scores(scores) | _line_scores(lines))
    return pd.DataFrame(rows)


def shrink(mask_HW: np.ndarray, size_px: int, method: str) -> np.ndarray:
    """Resize ground truth to a square, as the pipeline does for ``data.resize: square``; uint8 of {0, 1}.

    Args:
        mask_HW: uint8 (H, W) of {0, 1}.
        size_px: side of the square.
        method: ``nearest`` or ``line``, the values of ``data.mask_resize``; or ``nearest, corner``, for comparison:
            OpenCV's ``INTER_NEAREST``, which takes each cell's first pixel and not its middle.
    """
    if method == "nearest, corner":
        return cv2.resize(mask_HW, (size_px, size_px), interpolation=cv2.INTER_NEAREST)
    return resize_mask(mask_HW, size_px, size_px, method=method)


def cut_examples(masks: Sequence[np.ndarray], *, side_px: int = 96) -> dict[str, Overlay]:
    """Cut the same detail out of every case: where ``half missing`` ends, in the mask that has most cracks there.

    Args:
        masks: uint8 (H, W) of {0, 1} each, at least one with a crack.
        side_px: of the detail.
    """
    mask_HW, window = _choose_detail(masks, side_px)
    cases = make_cases(mask_HW)
    return {case: Overlay(crack_mask_HW[window], mask_HW[window] > 0) for case, crack_mask_HW in cases.items()}


def cut_resized_examples(masks: Sequence[np.ndarray], size_px: int, *, side_px: int = 96) -> dict[str, Overlay]:
    """Cut the same detail out of every resizing, under the perfect prediction; masks as :func:`measure_resizing`."""
    mask_HW, (rows, columns) = _choose_detail([mask for mask in masks if _shrinks(mask, size_px)], side_px)
    height, width = mask_HW.shape
    window = (
        slice(rows.start * size_px // height, rows.stop * size_px // height),
        slice(columns.start * size_px // width, columns.stop * size_px // width),
    )
    perfect_HW = shrink(mask_HW, size_px, "line")[window] > 0
    return {method: Overlay(perfect_HW, shrink(mask_HW, size_px, method)[window] > 0) for method in RESIZINGS}


def format_weak_points(
    cases: pd.DataFrame, resizing: pd.DataFrame, *, source: str, settings: Mapping[str, int]
) -> str:
    """Write both tables as Markdown."""
    said = ", ".join(f"{name} {value}" for name, value in settings.items())
    tables = [frame_to_markdown(table) for table in (cases, resizing) if len(table)]
    return "\n".join([f"Ground truth: {source}. Settings: {said}.\n", *tables])


def describe_masks(masks: Sequence[np.ndarray]) -> str:
    """Say how many masks, the fraction of crack pixels, and the width of their lines, since the cases assume 1 px."""
    num_pixels = sum(int(mask.sum()) for mask in masks)
    lines = sum((count_lines(mask, mask) for mask in masks), _NO_LINES)
    share = num_pixels / sum(mask.size for mask in masks)
    width_px = num_pixels / (lines.truth or 1)
    pieces = f"in {lines.truth_pieces} connected components {width_px:.2f} px wide"
    return f"{count_of(len(masks), 'mask')}, {share:.2%} of the pixels crack, {pieces}"


def _count_mask(crack_mask_HW: np.ndarray, mask_HW: np.ndarray, tolerance_px: int) -> ImageCounts:
    return count_image(
        crack_mask_HW.astype(np.float32), mask_HW, tolerance_px=tolerance_px, num_thresholds=2, min_max=False
    )


def _f_scores(scores: ScoreAccumulator) -> dict[str, float]:
    """Return F of the masks, at threshold 1: at 0 every pixel is predicted, which may have a higher F."""
    result = scores.result()
    return {protocol: float(getattr(result, protocol).curve.f[1]) for protocol in PROTOCOLS}


def _line_scores(lines: LineCounts) -> dict[str, float | None]:
    return {"centerline_iou": lines.centerline_iou, "continuity": lines.continuity}


def _shift_down(truth_HW: np.ndarray, distance_px: int) -> np.ndarray:
    shifted_HW = np.zeros_like(truth_HW)
    shifted_HW[distance_px:] = truth_HW[:-distance_px]
    return shifted_HW


def _thicken(truth_HW: np.ndarray, width_px: int) -> np.ndarray:
    return cv2.dilate(truth_HW.astype(np.uint8), np.ones((width_px, width_px), np.uint8)) > 0


def _scatter(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    dots_HW = np.zeros(shape, bool)
    dots_HW[tuple(places.T)] = True
    return dots_HW


def _choose_detail(masks: Sequence[np.ndarray], side_px: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    details = [(mask_HW, _frame_middle(mask_HW, side_px)) for mask_HW in masks if mask_HW.any()]
    return max(details, key=lambda detail: int(detail[0][detail[1]].sum()))


def _frame_middle(mask_HW: np.ndarray, side_px: int) -> tuple[slice, slice]:
    """Return the rows and columns around the crack pixel that has half of all crack pixels on its left."""
    pixels = np.argwhere(mask_HW)
    middle = pixels[np.argsort(pixels[:, 1], kind="stable")][len(pixels) // 2]
    top, left = np.clip(middle - side_px // 2, 0, np.maximum(np.array(mask_HW.shape) - side_px, 0)).tolist()
    return slice(top, top + side_px), slice(left, left + side_px)


def _shrinks(mask_HW: np.ndarray, size_px: int) -> bool:
    return min(mask_HW.shape) >= size_px and max(mask_HW.shape) > size_px
