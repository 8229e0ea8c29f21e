"""Mask values that mean crack according to the user: numbers or colours, and their colours in the files.

A number is a grey value; in masks of colours it is the palette's index or else the red channel. Since one number may
be two colours in two files, what it was is remembered and compared over the whole dataset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from crackseg.data.masks.stored import COLOUR, DEEP, RARE, StoredMask, count_levels
from crackseg.errors import CracksegError

CrackValue = int | str  # a number, or "#rrggbb"
FORMS = "a number, or a colour such as '#800000' or 128,0,0"
_LOSSY_GREY, _LOSSY_COLOUR = 16, 64  # how far lossy compression may have moved a value
_MIN_PIXELS, _MIN_FRACTION = 20, 0.01  # fewer pixels of a colour are the soft edge of another


def parse_crack_value(text: str) -> CrackValue:
    """Parse what was given for ``--crack-value``.

    Raises:
        CracksegError: neither a number from 0 to 65535 nor a colour.
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d+", text) and int(text) <= 65535:
        return int(text)
    if re.fullmatch(r"#[0-9a-f]{6}", text):
        return text
    channels = [int(part) for part in re.findall(r"\d+", text)]
    if re.fullmatch(r"\(?\s*\d+(\s*[,;]\s*\d+){2}\s*\)?", text) and max(channels) <= 255:
        return "#{:02x}{:02x}{:02x}".format(*channels)
    raise CracksegError(f"{text!r} is no mask value; expected {FORMS}")


def name_value(value: int) -> str:
    """Write a value as ``--crack-value`` takes it."""
    return f"#{value & 0xFFFFFF:06x}" if value & COLOUR else str(value & 0xFFFF)


@dataclass(slots=True)
class CrackValues:
    """Find the pixels of the user's values, and record their colours.

    Attributes:
        chosen: the numbers and colours that mean crack.
    """

    chosen: tuple[CrackValue, ...]
    _met: dict[CrackValue, dict[int, str]] = field(default_factory=dict)  # each colour that it was, and a file

    def find(self, mask: StoredMask, name: str) -> np.ndarray:
        """Find the pixels of these values; bool (H, W)."""
        crack_HW = np.zeros(mask.grey.shape, bool)
        for value in self.chosen:
            found_HW = _find_colour(mask, value) if isinstance(value, str) else _find_number(mask, value)
            if found_HW.any():
                self._remember(value, mask, found_HW, name)
                crack_HW |= found_HW
        return crack_HW

    def _remember(self, value: CrackValue, mask: StoredMask, found_HW: np.ndarray, name: str) -> None:
        met = self._met.setdefault(value, {})
        if isinstance(value, str) or not mask.exact or mask.default_crack_value is not None:
            return
        counts = count_levels(mask.coded.codes[found_HW], 256)
        for code in np.flatnonzero(counts >= max(_MIN_PIXELS, _MIN_FRACTION * counts.sum())):
            if (colour := int(mask.coded.values[code])) != RARE:
                met.setdefault(colour, name)

    def find_problems(self, seen: str) -> list[str]:
        """List the values that no mask has, and the numbers that were several colours.

        Args:
            seen: the values of all masks, for the message.
        """
        problems = [
            f"no mask has the crack value {v}; values seen: {seen}" for v in self.chosen if v not in self._met
        ]
        for value, met in self._met.items():
            if len(met) > 1:
                shown = ", ".join(f"{_as_hex(colour)} in {name}" for colour, name in list(met.items())[:4])
                problems.append(
                    f"the crack value {value} is several colours ({shown}): which are cracks? Say the colour instead, "
                    f"e.g. --crack-value '{_as_hex(next(iter(met)))}' (repeat it for more than one)"
                )
        return problems


def _find_number(mask: StoredMask, number: int) -> np.ndarray:
    found_HW: np.ndarray = mask.numbers == number
    if not mask.exact:
        return np.abs(mask.numbers.astype(np.int32) - number) <= _LOSSY_GREY
    if mask.indices is not None and not found_HW.any():
        return mask.indices == number  # a palette of greys without this grey
    return found_HW


def _find_colour(mask: StoredMask, colour: str) -> np.ndarray:
    channels = tuple(bytes.fromhex(colour[1:]))
    if mask.rgb is None:
        if len(set(channels)) > 1:
            return np.zeros(mask.grey.shape, bool)
        distance = np.abs(mask.grey.astype(np.int16) - channels[0])
        return distance <= (0 if mask.exact else _LOSSY_GREY)
    limit = 0 if mask.exact else _LOSSY_COLOUR
    found_HW = np.ones(mask.grey.shape, bool)
    for channel, wanted in enumerate(channels):
        found_HW &= np.abs(mask.rgb[..., channel].astype(np.int16) - wanted) <= limit
    return found_HW


def _as_hex(value: int) -> str:
    if value & COLOUR:
        return f"#{value & 0xFFFFFF:06x}"
    level = (value & 0xFFFF) >> 8 if value & DEEP else value
    return f"#{level:02x}{level:02x}{level:02x}"
