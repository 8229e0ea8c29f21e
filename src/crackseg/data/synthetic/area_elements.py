"""Elements of surfaces that have colour and area, and the edges of which are no cracks: paint, patches, plants, bricks.

Each function takes a photograph, float32 (H, W, 3), RGB, about 0 to 255, and gives a new one, with the part of the
mask that stays visible, bool (H, W), or None for all.
"""

from __future__ import annotations

import cv2
import numpy as np

from crackseg.data.synthetic.line_elements import ParallelLines, smooth_noise
from crackseg.data.synthetic.textures import grain, ramp

Drawn = tuple[np.ndarray, np.ndarray | None]
_PAINTS = (
    (235, 235, 230),
    (225, 225, 225),
    (215, 165, 50),
    (200, 140, 40),
    (180, 60, 40),
    (60, 90, 160),
    (40, 40, 42),
)


def draw_paint(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw markings of roads, as bands that narrow with distance, with worn edges; cracks show through."""
    size = image.shape[:2]
    lines = ParallelLines(size, rng.uniform(0, np.pi))
    along = lines.at.astype(np.float32) - np.float32(lines.reach)
    narrowing = 1 + np.float32(rng.uniform(-0.004, 0.004)) * along
    half, gap = rng.uniform(2, 30), rng.uniform(1.2, 4)
    offset = np.float32(rng.uniform(-0.5, 0.5) * max(size))
    distance = np.abs(lines.across - offset)
    cover = ramp(half * narrowing + 0.5 - distance, 0, 1)
    if rng.random() < 0.4:  # a double line
        second = np.abs(lines.across - offset - np.float32(2 * half * gap) * narrowing)
        cover = np.maximum(cover, ramp(half * narrowing + 0.5 - second, 0, 1))
    if rng.random() < 0.35:  # a dashed one
        period = rng.uniform(60, 300)
        cover = cover * ramp(np.abs(np.mod(along, period) - period / 2), period * 0.2, period * 0.2 + 1.5)
    wear = smooth_noise(rng, size, rng.uniform(1.5, 5)) + smooth_noise(rng, size, rng.uniform(6, 40))
    cover = cover * ramp(wear, *sorted(rng.uniform(-4, 0.5, 2) + np.array((0, 0.2))))
    return _coat(rng, image, cover, np.array(_PAINTS[rng.integers(len(_PAINTS))], np.float32)), None


def draw_repairs(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw repaired areas and worn-off layers: another brightness and grain inside an edge, straight or ragged."""
    size = image.shape[:2]
    inside = ramp(_region(rng, size), 0, rng.uniform(0.02, 0.12))
    rim = inside - cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.8, 2.5))
    rough = cv2.GaussianBlur(rng.standard_normal(size, dtype=np.float32), (0, 0), rng.uniform(0.5, 1.6))
    level = rng.uniform(-60, 60)
    smooth = rng.uniform(0, 0.7)
    blurred = cv2.GaussianBlur(image, (0, 0), 3)
    light = image + (smooth * inside)[..., None] * (blurred - image)
    change = inside * (np.float32(level) + np.float32(rng.uniform(0, 40)) * rough)
    change = change + np.float32(rng.uniform(-120, 120)) * rim * ramp(smooth_noise(rng, size, 25), -1, 0.5)
    return light + change[..., None] * (1 + rng.normal(0, 0.05, 3).astype(np.float32)), None


