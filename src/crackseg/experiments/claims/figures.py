"""Figures of the study: one dot for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from crackseg.plotting import COLOURS, save_figure


def draw_losses(table: pd.DataFrame, path: Path, *, losses: Sequence[str], source: str) -> None:
    """Draw ODS over the losses, a panel for each system.

    Args:
        table: columns system, loss, ods; a row for each training run.
        losses: in the order to show.
    """
    systems = list(dict.fromkeys(table["system"]))
    figure, grid = plt.subplots(
        1, len(systems), figsize=(2.9 * len(systems), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, system in zip(grid[0], systems, strict=True):
        rows = table[table["system"] == system]
        _draw_dots(axes, [rows[rows["loss"] == loss]["ods"] for loss in losses], losses)
        axes.set_title(system.replace("_mobilenet_v3_large", "\nMobileNetV3"), fontsize=10)
    grid[0][0].set_ylabel("ODS (paper protocol)")
    figure.suptitle(f"Equal budgets, each dot a seed   ({source})", fontsize=11)
    save_figure(figure, path)


def draw_inits(table: pd.DataFrame, path: Path, *, source: str) -> None:
    """Draw ODS by initial weights, a panel for each loss.

    Args:
        table: columns loss, init, seed, ods; the seeds of a pair are joined by a line.
    """
    losses, inits = list(dict.fromkeys(table["loss"])), list(dict.fromkeys(table["init"]))
    figure, grid = plt.subplots(
        1, len(losses), figsize=(3.2 * len(losses), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, loss in zip(grid[0], losses, strict=True):
        rows = table[table["loss"] == loss].pivot_table(index="seed", columns="init", values="ods")[inits]
        for _, values in rows.iterrows():
            axes.plot(range(len(inits)), values, color="0.8", lw=1, zorder=0)
        _draw_dots(axes, [rows[init] for init in inits], inits)
        axes.set_title(loss, fontsize=10)
    grid[0][0].set_ylabel("ODS (paper protocol)")
    figure.suptitle(f"DeepLabV3+ on EfficientNet-Lite0\n{source}", fontsize=11)
    save_figure(figure, path)


def _draw_dots(axes: Axes, groups: Sequence[pd.Series], names: Sequence[str]) -> None:
    for place, values in enumerate(groups):
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(np.full(len(values), place), values, "o", color=colour, ms=7, alpha=0.75, mec="white")
        if len(values):
            axes.hlines(values.mean(), place - 0.28, place + 0.28, color=colour, lw=2.2)
            axes.annotate(f"{values.mean():.2f}", (place, values.max()), xytext=(0, 7),
                          textcoords="offset points", ha="center", fontsize=8.5)  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace("focal ", "focal\n") for name in names], fontsize=9)
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.05))
    axes.grid(axis="y", color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
