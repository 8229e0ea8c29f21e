"""Find the lines of cracks in two photographs of one frame together, and tell which photograph shows them.

A network finds a crack in one photograph and a part of it in the other. So lines are searched in both together: what
it is sure of in one of them, what is connected to that even faintly, and what a dark path leads to. Then
:mod:`crackseg.inspection.line_evidence` compares the photographs along the lines.

Shape legend: H rows, W columns of the frame: the pixels of the earlier photograph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from skimage.graph import route_through_array

from crackseg.geometry.centerlines import find_centerlines, make_disk
from crackseg.geometry.components import Branch, measure_mask
from crackseg.geometry.length import Line
from crackseg.inspection.growth import View, find_stretches, make_view
from crackseg.inspection.line_evidence import keep_dark, tell_shown

_LOW = 0.03  # of the threshold: connected to a crack, this is crack, too
_SECOND = 0.1  # of the threshold: crack if a dark path leads to one
_USUAL = 0.95  # of all pixels are surely no crack, or more
_GAP_PX = 32  # longest path between two parts of a crack
_PATH_DARKNESS = 0.4  # of a path between two parts of a crack, relative to these
_LOOK_AHEAD_PX, _LONGEST_TIP_PX = 8, 300  # of a line that is followed beyond its end
_TIP_DARKNESS = 0.35  # of the crack's darkness, over which it goes on
_BACK_PX = 5
_MOST_WEAK_PX = 8  # that are less dark, before the line ends
_TEXTURE_QUANTILE = 0.95  # of the darkness of all pixels
_STUB_PX = 15.0  # a side branch that is not longer is the edge of a broad response
_PEN_PX = 3  # in which lines are drawn again, to be measured
_DARKEST = 8.0  # grey level added before the logarithm: there is noise in the dark


@dataclass(frozen=True, slots=True)
class PredictedPhotograph:
    """A photograph in the frame.

    Attributes:
        crack_probs: float32 (H, W) each, maps of several predictions, not post-processed.
        image_HW3: uint8, RGB.
    """

    crack_probs: Sequence[np.ndarray]
    image_HW3: np.ndarray


def find_views(
    before: PredictedPhotograph,
    after: PredictedPhotograph,
    threshold: float,
    seen_HW: np.ndarray,
    *,
    error_px: float,
    min_length_px: float = 0,
) -> tuple[View, View]:
    """Find the cracks of both photographs along common lines.

    Args:
        before, after: in one frame.
        threshold: crack is where a map is at least this, and what is connected to it.
        seen_HW: bool, what both show; all else is left out.
        error_px: of the registration.
        min_length_px: leave out shorter cracks.
    """
    own = [make_view(photograph.crack_probs, threshold, seen_HW) for photograph in (before, after)]
    highest_HW = np.maximum.reduce([*before.crack_probs, *after.crack_probs])
    greys = [_take_logarithm(photograph.image_HW3) for photograph in (before, after)]
    darkness_HW = np.maximum.reduce([_blur(grey, 6) - _blur(grey, 1) for grey in greys])
    joint_HW = _join(own[0].mask_HW | own[1].mask_HW, highest_HW, threshold, seen_HW, darkness_HW)
    slack = int(np.ceil(min(2 + 2 * error_px, 4)))
    masks = [view.mask_HW for view in own]
    parts = keep_dark(_trace(joint_HW, min_length_px), greys, masks, slack, _TIP_DARKNESS)
    parts += _extend_tips(parts, darkness_HW, seen_HW)
    lines = _trace(_draw(parts, [np.ones(len(points), bool) for points in parts], seen_HW), min_length_px)
    if not lines:
        nothing_HW = np.zeros_like(seen_HW)
        return tuple(  # type: ignore[return-value]
            View(measure_mask(nothing_HW), nothing_HW, view.faint_HW, view.measurement) for view in own
        )
    shown = tell_shown(lines, greys, masks, [view.faint_HW for view in own], slack)
    points = [line.points for line in lines]
    views = []
    for view, (sure, sign) in zip(own, shown, strict=True):
        mask_HW = _draw(points, sure, seen_HW)
        faint_HW = _draw(points, sign, seen_HW) | mask_HW
        views.append(View(measure_mask(mask_HW), mask_HW, faint_HW, view.measurement))
    return views[0], views[1]


def _trace(mask_HW: np.ndarray, min_length_px: float) -> list[Line]:
    """Find the lines of a mask."""
    cracks = measure_mask(mask_HW, min_length_px=min_length_px).cracks
    lines = [branch.line for crack in cracks for branch in _drop_stubs(crack.branches)]
    return [line for line in lines if len(line.points) > 2]


def _extend_tips(lines: list[np.ndarray], darkness_HW: np.ndarray, seen_HW: np.ndarray) -> list[np.ndarray]:
    """Follow a dark line from each free end, as far as it is nearly as dark as the crack.

    A crack's end is faint and narrow, and a network finds it late. What is dark on the surface itself is dark in both
    photographs, so a wrong turn is no growth.
    """
    if not lines:
        return []
    tree = cKDTree(np.concatenate(lines))
    owners = np.repeat(range(len(lines)), [len(line) for line in lines])
    height, width = seen_HW.shape
    turns = np.radians(np.arange(-60, 61, 10))
    ahead = np.arange(1, _LOOK_AHEAD_PX + 1)
    texture = float(np.quantile(darkness_HW[seen_HW], _TEXTURE_QUANTILE))
    tips = []
    for index, line in enumerate(lines):
        least = max(_TIP_DARKNESS * float(np.median(_interpolate(darkness_HW, line))), texture)
        for points in (line, line[::-1]):
            touching = owners[tree.query_ball_point(points[-1], _PEN_PX)]
            if len(points) < 2 * _LOOK_AHEAD_PX or (touching != index).any():
                continue
            place = points[-_BACK_PX]  # a line's last points may turn to a corner of a broad response
            x, y = place - points[-_BACK_PX - _LOOK_AHEAD_PX]
            heading = float(np.arctan2(y, x))
            tip, weak = [place], 0
            while len(tip) < _LONGEST_TIP_PX:
                angles = heading + turns
                steps = np.column_stack([np.cos(angles), np.sin(angles)])
                rays = place + ahead[:, None, None] * steps
                values = _interpolate(darkness_HW, rays.reshape(-1, 2)).reshape(-1, len(turns)).mean(axis=0)
                best = int((values - 0.02 * np.abs(turns)).argmax())
                place = place + steps[best]
                weak = weak + 1 if values[best] < least else 0
                if weak > _MOST_WEAK_PX or (place < 0).any() or (place > (width - 1, height - 1)).any():
                    break
                heading += 0.3 * float(turns[best])
                tip.append(place)
            tip = tip[: len(tip) - weak]
            if len(tip) > _BACK_PX:
                tips.append(np.array(tip))
    return tips


def _interpolate(values_HW: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(map_coordinates(values_HW, points.T[::-1], order=1, mode="nearest"))


def _drop_stubs(branches: Sequence[Branch]) -> list[Branch]:
    """Leave out short branches with a free end, unless they are all there is."""
    num_at = Counter(node for branch in branches for node in (branch.line.start, branch.line.end))
    kept = [b for b in branches if b.length_px > _STUB_PX or min(num_at[b.line.start], num_at[b.line.end]) > 1]
    return kept or list(branches)


def _draw(lines: list[np.ndarray], shown: list[np.ndarray], seen_HW: np.ndarray) -> np.ndarray:
    """Draw the parts of lines that are shown, bool (H, W)."""
    mask_HW = np.zeros(seen_HW.shape, np.uint8)
    for line, there in zip(lines, shown, strict=True):
        for start, stop in find_stretches(there):
            # The pen is round: it reaches beyond a point where the crack is no longer shown.
            inner = line[start + (start > 0) * (_PEN_PX // 2) : stop - (stop < len(line)) * (_PEN_PX // 2)]
            if not len(inner):
                continue
            points = np.rint(8 * inner).astype(np.int32)
            cv2.polylines(mask_HW, [points], isClosed=False, color=1, thickness=_PEN_PX, shift=3)
    return (mask_HW > 0) & seen_HW


def _blur(grey_HW: np.ndarray, sigma_px: float) -> np.ndarray:
    return cv2.GaussianBlur(grey_HW, (0, 0), sigma_px)


def _take_logarithm(image_HW3: np.ndarray) -> np.ndarray:
    """Return the logarithm of grey levels, float32: a shadow then shifts a place and its surroundings alike."""
    return np.log(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32) + _DARKEST)


def _join(
    found_HW: np.ndarray,
    highest_HW: np.ndarray,
    threshold: float,
    seen_HW: np.ndarray,
    darkness_HW: np.ndarray,
) -> np.ndarray:
    """Extend what was found to all that is connected to it, and to parts that a dark path leads to."""
    # A network that is never near zero would connect everything.
    usual = min(float(np.quantile(highest_HW[seen_HW], _USUAL)), threshold / 2)
    low_HW = (highest_HW >= max(_LOW * threshold, usual)) & seen_HW
    num_low, low_label_HW = cv2.connectedComponents(low_HW.astype(np.uint8), connectivity=8)
    sure = np.zeros(num_low, bool)
    sure[np.unique(low_label_HW[found_HW])] = True
    second = np.zeros(num_low, bool)
    second[np.unique(low_label_HW[low_HW & (highest_HW >= _SECOND * threshold)])] = True
    sure[0] = second[0] = False
    part_HW = np.where((sure | second)[low_label_HW], low_label_HW, 0)
    line_HW = find_centerlines(part_HW > 0)
    joined, paths = _bridge(part_HW, num_low, line_HW, highest_HW, darkness_HW)
    kept = {joined[int(label)] for label in np.flatnonzero(sure)}
    chosen = np.array([bool(k) and joined[k] in kept for k in range(num_low)])
    joint_HW = chosen[part_HW]
    bridges_HW = np.zeros(joint_HW.shape, np.uint8)
    for label, path in paths:
        if chosen[label]:
            bridges_HW[tuple(path.T)] = 1
    joint_HW = (joint_HW | (cv2.dilate(bridges_HW, np.ones((3, 3), np.uint8)) > 0)) & seen_HW
    return cv2.morphologyEx(joint_HW.astype(np.uint8), cv2.MORPH_CLOSE, make_disk(3)) > 0


def _bridge(
    part_HW: np.ndarray, num_parts: int, line_HW: np.ndarray, highest_HW: np.ndarray, darkness_HW: np.ndarray
) -> tuple[DisjointSet, list[tuple[int, np.ndarray]]]:
    """Find dark paths from ends of lines to other parts.

    Returns:
        The parts that belong together, and the paths, each with one of its parts.
    """
    joined = DisjointSet(range(num_parts))
    pixels = np.argwhere(line_HW)
    if len(pixels) < 2:
        return joined, []
    around_HW = cv2.filter2D(line_HW.astype(np.uint8), -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)
    owners = part_HW[line_HW]
    ends = np.flatnonzero(around_HW[line_HW] <= 2)
    tree = cKDTree(pixels)
    candidates = []
    for number, near in zip(ends, tree.query_ball_point(pixels[ends], _GAP_PX), strict=True):
        end = int(number)
        others = np.array(near)[owners[near] != owners[end]]
        if len(others):
            away = ((pixels[others] - pixels[end]) ** 2).sum(axis=1)
            best = int(others[away.argmin()])
            candidates.append((int(away.min()), end, best))
    paths = []
    for _, end, other in sorted(candidates):
        one, two = int(owners[end]), int(owners[other])
        if joined.connected(one, two):
            continue
        start, stop = pixels[end], pixels[other]
        corner = np.maximum(np.minimum(start, stop) - _GAP_PX // 2, 0)
        box = tuple(slice(c, max(a, b) + _GAP_PX // 2 + 1) for c, a, b in zip(corner, start, stop, strict=True))
        cost = -np.log(highest_HW[box].clip(1e-3, 1)) + 4 * (1 - darkness_HW[box].clip(0, 1)) + 0.1
        path = np.array(route_through_array(cost, start - corner, stop - corner)[0]) + corner
        gap = path[part_HW[tuple(path.T)] == 0]
        beside = [pixels[k] for k in tree.query_ball_point(start, _GAP_PX) if owners[k] == one]
        dark = float(np.median(darkness_HW[tuple(np.array(beside).T)]))
        if not len(gap) or float(darkness_HW[tuple(gap.T)].mean()) >= _PATH_DARKNESS * dark:
            joined.merge(one, two)
            paths.append((one, path))
    return joined, paths