def draw_cast_shadows(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw shadows of trees, walls and poles, with soft or sharp edges and bluish light in them."""
    size = image.shape[:2]
    shade = ramp(_region(rng, size), 0, rng.uniform(0.02, 0.5))
    blue = np.array((1.0, 0.97, 0.88), np.float32)
    return image * (1 - np.float32(rng.uniform(0.25, 0.75)) * shade[..., None] * blue), None


def draw_plants(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw grass, leaves and twigs over a part of the patch, which hide what is below them."""
    height, width = size = image.shape[:2]
    where = ramp(_region(rng, size), -0.3, 0.3)
    colours = np.array(((70, 95, 40), (110, 125, 60), (140, 125, 80), (60, 60, 35), (165, 155, 110)), np.float32)
    leaves = np.full((height, width, 3), colours[rng.integers(len(colours))] * rng.uniform(0.3, 0.7), np.float32)
    drawn = np.zeros(size, np.uint8)
    heading, longest = rng.uniform(0, 2 * np.pi), rng.uniform(6, 45)
    candidates = rng.uniform(0, 1, (700, 2)) * (width, height)
    at = candidates.astype(int)
    for x, y in candidates[where[at[:, 1], at[:, 0]] > rng.random(700)]:
        angle, length, bend = heading + rng.normal(0, 0.6), rng.uniform(0.3, 1) * longest, rng.normal(0, 0.4)
        t = np.linspace(0, 1, 5) * length
        blade = np.stack([x + t * np.cos(angle) - bend * t * t / length * np.sin(angle),
                          y + t * np.sin(angle) + bend * t * t / length * np.cos(angle)], axis=1)  # fmt: skip
        colour = (colours[rng.integers(len(colours))] * rng.uniform(0.5, 1.5)).tolist()
        thickness = int(rng.integers(1, 4))
        ends = [np.rint(blade * 16).astype(np.int32)]
        cv2.polylines(leaves, ends, False, colour, thickness, cv2.LINE_8, 4)
        cv2.polylines(drawn, ends, False, 255, thickness, cv2.LINE_AA, 4)
    cover = np.maximum(drawn.astype(np.float32) / 255, ramp(where, 0.6, 0.9))[..., None]
    return image + cover * (leaves - image), where < 0.5


def draw_borders(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw the end of the surface: a kerb, a wall, the sky or an object beyond an edge, with a shadow along it."""
    size = image.shape[:2]
    lines = ParallelLines(size, rng.uniform(0, np.pi))
    sway = lines.curve(rng, rng.uniform(15, 120)) * np.float32(rng.choice((0.3, 1.0, 6.0)))
    distance = lines.across - np.float32(rng.uniform(-0.4, 0.4) * max(size)) - sway[lines.at]
    beyond = ramp(distance, -0.5, 0.5 + rng.uniform(0, 2))[..., None]
    colour = rng.uniform(20, 240) + rng.normal(0, 18, 3)
    rough = smooth_noise(rng, size, rng.uniform(1.2, 30)) * rng.uniform(0, 40)
    stripes = np.float32(rng.uniform(0, 60)) * ramp(np.sin(distance / rng.uniform(1.5, 12)), 0.5, 0.9)
    other = colour.astype(np.float32) + (rough - stripes)[..., None]
    image = image + beyond * (other - image)
    edge = np.exp(-np.abs(distance) / rng.uniform(0.6, 4))[..., None] * np.float32(rng.choice((-1, -1, 1)))
    return image + np.float32(rng.uniform(0, 90)) * edge, distance < 1


def draw_bricks(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Turn the surface into masonry or tiles: each stone of its own colour, mortar between, cracks through both."""
    height, width = size = image.shape[:2]
    angle = rng.normal(0, 0.05) + rng.integers(2) * np.pi / 2
    tall = rng.uniform(18, 110)
    wide = tall * rng.uniform(1, 3.5)
    x = np.arange(width, dtype=np.float32) - np.float32(rng.uniform(0, width))
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(rng.uniform(0, height))
    wobble = smooth_noise(rng, size, rng.uniform(8, 40)) * np.float32(rng.choice((0.2, 0.6, 1.5)))
    u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) + wobble
    v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle)) + wobble[::-1]
    row = np.floor(v / tall).astype(int)
    u = u + np.float32(wide * rng.choice((0.0, 0.5, 0.33))) * (row % 3)
    column = np.floor(u / wide).astype(int)
    to_edge = np.minimum(
        np.minimum(v - row * tall, (row + 1) * tall - v), np.minimum(u - column * wide, (column + 1) * wide - u)
    )
    half, soft = rng.uniform(0.6, 5), rng.uniform(0.6, 1.8)
    joint = ramp(half - to_edge, -soft / 2, soft / 2)[..., None]
    greys = rng.normal(1, rng.uniform(0.02, 0.2), 997)
    tints = 1 + rng.normal(0, rng.uniform(0.005, 0.06), (997, 3))
    number = (row * 31 + column * 17) % 997
    base = np.array(((175, 95, 70), (200, 185, 160), (150, 150, 150), (225, 222, 215), (120, 75, 60)), np.float32)
    colour = base[rng.integers(len(base))] * (greys[:, None] * tints).astype(np.float32)[number]
    mortar = np.float32(rng.uniform(40, 225)) * (1 + 0.12 * smooth_noise(rng, size, 2.0))[..., None]
    relief = rng.uniform(0.5, 1.0)  # of the texture
    texture = 1 + relief * (image / np.maximum(image.mean(), 1) - 1)
    stones = colour * (1 - 0.5 * rng.random() * ramp(half + 3 - to_edge, 0, 3)[..., None] * rng.random())
    return (stones + joint * (mortar - stones)) * texture, None


