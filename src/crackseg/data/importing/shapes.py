"""Convert drawn shapes to pixels for an import, and pixels to outlines for an export.

Coordinates of shapes as in annotation tools: (0, 0) is the upper left corner of the first pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.draw import polygon
from skimage.measure import find_contours

from crackseg.data.importing.annotations.drawn import Shape
from crackseg.errors import count_of, join_some

_OUTLINE_TOLERANCE_PX = 0.3  # under 0.35, the least distance of an outline from a pixel's middle: no pixel is lost
_NORMALISED_SIZE_PX = 16  # in a smaller image, all points from 0 to 1 may be a crack in its corner


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes of one image as a mask, and annotations that were not drawn.

    Attributes:
        mask: uint8 (H, W) of {0, 1}.
        problems: a message for each shape that draws no pixel or does not fit, with its place.
        cut: places of shapes that are drawn, and lie outside the image in part.
    """

    mask: np.ndarray
    problems: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()


def draw_shapes(shapes: list[Shape], size: tuple[int, int], line_width_px: float) -> Drawing:
    """Draw shapes as a mask: a pixel is on where its middle lies in one of them.

    Args:
        shapes: of the kinds that can be drawn.
        size: width and height of the image.
        line_width_px: of polylines that have no width of their own; at least 1 is drawn.
    """
    mask = np.zeros((size[1], size[0]), np.uint8)
    problems, cut = [], []
    outlines = [shape.points for shape in shapes if len(shape.points)]
    if outlines and min(size) > _NORMALISED_SIZE_PX and all((p >= 0).all() and (p <= 1).all() for p in outlines):
        where = join_some((f"{s.kind} ({s.place})" if s.place else s.kind for s in shapes), 3)
        problems.append(f"{where}: all coordinates are from 0 to 1, as fractions of the size; expected pixels")
        shapes = [shape for shape in shapes if shape.kind == "mask"]
    for shape in shapes:
        what = f"{shape.kind} ({shape.place})" if shape.place else shape.kind
        reason = _why_undrawable(shape, size)
        if reason is None and _draw_shape(mask, shape, line_width_px) == 0:
            reason = _why_no_pixel(shape, size)
        if reason is not None:
            problems.append(f"{what} with the label {shape.label!r} {reason}")
        elif len(shape.points) and _reaches_outside(shape.points, size):
            cut.append(what)
    return Drawing(mask, tuple(problems), tuple(cut))


def _draw_shape(mask: np.ndarray, shape: Shape, line_width_px: float) -> int:
    """Switch on the pixels of a shape and return their number, whether they were on before or not."""
    if shape.kind == "polyline":
        widths_px = shape.widths_px if len(shape.widths_px) else line_width_px
        return _draw_polyline(mask, shape.points - 0.5, np.broadcast_to(widths_px, len(shape.points)))
    if shape.kind == "mask":
        return _paste_mask(mask, shape)
    own = _fill(shape.points, mask.shape)
    if shape.holes:
        inside = np.zeros_like(mask, bool)
        inside[own] = True
        for hole in shape.holes:
            inside[_fill(hole, mask.shape)] = False
        own = np.nonzero(inside)
    mask[own] = 1
    return len(own[0])


def _fill(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rows, columns = polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, shape)
    return rows, columns


def _why_undrawable(shape: Shape, size: tuple[int, int]) -> str | None:
    """Return why a shape is not drawn at all, None if it can be tried."""
    if shape.kind == "mask":
        left, top, width, height = shape.box
        if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
            return (
                f"does not fit its image of {size[0]} x {size[1]} pixels (columns {left} to {left + width}, rows "
                f"{top} to {top + height}); export it again"
            )
        return None
    needed = {"polygon": 3, "polyline": 2}[shape.kind]
    points = len(shape.points)
    return f"has {count_of(points, 'point')}; expected at least {needed}" if points < needed else None


def _why_no_pixel(shape: Shape, size: tuple[int, int]) -> str:
    """Return why a shape, which was tried, has no pixel in the image."""
    if shape.kind == "mask":
        return "draws no pixel: its mask is empty"
    low, high = shape.points.min(axis=0), shape.points.max(axis=0)
    span = f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
    if (high <= 0).any() or (low >= size).any():
        return (
            f"draws no pixel: it lies outside the image of {size[0]} x {size[1]} pixels ({span}); is it of the "
            "photograph before it was made smaller or cut?"
        )
    return f"draws no pixel: no pixel's middle lies in it ({span}); draw it wider or as a line, or delete it"


def _reaches_outside(points: np.ndarray, size: tuple[int, int]) -> bool:
    # Tools round, and some count pixels from 1: up to a pixel outside is on the edge.
    return bool((points < -1).any() or (points > np.array(size) + 1).any())


def find_outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Find the outline of each 8-connected component of a mask, as a polygon; :func:`draw_shapes` is the inverse.

    A component with holes is one polygon, too: it enters and leaves each hole along the same path.

    Args:
        mask: bool or uint8 {0, 1}, (H, W).
    Returns:
        float (N, 2), x and y, the last point not the first again.
    """
    num_pieces, piece, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for number in range(1, num_pieces):
        left, top, width, height = stats[number, :4]
        own = np.pad(piece[top : top + height, left : left + width] == number, 1).astype(np.float32)
        rings = [ring[:-1] for ring in find_contours(own, 0.5, fully_connected="high")]
        # By OpenCV, 20 times as fast as scikit-image; its float32 is exact for halves of a pixel.
        rings = [cv2.approxPolyDP(r.astype(np.float32), _OUTLINE_TOLERANCE_PX, closed=True)[:, 0] for r in rings]
        rings.sort(key=lambda ring: -float(np.ptp(ring, axis=0).sum()))
        outline = rings[0]
        for hole in rings[1:]:
            distances = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
            i, j = np.unravel_index(int(distances.argmin()), distances.shape)
            outline = np.concatenate([outline[: i + 1], hole[j:], hole[: j + 1], outline[i:]])
        yield outline[:, ::-1] + (left - 0.5, top - 0.5)


def _draw_polyline(mask: np.ndarray, points: np.ndarray, widths_px: np.ndarray) -> int:
    """Switch on all pixels whose middle lies within half a width of the line; return their number.

    Between two points, the width changes linearly. At least 1 px is drawn.
    """
    drawn = 0
    height, width = mask.shape
    reaches = np.maximum(1.0, widths_px) / 2
    for (start, end), (first, last) in zip(itertools.pairwise(points), itertools.pairwise(reaches), strict=True):
        reach = max(first, last)
        low = np.floor(np.minimum(start, end) - reach).astype(int).clip(0, (width, height))
        high = (np.ceil(np.maximum(start, end) + reach).astype(int) + 1).clip(0, (width, height))
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
        step = end - start
        share = (((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(float(step @ step), 1e-12)).clip(0, 1)
        distance = np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1])
        near = distance <= first + share * (last - first)
        mask[low[1] : high[1], low[0] : high[0]] |= near.astype(np.uint8)
        drawn += int(near.sum())
    return drawn


def _paste_mask(mask: np.ndarray, shape: Shape) -> int:
    left, top, width, height = shape.box
    runs = np.array(shape.runs, np.int64)
    flat = np.zeros(width * height, np.uint8)
    flat[: runs.sum()] = np.repeat(np.arange(len(runs)) % 2, runs)
    own = flat.reshape(width, height).T if shape.by_column else flat.reshape(height, width)
    mask[top : top + height, left : left + width] |= own
    return int(flat.sum())
