"""Procedural crack photographs in the looks of the paper's four datasets, for the sample data and for tests.

:mod:`crackseg.data.synthetic.sample` writes them as datasets. Light is float32 (H, W), about 0 to 255, until the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from crackseg.data.catalog import KNOWN_DATASETS
from crackseg.data.synthetic.drawing import (
    CrackStyle,
    Stroke,
    draw_contrast,
    draw_truth,
    make_line,
    make_network,
    make_stroke,
    smooth_curve,
    walk,
)
from crackseg.data.synthetic.textures import (
    aggregate,
    band,
    cut_cracks,
    distance_to_line,
    grain,
    octaves,
    photograph_scene,
    ramp,
    specks,
    stain,
    streaks,
    value_noise,
)
from crackseg.errors import CracksegError

MIN_SIZE_PX = 48  # a scene smaller than this has no room for a crack and its surroundings


@dataclass(frozen=True, slots=True)
class Scene:
    """A photograph that never was, with its ground truth.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        mask: uint8 (H, W), 0 or 1, curves one pixel wide; half the image's size for Stone331.
        roi: uint8, 0 or 1, of the mask's size: where the stone is; None for the other looks.
        joints: uint8, 0 or 1, of the mask's size: joints of slabs, which ``mask`` counts as cracks, as CrackTree260's
            annotators did; None if there are none.
    """

    image: np.ndarray
    mask: np.ndarray
    roi: np.ndarray | None
    joints: np.ndarray | None = None


def render_scene(look: str, seed: int, *, size: tuple[int, int] | None = None, with_crack: bool = True) -> Scene:
    """Render one scene; the same arguments give the same pixels.

    Args:
        look: name of one of the paper's datasets, e.g. ``CrackTree260``.
        seed: any integer >= 0.
        size: (width, height) of the photograph in pixels; None for the dataset's own. Details keep their size
            in pixels, so a small scene is like a crop. Stone331 needs even numbers.
        with_crack: False for a scene with everything but cracks.
    Raises:
        CracksegError: unknown look, negative seed, or a size too small or (Stone331) odd.
    """
    if look not in _LOOKS:
        raise CracksegError(f"no look {look!r}; expected one of {', '.join(_LOOKS)}")
    if seed < 0:
        raise CracksegError(f"seed {seed}: expected an integer of at least 0")
    rng = np.random.default_rng([seed, list(_LOOKS).index(look)])
    larger = look == "CrackTree260" and rng.random() < 0.12  # some of its photographs are 960 x 720
    size = size or ((960, 720) if larger else KNOWN_DATASETS[look].resolution)
    if min(size) < MIN_SIZE_PX or (look == "Stone331" and (size[0] % 2 or size[1] % 2)):
        raise CracksegError(
            f"size {size} for {look}: expected (width, height) of at least {MIN_SIZE_PX} pixels, even for Stone331"
        )
    return _LOOKS[look](rng, size, with_crack)


def _crack_tree(rng: np.random.Generator, size: tuple[int, int], with_crack: bool) -> Scene:
    """Area camera, visible light: light-grey pavement, branching cracks, joints, cast shadows."""
    light_angle = rng.uniform(0, 2 * np.pi)
    light = np.full(size[::-1], rng.uniform(140, 190), np.float32)
    light *= 1 + 0.035 * octaves(rng, size, (260, 90, 30, 10))
    light *= aggregate(rng, size, rng.uniform(2.2, 3.6), light_angle, rng.uniform(0.6, 1.3))
    light *= 1 - 0.45 * specks(rng, size, 400, (0.6, 2.2))  # pits
    light *= 1 + 0.35 * specks(rng, size, 350, (0.8, 2.6))  # pebbles
    for _ in range(rng.poisson(2.5)):  # damp and oil
        light *= 1 - rng.uniform(0.08, 0.3) * stain(rng, size, rng.uniform(15, 110), rng.uniform(0.1, 0.5))
    if rng.random() < 0.4:
        light *= 1 - _tyre_marks(rng, size)
    if rng.random() < 0.25:  # worn paint
        paint = band(distance_to_line(rng, size, rng.uniform(0, np.pi)), rng.uniform(25, 60), 1.5)
        light += (rng.uniform(205, 235) - light) * paint * ramp(octaves(rng, size, (60, 12, 4, 2)), -1.2, 0.2)
    for _ in range(rng.poisson(1.2)):  # scratches
        line = make_line(rng, size, rng.uniform(0, np.pi), rng.uniform(2, 5), rng.uniform(0.08, 0.2))
        scratch = cv2.GaussianBlur(draw_contrast([line], size), (0, 0), rng.uniform(1.5, 3))
        light *= 1 + rng.choice((-0.9, 0.9)) * scratch

    cracks: list[Stroke] = []
    joints: list[Stroke] = []
    if with_crack:
        style = CrackStyle((1, 4), (1.4, 3.4), (0.3, 0.62), rng.uniform(0.25, 0.45), rng.uniform(110, 320))
        cracks = make_network(rng, size, style)
        if rng.random() < 0.3:  # joints of slabs
            angle = rng.normal(0, 0.08)
            for turn in (0, np.pi / 2)[: int(rng.integers(1, 3))]:
                joints.append(make_line(rng, size, angle + turn, rng.uniform(2, 3.5), rng.uniform(0.35, 0.6)))
    cracks += joints
    light = cut_cracks(rng, light, cracks, light_angle)
    tar = cv2.GaussianBlur(specks(rng, size, rng.uniform(5, 50), (2.0, 7.0)), (0, 0), 2)
    light *= 1 - 0.7 * ramp(tar * (1 + 0.4 * value_noise(rng, size, 4)), 0.25, 0.5)

    shade = _cast_shadow(rng, size) if rng.random() < 0.6 else np.zeros(size[::-1], np.float32)
    light *= (1 - rng.uniform(0.25, 0.5) * shade) * (1 + 0.06 * value_noise(rng, size, max(size)))
    tint = np.array((1.01, 1.0, 0.97), np.float32) + rng.normal(0, 0.012, 3)
    skylight = 1 + shade[..., None] * np.array((-0.03, 0, 0.06), np.float32)  # shadows are lit by the blue sky
    image = photograph_scene(rng, light, tint * skylight, blur_px=rng.uniform(0.35, 0.6), noise=2.0)
    return Scene(image, draw_truth(cracks, size), None, draw_truth(joints, size) if joints else None)


def _tyre_marks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Two parallel dark bands with streaks along them, float32 (H, W), the fraction of light taken away."""
    distance = distance_to_line(rng, size, rng.uniform(0, np.pi))
    width, gauge = rng.uniform(25, 60), rng.uniform(120, 400)
    worn = 0.6 + 0.2 * streaks(rng, distance, 2.5)
    marks = np.maximum(band(distance, width, 8), band(distance - gauge, width, 8))
    return rng.uniform(0.12, 0.35) * marks * worn * ramp(octaves(rng, size, (120, 6, 3)), -2, 0.5)


