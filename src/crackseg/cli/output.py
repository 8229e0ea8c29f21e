"""Output of every command: `-q`, `-v`, colours, progress bars and the elapsed time."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence

import click

from crackseg.progress import QUIET, hide_bars_of_libraries

VERBOSE = "CRACKSEG_VERBOSE"  # for the stages that DVC starts, like QUIET
_WORTH_SAYING_S = 2.0
_STARTED = time.monotonic()  # of the process, within its first tenths of a second


def set_up_output(context: click.Context, *, quiet: bool, verbose: bool) -> None:
    """Set how much the command of ``context`` prints besides its result.

    Raises:
        click.UsageError: both are asked for.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other; give one of them")
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.getLogger("crackseg").setLevel(level)
    for variable, wanted in ((QUIET, quiet), (VERBOSE, verbose)):
        if wanted:
            os.environ[variable] = "1"
        else:
            os.environ.pop(variable, None)
    if os.environ.get(
        "NO_COLOR"
    ):  # https://no-color.org; click itself leaves colours out where no terminal shows them
        context.color = False
    if quiet:
        hide_bars_of_libraries()
    elif verbose or sys.stderr.isatty():
        context.call_on_close(lambda: _say_time(elapsed_s(), always=verbose))


def elapsed_s() -> float:
    """Return the seconds since the command started."""
    return time.monotonic() - _STARTED


def warn(*sentences: str) -> None:
    """Print warnings of a model or a result to the error stream, also with `-q`; skip empty ones."""
    for sentence in filter(None, sentences):
        click.secho(f"WARNING: {sentence}", fg="yellow", bold=True, err=True)


def format_table(rows: Sequence[Sequence[object]]) -> str:
    """Align the cells of rows in columns; the first row is the header."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _say_time(seconds: float, *, always: bool) -> None:
    if always or seconds > _WORTH_SAYING_S:
        minutes, rest = divmod(round(seconds), 60)
        click.echo(f"took {minutes} min {rest} s" if minutes else f"took {seconds:.1f} s", err=True)
