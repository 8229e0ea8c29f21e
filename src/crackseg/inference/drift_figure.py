"""Figure of drift: new photographs compared with those that the model was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from crackseg.inference.detector import ReferenceStatistics
from crackseg.inference.drift import FigureDrift
from crackseg.plotting import COLOURS, save_figure


def draw_drift(
    reference: ReferenceStatistics,
    figures: Sequence[Mapping[str, float]],
    drifts: Sequence[FigureDrift],
    path: Path,
    *,
    title: str,
) -> None:
    """Draw the cumulative distribution of each value, reference and new, with KS and PSI.

    Args:
        reference: the model's.
        figures: values of each new photograph, by name.
        drifts: result of :func:`crackseg.inference.drift.compare` for the two.
        path: PNG to write.
    """
    figure, row = plt.subplots(
        1, len(drifts), figsize=(3.1 * len(drifts), 3.5), layout="constrained", squeeze=False
    )
    for axes, drift in zip(row[0], drifts, strict=True):
        new = np.array([f[drift.figure] for f in figures])
        for values, label, colour in (
            (np.array(getattr(reference, drift.figure)), "the model's own", COLOURS[0]),
            (new, "new", COLOURS[1]),
        ):
            axes.ecdf(values, label=f"{label} ({len(values)})", color=colour, lw=1.8)
        verdict = {True: "drift", False: "no drift", None: "too few to judge"}[drift.drifted]
        axes.set_title(f"{drift.figure}: {verdict}\nKS {drift.ks:.2f}, PSI {drift.psi:.2f}", fontsize=10)
        axes.legend(fontsize=8, loc="lower right")
        axes.tick_params(labelsize=8)
    row[0][0].set_ylabel("fraction of photographs up to here", fontsize=9)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
