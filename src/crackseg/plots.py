"""Figures and tables for people: PR curves, qualitative panels, score tables. Reads files only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed; must come before pyplot

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from crackseg.data.catalog import SAMPLE_SOURCE
from crackseg.data.image_io import read_image, read_mask, read_probability_map
from crackseg.params import PostprocessParams
from crackseg.postprocessing import postprocess_map
from crackseg.records import CrackSample

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito
_DPI = 110


def describe_source(sources: Sequence[str]) -> str:
    """Say where numbers come from, so that nobody mistakes the sample for the real data."""
    kinds = set(sources)
    if kinds == {SAMPLE_SOURCE}:
        return "embedded synthetic sample, not the published datasets"
    return "imported data" if SAMPLE_SOURCE not in kinds else "partly the embedded synthetic sample"


def draw_pr_curves(curves: Mapping[str, pd.DataFrame], path: Path, *, title: str, source: str) -> None:
    """Draw one or several PR curves (paper protocol) into one figure, each ODS point marked (cf. Figure 3).

    Args:
        curves: by label; columns precision, recall and f, from the lowest threshold to the highest.
        path: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    _draw_iso_f(axes)
    for i, (label, curve) in enumerate(curves.items()):
        shown = curve[(curve["precision"] > 0) | (curve["recall"] > 0)]
        best = curve.loc[curve["f"].idxmax()]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot(shown["recall"], shown["precision"], color=colour, lw=1.8, label=f"{label}  ODS {best['f']:.3f}")
        axes.plot(best["recall"], best["precision"], "s", color=colour, ms=8, mec="white")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="recall", ylabel="precision")
    axes.set_title(f"{title}\n", fontsize=12)
    axes.text(0.5, 1.015, source, transform=axes.transAxes, ha="center", fontsize=8.5, color="0.35")
    axes.legend(loc="lower left", fontsize=9, framealpha=0.95)
    _save(figure, path)


def draw_panels(
    samples: Sequence[CrackSample],
    predictions_dir: Path,
    threshold: float,
    path: Path,
    *,
    postprocessing: PostprocessParams,
    title: str,
) -> None:
    """Draw image, truth, probability and binary map side by side, a row for each sample (the paper's Figure 4).

    Args:
        threshold: the dataset's ODS threshold, on maps stretched to their minimum and maximum.
        postprocessing: what was done to the maps before they were scored; the binary map shows it.
    """
    columns = ("image", "truth", "crack probability (stretched)", f"binary at {threshold:.3f} (ODS)")
    figure, grid = plt.subplots(
        len(samples), 4, figsize=(11, 2.85 * len(samples) + 0.6), squeeze=False, layout="constrained"
    )
    for row, sample in zip(grid, samples, strict=True):
        prob = read_probability_map(predictions_dir / f"{sample.stem}.png")
        span = float(np.ptp(prob))
        stretched = (prob - prob.min()) / span if span > 0 else np.zeros_like(prob)
        row[0].imshow(read_image(sample.image_path))
        # One-pixel lines vanish when a figure is scaled down; drawn dark on white and a pixel thicker they stay.
        row[1].imshow(_thicken(read_mask(sample.mask_path)), cmap="gray_r", vmin=0, vmax=1)
        row[2].imshow(stretched, cmap="jet", vmin=0, vmax=1)
        processed = postprocess_map(stretched, **postprocessing.model_dump())
        row[3].imshow(_thicken(processed >= threshold), cmap="gray_r", vmin=0, vmax=1)
        row[0].set_ylabel(sample.stem, fontsize=9)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=12)
    _save(figure, path)


def draw_history(history: pd.DataFrame, path: Path, *, title: str) -> None:
    """Draw losses, validation ODS and learning rate over the epochs."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axes, keys in ((left, ("train/loss", "val/loss")), (middle, ("val/ods",)), (right, ("lr",))):
        for key, colour in zip(keys, _COLOURS, strict=False):
            points = history[["epoch", key]].dropna() if key in history else history[["epoch"]].iloc[:0]
            if len(points):
                axes.plot(points["epoch"] + 1, points[key], ".-", color=colour, label=key, lw=1.4, ms=4)
        axes.set_xlabel("epoch")
        axes.set_title(" and ".join(keys), fontsize=10)
    left.legend(fontsize=9)
    middle.set_ylim(0, 1)
    right.set_yscale("log")
    figure.suptitle(title, fontsize=12)
    _save(figure, path)


def format_score_table(scores: Mapping[str, Mapping], *, source: str) -> str:
    """Write ODS@P@R, OIS and AP of each dataset as a Markdown table, the other protocols' ODS beside them."""
    lines = [
        f"Scores on: {source}.",
        "",
        "| dataset | images | ODS | @P | @R | OIS | ± | AP | symmetric ODS | strict ODS | clIoU |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for dataset, s in scores.items():
        figures = [s["ods"], s["precision"], s["recall"], s["ois"], s["ois_std"], s["ap"]]
        figures += [s["symmetric"]["ods"], s["strict"]["ods"], s["centerline_iou"]]
        cells = " | ".join(f"{figure:.4f}" for figure in figures)
        lines.append(f"| {dataset} | {s['num_images']} | {cells} |")
    return "\n".join(lines) + "\n"


def _draw_iso_f(axes: Axes) -> None:
    """Faint lines of equal F, as BSDS figures have them."""
    recall = np.linspace(0.01, 1, 200)
    for f in (0.2, 0.4, 0.6, 0.8):
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = f * recall / (2 * recall - f)
        inside = (2 * recall > f) & (precision <= 1)
        axes.plot(recall[inside], precision[inside], color="0.85", lw=0.8, zorder=0)
        axes.annotate(f"F {f}", (0.985, f / (2 - f)), fontsize=7, color="0.6", ha="right", va="bottom")


def _thicken(mask: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((2, 2), np.uint8))


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
