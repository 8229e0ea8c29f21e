"""The picture of the rows: how many times better than the peer, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.measure import Row

_REACHED, _MISSED, _SHOWN = "#2a7f62", "#c0562b", "#7a8791"


def draw(rows: Sequence[Row], hardware: str, path: Path) -> None:
    """Write a PNG: a bar for each row, a tick where its target lies."""
    shown = [row for row in rows if not row.name.startswith("growth-")]
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(shown) + 1.1), layout="constrained")
    for place, row in enumerate(reversed(shown)):
        colour = _SHOWN if row.target is None else _REACHED if row.ratio >= row.target else _MISSED
        axes.barh(place, row.ratio - 1, left=1, color=colour, height=0.62)
        if row.target is not None:
            axes.plot([row.target] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.6)
        at_end = row.ratio >= 1
        where = max(row.ratio, row.target or 0) if at_end else row.ratio  # beside the tick, not under it
        axes.annotate(
            f"{row.ratio:.3g}×", (where, place), xytext=(4 if at_end else -4, 0), textcoords="offset points",
            ha="left" if at_end else "right", va="center", fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.16, y=0.02)
    axes.set_yticks(range(len(shown)), [f"{r.name}  ({r.peer_name})" for r in reversed(shown)], fontsize=8)
    figure.supxlabel(f"times faster or smaller than the peer; black: asked for\n{hardware}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
