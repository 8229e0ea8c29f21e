"""Draw figures and tables of scores: PR curves, qualitative panels, score tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import FigureBase
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch

from crackseg.data.catalog import SAMPLE_SOURCE
from crackseg.data.images.files import read_image
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.files import format_markdown
from crackseg.params import PostprocessParams
from crackseg.plotting import COLOURS, save_figure
from crackseg.types import CrackSample

matplotlib.use("Agg")  # no screen needed; must come before pyplot

_SCORE_NAMES = {"paper": "paper", "symmetric": "symmetric", "strict": "strict", "centerline_iou": "clIoU"}
_OVERLAY_COLOURS = ("#000000", "#D55E00", "#8EC9F0")
_SHOWN_CASES = ("exact", "shifted 1 px", "shifted 3 px", "3 px thick", "5 px thick")
_SHOWN_CASES_BELOW = ("9 px thick", "half missing", "half missing, 5 px thick", "broken", "specks")


def describe_source(sources: Sequence[str]) -> str:
    """Describe the origin of the scores, so that the sample is not mistaken for the published datasets."""
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
                axes.plot(points["epoch"] + 1, points[key], ".-", color=colour, label=key, lw=1.4, ms=4)
        axes.set_xlabel("epoch")
        axes.set_title(" and ".join(keys), fontsize=10)
    left.legend(fontsize=9)
    middle.set_ylim(0, 1)
    right.set_yscale("log")
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path)


def format_score_table(scores: Mapping[str, Mapping], *, source: str) -> str:
    """Format ODS@P@R, OIS and AP of each dataset as a Markdown table, with the other protocols' ODS."""
    header = ["dataset", "images", "ODS", "@P", "@R", "OIS", "±", "AP", "symmetric ODS", "strict ODS", "clIoU"]
    rows = []
    for dataset, s in scores.items():
        values = [s["ods"], s["precision"], s["recall"], s["ois"], s["ois_std"], s["ap"]]
        values += [s["symmetric"]["ods"], s["strict"]["ods"], s["centerline_iou"]]
        rows.append([dataset, s["num_images"], *(f"{value:.4f}" for value in values)])
    return f"Scores on: {source}.\n\n" + format_markdown(header, rows, "l".ljust(len(header), "r"))


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
        picture.set_xlabel(f"{row['pieces_before']} pieces become {row['pieces_after']}", fontsize=10)
        _draw_score_bars(bars, row, named=bars is grid[1, 0])
    _add_overlay_legend(
        figure,
        ("resized ground truth, on the line", "resized ground truth, next to it", "line without ground truth"),
    )
    figure.suptitle(f"Resized truth, and the scores of an unbroken line in the right place\n{source}", fontsize=12)
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
            axes.set_title(f"{title}: {number} piece{'s' * (number != 1)}", fontsize=10)
        else:
            axes.imshow(values, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(title, fontsize=10)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_visible(bool(axes.images))
    figure.suptitle(f"What post-processing makes of a map; a colour for each piece\n{source}", fontsize=12)
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
    left.set(yscale="log", xlim=(0, 1), xlabel="threshold", ylabel="pieces on cracks for each true piece")
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
    right.set_xlabel("pieces for each true piece")
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
    import cv2

    num_labels, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    # Steps of the golden ratio around the colour circle: pieces that lie close, and so are close in number, differ.
    hues = np.arange(num_labels) * 0.618 % 1
    palette = hsv_to_rgb(np.stack([hues, np.full(num_labels, 0.9), np.full(num_labels, 0.75)], axis=1))
    palette[0] = 1
    return palette[pieces], num_labels - 1
