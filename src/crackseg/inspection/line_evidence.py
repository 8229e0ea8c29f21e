"""Tell along a crack's line which of two photographs shows it: a crack is darker than its sides.

The photographs themselves are compared, since a network may find a crack in one light and not in another. Only where
texture is as dark as the crack, what the network finds in each photograph decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter1d, map_coordinates

from crackseg.geometry.length import Line
from crackseg.inspection.growth import find_stretches, sample

_SMOOTHING_PX = 4.0  # along a line
_REFERENCE_PX = 15.0  # along a line, for its contrast
_SIDES_PX = 8  # of each side that a crack is compared to
_SURE, _SIGN = 0.5, 0.4  # of a crack's contrast: it is shown; there is a sign of it
_SWITCH_PX = 6.0  # length of clear evidence that a change along a line needs
_OVER_TEXTURE = 2.0  # times the contrast of texture: what is darker tells for itself
_HARDLY = 0.15  # of the usual contrast of what the network finds: less is the border of its response
_CLOSED_PX = 15  # not shown by either photograph, between two parts that are: the crack is nearly closed there
_BLEED_PX = 10  # of a network's response beyond the end of a crack


def keep_dark(
    lines: list[Line], greys: Sequence[np.ndarray], masks: Sequence[np.ndarray], slack: int, least: float
) -> list[np.ndarray]:
    """Cut away what is hardly darker than its sides in both photographs: borders of a network's broad response.

    Args:
        lines: of cracks.
        greys: logarithms of both photographs, float32 (H, W).
        masks: bool (H, W), what the network finds in each; this is kept, unless it shows no contrast at all.
        slack: pixels that a line may lie beside the crack.
        least: ratio of a line's contrast to that of what was found.
    Returns:
        Parts of the lines, float (N, 2), N >= 2.
    """
    if not lines:
        return []
    contrasts = [[_contrast(grey, line, slack) for line in lines] for grey in greys]
    texture = _measure_texture(contrasts)
    highest = [np.maximum(one, other) for (one, _), (other, _) in zip(*contrasts, strict=True)]
    found_HW = _widen(masks[0] | masks[1], 1)
    found = [sample(found_HW, line.points) for line in lines]
    every, sure = np.concatenate(highest), np.concatenate(found)
    usual = float(np.median(every[sure] if sure.any() else every))
    hidden = usual < _OVER_TEXTURE * texture
    parts = []
    for line, contrast, here in zip(lines, highest, found, strict=True):
        dark = _segment(
            np.where((contrast >= least * usual) | (here & (hidden | (contrast >= _HARDLY * usual))), 1.0, -1.0)
        )
        parts += [line.points[start:stop] for start, stop in find_stretches(dark) if stop - start > 1]
    return parts


def tell_shown(
    lines: list[Line],
    greys: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    faint: Sequence[np.ndarray],
    slack: int,
) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Tell for each photograph at which points of the lines it shows the crack, and at which there is a sign of it.

    Args:
        lines: of cracks; at least one.
        greys: logarithms of both photographs, float32 (H, W).
        masks, faint: bool (H, W), what the network finds in each, and what it gives a sign of.
        slack: pixels that a line may lie beside the crack.
    Returns:
        For each photograph two lists with an array for each line, bool (N,).
    """
    contrasts = [[_contrast(grey, line, slack) for line in lines] for grey in greys]
    texture = _measure_texture(contrasts)
    wide = [
        (_widen(mask_HW, slack), _widen(faint_HW, slack)) for mask_HW, faint_HW in zip(masks, faint, strict=True)
    ]
    shown: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []), ([], [])]
    one, other = (np.concatenate([contrast for contrast, _ in of_one]) for of_one in contrasts)
    gains = _match_contrasts(one, other, texture)
    for index, line in enumerate(lines):
        both = [of_one[index][0] / gain for of_one, gain in zip(contrasts, gains, strict=True)]
        highest = gaussian_filter1d(np.maximum(*both), _REFERENCE_PX, mode="nearest")
        weight = (highest / max(_OVER_TEXTURE * texture, 1e-6)).clip(0, 1) ** 2
        for contrast, (mask_HW, faint_HW), (sure, sign) in zip(both, wide, shown, strict=True):
            ratio = contrast / np.maximum(highest, 1e-6)
            found = sample(mask_HW, line.points)
            surely = binary_erosion(found, iterations=_BLEED_PX, border_value=1)
            for level, other_sign, told in ((_SURE, found, sure), (_SIGN, sample(faint_HW, line.points), sign)):
                evidence = weight * ((ratio - level) / 0.25).clip(-1, 1) + (1 - weight) * other_sign
                told.append(_segment(np.where(_trim(surely, evidence > 0), 1.0, evidence)))
    for first, second in ((0, 1), (1, 0)):
        for mine, theirs in zip(shown[first], shown[second], strict=True):
            for index, there in enumerate(mine):
                mine[index] = there | _find_closed(there, theirs[index])
    return shown


