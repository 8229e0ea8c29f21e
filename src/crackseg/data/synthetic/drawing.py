"""Crack curves for the synthetic scenes: random walks that branch, drawn as darkness and as ground truth.

The first step of ``crackseg data synth``; :mod:`crackseg.data.synthetic.scenes` puts the curves into photographs.
Points are (x, y) in pixels of the photograph, pixel centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

STEP_PX = 3.0  # distance between a walk's points: about the size of the facets of a real crack
_SUPERSAMPLING = 3  # widths come in thirds of a pixel
_RING = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))  # (dx, dy), once around


@dataclass(frozen=True, slots=True)
class Stroke:
    """One unbranched crack, or another line of the scene.

    Attributes:
        points: float (N, 2), x and y in pixels, N >= 2.
        width_px: float (N,), full width at each point.
        contrast: float (N,) in [0, 1], fraction of the light that the line takes away.
    """

    points: np.ndarray
    width_px: np.ndarray
    contrast: np.ndarray


@dataclass(frozen=True, slots=True)
class CrackStyle:
    """Parameters of the cracks of a scene; pairs are ranges to draw from.

    Attributes:
        num_main: cracks that set out from the picture's border (the upper end is excluded); one that leaves
            it or meets another at once does not count.
        width_px: mean width of a main crack.
        contrast: mean contrast of a main crack.
        wander: spread of the direction, in radians.
        branch_every_px: mean distance between branches; ``inf`` for none.
    """

    num_main: tuple[int, int]
    width_px: tuple[float, float]
    contrast: tuple[float, float]
    wander: float = 0.35
    branch_every_px: float = np.inf


def smooth_curve(rng: np.random.Generator, num_points: int, knot_every: float) -> np.ndarray:
    """Draw a wavering curve: (num_points,), zero mean, about unit spread, a random knot every so many points."""
    num_knots = int(num_points / knot_every) + 2
    return np.interp(np.arange(num_points) / knot_every, np.arange(num_knots), rng.standard_normal(num_knots))


def walk(
    rng: np.random.Generator, start: np.ndarray, heading: float, length_px: float, wander: float
) -> np.ndarray:
    """Walk from ``start`` with a heading (radians) that wavers on three scales but does not drift away.

    Returns:
        float (N, 2), points ``STEP_PX`` apart.
    """
    n = max(2, int(length_px / STEP_PX))
    bends = smooth_curve(rng, n, 30) + 0.9 * smooth_curve(rng, n, 8) + 0.8 * rng.standard_normal(n)
    angle = heading + wander * bends
    steps = STEP_PX * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.vstack([start, start + np.cumsum(steps, axis=0)])


def make_stroke(
    rng: np.random.Generator, points: np.ndarray, width_px: float, contrast: float, *, tapers: bool = False
) -> Stroke:
    """Give a walk a width and a darkness that vary along it, with short gaps where the crack nearly closes."""
    n = len(points)
    width = width_px * np.exp(0.3 * smooth_curve(rng, n, 9) + 0.15 * rng.standard_normal(n))
    dark = contrast * (1 + 0.18 * smooth_curve(rng, n, 14) + 0.12 * rng.standard_normal(n))
    for _ in range(rng.poisson(n * STEP_PX / 160)):
        begin = int(rng.integers(n))
        dark[begin : begin + int(rng.integers(2, 5))] *= rng.uniform(0.15, 0.5)
    if tapers:  # the free end runs out
        end = np.minimum(1, np.arange(n, 0, -1) * STEP_PX / 45)
        width, dark = width * (0.4 + 0.6 * end), dark * (0.45 + 0.55 * end)
    return Stroke(points, width.clip(0.7, None), dark.clip(0.03, 0.95))


def make_network(rng: np.random.Generator, size: tuple[int, int], style: CrackStyle) -> list[Stroke]:
    """Grow cracks from the border, and branches from cracks; a crack that meets another ends there.

    Args:
        rng: source of all randomness.
        size: (width, height) of the picture in pixels.
        style: how many, how wide, how dark, how branched.
    Returns:
        at least one stroke, main cracks before their branches.
    """
    width, height = size
    taken = np.zeros((height, width), np.uint8)
    strokes: list[Stroke] = []

    def grow(start: np.ndarray, heading: float, length_px: float, width_px: float, contrast: float) -> None:
        points = walk(rng, start, heading, length_px, style.wander)
        inside = ((points > -STEP_PX) & (points < (width + STEP_PX, height + STEP_PX))).all(axis=1)
        cells = np.rint(points).astype(int).clip(0, (width - 1, height - 1))
        meets = taken[cells[:, 1], cells[:, 0]] > 0
        meets[:5] = False  # a branch begins on its parent
        stops = np.flatnonzero(~inside | meets)
        free_end = not stops.size
        points = points if free_end else points[: stops[0] + 1]
        if len(points) * STEP_PX < min(30, 0.3 * min(size)):
            return
        stroke = make_stroke(rng, points, width_px, contrast, tapers=free_end)
        cv2.polylines(taken, [np.rint(points).astype(np.int32)], False, 1, 3)
        strokes.append(stroke)
        if width_px < 0.9:
            return
        for _ in range(rng.poisson(len(points) * STEP_PX / style.branch_every_px)):
            at = int(rng.integers(len(points)))
            before, after = points[max(0, at - 6)], points[min(len(points) - 1, at + 6)]
            direction = np.arctan2(*(after - before)[::-1])
            turn = rng.choice((-1, 1)) * rng.uniform(0.6, 1.5)
            length = 40 + rng.exponential(0.3 * max(size))
            finer, fainter = width_px * rng.uniform(0.55, 0.9), contrast * rng.uniform(0.7, 1)
            grow(points[at], direction + turn, length, finer, fainter)

    def grow_from_border() -> None:
        side, along = int(rng.integers(4)), rng.uniform(0.1, 0.9)
        x, y = ((along, 0), (1, along), (along, 1), (0, along))[side]
        heading = (side + 1) * np.pi / 2 + rng.normal(0, 0.4)  # inwards; y points down
        length = max(size) * rng.uniform(0.5, 1.6)
        start = np.array((x * (width - 1), y * (height - 1)))
        grow(start, heading, length, rng.uniform(*style.width_px), rng.uniform(*style.contrast))

    for _ in range(int(rng.integers(*style.num_main))):
        grow_from_border()
    while not strokes:
        grow_from_border()
    return strokes


def make_line(
    rng: np.random.Generator, size: tuple[int, int], angle: float, width_px: float, contrast: float
) -> Stroke:
    """Draw a nearly straight line right across the picture: a joint, the edge of a slab, a scratch."""
    centre = np.array(size) * rng.uniform(0.15, 0.85, 2)
    reach = float(np.hypot(*size))
    along = np.arange(-reach, reach, STEP_PX)
    sway = 1.2 * smooth_curve(rng, len(along), 25) + 0.35 * rng.standard_normal(len(along))
    direction = np.array((np.cos(angle), np.sin(angle)))
    points = centre + along[:, None] * direction + sway[:, None] * direction[::-1] * (-1, 1)
    near = ((points > -2 * STEP_PX) & (points < np.array(size) + 2 * STEP_PX)).all(axis=1)
    return make_stroke(rng, points[near], width_px, contrast)


def draw_contrast(strokes: list[Stroke], size: tuple[int, int]) -> np.ndarray:
    """Draw strokes as anti-aliased contrast: float32 (H, W) in [0, 1], 0 where there is none."""
    width, height = size
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    segments = [
        (float(s.contrast[i]), float(s.width_px[i]), s.points[i], s.points[i + 1])
        for s in strokes
        for i in range(len(s.points) - 1)
    ]
    for contrast, width_px, begin, end in sorted(segments, key=lambda segment: segment[0]):  # the darkest wins
        ends = np.rint(((np.array((begin, end)) + 0.5) * _SUPERSAMPLING - 0.5) * 16).astype(int).tolist()
        thickness = max(1, round(width_px * _SUPERSAMPLING))
        cv2.line(canvas, ends[0], ends[1], round(255 * contrast), thickness, cv2.LINE_8, 4)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def draw_truth(strokes: list[Stroke], size: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """Draw the centre lines as the datasets annotate them: one pixel wide, 8-connected.

    Args:
        strokes: the cracks.
        size: (width, height) of the mask in pixels.
        scale: mask pixels per photograph pixel.
    Returns:
        uint8 (H, W), 0 or 1.
    """
    return thin(draw_centre_lines(strokes, size, scale))


def draw_centre_lines(strokes: list[Stroke], size: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """Draw the centre lines as :func:`draw_truth` does, but two pixels wide at some corners: faster."""
    mask = np.zeros(size[::-1], np.uint8)
    for stroke in strokes:
        cells = np.rint((stroke.points + 0.5) * scale - 0.5).astype(np.int32)
        cv2.polylines(mask, [cells], False, 1, 1, cv2.LINE_8)
    return mask


def thin(mask: np.ndarray) -> np.ndarray:
    """Take away pixels, one at a time, that no 8-connected curve needs; ends and connections stay.

    A pixel may go if its 8-connectivity number (Yokoi et al., 1975) is 1 and it has at least two neighbours.

    Args:
        mask: uint8 (H, W), 0 or 1, lines already a pixel or two wide.
    Returns:
        uint8 (H, W), 0 or 1.
    """
    padded = np.pad(mask, 1)
    changed = True
    while changed:
        changed = False
        ys, xs = np.nonzero(padded)
        ring = np.stack([padded[ys + dy, xs + dx] for dx, dy in _RING], axis=1)
        for x, y in np.stack([xs, ys], axis=1)[_may_go(ring)].tolist():
            now = np.array([[padded[y + dy, x + dx] for dx, dy in _RING]])
            if _may_go(now)[0]:  # an earlier removal in this pass may have made the pixel needed
                padded[y, x] = 0
                changed = True
    return padded[1:-1, 1:-1].copy()


def _may_go(ring: np.ndarray) -> np.ndarray:
    empty = 1 - ring.astype(int)
    sides, corners, next_sides = empty[:, 0::2], empty[:, 1::2], np.roll(empty[:, 0::2], -1, axis=1)
    connectivity = (sides - sides * corners * next_sides).sum(axis=1)
    return (connectivity == 1) & (ring.sum(axis=1) >= 2)