def draw_spalls(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw broken spots, holes and blots with ragged dark edges, 3 to 30 px."""
    height, width = size = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    rough = smooth_noise(rng, size, 4) + smooth_noise(rng, size, 9)
    change = np.zeros(size, np.float32)
    for _ in range(int(rng.integers(1, 7))):
        radius, squeeze, angle = rng.uniform(3, 30), rng.uniform(1, 3), rng.uniform(0, np.pi)
        dx, dy = x - rng.uniform(0, width), y - rng.uniform(0, height)
        far = np.hypot(
            dx * np.cos(angle) + dy * np.sin(angle), (dy * np.cos(angle) - dx * np.sin(angle)) * squeeze
        )
        change = np.minimum(
            change, -ramp(1 - far / radius - 0.09 * rough, 0, rng.uniform(0.1, 0.5)) * rng.uniform(20, 120)
        )
    fine = 1 + 0.3 * smooth_noise(rng, size, 2)
    return image + (change * fine)[..., None].astype(np.float32), None


def draw_rust(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw streaks of rust and lime: soft coloured runs along one direction."""
    size = image.shape[:2]
    lines = ParallelLines(size, rng.integers(2) * np.pi / 2 + rng.normal(0, 0.05))
    colour = np.array(((150, 85, 40), (120, 70, 45), (225, 220, 205)), np.float32)[rng.integers(3)]
    cover = np.zeros(size, np.float32)
    for offset in lines.spread(rng, rng.uniform(30, 150), spread=0.6):
        distance = lines.distance(rng, float(offset), wobble_px=rng.uniform(0.5, 3))
        along = ramp(lines.curve(rng, rng.uniform(20, 80)), -0.3, 1.2)[lines.at]
        cover = np.maximum(cover, np.exp(-((distance / np.float32(rng.uniform(1.5, 12))) ** 2)) * along)
    return _coat(rng, image, cover * np.float32(rng.uniform(0.3, 0.9)), colour), None


def draw_seals(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Draw sealed joints and cracks: bands of smooth tar of even width with sharp edges, which hide what is below."""
    size = image.shape[:2]
    lines = ParallelLines(size, rng.uniform(0, np.pi))
    sway = lines.curve(rng, rng.uniform(15, 60)) * np.float32(rng.uniform(0.5, 14))
    distance = np.abs(lines.across - np.float32(rng.uniform(-0.4, 0.4) * max(size)) - sway[lines.at])
    half = rng.uniform(3.5, 14) * (1 + 0.12 * lines.curve(rng, 15))[lines.at]
    cover = ramp(half - distance, -0.5, 0.7).astype(np.float32)
    level = np.float32(image.mean() * rng.uniform(0.25, 0.8)) + 3 * smooth_noise(rng, size, 3)
    return image + cover[..., None] * (level[..., None] - image), cover < 0.5


def draw_coarse_grain(rng: np.random.Generator, image: np.ndarray) -> Drawn:
    """Add the grain of coarse asphalt: stones of 2 to 9 px with dark gaps between them."""
    size = image.shape[:2]
    stones = grain(rng, size[::-1], rng.uniform(1.5, 7))
    gaps = ramp(-stones, 0.9, 2.4)
    strength = rng.uniform(0.05, 0.35)
    return image * (1 + strength * (0.35 * stones - gaps) * ramp(smooth_noise(rng, size, 120), -2, 1))[
        ..., None
    ], None


def _coat(rng: np.random.Generator, image: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Coat the surface with a colour; its texture and cracks show through."""
    texture = 1 + np.float32(rng.uniform(0.6, 1.0)) * (image / np.maximum(image.mean(axis=(0, 1)), 1) - 1)
    return image + cover[..., None] * (colour * np.float32(rng.uniform(0.6, 1.05)) * texture - image)


def _region(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A part of the patch as a level: above 0 inside; a half plane, a strip, a polygon or ragged islands."""
    kind = rng.integers(4)
    ragged = smooth_noise(rng, size, rng.uniform(3, 12)) * np.float32(rng.choice((0.0, 0.03, 0.1)))
    if kind == 0:
        return smooth_noise(rng, size, rng.uniform(30, 150)) + 3 * ragged - np.float32(rng.uniform(0, 1))
    lines = ParallelLines(size, rng.uniform(0, np.pi))
    distance = (lines.across - np.float32(rng.uniform(-0.4, 0.4) * max(size))) / 50
    if kind == 1:
        return distance + ragged
    strip = np.float32(rng.uniform(0.15, 1.5)) - np.abs(distance)
    if kind == 2:
        return strip + ragged
    across = ParallelLines(size, rng.uniform(0, np.pi))
    return np.minimum(strip, np.float32(rng.uniform(0.3, 1.5)) - np.abs(across.across) / 50) + ragged
