"""How much every command says: `-q`, `-v`, colours, progress bars, and the time that it took."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

import click

QUIET, VERBOSE = "CRACKSEG_QUIET", "CRACKSEG_VERBOSE"  # for the stages that DVC starts
_WORTH_SAYING_S = 2.0


def set_up_output(context: click.Context, *, quiet: bool, verbose: bool) -> None:
    """Set what the command below ``context`` says besides its result.

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
    if os.environ.get("NO_COLOR"):  # https://no-color.org; click itself leaves colours out where nobody looks
        context.color = False
    if quiet:
        _hide_bars()
    elif verbose or sys.stderr.isatty():
        started = time.monotonic()
        context.call_on_close(lambda: _say_time(time.monotonic() - started, always=verbose))


def warn(*sentences: str) -> None:
    """Print warnings of a model or a result to the error stream, loudly, and also with `-q`; "" says nothing."""
    for sentence in filter(None, sentences):
        click.secho(f"WARNING: {sentence}", fg="yellow", bold=True, err=True)


def _hide_bars() -> None:
    """Hide the progress bars of all modules, and of libraries; tqdm's own TQDM_DISABLE yields to arguments."""
    from tqdm import tqdm

    show = tqdm.__init__

    def hide(self: tqdm, *arguments: Any, **options: Any) -> None:
        show(self, *arguments, **options | {"disable": True})

    tqdm.__init__ = hide


def _say_time(seconds: float, *, always: bool) -> None:
    if always or seconds > _WORTH_SAYING_S:
        minutes, rest = divmod(round(seconds), 60)
        click.echo(f"took {minutes} min {rest} s" if minutes else f"took {seconds:.1f} s", err=True)
