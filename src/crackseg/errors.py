"""The error for what a user did, and wording that messages share."""

from __future__ import annotations

from collections.abc import Iterable


class CracksegError(ValueError):
    """A mistake in the input; the command line prints its message without a traceback."""


def first_line(error: BaseException, limit: int = 200) -> str:
    """Summarise an error in one line: the class where it says nothing, without what requests repeats at length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(" failed with exception")[0][:limit]


def join_some(names: Iterable[str], limit: int = 10) -> str:
    """Join names for a message, at most ``limit`` of them and the number of the rest."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def count_of(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
