"""Figures of the study: one dot for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from crackseg.plotting import COLOURS, save_figure


def draw_losses(table: pd.DataFrame, path: Path, *, losses: Sequence[str], source: str) -> None:
    """Draw ODS over the losses, a panel for each system and its initial weights.

    Args:
        table: columns system, init, loss, ods; a row for each training run.
        losses: in the order to show.
    """
    panels = list(table.groupby(["system", "init"], sort=False))
    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.2 * len(panels), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, ((system, init), rows) in zip(grid[0], panels, strict=True):
        _draw_dots(axes, {loss: rows[rows["loss"] == loss]["ods"] for loss in losses})
        axes.set_title(f"{system}\nfrom {init}", fontsize=10)
    grid[0][0].set_ylabel("ODS (paper protocol)")
    figure.suptitle(f"About equal processor time, each dot a seed   ({source})", fontsize=11)
    save_figure(figure, path)


def _draw_dots(axes: Axes, groups: Mapping[str, pd.Series]) -> None:
    """Draw a column of dots with their mean for each group that has values."""
    names: list[str] = []
    for colour, (name, values) in zip(COLOURS, groups.items(), strict=False):
        if values.empty:
            continue
        place = len(names)
        names.append(name.replace("focal ", "focal\n").replace("_soft", "\n_soft"))
        axes.plot(np.full(len(values), place), values, "o", color=colour, ms=7, alpha=0.75, mec="white")
        axes.hlines(values.mean(), place - 0.28, place + 0.28, color=colour, lw=2.2)
        axes.annotate(f"{values.mean():.2f}", (place, values.max()), xytext=(0, 7),
                      textcoords="offset points", ha="center", fontsize=8.5)  # fmt: skip
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.05))
    axes.grid(axis="y", color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
