"""The error for a user's mistake, and wording that messages have in common."""

from __future__ import annotations

from collections.abc import Iterable


class CracksegError(ValueError):
    """A mistake in the input; the command line prints its message without a traceback."""


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's text, or its class if the text is empty; without the details of requests."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(" failed with exception")[0][:limit]


def join_some(names: Iterable[str], limit: int = 10) -> str:
    """Join names for a message: at most ``limit``, then the number of the others."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def count_of(number: int, noun: str) -> str:
    """Format a number with its noun: ``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
