"""What a check of the doctor's says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what, in a word or two.
        status: ``ok``; ``warning``: something will not work or is about to; ``failed``: `dvc repro` stops on it.
        message: what was found.
        advice: what to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    message: str
    advice: str = ""
