"""Draw Tables 3 and 4 and Figures 3 and 4 in the paper's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crackseg.evaluation.plots import draw_panel_row, plot_pr_curves
from crackseg.experiments.paper.comparison import DATASETS, uses_sample
from crackseg.experiments.paper.configurations import PaperRow
from crackseg.experiments.paper.examples import Example
from crackseg.experiments.paper.table3 import (
    DEEPCRACK_TITLE,
    MISSING,
    SAMPLE_NOTE,
    SAMPLE_WARNING,
    describe_dataset,
    list_columns,
    make_notes,
    make_rows,
    name_configuration,
    name_loss,
    write_deepcrack_table,
)
from crackseg.experiments.paper.table4 import make_remarks, write_table4
from crackseg.plotting import save_figure

_LINE_IN = 0.165  # height of a line of text, in inches
_WARNING = "#C00000"
_BETTER, _WORSE = "#0072B2", "#D55E00"
_GREY = "0.45"


def draw_table3(table: pd.DataFrame, path: Path) -> None:
    """Draw Table 3, and DeepCrack's own table below it.

    Args:
        table: from :func:`crackseg.experiments.paper.comparison.compare_with_paper`.
        path: PNG to write.
    """
    columns = list_columns(table)
    marks, notes = make_notes(table)
    names = [name_loss(row) if row.init else name_configuration(row) for row in columns]
    heads = [f"{name} [{mark}]" if mark else name for name, mark in zip(names, marks, strict=True)]
    rows = {dataset: make_rows(table, dataset) for dataset in DATASETS}
    own = write_deepcrack_table()
    sample = uses_sample(table)
    note_lines = [
        line for note in notes for line in wrap(f"[{note[0]}]{note[1:]}", 190, subsequent_indent="      ")
    ]
    num_lines = sum(1.6 + sum(_count_lines(row.texts) for row in of_dataset) for of_dataset in rows.values())
    num_lines += (6.0 if sample else 4.6) + len(note_lines) + 4.5 + len(own)
    figure, axes = _open_page(13.8, num_lines)
    starts = np.array([1.75 + 1.26 * i for i in range(len(columns))])  # centres of the columns, in inches
    y = _write_title(axes, "Table 3: ours, the paper's, and the difference", sample=sample)
    for init, text in (("coco", "trained from pretrained weights"), ("random", "trained from random weights")):
        places = [x for x, row in zip(starts, columns, strict=True) if row.init == init]
        axes.text(np.mean(places), y + 0.5, f"DeepLabV3-ResNet101, {text}", ha="center", va="center", fontsize=9)
        axes.plot([places[0] - 0.55, places[-1] + 0.55], [y + 1.05] * 2, color="0.3", lw=0.8)
    for x, head in zip(starts, heads, strict=True):
        axes.text(x, y + 1.7, head, ha="center", va="center", fontsize=9)
    y += 2.4
    for dataset, of_dataset in rows.items():
        axes.axhspan(y, y + 1.3, color="0.9", lw=0)
        axes.text(0.05, y + 0.65, describe_dataset(table, dataset), va="center", fontsize=9.5, weight="bold")
        y += 1.3
        for row in of_dataset:
            height = _count_lines(row.texts)
            axes.text(0.05, y + height / 2, row.label, va="center", fontsize=8, color=_row_colour(row.kind))
            for x, text, bold in zip(starts, row.texts, row.bold, strict=True):
                colour = _text_colour(row.kind, text)
                weight = "bold" if bold else "normal"
                axes.text(
                    x, y + height / 2, text, ha="center", va="center", fontsize=8, color=colour, weight=weight,
                    linespacing=1.15, style="italic" if text == MISSING else "normal",
                )  # fmt: skip
            y += height
            if row.kind == "difference":
                axes.plot([0, 13.8], [y + 0.02] * 2, color="0.85", lw=0.6)
        y += 0.3
    for line in note_lines:
        axes.text(0.05, y + 0.5, line, va="center", fontsize=8)
        y += 1
    axes.text(0.05, y + 1.1, DEEPCRACK_TITLE, va="center", fontsize=9.5, weight="bold")
    _write_plain_table(axes, own, y + 2, widths=[1.35, *[1.2] * (own.shape[1] - 1)], stack_heads=True)
    save_figure(figure, path)


def draw_table4(table: pd.DataFrame, path: Path) -> None:
    """Draw Table 4.

    Args:
        table: from :func:`crackseg.experiments.paper.table4.make_table4`.
        path: PNG to write.
    """
    shown, remarks = write_table4(table), make_remarks(table)
    lines = [line for remark in remarks for line in wrap(remark, 165, subsequent_indent="    ")]
    widths = [max(0.3 + 0.074 * max(map(len, [name, *shown[name]])), 0.8) for name in shown]
    figure, axes = _open_page(max(sum(widths), 10.0), 4.2 + 1.15 * len(shown) + len(lines))
    y = _write_title(axes, "Table 4: time, ours and the paper's", sample=False)
    y = _write_plain_table(axes, shown, y, widths=widths, line=1.15)
    for i, line in enumerate(lines):
        axes.text(0.05, y + 0.8 + i, line, va="center", fontsize=8, color="0.25")
    save_figure(figure, path)


def draw_figure3(curves: Mapping[tuple[str, PaperRow], pd.DataFrame], table: pd.DataFrame, path: Path) -> None:
    """Draw Figure 3: precision over recall, each ODS point marked, for each dataset and training strategy.

    Args:
        curves: by dataset and configuration; a configuration without one is shown as missing.
        table: from :func:`crackseg.experiments.paper.comparison.compare_with_paper`.
        path: PNG to write.
    """
    figure, grid = plt.subplots(2, len(DATASETS), figsize=(18, 9.4), layout="constrained")
    for axes_row, init, name in zip(grid, ("coco", "random"), ("pretrained", "random"), strict=True):
        configurations = [row for row in list_columns(table) if row.init == init]
        for axes, dataset in zip(axes_row, DATASETS, strict=True):
            plot_pr_curves(
                axes, {name_loss(row): curves.get((dataset, row), pd.DataFrame()) for row in configurations}
            )
            axes.set_title(f"{describe_dataset(table, dataset)}\n{name} weights", fontsize=11)
    _write_suptitle(figure, "Figure 3: DeepLabV3-ResNet101, precision and recall; squares: ODS", table)
    save_figure(figure, path)


def draw_figure4(examples: Sequence[Example], table: pd.DataFrame, path: Path, *, name: str) -> None:
    """Draw Figure 4: image, ground truth, map in jet colours, and binary map at the ODS threshold.

    Args:
        examples: at least one.
        table: from :func:`crackseg.experiments.paper.comparison.compare_with_paper`.
        path: PNG to write.
        name: of the configuration that predicted them.
    """
    figure, grid = plt.subplots(
        len(examples), 4, figsize=(11, 2.8 * len(examples) + 0.9), squeeze=False, layout="constrained"
    )
    for axes_row, example in zip(grid, examples, strict=True):
        draw_panel_row(axes_row, example.image, example.mask, example.stretched, example.crack_mask)
        axes_row[0].set_ylabel(f"{example.dataset}\n{example.stem}", fontsize=9)
        axes_row[3].set_xlabel(f"at {example.threshold:.3f}", fontsize=9)
    for axes, title in zip(
        grid[0], ("image", "ground truth", "map (stretched)", "binary at the ODS threshold"), strict=True
    ):
        axes.set_title(title, fontsize=10)
    _write_suptitle(figure, f"Figure 4: {name}, each dataset's image of median F", table)
    save_figure(figure, path)


def _open_page(width_in: float, num_lines: float) -> tuple[Figure, Axes]:
    """Open a page with x in inches and y in lines from the top."""
    margin_in = 0.15
    height_in = num_lines * _LINE_IN
    figure = plt.figure(figsize=(width_in + 2 * margin_in, height_in + 2 * margin_in))
    axes = figure.add_axes(
        (
            margin_in / figure.get_figwidth(),
            margin_in / figure.get_figheight(),
            width_in / figure.get_figwidth(),
            height_in / figure.get_figheight(),
        )
    )
    axes.set(xlim=(0, width_in), ylim=(num_lines, 0))
    axes.axis("off")
    return figure, axes


def _write_title(axes: Axes, title: str, *, sample: bool) -> float:
    """Write the title and the warning below it; return the line below."""
    axes.text(0.05, 0.7, title, va="center", fontsize=12, weight="bold")
    if not sample:
        return 2.0
    axes.text(0.05, 2.2, f"{SAMPLE_WARNING}.", va="center", fontsize=10.5, weight="bold", color=_WARNING)
    return 3.4


def _write_suptitle(figure: Figure, title: str, table: pd.DataFrame) -> None:
    if uses_sample(table):
        figure.suptitle(f"{title}\n{SAMPLE_NOTE}", fontsize=12, color=_WARNING)
    else:
        figure.suptitle(title, fontsize=13)


def _write_plain_table(
    axes: Axes,
    table: pd.DataFrame,
    y: float,
    *,
    widths: Sequence[float],
    line: float = 1.0,
    stack_heads: bool = False,
) -> float:
    """Write a table of text, the first column aligned left; return the line below."""
    starts = np.concatenate([[0.05], np.cumsum(widths)[:-1]])
    head_lines = 2.2 if stack_heads else 1.4
    for column, (name, x, width) in enumerate(zip(table, starts, widths, strict=True)):
        centre, align = (x, "left") if column == 0 else (x + width / 2, "center")
        head = name.replace(" ", "\n", 1) if stack_heads else name
        axes.text(centre, y + head_lines / 2, head, ha=align, va="center", fontsize=8.5, color="0.25")
        for i, text in enumerate(table[name]):
            axes.text(centre, y + head_lines + line * (i + 0.55), text, ha=align, va="center", fontsize=8)
    axes.plot([0.05, starts[-1] + widths[-1]], [y + head_lines] * 2, color="0.3", lw=0.8)
    return y + head_lines + line * len(table)


def _count_lines(texts: Sequence[str]) -> float:
    return max(text.count("\n") + 1 for text in texts) + 0.15


def _row_colour(kind: str) -> str:
    return "black" if kind == "ours" else _GREY


def _text_colour(kind: str, text: str) -> str:
    if kind != "difference" or text == "–":
        return _GREY if kind != "ours" or text == MISSING else "black"
    return _BETTER if text.startswith("+") else _WORSE
