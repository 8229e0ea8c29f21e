"""Colours of figures, and saving them without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")  # no window system is needed; every module that draws imports this one

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito
_DPI = 110


def save_figure(figure: plt.Figure, path: Path, **options: Any) -> None:
    """Save a figure with the options of ``savefig``, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, **options)
    plt.close(figure)
