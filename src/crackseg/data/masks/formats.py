"""Read ground truth of any format as {0, 1}; an error if its values do not tell what a crack is.

Masks are read one after the other; what their values mean is judged over the whole dataset, for imports, scores and
measurements alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from crackseg.data.masks.crack_values import CrackValue, CrackValues, name_value
from crackseg.data.masks.kinds import PixelKinds
from crackseg.data.masks.stored import COLOUR, RARE, StoredMask, count_levels, read_stored_mask
from crackseg.errors import count_of, join_some

_MOSTLY_CRACK = 0.6  # more crack than this: black on white, or regions of interest
_THIN_PART = 12  # lines are thinner than this part of the shorter side
_MAX_VALUES = 4096  # different values that are counted; photographs have more
_MAX_LISTED = 10_000  # names that are kept


@dataclass(slots=True)
class MaskReader:
    """Read a dataset's ground truth and find the meaning of its values.

    Attributes:
        crack_values: the numbers or colours that mean crack, or None: 1 in masks of {0, 1}, 2 in CrackForest's
            ``.mat``, otherwise what is over 127 in the brightest channel.
        may_fill: the masks may be white all over, as regions of interest and predictions are.
    """

    crack_values: tuple[CrackValue, ...] | None = None
    may_fill: bool = False
    _chosen: CrackValues | None = None
    _kinds: PixelKinds = field(default_factory=PixelKinds)
    _counts: dict[int, int] = field(default_factory=dict)  # pixels of each value, all masks
    _dark: dict[int, int] = field(default_factory=dict)  # the same of masks in which nothing is over 127
    _num_masks: int = 0
    _by_rule: dict[str, str] = field(default_factory=dict)  # a mask for each rule that found cracks
    _fractions: list[float] = field(default_factory=list)
    _lossy: list[str] = field(default_factory=list)
    _photographs: list[str] = field(default_factory=list)
    _mostly_crack: list[str] = field(default_factory=list)
    _inverted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chosen = CrackValues(self.crack_values) if self.crack_values is not None else None

    def read(self, path: Path) -> np.ndarray:
        """Read one ground truth: an image of any kind, or ``.mat``.

        Returns:
            uint8 (H, W) of {0, 1}.
        Raises:
            CracksegError: it cannot be read.
        """
        return self.take(read_stored_mask(path), path.name)

    def take(self, mask: StoredMask, name: str) -> np.ndarray:
        """Take in a ground truth that was read already, as :meth:`read` does."""
        counts = count_levels(mask.coded.codes, 256)
        self._num_masks += 1
        self._count(self._counts, mask, counts)
        if not mask.exact:
            _list(self._lossy, name)
        if self._chosen is not None:
            return self._chosen.find(mask, name).astype(np.uint8)
        if mask.default_crack_value is not None:
            rule, crack_HW = "format", mask.numbers == mask.default_crack_value
        elif mask.exact and mask.rgb is None and mask.numbers.max(initial=0) <= 1:
            rule, crack_HW = "one", mask.numbers == 1
        else:
            rule, crack_HW = "bright", mask.grey > 127
        if mask.default_crack_value is None:
            self._judge(mask, counts, crack_HW, name)
        fraction = float(crack_HW.mean())
        if fraction > 0:
            self._by_rule.setdefault("16 bits, to 255" if rule == "bright" and mask.deep is False else rule, name)
            if mask.deep:
                self._by_rule.setdefault("16 bits", name)
            self._fractions.append(fraction)
        if fraction > _MOSTLY_CRACK:
            _list(self._inverted if _is_line_drawing(~crack_HW) else self._mostly_crack, name)
        return crack_HW.astype(np.uint8)

    def _judge(self, mask: StoredMask, counts: np.ndarray, crack_HW: np.ndarray, name: str) -> None:
        self._kinds.add(mask, counts)
        if _looks_like_photograph(mask, counts):
            _list(self._photographs, name)
        if not crack_HW.any() and (mask.exact or mask.grey.max(initial=0) >= 32):
            self._count(self._dark, mask, counts)

    def _count(self, into: dict[int, int], mask: StoredMask, counts: np.ndarray) -> None:
        for code in np.flatnonzero(counts):
            value = int(mask.coded.values[code])
            if value in into or len(into) < _MAX_VALUES:
                into[value] = into.get(value, 0) + int(counts[code])

    def find_problems(self) -> list[str]:
        """List reasons not to trust the masks read so far; empty if there are none."""
        if self._chosen is not None:
            nothing_drawn = self._counts.keys() <= {0}
            return [] if nothing_drawn else self._chosen.find_problems(self.describe_values())
        if self._photographs and not self.may_fill:
            return [
                f"the ground truth looks like photographs ({join_some(self._photographs)}): most of its pixels are "
                "neither dark nor light"
            ]
        kinds = self._kinds.find()
        if len(kinds) > 1:
            return [self._refuse_kinds(kinds)]
        if {"one", "bright"} <= self._by_rule.keys():
            return [
                f"in some masks 1 is the highest value ({self._by_rule['one']}), in others there is one over 127 "
                f"({self._by_rule['bright']}); values seen: {self.describe_values()}. Say which mean crack, e.g. "
                "--crack-value 1 --crack-value 255"
            ]
        if {"16 bits", "16 bits, to 255"} <= self._by_rule.keys():
            return [
                "the highest value of some 16-bit masks is 255 at most "
                f"({self._by_rule['16 bits, to 255']}), of others more ({self._by_rule['16 bits']}); values seen: "
                f"{self.describe_values()}. Say which mean crack, with --crack-value"
            ]
        dark = {value: count for value, count in self._dark.items() if value not in (0, RARE)}
        if dark and not self._fractions:
            return [
                f"no mask has a value over 127, so none would have a crack; values seen: {self.describe_values()}. "
                f"Say which means crack, e.g. {_option(max(dark, key=lambda value: dark[value]))}"
            ]
        return [] if self.may_fill else self._find_inverted()

    def _refuse_kinds(self, kinds: list[int]) -> str:
        colours = "the masks hold several colours"
        what = colours if any(kind & COLOUR for kind in kinds) else "the masks hold several kinds of pixels"
        shown = join_some(map(name_value, kinds))
        if self.may_fill:
            return f"{what} ({shown}); expected white on black of a region of interest or a prediction"
        return (
            f"{what} ({shown}): which are cracks? Values seen: {self.describe_values()}. Say it, e.g. "
            f"{_option(kinds[-1])} (repeat it for more than one)"
        )

    def _find_inverted(self) -> list[str]:
        said = "Say what means crack: --crack-value 0, or --crack-value 255 if this is right"
        if self._fractions and float(np.median(self._fractions)) > _MOSTLY_CRACK:
            return [
                f"most of the pixels are crack in most masks (median {np.median(self._fractions):.0%}): regions "
                f"of interest rather than ground truth, or cracks drawn in black on white. {said}"
            ]
        if self._inverted:
            return [
                f"most of the pixels are crack in {len(self._inverted)} of {count_of(self._num_masks, 'mask')}, as "
                f"where cracks are drawn in black on white: {join_some(self._inverted)}. Invert these masks, or say "
                "--crack-value 255 if they are right"
            ]
        return []

    def find_notes(self) -> list[tuple[str, tuple[str, ...]]]:
        """Describe what was recognised in the masks read so far, each with the names of the masks concerned."""
        if not self._num_masks:
            return []
        if self._chosen is not None:
            rule = f"crack is {', '.join(map(str, self._chosen.chosen))}, as --crack-value says"
        else:
            rules = {"format": "2 of groundTruth.Segmentation", "one": "1"}
            found = [text for name, text in rules.items() if name in self._by_rule]
            bright = any(name not in rules for name in self._by_rule) or not found
            rule = "crack is " + " and ".join([*found, *(["what is over half of white"] if bright else [])])
        notes: list[tuple[str, tuple[str, ...]]] = [
            (f"{self.describe_values()} in {count_of(self._num_masks, 'mask')}; {rule}", ())
        ]
        if self._lossy:
            text = f"{count_of(len(self._lossy), 'mask')} after lossy compression, which changes values at edges"
            if self._chosen is not None:
                text += ", so some cracks are missed"
            notes.append((text, tuple(self._lossy)))
        if self._mostly_crack:
            notes.append(("more than half of the pixels are crack", tuple(self._mostly_crack)))
        return notes

    def describe_values(self) -> str:
        """List the most frequent values and their fractions of the pixels of all masks."""
        total = sum(self._counts.values())
        known = sorted((v for v in self._counts if v != RARE), key=lambda v: -self._counts[v])
        shown = ", ".join(f"{name_value(v)} ({self._counts[v] / total:.3%})" for v in sorted(known[:8]))
        return shown + (f" and {len(known) - 8} more" if len(known) > 8 else "")


def has_shape_of(image_size: tuple[float, float], mask: np.ndarray) -> bool:
    """Tell whether a mask fits an image up to a common scale, as Stone331's half-size ground truth does.

    Args:
        image_size: (width, height) in pixels.
        mask: (H, W). Of a scaled mask each side may be rounded; if one side is the image's, so must be the other.
    """
    (width, height), (mask_height, mask_width) = image_size, mask.shape
    if mask_width == width or mask_height == height:
        return (mask_width, mask_height) == (width, height)
    return abs(mask_height - height * mask_width / width) <= max(1.0, mask_width / width)


def _looks_like_photograph(mask: StoredMask, counts: np.ndarray) -> bool:
    """Tell whether a mask has many values, most of them neither dark nor light, or few flat parts."""
    if np.count_nonzero(counts) <= 64:
        return False
    levels = count_levels(mask.grey, 256)
    between = levels[32:224].sum() / mask.grey.size
    if not 0.2 < between <= 0.5:
        return bool(between > 0.5)
    box = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(mask.grey, box) - cv2.erode(mask.grey, box)
    return float((spread <= (2 if mask.exact else 16)).mean()) < 0.2


def _is_line_drawing(mask_HW: np.ndarray) -> bool:
    """Tell whether a mask consists of lines that are thin for its size; true for an empty one."""
    side = max(3, min(mask_HW.shape) // _THIN_PART)
    thick = cv2.erode(mask_HW.astype(np.uint8), np.ones((side, side), np.uint8))
    return int(thick.sum()) <= 0.05 * int(mask_HW.sum())


def _list(names: list[str], name: str) -> None:
    if len(names) < _MAX_LISTED:
        names.append(name)


def _option(value: int) -> str:
    """Write the option that chooses a value."""
    name = name_value(value)
    return f"--crack-value '{name}'" if value & COLOUR else f"--crack-value {name}"
