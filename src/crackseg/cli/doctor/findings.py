"""Result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: of the check, in a word or two.
        status: ``ok``; ``warning``: something will not work or is about to; ``failed``: `dvc repro` would stop.
        message: the result.
        advice: what to do; empty if nothing.
    """

    name: str
    status: Status
    message: str
    advice: str = ""
