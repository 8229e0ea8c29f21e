"""Figures of a comparison: PR curves of all runs, and the images where they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crackseg.evaluation.plots import draw_pr_curves, thicken


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image with the maps of all runs.

    Attributes:
        stem: its name.
        photograph: uint8 (H, W, 3), RGB.
        mask: uint8 (H, W) of {0, 1}.
        maps: of each run, float (H, W) stretched to [0, 1]; None where there is none.
        f: of each run, its best F on this image.
    """

    stem: str
    photograph: np.ndarray
    mask: np.ndarray
    maps: tuple[np.ndarray | None, ...]
    f: tuple[float, ...]


def draw_curves(curves: Mapping[str, pd.DataFrame | None], path: Path, *, dataset: str, source: str) -> None:
    """Draw the PR curves of all runs on a dataset; a run without one is named as missing."""
    shown = {label: pd.DataFrame() if curve is None else curve for label, curve in curves.items()}
    draw_pr_curves(shown, path, title=f"{dataset}: precision and recall", source=source)


def draw_images(rows: Sequence[ImageRow], labels: Sequence[str], path: Path, *, title: str) -> None:
    """Draw photograph, ground truth and each run's map side by side, a row for each image.

    Args:
        rows: at least one.
        labels: of the runs, in the order of the rows' maps.
        path: PNG to write.
        title: above all.
    """
    columns = 2 + len(labels)
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(2.6 * columns, 2.75 * len(rows) + 0.6), squeeze=False, layout="constrained"
    )
    for axes_of_row, row in zip(grid, rows, strict=True):
        axes_of_row[0].imshow(row.photograph)
        axes_of_row[0].set_ylabel(row.stem, fontsize=9)
        axes_of_row[1].imshow(thicken(row.mask), cmap="gray_r", vmin=0, vmax=1)
        for axes, crack_map, f in zip(axes_of_row[2:], row.maps, row.f, strict=True):
            if crack_map is None:
                axes.set_facecolor("0.92")
                axes.text(0.5, 0.5, "no map", transform=axes.transAxes, ha="center", color="0.4")
                axes.set_aspect(row.mask.shape[0] / row.mask.shape[1])
            else:
                axes.imshow(crack_map, cmap="jet", vmin=0, vmax=1)
            axes.set_xlabel(f"F {f:.3f}", fontsize=9)
        for axes in axes_of_row:
            axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[0], ("image", "truth", *labels), strict=True):
        axes.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
