"""Fit a centre line and the width along it to each branch of a skeleton.

Second step of a measurement. The pixels of a slanted line form steps, and thinning stops before a crack's end or turns
into one of its corners. So the steps are smoothed, the ends are found, and each crack pixel is assigned to the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from crackseg.geometry.skeletons import path_length

_SMOOTHING_PX = 2.0  # of the line: its steps are gone (0.05 % in length), a corner is hardly rounded
_WIDTH_SMOOTHING_PX = 3.0
_CUT_RADII = 1.5  # closer to an end than this, a skeleton turns towards a corner
# A half disc of radius 1 is, by area, as long as this: all of it, its middle half, the quarters at its sides.
_ROUND, _ROUND_MIDDLE, _ROUND_SIDES = np.pi / 4, 0.957, 0.614
_TELLING_PX = 3.0  # narrower ends are too small to tell round from square


@dataclass(slots=True)
class Line:
    """A branch of a crack.

    Attributes:
        points: float (N, 2), x and y of its centre line in pixels, about a pixel apart.
        widths: float (N,), the crack's width there in pixels; NaN near ends and junctions, where it is not defined.
        start, end: nodes of the skeleton graph; lines that meet have the same node.
    """

    points: np.ndarray
    widths: np.ndarray
    start: int
    end: int

    @property
    def length(self) -> float:
        return path_length(self.points)

    @property
    def closed(self) -> bool:
        return self.start == self.end


def draw_lines(
    graph: nx.MultiGraph, crack: np.ndarray, skeleton: np.ndarray, half_widths: np.ndarray
) -> list[Line]:
    """Find the centre lines of one crack, from end to end, and its width along them.

    A square end counts up to the cut, a round end up to the centre of its rounding, as a pen would draw it.

    Args:
        graph: of its skeleton.
        crack: float (N, 2), x and y of its pixels.
        skeleton, half_widths: float (M, 2) and (M,), its skeleton's pixels and half of the width there.
    Returns:
        One for each edge; of a crack that is hardly longer than wide, one along its longer axis.
    """
    if not graph.number_of_edges():
        return [_draw_stubby(crack)]
    tree = cKDTree(skeleton)
    lines = []
    for start, end, edge in graph.edges(data=True):
        if edge["start"] != start:
            start, end = end, start
        closed = start == end and graph.degree(start) == 2
        radii = half_widths[tree.query(edge["points"])[1]]
        points = smooth(edge["points"], max(_SMOOTHING_PX, float(np.median(radii)) / 2), closed=closed)
        free = [node != other and graph.degree(node) == 1 for node, other in ((start, end), (end, start))]
        points_or_none = _find_ends(points, radii, free, crack)
        if points_or_none is None:
            return [_draw_stubby(crack)]  # such a line is the whole crack
        points = resample(points_or_none)
        lines.append(Line(points, np.full(len(points), np.nan), start, end))
    _share_out(lines, graph, crack, tree, half_widths)
    return lines


def _find_ends(points: np.ndarray, radii: np.ndarray, free: list[bool], crack: np.ndarray) -> np.ndarray | None:
    """Move the free ends of a line to the ends of the crack; None if the line is too short to have a direction."""
    cut_from = _cut_index(points, radii) if free[0] else 0
    cut_to = len(points) - 1 - (_cut_index(points[::-1], radii[::-1]) if free[1] else 0)
    if cut_to - cut_from < 2:
        return None if all(free) else points
    core = points[cut_from : cut_to + 1]
    ends = [core]
    if free[0]:
        ends.insert(0, _extend(core[::-1], points[:cut_from], radii[cut_from], crack)[None])
    if free[1]:
        ends.append(_extend(core, points[cut_to + 1 :], radii[cut_to], crack)[None])
    return np.concatenate(ends)


def _cut_index(points: np.ndarray, radii: np.ndarray) -> int:
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    far_enough = along >= _CUT_RADII * (radii + 1)
    return int(far_enough.argmax()) if far_enough.any() else len(points)


def _extend(core: np.ndarray, rest: np.ndarray, radius: float, crack: np.ndarray) -> np.ndarray:
    """Find the end of the line beyond the last point of ``core``, from the crack's area there."""
    tip = core[-1]
    near = np.hypot(*(core - tip).T) <= max(8.0, 3 * radius)
    last = core[len(core) - int(np.argmin(near[::-1]) or len(core)) :]  # up to where the line leaves that disc
    direction = np.linalg.svd(last - last.mean(axis=0))[2][0]
    direction *= np.sign(direction @ (tip - last[0]))
    known_px = float(direction @ (tip - last[0]))
    x, y = (crack - tip).T
    ahead, aside = x * direction[0] + y * direction[1], np.abs(x * direction[1] - y * direction[0])
    reach = (path_length(rest) if len(rest) > 1 else 0.0) + 2 * radius + 2
    near = (aside <= 1.5 * radius + 1) & (ahead > -known_px) & (ahead <= reach)
    ahead, aside = ahead[near], aside[near]
    width = np.count_nonzero(ahead <= 0) / known_px
    if not width:
        return tip

    by_area = np.count_nonzero(ahead > 0) / width
    rounding = _ROUND * width / 2
    if width < _TELLING_PX:
        return tip + direction * ahead.max()  # to the middle of the last pixel, between round and square
    past = ahead - (by_area - rounding)  # where a round end begins to narrow

    def stripe_px(pixels: np.ndarray) -> float:
        """Measure how far these pixels extend from there, on average over their width."""
        behind_px = float(known_px + by_area - rounding)
        behind = max(1, int(np.count_nonzero(pixels & (past <= 0))))
        return int(np.count_nonzero(pixels & (past > 0))) * behind_px / behind

    middle = aside <= width / 4
    roundness = (stripe_px(middle) - stripe_px(~middle)) / (_ROUND_MIDDLE - _ROUND_SIDES) / (width / 2)
    return tip + direction * (by_area - rounding * min(max(roundness, 0), 1))


