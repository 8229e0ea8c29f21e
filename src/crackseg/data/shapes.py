"""Between masks and drawn shapes: shapes -> pixels for an import, pixels -> outlines for an export.

Coordinates of shapes as in annotation tools: (0, 0) is the upper left corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from skimage.draw import polygon
from skimage.measure import approximate_polygon, find_contours

from crackseg.data.annotations import Shape
from crackseg.errors import CracksegError

_OUTLINE_TOLERANCE_PX = 0.3  # under 0.35, the least distance of an outline from a pixel's middle: no pixel is lost


def draw_shapes(shapes: list[Shape], size: tuple[int, int], line_width_px: float) -> np.ndarray:
    """Draw shapes as a mask: a pixel is on where its middle lies in one of them.

    Args:
        size: width and height of the image.
        line_width_px: of polylines that have no width of their own; at least 1 is drawn.
    Returns:
        uint8 (H, W) of {0, 1}.
    Raises:
        CracksegError: a shape is none that says which pixels are crack.
    """
    mask = np.zeros((size[1], size[0]), np.uint8)
    for shape in shapes:
        if shape.kind == "polygon":
            rows, columns = polygon(shape.points[:, 1] - 0.5, shape.points[:, 0] - 0.5, mask.shape)
            mask[rows, columns] = 1
        elif shape.kind == "polyline":
            _draw_polyline(mask, shape.points - 0.5, max(1.0, shape.width_px or line_width_px))
        elif shape.kind == "mask":
            _paste_mask(mask, shape)
        else:
            raise CracksegError(
                f"a {shape.kind} with the label {shape.label!r} does not say which pixels are crack; expected a "
                "polygon, a polyline or a mask"
            )
    return mask


def find_outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The outline of each 8-connected piece of a mask, as a polygon that :func:`draw_shapes` makes the same pixels of.

    A piece with holes is one polygon, too: it goes in to each hole and out again on the same way.

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
        rings = [approximate_polygon(np.concatenate([r, r[:1]]), _OUTLINE_TOLERANCE_PX)[:-1] for r in rings]
        rings.sort(key=lambda ring: -float(np.ptp(ring, axis=0).sum()))
        outline = rings[0]
        for hole in rings[1:]:
            distances = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
            i, j = np.unravel_index(int(distances.argmin()), distances.shape)
            outline = np.concatenate([outline[: i + 1], hole[j:], hole[: j + 1], outline[i:]])
        yield outline[:, ::-1] + (left - 0.5, top - 0.5)


def _draw_polyline(mask: np.ndarray, points: np.ndarray, width_px: float) -> None:
    """Switch on all pixels whose middle lies within half a width of the line."""
    height, width = mask.shape
    reach = width_px / 2
    for start, end in zip(
        points[: max(1, len(points) - 1)], points[1:] if len(points) > 1 else points, strict=True
    ):
        low = np.floor(np.minimum(start, end) - reach).astype(int).clip(0, (width, height))
        high = (np.ceil(np.maximum(start, end) + reach).astype(int) + 1).clip(0, (width, height))
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
        step = end - start
        share = (((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(float(step @ step), 1e-12)).clip(0, 1)
        near = np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1]) <= reach
        mask[low[1] : high[1], low[0] : high[0]] |= near.astype(np.uint8)


def _paste_mask(mask: np.ndarray, shape: Shape) -> None:
    left, top, width, height = shape.box
    runs = np.array(shape.runs, np.int64)
    fits = left >= 0 and top >= 0 and top + height <= mask.shape[0] and left + width <= mask.shape[1]
    if (runs < 0).any() or runs.sum() > width * height or not fits:
        raise CracksegError(f"a mask with the label {shape.label!r} does not fit its image; export it again")
    flat = np.zeros(width * height, np.uint8)
    flat[: runs.sum()] = np.repeat(np.arange(len(runs)) % 2, runs)
    own = flat.reshape(width, height).T if shape.by_column else flat.reshape(height, width)
    mask[top : top + height, left : left + width] |= own
