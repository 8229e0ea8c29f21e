"""Shapes of known geometry, drawn without a drawing library: a pixel is on where its middle lies in the shape."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Point = tuple[float, float]


def direction(degrees: float) -> np.ndarray:
    """A step of 1 px, counter-clockwise from the x axis as one sees it: y points down."""
    return np.array([np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))])


def draw_polyline(points: np.ndarray, width: float, size: int = 240) -> np.ndarray:
    """As by a round pen: all that is within half a width of the line; bool (size, size)."""
    y, x = np.mgrid[:size, :size]
    near = np.zeros((size, size), bool)
    for start, end in pairwise(points):
        step = end - start
        share = (((x - start[0]) * step[0] + (y - start[1]) * step[1]) / (step @ step)).clip(0, 1)
        near |= np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1]) <= width / 2
    return near


def draw_bar(centre: Point, length: float, width: float, degrees: float, size: int = 240) -> np.ndarray:
    """A straight piece with square ends; bool (size, size)."""
    y, x = np.mgrid[:size, :size]
    along = direction(degrees)
    u = (x - centre[0]) * along[0] + (y - centre[1]) * along[1]
    v = (x - centre[0]) * along[1] - (y - centre[1]) * along[0]
    return (abs(u) <= length / 2) & (abs(v) <= width / 2)