def _draw_stubby(crack: np.ndarray) -> Line:
    """Return the longer axis of the rectangle with the same second moments as the crack's pixels."""
    middle = crack.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov((crack - middle).T, bias=True).reshape(2, 2) + np.eye(2) / 12)
    length, axis = float(np.sqrt(12 * values[1])), axes[:, 1]
    points = middle + np.array([[-length / 2], [length / 2]]) * axis
    width = len(crack) / length
    return Line(points, np.full(2, width), 0, 1)


def _share_out(
    lines: list[Line], graph: nx.MultiGraph, crack: np.ndarray, tree: cKDTree, half_widths: np.ndarray
) -> None:
    """Assign each crack pixel to the nearest point of a line; the width there is area divided by length."""
    sizes = [len(line.points) for line in lines]
    nearest = cKDTree(np.concatenate([line.points for line in lines])).query(crack)[1]
    areas = np.split(np.bincount(nearest, minlength=sum(sizes)).astype(float), np.cumsum(sizes)[:-1])
    for line, line_areas in zip(lines, areas, strict=True):
        spacing = line.length / (len(line.points) - 1)
        along = spacing * np.arange(len(line.points))
        radii = half_widths[tree.query(line.points)[1]]
        # Near an end its rounding is assigned as well, and near a junction the other branches.
        start_px, end_px = (
            1.5 * radii[side] + 2 if graph.degree(node) == 1 else 2 * graph.nodes[node]["half_width"] + 2
            for side, node in ((0, line.start), (-1, line.end))
        )
        says = (along >= start_px) & (along[-1] - along >= end_px)
        if graph.degree(line.start) == 2:  # a ring
            says[:] = True
        elif not says.any():
            line.widths = np.full(len(along), 2 * radii.min())
            continue
        mode = "wrap" if line.closed else "constant"
        sigma = max(_WIDTH_SMOOTHING_PX, float(np.median(radii)))
        weight = gaussian_filter1d(says.astype(float), sigma, mode=mode)
        area = gaussian_filter1d(np.where(says, line_areas, 0), sigma, mode=mode)
        line.widths = np.where(says, area / np.maximum(weight, 1e-9) / spacing, np.nan)


def smooth(points: np.ndarray, sigma: float, *, closed: bool = False) -> np.ndarray:
    """Smooth a chain, float (N, 2), by a Gaussian along it; its ends stay where they are."""
    if len(points) < 3:
        return points
    if closed:
        ring = gaussian_filter1d(points[:-1], sigma, axis=0, mode="wrap")
        return np.concatenate([ring, ring[:1]])
    pad = min(len(points) - 1, int(4 * sigma) + 1)
    # Mirrored through the end points, so that these stay in place.
    before, after = 2 * points[0] - points[pad:0:-1], 2 * points[-1] - points[-2 : -pad - 2 : -1]
    padded = np.concatenate([before, points, after])
    return gaussian_filter1d(padded, sigma, axis=0)[pad : pad + len(points)]


def resample(points: np.ndarray, spacing_px: float = 1.0) -> np.ndarray:
    """Return points along a line at equal distances of about ``spacing_px``, with its ends."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    num = max(2, round(along[-1] / spacing_px) + 1)
    at = np.linspace(0, along[-1], num)
    return np.stack([np.interp(at, along, points[:, i]) for i in (0, 1)], axis=1)
