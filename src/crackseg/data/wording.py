"""Wording that messages about many files share."""

from __future__ import annotations

from collections.abc import Iterable


def join_some(names: Iterable[str], limit: int = 10) -> str:
    """Join names for a message, at most ``limit`` of them and the number of the rest."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def count_of(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
