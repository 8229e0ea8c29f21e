"""Fit lines with a width to a crack's pixels, so that the lines, drawn again, are these pixels.

Used by an export of annotations. The lines follow the skeleton's branches. Their widths change along them, since a mask
that is a pixel wider here and there is no line of one width (docs/adr/0019-widths-along-lines.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy.spatial import cKDTree
from skimage.graph import route_through_array

from crackseg.data.importing.annotations.drawn import Shape
from crackseg.data.importing.shapes import draw_shapes
from crackseg.geometry.centerlines import count_pieces, thin
from crackseg.geometry.skeletons import build_skeleton_graph

MIN_IOU = 0.995  # of the drawn lines and the mask; what is missing is drawn as lines of 1 px
_LEAST_REACH_PX = 0.5  # an import draws at least 1 px
_MARGIN_PX = 0.02  # between a line and the next pixel beside it, over the rounding of points and widths
_SAME_PX = 0.15  # points closer to the line between their neighbours, in place and in half width, are left out
_SHORT_PX = 0.25  # half of a line that is one pixel: tools know no line without length
_AROUND = [(0.0, 0.0), *((x / 2, y / 2) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y)]


@dataclass(frozen=True, slots=True)
class WideLine:
    """A line and its width.

    Attributes:
        points: float (N, 2), x and y as annotation tools count: (0.5, 0.5) is the middle of the first pixel.
        widths_px: float (N,), at the points.
    """

    points: np.ndarray
    widths_px: np.ndarray


def fit_lines(crack_HW: np.ndarray) -> list[WideLine]:
    """Fit lines to one crack.

    Args:
        crack_HW: bool or uint8 {0, 1}, (H, W); one 8-connected component.
    Returns:
        One for each branch, then short ones of 1 px for what these miss. Drawn again by an import, they switch on no
        pixel outside of the crack, make one component, and have an IoU of at least ``MIN_IOU`` with it.
    """
    crack_HW = np.pad(np.asarray(crack_HW, np.uint8), 1)  # what is outside of the image is no crack
    outside = np.argwhere((cv2.dilate(crack_HW, np.ones((3, 3), np.uint8)) > 0) & (crack_HW == 0))[:, ::-1]
    fit = _Fit(crack_HW, outside.astype(float), cKDTree(outside))
    lines = [_finish(line) for branch in _trace_branches(crack_HW, fit.tree) for line in [fit.fit(branch)]]
    lines += _draw_rest(crack_HW, lines)
    return [WideLine(line.points - 1, line.widths_px) for line in lines]


def draw_lines(lines: list[WideLine], shape: tuple[int, int]) -> np.ndarray:
    """Draw lines as an import does; uint8 {0, 1} of the shape (H, W)."""
    shapes = [Shape("", "polyline", line.points, widths_px=line.widths_px) for line in lines]
    return draw_shapes(shapes, (shape[1], shape[0]), 1).mask


def _trace_branches(crack_HW: np.ndarray, tree: cKDTree) -> list[np.ndarray]:
    """Find the branches of the skeleton, float (N, 2) each, x and y of pixel middles."""
    pixels = np.argwhere(thin(crack_HW))
    graph = build_skeleton_graph(pixels, tree.query(pixels[:, ::-1])[0] - 0.5)
    branches = [np.asarray(points, float) for _, _, points in graph.edges(data="points")]
    return branches or [pixels[len(pixels) // 2, ::-1].astype(float)[None]]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Fit lines of x, y and half width, float (N, 3), to a crack; outside are the pixels around it."""

    crack_HW: np.ndarray
    outside: np.ndarray
    tree: cKDTree

    def fit(self, points: np.ndarray) -> np.ndarray:
        centred = self._centre(points)
        line, leaves = self._widen(centred)
        for _ in range(2):
            if leaves.any():  # at a junction, whose place is the mean of several pixels: along pixels instead
                line, leaves = self._widen(self._route(line, leaves))
        if leaves.any():
            line, _ = self._widen(self._route(line, np.ones(len(line) - 1, bool)))
        if len(line) > 2:
            simple, leaves = self._widen(_simplify(line))
            line = line if leaves.any() else simple
        return line

    def _centre(self, points: np.ndarray) -> np.ndarray:
        """Move points by half a pixel where that is farther from the outside: into the middle of an even width."""
        places = points.round(1)[:, None] + np.array(_AROUND)
        free = self.tree.query(places)[0]
        free[:, 1:] -= 0.01  # only if it is worth it
        best = free.argmax(axis=1)
        centred = places[np.arange(len(points)), best]
        moved = np.concatenate([[True], (np.diff(centred, axis=0) != 0).any(axis=1)])
        return np.column_stack([centred, np.zeros(len(points))])[moved]

    def _widen(self, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Widen a line as far as no pixel outside is drawn.

        Returns:
            The line, and bool (N - 1,), segments that draw a pixel outside even at the least width.
        """
        most = np.maximum(self.tree.query(line[:, :2])[0] - _MARGIN_PX, _LEAST_REACH_PX)
        limits = self._limit(line, most)
        least = np.array([gap.min(initial=np.inf) for _, gap in limits])
        reach = most.copy()
        reach[:-1] = np.minimum(reach[:-1], least)
        reach[1:] = np.minimum(reach[1:], least)
        reach = np.maximum(reach, _LEAST_REACH_PX)
        for i in range(len(reach)):  # each as far as its neighbours leave room
            room = most[i]
            for at, near in ((i, 0), (i - 1, 1)):
                if 0 <= at < len(limits):
                    share, gap = limits[at]
                    own = share if near else 1 - share
                    told = own > 0.001
                    other = reach[i + 1 - 2 * near]
                    room = min(room, ((gap - other * (1 - own))[told] / own[told]).min(initial=np.inf))
            reach[i] = max(reach[i], room)
        return np.column_stack([line[:, :2], reach]), least < _LEAST_REACH_PX

    def _limit(self, line: np.ndarray, most: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each segment: where along it, 0 to 1, its nearest pixels outside are, and how far they are."""
        starts, steps = line[:-1, :2], np.diff(line[:, :2], axis=0)
        radii = np.hypot(*steps.T) / 2 + np.maximum(most[:-1], most[1:]) + _MARGIN_PX
        limits = []
        for start, step, near in zip(
            starts, steps, self.tree.query_ball_point(starts + steps / 2, radii), strict=True
        ):
            away = self.outside[near].reshape(-1, 2) - start
            share = (away @ step / max(float(step @ step), 1e-12)).clip(0, 1)
            limits.append((share, np.hypot(*(away - share[:, None] * step).T) - _MARGIN_PX))
        return limits

    def _route(self, line: np.ndarray, leaves: np.ndarray) -> np.ndarray:
        """Lead the segments that leave the crack, and their ends, from pixel to pixel of it."""
        snapped = np.zeros(len(line), bool)
        snapped[:-1] |= leaves
        snapped[1:] |= leaves
        places = [self._nearest_pixel(p) if s else p for p, s in zip(line[:, :2], snapped, strict=True)]
        route = [places[:1]]
        for (start, end), leave in zip(pairwise(places), leaves, strict=True):
            route.append(self._walk(start, end) if leave else [end])
        points = np.array([p for part in route for p in part], float)
        kept = np.concatenate([[True], (np.diff(points, axis=0) != 0).any(axis=1)])
        points = points[kept] if kept.sum() > 1 else points[:2]
        return np.column_stack([points, np.zeros(len(points))])

    def _nearest_pixel(self, place: np.ndarray) -> np.ndarray:
        low = np.maximum(np.floor(place).astype(int) - 2, 0)
        pixels = np.argwhere(self.crack_HW[low[1] : low[1] + 6, low[0] : low[0] + 6])[:, ::-1] + low
        return np.asarray(pixels[((pixels - place) ** 2).sum(axis=1).argmin()], float)

    def _walk(self, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        low = np.maximum(np.minimum(start, end).astype(int) - 4, 0)
        high = np.maximum(start, end).astype(int) + 5
        cost = np.where(self.crack_HW[low[1] : high[1], low[0] : high[0]] > 0, 1.0, 1e6)
        path, _ = route_through_array(cost, *((p.astype(int) - low)[::-1] for p in (start, end)))
        return list(np.array(path, float)[1:, ::-1] + low)


def _simplify(line: np.ndarray) -> np.ndarray:
    """Leave out points that lie on the line between others, by Douglas and Peucker's method in x, y and half width."""
    kept = np.zeros(len(line), bool)
    kept[[0, -1]] = True
    waiting = [(0, len(line) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        step = line[last] - line[first]
        away = line[first + 1 : last] - line[first]
        share = (away @ step / max(float(step @ step), 1e-12)).clip(0, 1)
        distance = np.linalg.norm(away - share[:, None] * step, axis=1)
        worst = int(distance.argmax())
        if distance[worst] > _SAME_PX:
            kept[first + 1 + worst] = True
            waiting += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return line[kept]


def _finish(line: np.ndarray) -> WideLine:
    if len(line) == 1:
        line = line[[0, 0]]
    if (line[0, :2] == line[-1, :2]).all() and len(line) == 2:
        line = line + np.array([[-_SHORT_PX, 0, -_SHORT_PX], [_SHORT_PX, 0, -_SHORT_PX]])
        line[:, 2] = np.maximum(line[:, 2], _LEAST_REACH_PX)
    # A place that the line passes twice has one width, since an import finds widths by their places.
    _, group = np.unique(line[:, :2].round(2), axis=0, return_inverse=True)
    reach = np.full(len(line), np.inf)
    np.minimum.at(reach, group.ravel(), line[:, 2])
    widths_px = np.floor(200 * reach[group.ravel()]) / 100
    return WideLine((line[:, :2] + 0.5).round(2), np.maximum(widths_px, 2 * _LEAST_REACH_PX))


def _draw_rest(crack_HW: np.ndarray, lines: list[WideLine]) -> list[WideLine]:
    """Draw what lines miss of a crack, the largest parts first, until enough of it is drawn and is one component."""
    drawn_HW = draw_lines(lines, crack_HW.shape)
    missed_HW = (crack_HW > drawn_HW).astype(np.uint8)
    num_parts, part_HW, stats, _ = cv2.connectedComponentsWithStats(missed_HW, connectivity=8)
    allowed = math.floor((1 - MIN_IOU) * int(crack_HW.sum()))
    missing = int(missed_HW.sum())
    more: list[WideLine] = []
    for part in sorted(range(1, num_parts), key=lambda n: -int(stats[n, cv2.CC_STAT_AREA])):
        if missing <= allowed and count_pieces(drawn_HW) == 1:
            break
        left, top, width, height, area = (int(v) for v in stats[part])
        box = (slice(top, top + height), slice(left, left + width))
        own_HW = part_HW[box] == part
        drawn_HW[box] |= own_HW.astype(np.uint8)
        missing -= area
        more += [WideLine(line.points + np.array([left, top]), line.widths_px) for line in _draw_runs(own_HW)]
    return more


def _draw_runs(part_HW: np.ndarray) -> list[WideLine]:
    """Draw pixels as lines of 1 px along their rows, or their columns if these are fewer."""
    choices = []
    for turned in (False, True):
        part = part_HW.T if turned else part_HW
        edges = np.diff(np.pad(part.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        (rows, starts), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)
        runs = np.stack([np.column_stack([starts, rows]), np.column_stack([ends - 1, rows])], axis=1).astype(float)
        short = starts + 1 == ends
        runs[short, 0, 0] -= _SHORT_PX
        runs[short, 1, 0] += _SHORT_PX
        choices.append(runs[..., ::-1] if turned else runs)
    return [WideLine(run + 0.5, np.ones(2)) for run in min(choices, key=len)]
