"""Draw the figures of `crackseg explain-scores` and `crackseg compare-postprocessing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import FigureBase
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch

from crackseg.errors import count_of
from crackseg.plotting import COLOURS, save_figure

_SCORE_NAMES = {"paper": "paper", "symmetric": "symmetric", "strict": "strict", "centerline_iou": "clIoU"}
_OVERLAY_COLOURS = ("#000000", "#D55E00", "#8EC9F0")
_SHOWN_CASES = ("exact", "shifted 1 px", "shifted 3 px", "3 px thick", "5 px thick")
_SHOWN_CASES_BELOW = ("9 px thick", "half missing", "half missing, 5 px thick", "broken", "specks")


def draw_weak_points(
    cases: pd.DataFrame,
    examples: Mapping[str, tuple[np.ndarray, np.ndarray]],
    series: Mapping[str, Mapping[int, str]],
    path: Path,
    *,
    source: str,
) -> None:
    """Draw predictions with a known fault, their scores, and the scores over the size of the fault.

    Args:
        cases: scores by ``case`` (:func:`crackseg.experiments.metric_faults.score_cases`).
        examples: by case, a detail of the prediction and of its ground truth; bool (H, W).
        series: by axis label, cases by their measure.
        path: PNG to write.
        source: what the masks are.
    """
    table = cases.set_index("case")
    figure = plt.figure(figsize=(12, 10.4), layout="constrained")
    parts = GridSpec(2, 1, figure, height_ratios=(2.8, 1))
    upper, lower = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    grid = upper.subplots(4, 5, height_ratios=(2.6, 1, 2.6, 1))
    for rows, shown in ((grid[:2], _SHOWN_CASES), (grid[2:], _SHOWN_CASES_BELOW)):
        for (picture, bars), case in zip(rows.T, shown, strict=True):
            _draw_overlay(picture, *examples[case])
            picture.set_title(case, fontsize=11)
            _draw_score_bars(bars, table.loc[case], named=bars is rows[1, 0])
    _add_overlay_legend(upper, ("crack, predicted", "crack, missed", "predicted, no crack"))
    for axes, (label, names) in zip(np.ravel(lower.subplots(1, len(series))), series.items(), strict=True):
        for i, (score, name) in enumerate(_SCORE_NAMES.items()):
            values = table.loc[list(names.values()), score]
            # The first one broad, since `paper` and `symmetric` are often equal.
            style = {"color": COLOURS[i], "marker": "osD^"[i], "lw": 1.8 if i else 5}
            axes.plot(list(names), values, label=name, **style)
        axes.set(ylim=(0, 1.05), xlabel=label, xticks=list(names))
        axes.grid(color="0.92")
    axes.legend(fontsize=9, loc="lower left")
    figure.suptitle(f"Predictions with a known fault, and what each score says of them\n{source}", fontsize=12)
    save_figure(figure, path)


def draw_resizing(
    resizing: pd.DataFrame, examples: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path, *, source: str
) -> None:
    """Draw the effect of resizing on ground truth, and the scores of an unbroken line in the right place.

    Args:
        resizing: from :func:`crackseg.experiments.metric_faults.measure_resizing`, not empty.
        examples: by ``resizing``, a detail of that line and of the resized ground truth; bool (H, W).
        path: PNG to write.
        source: what the masks are.
    """
    figure, grid = plt.subplots(2, len(resizing), figsize=(10, 5.8), height_ratios=(3, 1), layout="constrained")
    for (picture, bars), (_, row) in zip(grid.T, resizing.iterrows(), strict=True):
        _draw_overlay(picture, *examples[row["resizing"]])
        picture.set_title(f"{row['resizing']}: {row['kept']:.0%} of the line's pixels", fontsize=11)
        picture.set_xlabel(f"{row['pieces_before']} components become {row['pieces_after']}", fontsize=10)
        _draw_score_bars(bars, row, named=bars is grid[1, 0])
    _add_overlay_legend(
        figure,
        ("resized ground truth, on the line", "resized ground truth, next to it", "line without ground truth"),
    )
    figure.suptitle(
        f"Resized ground truth, and the scores of an unbroken line in the right place\n{source}", fontsize=12
    )
    save_figure(figure, path)


def draw_postprocessing(examples: Mapping[str, np.ndarray], path: Path, *, source: str) -> None:
    """Draw a detail after each post-processing method, each connected component in its own colour.

    Args:
        examples: by title, maps of float (H, W) in [0, 1] and crack masks of bool (H, W).
        path: PNG to write.
        source: what the maps are.
    """
    num_columns = 5
    num_rows = -(-len(examples) // num_columns)
    figure, grid = plt.subplots(
        num_rows, num_columns, figsize=(13, 2.85 * num_rows + 0.6), squeeze=False, layout="constrained"
    )
    for axes, (title, values) in zip(grid.flat, examples.items(), strict=False):
        if values.dtype == bool:
            picture, number = _colour_pieces(values)
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(f"{title}: {count_of(number, 'component')}", fontsize=10)
        else:
            axes.imshow(values, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(title, fontsize=10)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_visible(bool(axes.images))
    figure.suptitle(
        f"A map after each post-processing method; a colour for each connected component\n{source}", fontsize=12
    )
    save_figure(figure, path)


def draw_continuity(table: pd.DataFrame, continuity: pd.DataFrame, path: Path, *, source: str) -> None:
    """Draw the continuity: over the threshold, and at each method's best threshold.

    Args:
        table, continuity: of :func:`crackseg.experiments.postprocessing_ablation.compare_methods`.
        path: PNG to write.
        source: what the maps are.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(1.15, 1), layout="constrained")
    colours = dict(zip(table["method"].unique(), COLOURS, strict=False))
    on_cracks = table["pieces_on_cracks"] / table["truth_pieces"]
    names = [
        method + (f", from {length} px" if length > 1 else "")
        for method, length in zip(table["method"], table["min_length_px"], strict=True)
    ]
    for i, row in table.iterrows():
        steps = continuity[
            (continuity["method"] == row["method"]) & (continuity["min_length_px"] == row["min_length_px"])
        ]
        steps = steps[steps["continuity_on_cracks"] > 0]
        style = {"color": colours[row["method"]], "ls": ":" if row["min_length_px"] > 1 else "-"}
        left.plot(steps["threshold"], steps["continuity_on_cracks"], label=names[i], **style)
        left.plot(row["threshold"], on_cracks[i], "s", color=style["color"], mec="white", ms=8, zorder=3)
    left.axhline(1, color="0.5", lw=0.8, zorder=0)
    left.set(yscale="log", xlim=(0, 1), xlabel="threshold", ylabel="components on cracks for each true component")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_title("over the threshold; squares: best symmetric F", fontsize=10)
    left.legend(fontsize=8, ncols=2)

    places = np.arange(len(table))
    right.barh(places, on_cracks, color="#0072B2", label="on cracks")
    bars = right.barh(places, table["continuity"] - on_cracks, left=on_cracks, color="#D55E00", label="elsewhere")
    right.bar_label(bars, [f"{value:.1f}" for value in table["continuity"]], fontsize=9, padding=3)
    right.set_yticks(places, names, fontsize=9)
    right.axvline(1, color="0.5", lw=0.8)
    right.invert_yaxis()
    right.margins(x=0.12)
    right.set_xlabel("components for each true component")
    right.set_title("at the threshold of the best symmetric F", fontsize=10)
    right.legend(fontsize=9)
    figure.suptitle(
        f"Continuity: components in the prediction for each component of the ground truth\n{source}", fontsize=12
    )
    save_figure(figure, path)


