"""Lines on the error stream while a command prints nothing, e.g. while it imports torch and MLflow."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any, TextIO, cast

import click

from crackseg.progress import current_step, is_quiet

_FIRST_S, _AGAIN_S = 0.9, 5.0
_POLL_S = 0.1
_MOST_CHARACTERS = 160


class Watched:
    """A text stream that notes when it was written to.

    Args:
        stream: gets what is written.
    """

    def __init__(self, stream: TextIO | Any) -> None:
        self.stream = stream
        self.written_at: float | None = None

    def write(self, text: str) -> int:
        """Write and note the time."""
        self.written_at = time.monotonic()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self.stream, name)


def end_silence(command: click.Command, *, only_at_start: bool = False) -> None:
    """Print what a command does if it prints nothing for 0.9 s, and its present step after each 5 s of silence.

    Nothing is watched with `--quiet`, or where the streams are replaced, e.g. in a test.

    Args:
        command: the one that runs.
        only_at_start: stop at its first output.
    """
    if is_quiet() or sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return
    name, purpose = str(command.name), command.get_short_help_str(limit=_MOST_CHARACTERS)
    out, err = Watched(sys.stdout), Watched(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(err)
    threading.Thread(
        target=_watch, args=(name, purpose, out, err, only_at_start), name="end-silence", daemon=True
    ).start()


def _is_bar_open() -> bool:
    """Return True while a progress bar shows that the command works; in a log it writes only every 10 seconds."""
    bars = getattr(sys.modules.get("tqdm.std"), "tqdm", None)  # absent while another thread imports the module
    return len(getattr(bars, "_instances", ())) > 0


def _watch(name: str, purpose: str, out: Watched, err: Watched, only_at_start: bool) -> None:
    started = said = time.monotonic()
    wait_s = _FIRST_S
    while True:
        time.sleep(_POLL_S)
        written = max((t for t in (out.written_at, err.written_at) if t is not None), default=None)
        if written is not None and written > said:
            if only_at_start:
                return
            said, wait_s = written, _AGAIN_S
        if time.monotonic() - said < wait_s or _is_bar_open():
            continue
        line = (
            f"{name}: {purpose}"
            if wait_s == _FIRST_S
            else f"{name}: {current_step()}, {time.monotonic() - started:.0f} s"
        )
        try:
            err.stream.write(f"{line}\n")
            err.stream.flush()
        except (OSError, ValueError):  # the stream is closed: the command has ended
            return
        said, wait_s = time.monotonic(), _AGAIN_S
