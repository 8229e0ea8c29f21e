"""Measure the cracks of a mask: length, width, direction and shape, in pixels.

Each 8-connected component of a mask is a crack. Angles are counter-clockwise from the image's x axis as seen on the
screen, where the y axis of pixels points down.

Shape legend: H rows, W columns; places are (x, y) of pixel centres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import cv2
import networkx as nx
import numpy as np

from crackseg.geometry.centerlines import as_bool, find_centerlines
from crackseg.geometry.length import Line, draw_lines
from crackseg.geometry.skeletons import build_skeleton_graph, path_length

NUM_DIRECTIONS = 18  # of the orientation histogram, 10 degrees each
_PINHOLE_PX = 12  # holes up to this area are noise; lines would run around them
_NO_DIRECTION = 0.9  # ratio of the axes over which a crack has no direction


@dataclass(frozen=True)
class Branch:
    """A part of a crack between two of its ends and junctions.

    Attributes:
        line: its centre line and the widths along it.
    """

    line: Line

    @cached_property
    def length_px(self) -> float:
        return path_length(self.line.points)

    @property
    def mean_width_px(self) -> float:
        return float(np.nanmean(self.line.widths))

    @property
    def max_width_px(self) -> float:
        return float(np.nanmax(self.line.widths))

    @property
    def orientation_deg(self) -> float | None:
        """Direction of its longer axis, [0, 180); None if it has none (a ring)."""
        return _orientation([self.line.points])

    @property
    def tortuosity(self) -> float | None:
        """Length over the distance of its ends, >= 1; None if these coincide."""
        chord = float(np.hypot(*(self.line.points[-1] - self.line.points[0])))
        return max(1.0, self.length_px / chord) if chord >= 1 else None


@dataclass(frozen=True)
class Crack:
    """One crack.

    Attributes:
        area_px: its pixels.
        box_px: x, y, width, height of its bounding box, whole pixels.
        branches: at least one.
    """

    area_px: int
    box_px: tuple[int, int, int, int]
    branches: tuple[Branch, ...]

    @cached_property
    def length_px(self) -> float:
        """Length of all branches."""
        return sum(branch.length_px for branch in self.branches)

    @cached_property
    def mean_width_px(self) -> float:
        """Mean width of the branches, weighted by their length."""
        return sum(b.mean_width_px * b.length_px for b in self.branches) / self.length_px

    @cached_property
    def max_width_px(self) -> float:
        return max(branch.max_width_px for branch in self.branches)

    @cached_property
    def orientation_deg(self) -> float | None:
        """Direction of the longer axis of all branches, [0, 180); None if no direction predominates (a cross)."""
        return _orientation([branch.line.points for branch in self.branches])

    @cached_property
    def tortuosity(self) -> float | None:
        """Tortuosity of the path between the two ends that are farthest apart along the crack; None for a ring."""
        if len(self.branches) == 1:
            return self.branches[0].tortuosity
        graph = nx.Graph()
        places: dict[int, np.ndarray] = {}
        for branch in self.branches:
            line = branch.line
            places |= {line.start: line.points[0], line.end: line.points[-1]}
            known = graph.get_edge_data(line.start, line.end, {"length": np.inf})["length"]
            graph.add_edge(line.start, line.end, length=min(known, branch.length_px))
        far = next(iter(graph))
        for _ in range(2):  # exact without rings
            start = far
            lengths = nx.single_source_dijkstra_path_length(graph, start, weight="length")
            far = max(lengths, key=lambda node: lengths[node])
        chord = float(np.hypot(*(places[far] - places[start])))
        return max(1.0, lengths[far] / chord) if chord >= 1 else None


@dataclass(frozen=True)
class Measurement:
    """All cracks of a mask, the longest first.

    Attributes:
        width_px, height_px: of the mask.
        cracks: may be empty.
    """

    width_px: int
    height_px: int
    cracks: tuple[Crack, ...]

    @property
    def length_px(self) -> float:
        return sum((crack.length_px for crack in self.cracks), 0.0)

    @property
    def area_px(self) -> int:
        return sum(crack.area_px for crack in self.cracks)

    @property
    def mean_width_px(self) -> float | None:
        """Mean width of the cracks, weighted by their length; None without cracks."""
        return sum(c.mean_width_px * c.length_px for c in self.cracks) / self.length_px if self.cracks else None

    @property
    def max_width_px(self) -> float | None:
        return max((crack.max_width_px for crack in self.cracks), default=None)

    def direction_lengths_px(self) -> list[float]:
        """Length of centre line in each of ``NUM_DIRECTIONS`` equal ranges of direction, from 0 to 180 degrees."""
        total = np.zeros(NUM_DIRECTIONS)
        for crack in self.cracks:
            for branch in crack.branches:
                points = branch.line.points
                # Directions over several pixels: a single step is too coarse.
                picked = points[
                    np.unique(np.linspace(0, len(points) - 1, max(2, len(points) // 5)).round().astype(int))
                ]
                steps = np.diff(picked, axis=0)
                degrees = np.degrees(np.arctan2(-steps[:, 1], steps[:, 0])) % 180
                lengths = np.hypot(*steps.T)
                scale = branch.length_px / max(lengths.sum(), 1e-9)
                index = (degrees / 180 * NUM_DIRECTIONS).astype(int) % NUM_DIRECTIONS
                total += np.bincount(index, lengths * scale, NUM_DIRECTIONS)
        return [float(value) for value in total]


def measure_mask(mask_HW: np.ndarray, *, min_length_px: float = 0) -> Measurement:
    """Measure the cracks of a mask.

    Args:
        mask_HW: bool (H, W), or uint8 {0, 1}.
        min_length_px: leave out shorter cracks.
    Raises:
        CracksegError: it is no mask.
    """
    mask_HW = as_bool(mask_HW)
    height, width = mask_HW.shape
    cracks = [crack for crack in _find_cracks(mask_HW.view(np.uint8)) if crack.length_px >= min_length_px]
    cracks.sort(key=lambda crack: -crack.length_px)
    return Measurement(width, height, tuple(cracks))


def _find_cracks(mask_HW: np.ndarray) -> Iterator[Crack]:
    solid_HW = _fill_pinholes(mask_HW)
    distance_HW = cv2.distanceTransform(np.pad(solid_HW, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    line_HW = find_centerlines(solid_HW)
    skeletons = np.argwhere(line_HW)
    # The crack ends half a pixel before the centre of the next pixel.
    half_widths = (distance_HW[line_HW] - 0.5).astype(float)
    del distance_HW, line_HW
    num_pieces, piece_HW = cv2.connectedComponents(solid_HW, connectivity=8)
    pixels = np.argwhere(mask_HW)
    of_pixel = piece_HW[mask_HW > 0]
    of_skeleton = piece_HW[tuple(skeletons.T)]
    del piece_HW
    pieces = range(1, num_pieces)
    for crack, chosen in zip(_split(of_pixel, pieces), _split(of_skeleton, pieces), strict=True):
        yield _measure_piece(pixels[crack], skeletons[chosen], half_widths[chosen])


def _measure_piece(pixels: np.ndarray, skeleton: np.ndarray, half_widths: np.ndarray) -> Crack:
    crack = pixels[:, ::-1].astype(float)
    graph = build_skeleton_graph(skeleton, half_widths) if len(skeleton) else nx.MultiGraph()
    lines = draw_lines(graph, crack, skeleton[:, ::-1].astype(float), half_widths)
    top, left = pixels.min(axis=0)
    bottom, right = pixels.max(axis=0)
    box = (int(left), int(top), int(right - left + 1), int(bottom - top + 1))
    return Crack(len(pixels), box, tuple(Branch(line) for line in lines))


def _fill_pinholes(mask_HW: np.ndarray) -> np.ndarray:
    num, piece_HW, stats, _ = cv2.connectedComponentsWithStats(1 - mask_HW, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= _PINHOLE_PX
    small[0] = False  # the cracks
    x, y = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = x + stats[:, cv2.CC_STAT_WIDTH], y + stats[:, cv2.CC_STAT_HEIGHT]
    height, width = mask_HW.shape
    small &= (x > 0) & (y > 0) & (right < width) & (bottom < height)  # a gap at the border is no hole
    return np.where(small[piece_HW], np.uint8(1), mask_HW) if num > 1 and small.any() else mask_HW


def _split(labels: np.ndarray, wanted: range) -> list[np.ndarray]:
    """Return the indices of each label, in ascending order."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], [*wanted, wanted.stop])
    return [order[a:b] for a, b in pairwise(bounds)]


def _orientation(lines: list[np.ndarray]) -> float | None:
    """Direction of the axis along which lines of evenly spaced points extend the most, degrees in [0, 180)."""
    points = np.concatenate(lines)
    values, axes = np.linalg.eigh(np.cov(points.T))
    if values[1] <= 0 or values[0] > _NO_DIRECTION**2 * values[1]:
        return None
    x, y = axes[:, 1]
    return float(np.degrees(np.arctan2(-y, x)) % 180)