def _draw_overlay(axes: Axes, crack_mask: np.ndarray, mask: np.ndarray) -> None:
    """Draw found, missed and false pixels on white."""
    picture = np.ones((*mask.shape, 3))
    for pixels, colour in zip(
        (mask & crack_mask, mask & ~crack_mask, crack_mask & ~mask), _OVERLAY_COLOURS, strict=True
    ):
        picture[pixels] = to_rgb(colour)
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _draw_score_bars(axes: Axes, scores: pd.Series, *, named: bool) -> None:
    values = [float(scores[score]) for score in _SCORE_NAMES]
    bars = axes.barh(range(len(values)), values, color=COLOURS[: len(values)], height=0.75)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=9, padding=2)
    axes.set_yticks(range(len(values)), list(_SCORE_NAMES.values()) if named else [""] * len(values), fontsize=9)
    axes.set(xlim=(0, 1.22), xticks=[])
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _add_overlay_legend(figure: FigureBase, names: Sequence[str]) -> None:
    marks = [Patch(color=colour) for colour in _OVERLAY_COLOURS]
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), fontsize=10, frameon=False)


def _colour_pieces(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Colour each 8-connected component on white: RGB (H, W, 3) in [0, 1], and their number."""
    num_labels, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    # Steps of the golden ratio around the colour circle: components that lie close, and so are close in number, differ.
    hues = np.arange(num_labels) * 0.618 % 1
    palette = hsv_to_rgb(np.stack([hues, np.full(num_labels, 0.9), np.full(num_labels, 0.75)], axis=1))
    palette[0] = 1
    return palette[pieces], num_labels - 1
