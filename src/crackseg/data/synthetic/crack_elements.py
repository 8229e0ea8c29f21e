"""Cracks that are drawn over patches in addition to a scene's own: hair-thin, wide, light, and networks of them."""

from __future__ import annotations

import cv2
import numpy as np

from crackseg.data.synthetic.drawing import (
    CrackStyle,
    Stroke,
    draw_centre_lines,
    draw_contrast,
    make_network,
    make_stroke,
    smooth_curve,
)


def draw_more_cracks(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add cracks of any width and contrast, hair-thin next to wide ones; one in ten is lighter than the surface."""
    size = image.shape[1], image.shape[0]
    width = float(np.exp(rng.uniform(np.log(0.8), np.log(7))))
    contrast = rng.uniform(0.15, 0.85)
    style = CrackStyle(
        (1, 3),
        (0.7 * width, 1.3 * width),
        (0.8 * contrast, contrast),
        rng.uniform(0.15, 0.5),
        rng.uniform(80, 500),
    )
    return _cut(rng, image, mask, make_network(rng, size, style), light=rng.random() < 0.1)


def draw_alligator(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a network of map cracking: edges of irregular cells, in a part of the patch, of uneven strength."""
    from scipy.spatial import Voronoi  # a third of a second, which training without scenes need not wait for

    height, width = mask.shape
    cell = rng.uniform(12, 70)
    stretch = np.array((1.0, rng.uniform(0.5, 1.5)))
    count = int(np.prod(np.array((width, height)) * 1.4 / (cell * stretch))) + 4
    cells = Voronoi(rng.uniform(-0.2, 1.2, (min(count, 400), 2)) * (width, height))
    strength, mean_width = rng.uniform(0.25, 0.8), rng.uniform(1.0, 3.5)
    centre, reach = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.3, 1.2) * max(width, height)
    strokes = []
    for begin, end in cells.ridge_vertices:
        if begin < 0:
            continue
        ends = cells.vertices[[begin, end]]
        middle, length = ends.mean(axis=0), float(np.hypot(*(ends[1] - ends[0])))
        if not 3 < length < 300 or np.hypot(*(middle - centre)) > reach or rng.random() < 0.12:
            continue
        number = max(3, round(length / 4))
        points = ends[0] + np.linspace(0, 1, number)[:, None] * (ends[1] - ends[0])
        points[1:-1] += 0.05 * length * smooth_curve(rng, number, 4)[1:-1, None] + rng.normal(
            0, 0.5, (number - 2, 2)
        )
        strokes.append(
            make_stroke(rng, points, mean_width * rng.uniform(0.6, 1.4), strength * rng.uniform(0.6, 1.1))
        )
    return _cut(rng, image, mask, strokes, light=False) if strokes else (image, mask)


def _cut(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, strokes: list[Stroke], *, light: bool
) -> tuple[np.ndarray, np.ndarray]:
    size = mask.shape[1], mask.shape[0]
    depth = draw_contrast(strokes, size)
    soft = rng.uniform(0, 0.9)
    if soft > 0.3:
        depth = cv2.GaussianBlur(depth, (0, 0), soft)
    grain = cv2.GaussianBlur(rng.standard_normal(mask.shape, dtype=np.float32), (0, 0), 1.0) * 3
    depth = (depth * (1 + 0.15 * grain)).clip(0, 0.95)[..., None]
    image = image + depth * (np.float32(235) - image) if light else image * (1 - depth)
    return image, np.maximum(mask, draw_centre_lines(strokes, size))
