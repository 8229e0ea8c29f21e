"""Options about the scale of photographs and about classes of cracks, of every command that measures them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.types import SURFACES

surface_option = click.option(
    "--surface",
    type=click.Choice(SURFACES),
    help="Width classes and names of networks. [default: measure.surface of params.yaml, or concrete]",
)
scale_error_option = click.option(
    "--scale-error-pct",
    type=FiniteRange(0, 100, max_open=True),
    help="Standard uncertainty of the scale, in percent.",
)


def scale_options(photographs: str = "photographs") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--mm-per-px`, `--scale` and `--scale-error-pct`; for ``choose_scale``.

    Args:
        photographs: whose scale it is, for the help.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = scale_error_option(command)
        command = click.option(
            "--scale",
            "points",
            metavar="x1,y1,x2,y2,MM",
            help=f"The scale, from two points of the {photographs} and their distance in mm.",
        )(command)
        return click.option(
            "--mm-per-px",
            type=float,
            help=f"Millimetres per pixel of the {photographs}, for values in mm.",
        )(command)

    return add