def _cast_shadow(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Shadow of leaves or of something straight, soft-edged, float32 (H, W) in [0, 1]."""
    if rng.random() < 0.7:
        return ramp(octaves(rng, size, (220, 220, 80, 35, 14)), -0.3, rng.uniform(0.4, 1.5))
    shade = np.zeros(size[::-1], np.float32)
    cable, wall = rng.uniform(6, 25), rng.uniform(60, 400)
    for width in rng.permutation((cable, wall))[: int(rng.integers(1, 3))]:
        line = distance_to_line(rng, size, rng.uniform(0, np.pi))
        shade = np.maximum(shade, band(line, width, rng.uniform(4, 14)))
    return shade


def _line_camera(rng: np.random.Generator, size: tuple[int, int], with_crack: bool) -> Scene:
    """CRKWH100: line camera, visible light: close-up asphalt, bright speckle, stripes of uneven light."""
    light_angle = rng.uniform(0, 2 * np.pi)
    light = np.full(size[::-1], rng.uniform(95, 140), np.float32)
    light *= aggregate(rng, size, rng.uniform(3, 4.5), light_angle, 1.0)
    light *= 1 + 0.05 * octaves(rng, size, (120, 40, 15))
    light += 80 * ramp(grain(rng, size, 2.2), 1.7, 3.2) + 70 * specks(rng, size, 900, (0.7, 2.4))
    light *= (
        1 + 0.07 * value_noise(rng, size, (45, 4000)) + 0.05 * value_noise(rng, size, (12, 2500))
    )  # uneven lamps

    cracks: list[Stroke] = []
    sealed: list[Stroke] = []
    if with_crack:
        style = CrackStyle((1, 3), (1.8, 3.6), (0.27, 0.55), 0.32, 500)
        cracks = make_network(rng, size, style)
        if rng.random() < 0.25:
            sealed = make_network(rng, size, CrackStyle((1, 2), (2.5, 4.5), (0.4, 0.7), 0.25))
    light = cut_cracks(rng, light, cracks, light_angle)
    light += (210 - light) * cv2.GaussianBlur(draw_contrast(sealed, size), (0, 0), 0.7)
    image = photograph_scene(rng, light, None, blur_px=0.6, noise=2.5)
    return Scene(image, draw_truth(cracks + sealed, size), None)


def _laser_scan(rng: np.random.Generator, size: tuple[int, int], with_crack: bool) -> Scene:
    """CrackLS315: line camera, laser light: dark, low contrast, streaks along the scan."""
    light = np.full(size[::-1], rng.uniform(55, 90), np.float32)
    light *= aggregate(rng, size, rng.uniform(2.0, 3.2), 0.5, 1.1)
    light *= 1 + 0.06 * octaves(rng, size, (150, 60, 20))
    for spread, cell in ((0.05, (3, 1500)), (0.07, (14, 900)), (0.08, (90, 4000))):  # streaks
        light *= 1 + spread * value_noise(rng, size, cell)
    light *= 1 - 0.3 * specks(rng, size, 500, (0.7, 2.0))
    for _ in range(rng.poisson(1)):
        light *= 1 - rng.uniform(0.1, 0.25) * stain(rng, size, rng.uniform(15, 60), 0.4)
    cracks: list[Stroke] = []
    if with_crack:
        cracks = make_network(rng, size, CrackStyle((1, 3), (1.2, 2.2), (0.27, 0.52), 0.35, 350))
    light = cut_cracks(rng, light, cracks, 0.5)
    image = photograph_scene(rng, light, None, blur_px=0.55, noise=2.0)
    return Scene(image, draw_truth(cracks, size), None)


def _stone(rng: np.random.Generator, size: tuple[int, int], with_crack: bool) -> Scene:
    """Stone331: sawn stone in an irregular outline; veins are no cracks; ground truth and ROI at half the size."""
    half = size[0] // 2, size[1] // 2
    roi = _stone_outline(rng, half)
    inside = cv2.GaussianBlur(cv2.resize(roi * np.float32(1), size), (0, 0), 1.2)

    light = np.full(size[::-1], rng.uniform(110, 180), np.float32)
    light *= 1 + 0.06 * octaves(rng, size, (300, 120, 50, 18, 7)) + 0.02 * grain(rng, size, 4)
    light *= 1 + 0.02 * streaks(rng, distance_to_line(rng, size, rng.uniform(0, np.pi)), 5)  # of the saw
    light *= 1 - 0.35 * specks(rng, size, 150, (0.8, 3))
    veins = []
    for width in rng.uniform(3, 18, int(rng.integers(3, 9))):
        points = walk(rng, rng.uniform(0, 1, 2) * size, rng.uniform(0, 2 * np.pi), 1.5 * max(size), 0.3)
        veins.append(make_stroke(rng, points, width, 0.35))
    vein = cv2.GaussianBlur(draw_contrast(veins, size), (0, 0), rng.uniform(2, 5)) * inside
    light *= 1 - rng.uniform(0.2, 0.9) * vein

    cracks: list[Stroke] = []
    mask = np.zeros_like(roi)
    while with_crack and mask.sum() < 0.25 * min(half):  # cracks may pass next to the stone
        cracks = make_network(rng, size, CrackStyle((1, 4), (1.8, 3.4), (0.22, 0.5), 0.3, 450))
        mask = draw_truth(cracks, half, 0.5) & roi
    light = cut_cracks(rng, light, cracks, 0.8)
    table = rng.uniform(35, 100) * (1 + 0.08 * octaves(rng, size, (400, 100, 20, 4)) + 0.04 * grain(rng, size, 2))
    rim = (cv2.GaussianBlur(inside, (0, 0), 5) - inside).clip(0, 1)  # the stone's shadow on the table
    light = light * inside + table * (1 - inside) * (1 - 0.7 * rim)
    stain = np.array((0.2, -0.05, -0.35), np.float32) * rng.uniform(-0.3, 1.2)
    tint = np.array((1.03, 1.0, 0.95), np.float32) + rng.normal(0, 0.015, 3)
    image = photograph_scene(rng, light, tint * (1 + vein[..., None] * stain), blur_px=0.9, noise=1.5)
    return Scene(image, mask, roi)


def _stone_outline(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A rough polygon that fills most of the picture, uint8 (H, W), 0 or 1."""
    angles = np.linspace(0, 2 * np.pi, 10)[:-1] + rng.uniform(-0.25, 0.25, 9)
    corners = (rng.uniform(0.8, 1.2, 9) * (np.cos(angles), np.sin(angles))).clip(-0.93, 0.93)
    along = np.arange(0, 9, 0.02)
    x, y = (np.interp(along, np.arange(10), np.append(c, c[0])) for c in corners)
    x, y = x + 0.005 * smooth_curve(rng, len(x), 3), y + 0.005 * smooth_curve(rng, len(y), 3)  # broken edges
    roi = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(roi, [np.rint((np.stack([x, y], axis=1) + 1) / 2 * size).astype(np.int32)], 1)
    return roi


_LOOKS: dict[str, Callable[[np.random.Generator, tuple[int, int], bool], Scene]] = {
    "CrackTree260": _crack_tree,
    "CRKWH100": _line_camera,
    "CrackLS315": _laser_scan,
    "Stone331": _stone,
}
