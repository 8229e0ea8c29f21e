"""Elements of surfaces that are lines or dots and no cracks: joints, shadows, wires, stains, holes, pits, seals, text.

Light is float32 (H, W), about 0 to 255; each function gives the change of light that the element makes.
"""

from __future__ import annotations

import cv2
import numpy as np

from crackseg.data.synthetic.drawing import draw_contrast, make_stroke, smooth_curve, walk
from crackseg.data.synthetic.textures import ramp


def draw_joints(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw one family of near-straight joints, as between formwork planks: each wobbles, fades in and out along
    itself, and the planks between them differ in brightness; some have a soft stain along them.
    """
    angle = rng.uniform(0, np.pi)
    if rng.random() < 0.75:
        angle = rng.integers(2) * np.pi / 2 + np.deg2rad(rng.uniform(-2, 2))
    lines = ParallelLines(size, angle)
    spacing = rng.uniform(40, 260)
    offsets = lines.spread(rng, spacing)
    sign = -1 if rng.random() < 0.9 else 1  # joints are darker, nine in ten
    strength, half_width, stained = rng.uniform(20, 110), rng.uniform(0.6, 2.6), rng.random() < 0.4
    faint = rng.random() < 0.7
    step = rng.uniform(2, 14) if rng.random() < 0.7 else 0.0
    levels = rng.standard_normal(len(offsets) + 1).astype(np.float32) * np.float32(step)
    change = levels[np.searchsorted(offsets, lines.across)]
    for offset in offsets:
        distance = lines.distance(rng, float(offset), wobble_px=rng.uniform(0.2, 1.5))
        half = half_width * rng.uniform(0.7, 1.3) * np.exp(0.35 * lines.curve(rng, rng.uniform(8, 30)))
        fade = ramp(lines.curve(rng, rng.uniform(25, 90)), *((-1.6, 0.3) if faint else (-4.0, -3.0)))
        dark = (fade * (1 + 0.2 * lines.curve(rng, 6))).clip(0, 1.3)
        profile = ramp(half[lines.at] + 0.5 - distance, 0, 1) * dark[lines.at]
        change += np.float32(sign * strength * rng.uniform(0.6, 1.2)) * profile
        if stained:
            along = ramp(lines.curve(rng, rng.uniform(20, 80)), -1, 1.5)[lines.at]
            change += np.float32(rng.uniform(-45, 15)) * np.exp(-distance / rng.uniform(4, 20)) * along
    return change


def draw_grid(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw the joints of tiles or bricks: two families at right angles, even, the second one maybe staggered."""
    angle = rng.normal(0, 0.04) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    strength = np.float32(rng.choice((-1, -1, 1)) * rng.uniform(15, 80))
    half = rng.uniform(0.8, 4.0)
    first, second = ParallelLines(size, angle), ParallelLines(size, angle + np.pi / 2)
    spacing = rng.uniform(30, 120)
    change = np.zeros(size, np.float32)
    offsets = first.spread(rng, spacing, spread=0.02)
    for offset in offsets:
        distance = first.distance(rng, float(offset), wobble_px=0.4)
        change = np.maximum(change, ramp(half + 0.5 - distance, 0, 1))
    staggered = rng.random() < 0.5
    row = np.searchsorted(offsets, first.across) % 2 == 0
    spacing *= rng.uniform(1, 2.5)
    for offset in second.spread(rng, spacing, spread=0.02):
        distance = second.distance(rng, float(offset), wobble_px=0.4)
        shifted = second.distance(rng, float(offset) + spacing / 2, wobble_px=0.4)
        distance = np.where(row, distance, shifted) if staggered else distance
        change = np.maximum(change, ramp(half + 0.5 - distance, 0, 1))
    texture = 1 + 0.25 * cv2.GaussianBlur(rng.standard_normal(size, dtype=np.float32), (0, 0), 1.5) * 3
    return strength * change * texture.clip(0.2, 1.6)


def draw_tie_holes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw up to three dark round holes, as ties, bolts and pores leave them."""
    change = np.zeros(size, np.float32)
    for _ in range(int(rng.integers(0, 4))):
        radius = rng.uniform(1, 6)
        change = np.minimum(change, np.float32(-rng.uniform(20, 110)) * _disc(rng, size, radius))
    return change


def draw_shadow_lines(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw the soft shadows of a railing or of a wire: straight parallel bands without texture of their own."""
    lines = ParallelLines(size, rng.uniform(0, np.pi))
    half, soft = rng.uniform(1, 14), rng.uniform(0.8, 5)
    change = np.zeros(size, np.float32)
    for offset in lines.spread(rng, rng.uniform(30, 200)):
        change = np.maximum(change, ramp(half - np.abs(lines.across - np.float32(offset)), -soft, soft))
    return np.float32(-rng.uniform(15, 70)) * change


def draw_wires(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw one to three wires or stalks: smooth arcs of even width and darkness, or bright ones."""
    height, width = size
    canvas = np.zeros(size, np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        begin, end = rng.uniform(-0.3, 1.3, (2, 2)) * (width, height)
        bend = rng.normal(0, 0.12) * (end - begin)[::-1] * (-1, 1)
        t = np.linspace(0, 1, 40)[:, None]
        points = begin * (1 - t) ** 2 + 2 * t * (1 - t) * ((begin + end) / 2 + bend) + end * t**2
        thickness = int(rng.integers(2, 7))
        cv2.polylines(canvas, [np.rint(points * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 4)
    return np.float32(rng.choice((-1, -1, 1)) * rng.uniform(30, 120)) * canvas.astype(np.float32) / 255


def draw_stains(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw soft-edged stains, wet or painted: each edge is a step of brightness, and no line."""
    noise = cv2.resize(rng.standard_normal((6, 6)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.standard_normal((40, 40)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    edge = rng.uniform(0.02, 0.5)
    return np.float32(rng.uniform(-60, 40)) * ramp(noise + 0.15 * fine, rng.uniform(0, 0.8), 1 + edge)


def draw_pits(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw many short dark strokes, commas and blots, as pores and scratches of formwork leave them in concrete."""
    height, width = size
    canvas = np.zeros(size, np.uint8)
    heading, spread = rng.uniform(0, np.pi), rng.choice((0.25, 3.0))
    longest = rng.uniform(4, 20)
    for _ in range(int(rng.integers(4, 60))):
        angle, length = heading + rng.normal(0, spread), rng.uniform(2, longest)
        bend = rng.normal(0, 0.25)
        t = np.linspace(-0.5, 0.5, 5)
        points = rng.uniform(0, 1, 2) * (width, height) + length * np.stack(
            [t * np.cos(angle) - bend * t * t * np.sin(angle), t * np.sin(angle) + bend * t * t * np.cos(angle)],
            axis=1,
        )
        ends = np.rint(points * 16).astype(np.int32)
        cv2.polylines(canvas, [ends], False, int(rng.integers(60, 256)), int(rng.integers(1, 5)), cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), rng.uniform(0.4, 1.6))
    return np.float32(rng.choice((-1, -1, -1, 1)) * rng.uniform(20, 110)) * soft


def draw_veins(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw veins of marble: soft wandering bands, lighter or darker, one edge sharper than the other."""
    change = np.zeros(size, np.float32)
    for _ in range(int(rng.integers(1, 6))):
        points = walk(rng, rng.uniform(0, 1, 2) * size[::-1], rng.uniform(0, 2 * np.pi), 2.0 * max(size), 0.35)
        vein = draw_contrast([make_stroke(rng, points, rng.uniform(2, 14), 0.6)], size[::-1])
        soft = cv2.GaussianBlur(vein, (0, 0), rng.uniform(1.8, 6))
        change += np.float32(rng.choice((-1, 1)) * rng.uniform(30, 110)) * soft
    return change


def draw_tyre_marks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw dark streaks of tyres: bands with even noise along their way."""
    lines = ParallelLines(size, rng.uniform(0, np.pi))
    change = np.zeros(size, np.float32)
    streaks = rng.standard_normal(int(2 * lines.reach / 3) + 3).astype(np.float32)
    streak = np.interp(lines.across + np.float32(lines.reach), np.arange(len(streaks)) * 3.0, streaks)
    for offset in lines.spread(rng, rng.uniform(60, 260)):
        distance = lines.distance(rng, float(offset), wobble_px=rng.uniform(0, 6))
        half = rng.uniform(4, 30)
        change += ramp(half - distance, -6, 6) * (1 + 0.4 * streak)
    return np.float32(-rng.uniform(8, 45)) * change.astype(np.float32)


def draw_text(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw letters and strokes of chalk, marker or spray."""
    height, width = size
    canvas = np.zeros(size, np.uint8)
    thickness = int(rng.integers(1, 6))
    for _ in range(int(rng.integers(1, 4))):
        word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXZ0123456789/-.="), int(rng.integers(1, 8))))
        where = int(rng.uniform(-0.1, 0.8) * width), int(rng.uniform(0.1, 1) * height)
        cv2.putText(
            canvas, word, where, int(rng.choice((0, 1, 2, 6))), rng.uniform(0.5, 3), 255, thickness, cv2.LINE_AA
        )
    turned = cv2.warpAffine(
        canvas, cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), 1.0), (width, height)
    )
    worn = ramp(smooth_noise(rng, size, rng.uniform(1.5, 6)), -2.2, -0.6)
    change = turned.astype(np.float32) / 255 * worn
    return np.float32(rng.choice((-1, 1)) * rng.uniform(30, 150)) * change


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cell_px: float) -> np.ndarray:
    """Smooth noise of about unit spread, with features of about ``cell_px``."""
    shape = max(2, round(size[0] / cell_px) + 2), max(2, round(size[1] / cell_px) + 2)
    grid = rng.standard_normal(shape, dtype=np.float32)
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(1.3)


class ParallelLines:
    """Coordinates along and across parallel lines at an angle, and random curves along them."""

    def __init__(self, size: tuple[int, int], angle: float) -> None:
        height, width = size
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x = np.arange(width, dtype=np.float32) - np.float32(width / 2)
        y = np.arange(height, dtype=np.float32)[:, None] - np.float32(height / 2)
        self.across = y * cosine - x * sine
        self.reach = float(np.hypot(height, width)) / 2 + 2
        self.at = np.rint(x * cosine + y * sine + np.float32(self.reach)).astype(np.int32)

    def spread(self, rng: np.random.Generator, spacing_px: float, *, spread: float = 0.15) -> np.ndarray:
        """Offsets of the lines across the patch, ``spacing_px`` apart, each gap by so much more or less."""
        gaps = spacing_px * rng.uniform(1 - spread, 1 + spread, int(2 * self.reach / spacing_px * 1.3) + 2)
        offsets = -self.reach + rng.uniform(0, spacing_px) + np.concatenate([[0], np.cumsum(gaps)])
        return offsets[offsets < self.reach]

    def curve(self, rng: np.random.Generator, knot_px: float) -> np.ndarray:
        """A random curve along the lines, one value for each value of ``at``."""
        return smooth_curve(rng, int(2 * self.reach) + 3, knot_px).astype(np.float32)

    def distance(self, rng: np.random.Generator, offset: float, *, wobble_px: float) -> np.ndarray:
        """Distance in pixels to the line at an offset, which wobbles along its way."""
        sway = self.curve(rng, rng.uniform(20, 60)) * np.float32(wobble_px)
        return np.abs(self.across - np.float32(offset) - sway[self.at])


def _disc(rng: np.random.Generator, size: tuple[int, int], radius_px: float) -> np.ndarray:
    canvas = np.zeros(size, np.uint8)
    centre = (rng.uniform(0, 1, 2) * size[::-1] * 16).astype(int).tolist()
    axes = [max(8, round(radius_px * 16 * squeeze)) for squeeze in (1.0, rng.uniform(0.8, 1.2))]
    cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255
