"""Draw figures and tables of scores: PR curves, qualitative panels, score tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from crackseg.data.images.files import read_image
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.params import PostprocessParams
from crackseg.plotting import COLOURS, save_figure
from crackseg.types import CrackSample


def draw_pr_curves(curves: Mapping[str, pd.DataFrame], path: Path, *, title: str, source: str) -> None:
    """Draw one or several PR curves (paper protocol) into one figure, each ODS point marked (cf. Figure 3).

    Args:
        curves: by label; columns precision, recall and f, from the lowest threshold to the highest.
        path: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    plot_pr_curves(axes, curves)
    axes.set_title(f"{title}\n", fontsize=12)
    axes.text(0.5, 1.015, source, transform=axes.transAxes, ha="center", fontsize=8.5, color="0.35")
    save_figure(figure, path)


def plot_pr_curves(axes: Axes, curves: Mapping[str, pd.DataFrame]) -> None:
    """Plot PR curves, ODS points, legend and lines of equal F; a label with an empty table is shown as missing."""
    _draw_iso_f(axes)
    for i, (label, curve) in enumerate(curves.items()):
        if curve.empty:
            axes.plot([], [], " ", label=f"{label}  missing")
            continue
        shown = curve[(curve["precision"] > 0) | (curve["recall"] > 0)]
        best = curve.loc[curve["f"].idxmax()]
        colour = COLOURS[i % len(COLOURS)]
        style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]  # tells curves apart that share a colour
        said = f"{label}  ODS {best['f']:.3f}"
        axes.plot(shown["recall"], shown["precision"], color=colour, ls=style, lw=1.8, label=said)
        axes.plot(best["recall"], best["precision"], "s", color=colour, ms=8, mec="white")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="recall", ylabel="precision")
    axes.legend(loc="best", fontsize=9, framealpha=0.95)


def draw_panels(
    samples: Sequence[CrackSample],
    predictions_dir: Path,
    threshold: float,
    path: Path,
    *,
    postprocessing: PostprocessParams,
    use_roi: bool,
    title: str,
) -> None:
    """Draw image, ground truth, probability and binary map side by side, a row for each sample (Figure 4).

    Args:
        threshold: the dataset's ODS threshold, on maps stretched to their minimum and maximum.
        postprocessing: what was done to the maps before they were scored; the binary map shows it.
        use_roi: True if they were scored inside their regions of interest only.
    """
    columns = ("image", "ground truth", "crack probability (stretched)", f"binary at {threshold:.3f} (ODS)")
    figure, grid = plt.subplots(
        len(samples), 4, figsize=(11, 2.85 * len(samples) + 0.6), squeeze=False, layout="constrained"
    )
    for row, sample in zip(grid, samples, strict=True):
        scored = read_scored_map(sample, predictions_dir / f"{sample.stem}.png", use_roi=use_roi)
        crack_mask = scored.process(postprocessing) >= threshold
        draw_panel_row(row, read_image(sample.image_path), scored.mask_HW, scored.stretched_HW, crack_mask)
        row[0].set_ylabel(sample.stem, fontsize=9)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path)


def draw_panel_row(
    row: Sequence[Axes], image: np.ndarray, mask: np.ndarray, stretched: np.ndarray, crack_mask: np.ndarray
) -> None:
    """Draw image, ground truth, map (float in [0, 1], in matplotlib's jet colours) and binary map into four axes."""
    row[0].imshow(image)
    # One-pixel lines vanish when a figure is scaled down; drawn dark on white and a pixel thicker they stay.
    row[1].imshow(thicken(mask), cmap="gray_r", vmin=0, vmax=1)
    row[2].imshow(stretched, cmap="jet", vmin=0, vmax=1)
    row[3].imshow(thicken(crack_mask), cmap="gray_r", vmin=0, vmax=1)
    for axes in row:
        axes.set(xticks=[], yticks=[])


def draw_history(history: pd.DataFrame, path: Path, *, title: str) -> None:
    """Draw losses, validation ODS and learning rate over the epochs."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axes, keys in ((left, ("train/loss", "val/loss")), (middle, ("val/ods",)), (right, ("lr",))):
        for key, colour in zip(keys, COLOURS, strict=False):
            points = history[["epoch", key]].dropna() if key in history else history[["epoch"]].iloc[:0]
            if len(points):
                axes.plot(points["epoch"], points[key], ".-", color=colour, label=key, lw=1.4, ms=4)
        axes.set_xlabel("epoch")
        axes.set_title(" and ".join(keys), fontsize=10)
    left.legend(fontsize=9)
    middle.set_ylim(0, 1)
    if (history["lr"] > 0).any():  # after a single epoch of one cycle it is 0
        right.set_yscale("log")
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path)


def _draw_iso_f(axes: Axes) -> None:
    """Draw faint lines of equal F, as in BSDS figures."""
    recall = np.linspace(0.01, 1, 200)
    for f in (0.2, 0.4, 0.6, 0.8):
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = f * recall / (2 * recall - f)
        inside = (2 * recall > f) & (precision <= 1)
        axes.plot(recall[inside], precision[inside], color="0.85", lw=0.8, zorder=0)
        axes.annotate(f"F {f}", (0.985, f / (2 - f)), fontsize=7, color="0.6", ha="right", va="bottom")


def thicken(mask: np.ndarray) -> np.ndarray:
    """Thicken one-pixel lines so that they stay visible when scaled down; uint8 (H, W)."""
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
