"""Textures of drawn surfaces: noise, grain, streaks, specks, cracks cut into light, and the camera.

Light is float32 (H, W), about 0 to 255, and ``size`` is (width, height) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from crackseg.data.synthetic.drawing import Stroke, draw_contrast


def value_noise(rng: np.random.Generator, size: tuple[int, int], cell: float | tuple[float, float]) -> np.ndarray:
    """Smooth noise, zero mean and unit spread, whose features are about ``cell`` (x, y) pixels large."""
    cells = np.broadcast_to(cell, 2)
    shrink = np.maximum(1, cells // 16)  # warpAffine rounds to 1/32 of a cell, which would show in large ones
    cells = cells / shrink
    width, height = np.ceil(size / shrink).astype(int).tolist()
    grid = rng.standard_normal((int(height / cells[1]) + 4, int(width / cells[0]) + 4), dtype=np.float32)
    zoom = np.column_stack([np.diag(cells), -cells * rng.uniform(1, 2, 2)])
    smooth = cv2.warpAffine(grid, zoom, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(smooth, size, interpolation=cv2.INTER_CUBIC) / 0.72  # the spread that interpolation leaves


def octaves(rng: np.random.Generator, size: tuple[int, int], cells: Sequence[float]) -> np.ndarray:
    """Noise of several scales in equal parts, unit spread."""
    return np.sum([value_noise(rng, size, c) for c in cells], axis=0) / np.float32(np.sqrt(len(cells)))


def grain(rng: np.random.Generator, size: tuple[int, int], grain_px: float) -> np.ndarray:
    """Grain of one size: band-passed white noise, unit spread."""
    white = rng.standard_normal(size[::-1], dtype=np.float32)
    band = cv2.GaussianBlur(white, (0, 0), grain_px / 2) - cv2.GaussianBlur(white, (0, 0), grain_px * 1.2)
    return band / band.std()


def aggregate(
    rng: np.random.Generator, size: tuple[int, int], stone_px: float, light_angle: float, strength: float
) -> np.ndarray:
    """Asphalt or concrete close up: stones of their own grey, dark gaps, side light; a factor around 1."""
    stones, fine = grain(rng, size, stone_px), grain(rng, size, 1.3)
    dx, dy = cv2.Sobel(stones, cv2.CV_32F, 1, 0), cv2.Sobel(stones, cv2.CV_32F, 0, 1)
    shade = np.float32(np.cos(light_angle)) * dx + np.float32(np.sin(light_angle)) * dy
    greys = ramp(stones, 0.6, 1.3) * value_noise(rng, size, 2 * stone_px)
    gaps = ramp(-stones - 0.4 * fine, 1.1, 2.6)
    return 1 + strength * (0.045 * fine + 0.03 * shade / shade.std() + 0.05 * stones + 0.06 * greys - 0.22 * gaps)


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def stain(rng: np.random.Generator, size: tuple[int, int], radius_px: float, softness: float) -> np.ndarray:
    """A stain: an irregular soft-edged patch at a random place, float32 (H, W) in [0, 1]."""
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    centre, squeeze = rng.uniform(0, 1, 2) * size, rng.uniform(0.6, 1.6)
    distance = np.hypot((x - centre[0]) * squeeze, (y - centre[1]) / squeeze) / radius_px
    coarse, fine = (
        value_noise(rng, size, max(3, 0.6 * radius_px)),
        value_noise(rng, size, max(2, 0.15 * radius_px)),
    )
    return ramp(1 - distance - 0.25 * coarse - 0.12 * fine, -softness, softness)


def distance_to_line(rng: np.random.Generator, size: tuple[int, int], angle: float) -> np.ndarray:
    """Signed distance in pixels to a straight line at this angle through a random place."""
    centre = rng.uniform(0.1, 0.9, 2) * size
    x, y = np.arange(size[0]) - centre[0], np.arange(size[1])[:, None] - centre[1]
    return (y * np.cos(angle) - x * np.sin(angle)).astype(np.float32)


def streaks(rng: np.random.Generator, distance: np.ndarray, spacing_px: float) -> np.ndarray:
    """Noise that varies across a line and is constant along it, unit spread."""
    reach = float(np.abs(distance).max()) + spacing_px
    knots = np.arange(-reach, reach + spacing_px, spacing_px)
    return np.interp(distance, knots, rng.standard_normal(len(knots))).astype(np.float32)


def band(distance: np.ndarray, width_px: float, edge_px: float) -> np.ndarray:
    """A straight band around distance 0 with soft edges, float32 (H, W) in [0, 1]."""
    return ramp(width_px / 2 - np.abs(distance), -edge_px / 2, edge_px / 2)


def specks(
    rng: np.random.Generator, size: tuple[int, int], per_mpx: float, radius_px: tuple[float, float]
) -> np.ndarray:
    """Small round things (pebbles, pits, drops), float32 (H, W) in [0, 1]."""
    canvas = np.zeros(size[::-1], np.uint8)
    for _ in range(rng.poisson(per_mpx * size[0] * size[1] / 1e6)):
        centre = (rng.uniform(0, 1, 2) * size * 16).astype(int).tolist()  # in sixteenths of a pixel
        axes = (rng.uniform(*radius_px) * rng.uniform(0.6, 1.4, 2) * 16).astype(int).tolist()
        angle, strength = rng.uniform(0, 180), int(rng.integers(90, 256))
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, strength, -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def cut_cracks(
    rng: np.random.Generator, light: np.ndarray, cracks: list[Stroke], light_angle: float
) -> np.ndarray:
    """Cut cracks into the surface: dark and uneven inside, one lip catching the light."""
    size = light.shape[1], light.shape[0]
    depth = draw_contrast(cracks, size)
    shift = np.array([[1, 0, 2 * np.cos(light_angle)], [0, 1, 2 * np.sin(light_angle)]])
    lip = cv2.warpAffine(cv2.GaussianBlur(depth, (0, 0), 1.0), shift, size) * (depth < 0.05)
    uneven = (depth * (1 + 0.25 * grain(rng, size, 2.0))).clip(0, 0.95)
    return light * (1 - uneven) * (1 + 0.12 * lip)


def photograph_scene(
    rng: np.random.Generator, light: np.ndarray, tint: np.ndarray | None, *, blur_px: float, noise: float
) -> np.ndarray:
    """Take the picture: lens blur, sensor noise, and colour, or none with ``tint=None``; uint8 (H, W, 3)."""
    size = light.shape[1], light.shape[0]
    light = cv2.GaussianBlur(light, (0, 0), blur_px)
    sensor = noise * rng.standard_normal(light.shape, dtype=np.float32)
    if tint is None:
        colour = np.repeat((light + sensor)[..., None], 3, axis=2)
    else:
        warm = 0.006 * value_noise(rng, size, 40)[..., None] * np.array((1, 0, -1), np.float32)
        chroma = 0.4 * noise * rng.standard_normal((*light.shape, 3), dtype=np.float32)
        colour = light[..., None] * tint.astype(np.float32) * (1 + warm) + sensor[..., None] + chroma
    return np.rint(colour).clip(0, 255).astype(np.uint8)