def _trim(found: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Trim stretches that a network found, bool (N,), to their first and last dark point: it bleeds beyond an end.

    A stretch that is dark nowhere is kept: texture hides it, or it lies beside the line.
    """
    trimmed = found.copy()
    for start, stop in find_stretches(found):
        places = np.flatnonzero(dark[start:stop])
        if len(places):
            trimmed[start : start + places[0]] = trimmed[start + places[-1] + 1 : stop] = False
    return trimmed


def _measure_texture(contrasts: list[list[tuple[np.ndarray, np.ndarray]]]) -> float:
    """Measure the contrast that lines have beside cracks, in the photograph where it is higher."""
    return max(float(np.quantile(np.concatenate([beside for _, beside in of_one]), 0.9)) for of_one in contrasts)


def _find_closed(there: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Find short stretches, bool (N,), that neither photograph shows, between two that this one shows."""
    closed = np.zeros(len(there), bool)
    for start, stop in find_stretches(~there):
        if start > 0 and stop < len(there) and stop - start <= _CLOSED_PX and not other[start:stop].any():
            closed[start:stop] = True
    return closed


def _match_contrasts(one: np.ndarray, other: np.ndarray, texture: float) -> tuple[float, float]:
    """Find how much each photograph's contrast is above the lower one's where both show a crack: blur lowers it."""
    shown = np.minimum(one, other) > np.maximum(texture, 0.3 * np.maximum(one, other))
    if shown.sum() < _REFERENCE_PX:
        return 1.0, 1.0
    gain = float(np.exp(np.median(np.log(one[shown] / other[shown]))))
    return max(1.0, gain), max(1.0, 1 / gain)


def _contrast(grey: np.ndarray, line: Line, slack: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure how much darker a line is than its sides, and the same beside it, float (N,) each, in logarithms."""
    smooth = gaussian_filter1d(line.points, 3, axis=0, mode="nearest")
    along = np.gradient(smooth, axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    across = np.column_stack([-along[:, 1], along[:, 0]])
    widths = line.widths[np.isfinite(line.widths)]
    inner = slack + 2 + int(np.ceil(np.median(widths) / 2 if len(widths) else 2))
    reach = 2 * (inner + _SIDES_PX)
    offsets = np.arange(-reach, reach + 1)
    places = line.points[:, None] + offsets[None, :, None] * across[:, None]
    values = map_coordinates(grey, places.transpose(2, 0, 1)[::-1], order=1, mode="nearest")
    values = gaussian_filter1d(values, _SMOOTHING_PX, axis=0, mode="nearest")

    def measure(middle: int) -> np.ndarray:
        far = np.abs(offsets - middle)
        sides = values[:, (far > inner) & (far <= inner + _SIDES_PX)].mean(axis=1)
        return np.asarray(sides - values[:, far <= slack].min(axis=1))

    shift = inner + _SIDES_PX // 2
    return measure(0), np.concatenate([measure(-shift), measure(shift)])


def _widen(mask_HW: np.ndarray, by_px: int) -> np.ndarray:
    return np.asarray(cv2.dilate(mask_HW.astype(np.uint8), np.ones((2 * by_px + 1,) * 2, np.uint8)) > 0)


def _segment(evidence: np.ndarray) -> np.ndarray:
    """Divide a line into parts that are shown and parts that are not: Viterbi's algorithm, two states.

    Args:
        evidence: float (N,), -1 to 1, for each point.
    Returns:
        bool (N,).
    """
    scores = np.zeros(2)
    back = np.zeros((len(evidence), 2), int)
    for i, value in enumerate(evidence):
        for state in (0, 1):
            stay, leave = scores[state], scores[1 - state] - _SWITCH_PX
            back[i, state] = state if stay >= leave else 1 - state
        scores = np.maximum(scores, scores[::-1] - _SWITCH_PX) + np.array([-value, value])
    states = np.zeros(len(evidence), bool)
    at = int(scores.argmax())
    for i in range(len(evidence) - 1, -1, -1):
        states[i] = bool(at)
        at = int(back[i, at])
    return states
