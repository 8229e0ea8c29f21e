"""Progress of long loops: a bar on a terminal, a line every 10 seconds in a log, nothing with `--quiet`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm as Bar

_Item = TypeVar("_Item")

QUIET = "CRACKSEG_QUIET"  # an environment variable, so that processes which a command starts are as quiet as it is
_LOG_EVERY_S = 10
_LOG_AFTER_S = 4
_step = ""  # what the command does at this moment


def progress(
    iterable: Iterable[_Item] | None,
    description: str,
    unit: str,
    *,
    total: int | None = None,
    initial: int = 0,
    show: bool = True,
) -> Bar[_Item]:
    """Show the progress of a loop on standard error.

    If standard error is no terminal, the first line is written after 4 seconds, and one every 10 seconds from then on.
    tqdm's own variable ``TQDM_DISABLE`` hides the bar too.

    Args:
        iterable: of the loop; None: the caller calls ``update``.
        description: of the work, e.g. ``predict``.
        unit: of one step, e.g. ``image``.
        total: number of steps; None: the length of ``iterable``.
        initial: steps that are done already.
        show: False if another process shows it.
    """
    from tqdm import tqdm  # reads TQDM_DISABLE when it is imported

    options: dict[str, Any] = {} if sys.stderr.isatty() else {"mininterval": _LOG_EVERY_S, "delay": _LOG_AFTER_S}
    if is_quiet() or not show:
        options["disable"] = True  # False would override TQDM_DISABLE, by which workers of a search show no bars
    return tqdm(iterable, description, total, unit=unit, initial=initial, **options)


def name_step(description: str) -> None:
    """Name what the command does from now on, for the lines that end its silence: ``draw the figures``."""
    global _step
    _step = description


def current_step() -> str:
    """Return what the command does at this moment; "working" before the first step is named."""
    return _step or "working"


def hide_bars_of_libraries() -> None:
    """Hide the progress bars of libraries; to be called before they are imported."""
    os.environ |= {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "TQDM_DISABLE": "1",
    }
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)


def write(line: str, file: TextIO) -> None:
    """Print a line above the bars, also with `--quiet`."""
    from tqdm import tqdm

    tqdm.write(line, file=file)


def is_quiet() -> bool:
    """Return True if this command, or the one that started it, was given `--quiet`."""
    return os.environ.get(QUIET, "0") not in ("", "0")
