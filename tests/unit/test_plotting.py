"""Figures are drawn without a window system, whatever the user's settings name."""

import os
import subprocess
import sys


def test_figures_are_drawn_without_a_window_system() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import crackseg.plotting, matplotlib; print(matplotlib.get_backend())"],
        env=os.environ | {"MPLBACKEND": "svg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip().lower() == "agg"
