"""Kinds of pixels in ground truth: values that stand for something of their own, not the soft edge of a crack.

UAV75's 204 (planking, not a crack) and the grey edge of an anti-aliased crack look alike in a single pixel; they differ
in how they lie. All counts are added up over a dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from crackseg.data.masks.stored import COLOUR, DEEP, RARE, StoredMask, count_levels

_3X3 = np.ones((3, 3), np.uint8)
_FEW_LEVELS = 16  # as many levels in a dataset are soft edges, or remains of compression
_CLASS_LEVELS = 8  # more levels are not judged by their borders: compression draws some, too
_MAX_VALUES = 4096  # of masks; the values of photographs are not followed further
_MIN_PIXELS, _MIN_FRACTION = 20, 0.05  # of a colour or a level in a mask, else it is noise
_NUM_HUES, _NEAR_HUES = 24, 3  # hues up to 45 degrees apart are one colour, blurred
_SOLID_RANGE, _SOLID_WIDTH, _PEAK_WIDTH = 24, 8, 32  # grey levels, for areas after lossy compression


@dataclass(slots=True)
class _Value:
    """Counts of how the pixels of one value lie, summed over the masks that have it."""

    count: int = 0
    inside: int = 0  # 3 x 3 of one value
    alone: int = 0  # next to the background and their own value only
    enclosed: int = 0  # next to higher values only, as a class within a border
    drawn: int = 0  # pixels other than background in these masks
    fills_areas: bool = False  # of a single mask


@dataclass(slots=True)
class PixelKinds:
    """Kinds of pixels over the masks of a dataset."""

    _values: dict[int, _Value] = field(default_factory=dict)
    _hues: np.ndarray = field(default_factory=lambda: np.zeros(_NUM_HUES, np.int64))
    _hue_sums: np.ndarray = field(default_factory=lambda: np.zeros((_NUM_HUES, 3)))
    _num_pale: int = 0  # white pixels, and bright grey ones
    # Of areas after lossy compression.
    _levels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    _num_white: int = 0  # nearly white pixels there

    def add(self, mask: StoredMask, counts: np.ndarray) -> None:
        """Look at a mask.

        Args:
            mask: the ground truth.
            counts: int (256,), pixels of each of its codes.
        """
        if mask.exact:
            self._add_exact(mask, counts)
        elif mask.rgb is None:
            self._add_lossy_grey(mask.grey)
        if mask.rgb is not None:
            self._add_hues(mask.grey, mask.rgb, exact=mask.exact)
        elif (num_pale := int((mask.grey >= 128).sum())) >= _MIN_PIXELS:
            self._num_pale += num_pale

    def _add_exact(self, mask: StoredMask, counts: np.ndarray) -> None:
        codes, values = mask.coded.codes, mask.coded.values
        present = np.flatnonzero(counts)
        drawn = int(counts.sum() - (counts[0] if values[0] == 0 else 0))
        inside = alone = enclosed = np.zeros(256, np.int64)
        if len(present) <= 2:
            alone = counts  # two values have no soft edges
        else:
            largest, smallest = cv2.dilate(codes, _3X3), cv2.erode(codes, _3X3)
            flat = (largest == codes) & (smallest == codes)
            inside = count_levels(codes[flat], 256)
            enclosed = count_levels(codes[(smallest == codes) & (largest > codes) & (codes > 0)], 256)
            alone_HW = np.zeros(codes.shape, bool)
            for background in {int(present[0]), int(counts.argmax())}:
                is_background = codes == background
                above = cv2.erode(np.where(is_background, np.uint8(255), codes), _3X3)
                below = cv2.dilate(np.where(is_background, np.uint8(0), codes), _3X3)
                alone_HW |= (above == codes) & (below == codes)
            alone = count_levels(codes[alone_HW], 256)
        for code in present:
            value = int(values[code])
            if value in (0, RARE) or (value not in self._values and len(self._values) >= _MAX_VALUES):
                continue
            of_value = self._values.setdefault(value, _Value())
            count = int(counts[code])
            of_value.count += count
            of_value.inside += int(inside[code])
            of_value.alone += int(alone[code])
            of_value.enclosed += int(enclosed[code])
            of_value.drawn += drawn
            of_value.fills_areas |= bool(inside[code] >= max(_MIN_PIXELS, 0.5 * count))

    def _add_lossy_grey(self, grey: np.ndarray) -> None:
        counts = count_levels(grey, 256)
        num_drawn = int(counts[128:].sum())
        if (num_white := int(counts[240:].sum())) >= max(_MIN_PIXELS, _MIN_FRACTION * num_drawn):
            self._num_white += num_white
        if counts[64:224].sum() < _MIN_PIXELS:
            return
        flat = cv2.dilate(grey, _3X3) - cv2.erode(grey, _3X3) <= _SOLID_RANGE
        solid = count_levels(grey[flat], 256)
        solid[:32] = 0
        while solid.any():
            level = int(np.convolve(solid, np.ones(2 * _SOLID_WIDTH + 1), "same").argmax())
            around = slice(max(0, level - _PEAK_WIDTH), level + _PEAK_WIDTH + 1)
            peak = solid[max(0, level - _SOLID_WIDTH) : level + _SOLID_WIDTH + 1].sum()
            if peak < max(_MIN_PIXELS, _MIN_FRACTION * num_drawn):
                return
            if level < 256 - _PEAK_WIDTH and peak >= 0.6 * solid[around].sum():
                self._levels[around.start + int(solid[around].argmax())] += peak
            solid[around] = 0

    def _add_hues(self, grey: np.ndarray, rgb: np.ndarray, *, exact: bool) -> None:
        drawn_HW = grey >= (96 if exact else 64)  # compression darkens thin lines
        drawn = rgb[drawn_HW]
        if not len(drawn):
            return
        hue, saturation, brightness = cv2.cvtColor(drawn[None], cv2.COLOR_RGB2HSV)[0].T
        vivid = saturation >= 128
        pale = (saturation < (64 if exact else 24)) & (brightness >= 128)
        if not exact:  # and it fades the colour of thin lines, within blocks of 16 x 16
            near_HW = np.zeros(grey.shape, np.uint8)
            near_HW[drawn_HW] = vivid
            pale &= cv2.dilate(near_HW, np.ones((17, 17), np.uint8))[drawn_HW] == 0
        num_pale = int(pale.sum())
        number = hue[vivid].astype(np.int64) * _NUM_HUES // 180
        hues = np.bincount(number, minlength=_NUM_HUES)
        fraction = _MIN_FRACTION if exact else 2 * _MIN_FRACTION
        enough = max(_MIN_PIXELS, fraction * (hues.sum() + num_pale))
        for group in _group_hues(hues, enough):
            self._hues[group] += hues[group]
            for hue_number in group:
                self._hue_sums[hue_number] += drawn[vivid][number == hue_number].sum(axis=0)
        if num_pale >= enough:
            self._num_pale += num_pale

    def find(self) -> list[int]:
        """Find the kinds other than the background; values as in :class:`Codes`, darkest first."""
        exact = self._find_exact()
        for kinds in (exact, self._find_colours(exact), self._find_levels(exact)):
            if len(kinds) > 1:
                return kinds
        return exact

    def _find_exact(self) -> list[int]:
        values = self._values
        few = len(values) <= _CLASS_LEVELS
        kinds = [
            value
            for value, v in values.items()
            if v.fills_areas
            or (v.inside >= 5 and v.inside >= 0.05 * v.count)
            or (v.alone >= _MIN_PIXELS and v.alone >= 0.9 * v.count and v.count >= 0.01 * v.drawn)
            or (few and v.enclosed >= max(_MIN_PIXELS, 0.5 * v.count) and v.count >= 0.01 * v.drawn)
        ]
        if len(values) >= _FEW_LEVELS:
            kinds = _drop_similar(sorted(kinds, key=lambda value: -values[value].count))
        if len(kinds) > 8 and sum(values[k].inside + values[k].alone for k in kinds) < 0.5 * sum(
            v.count for v in values.values()
        ):
            return []  # so many flat values among soft ones are a slow gradient
        if 255 in values and 255 not in kinds and all(_channels(kind) != (255, 255, 255) for kind in kinds):
            kinds.append(255)
        return sorted(kinds, key=lambda value: (max(_channels(value)), value))

    def _find_colours(self, exact: list[int]) -> list[int]:
        kinds = []
        for group in _group_hues(self._hues, _MIN_PIXELS):
            mean = np.rint(self._hue_sums[group].sum(axis=0) / self._hues[group].sum()).astype(int)
            similar = [k for k in exact if max(abs(a - b) for a, b in zip(_channels(k), mean, strict=True)) < 48]
            kinds.append(similar[0] if similar else COLOUR | int(mean[0] << 16 | mean[1] << 8 | mean[2]))
        return [*kinds, 255] if kinds and self._num_pale else kinds

    def _find_levels(self, exact: list[int]) -> list[int]:
        kinds, levels = list(exact), self._levels.copy()
        if self._num_white:
            levels[255] = 1  # last, since any area is more
        while levels.any():
            level = int(levels.argmax())
            if all(max(abs(level - c) for c in _channels(kind)) > _PEAK_WIDTH for kind in kinds):
                kinds.append(level)
            levels[max(0, level - _PEAK_WIDTH) : level + _PEAK_WIDTH + 1] = 0
        return sorted(kinds, key=lambda value: (max(_channels(value)), value))


def _group_hues(hues: np.ndarray, enough: float) -> list[np.ndarray]:
    """Divide a circular histogram into colours of at least so many pixels, each with its neighbouring hues."""
    groups, rest = [], hues.copy()
    while rest.any():
        group = np.arange(int(rest.argmax()) - _NEAR_HUES, int(rest.argmax()) + _NEAR_HUES + 1) % _NUM_HUES
        group = group[rest[group] > 0]
        if rest[group].sum() < enough:
            break
        groups.append(group)
        rest[group] = 0
    return groups


def _drop_similar(values: list[int]) -> list[int]:
    """Drop what is nearly black, or nearly a value before it: remains of compression."""
    kept = [0, 255]
    for value in values:
        near = (max(abs(a - b) for a, b in zip(_channels(value), _channels(other), strict=True)) for other in kept)
        if min(near) >= 16:
            kept.append(value)
    return kept[2:]


def _channels(value: int) -> tuple[int, int, int]:
    if value & COLOUR:
        return value >> 16 & 255, value >> 8 & 255, value & 255
    level = (value & 0xFFFF) >> 8 if value & DEEP else value
    return level, level, level
