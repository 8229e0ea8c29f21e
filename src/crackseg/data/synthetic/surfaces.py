"""More surfaces for pretraining than the sample's four looks: each a table row of ranges, rendered as a scene.

They leave the sample as it is: its bytes follow from :mod:`crackseg.data.synthetic.scenes` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crackseg.data.synthetic import textures
from crackseg.data.synthetic.drawing import CrackStyle, draw_truth, make_network

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Surface:
    """Ranges of what a surface looks like; a scene draws a number from each.

    Attributes:
        light: mean brightness, 0 to 255.
        tint: what colour it has: R, G and B relative to its brightness.
        clouds: amplitude of soft differences of brightness, of 8 to 300 px.
        grain: strength of stones and gaps; 1 is the asphalt of the sample.
        grain_px: size of the stones.
        specks: pits and pebbles on a million pixels.
        brushed: amplitude of streaks along one direction, as of a trowel, a saw or a brush.
        width_px, contrast, wander, branch_every_px: of its cracks, see ``CrackStyle``.
        blur_px: of the camera.
    """

    light: Range
    tint: tuple[float, float, float]
    clouds: Range
    grain: Range
    grain_px: Range
    specks: Range
    brushed: Range
    width_px: Range
    contrast: Range
    wander: Range
    branch_every_px: Range
    blur_px: Range


SURFACES: dict[str, Surface] = {
    "concrete": Surface((110, 225), (1.02, 1.0, 0.96), (0.01, 0.07), (0.05, 0.5), (1.5, 3.0), (30, 500), (0, 0.03),
                        (0.9, 2.6), (0.15, 0.6), (0.2, 0.5), (80, 600), (0.4, 0.9)),
    "asphalt": Surface((55, 140), (1.0, 1.0, 1.0), (0.02, 0.08), (0.8, 2.2), (1.6, 5.0), (100, 1500), (0, 0.04),
                       (1.2, 5.0), (0.25, 0.65), (0.25, 0.55), (60, 400), (0.4, 0.9)),
    "far_asphalt": Surface((60, 150), (1.0, 1.0, 1.0), (0.03, 0.1), (0.2, 0.8), (1.2, 2.0), (20, 200), (0.01, 0.08),
                           (0.9, 2.2), (0.2, 0.55), (0.2, 0.5), (30, 200), (0.5, 1.1)),
    "plaster": Surface((130, 240), (1.03, 1.0, 0.93), (0.01, 0.05), (0.02, 0.2), (1.5, 4.0), (5, 80), (0, 0.05),
                       (0.8, 2.2), (0.15, 0.6), (0.25, 0.6), (60, 300), (0.4, 1.0)),
    "stone": Surface((60, 215), (1.02, 1.0, 0.96), (0.03, 0.16), (0.05, 0.6), (2.0, 7.0), (10, 400), (0, 0.06),
                     (0.9, 3.5), (0.25, 0.75), (0.15, 0.45), (100, 900), (0.4, 1.0)),
    "painted_steel": Surface((50, 210), (0.97, 1.0, 1.03), (0.01, 0.08), (0.0, 0.1), (1.5, 3.0), (5, 200), (0, 0.05),
                             (0.8, 2.2), (0.25, 0.75), (0.1, 0.35), (150, 2000), (0.4, 1.0)),
}  # fmt: skip


def render_surface(
    name: str, seed: int, *, size: tuple[int, int], with_crack: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene of a surface; the same arguments give the same pixels.

    Args:
        name: key of ``SURFACES``.
        seed: any integer >= 0.
        size: (width, height) in pixels.
        with_crack: False for a scene with everything but cracks.
    Returns:
        uint8 (H, W, 3), RGB, and mask (H, W) of {0, 1}.
    """
    kind = SURFACES[name]
    rng = np.random.default_rng([seed, *name.encode()])
    light_angle = rng.uniform(0, 2 * np.pi)
    light = np.full(size[::-1], rng.uniform(*kind.light), np.float32)
    cells = np.exp(rng.uniform(np.log(8), np.log(300), 4)).tolist()
    light = light * (1 + rng.uniform(*kind.clouds) * textures.octaves(rng, size, cells))
    light *= textures.aggregate(rng, size, rng.uniform(*kind.grain_px), light_angle, rng.uniform(*kind.grain))
    line = textures.distance_to_line(rng, size, rng.integers(2) * np.pi / 2 + rng.normal(0, 0.1))
    light *= 1 + rng.uniform(*kind.brushed) * textures.streaks(rng, line, rng.uniform(1.5, 12))
    for sign, strength in ((-1, 0.5), (1, 0.35)):  # pits and pebbles
        light *= 1 + sign * strength * textures.specks(rng, size, rng.uniform(*kind.specks), (0.6, 2.5))
    tint = 1 + (np.array(kind.tint, np.float32) - 1) * np.float32(rng.uniform(0, 2.5)) + rng.normal(0, 0.02, 3)
    strokes = []
    if with_crack:
        width, contrast = rng.uniform(*kind.width_px), rng.uniform(*kind.contrast)
        style = CrackStyle(
            (1, 4), (0.7 * width, 1.3 * width), (0.8 * contrast, contrast), rng.uniform(*kind.wander),
            rng.uniform(*kind.branch_every_px),
        )  # fmt: skip
        strokes = make_network(rng, size, style)
        light = textures.cut_cracks(rng, light, strokes, light_angle)
    light *= 1 + rng.uniform(0, 0.12) * textures.value_noise(rng, size, max(size))
    image = textures.photograph_scene(
        rng, light, tint, blur_px=rng.uniform(*kind.blur_px), noise=rng.uniform(0.5, 3)
    )
    return image, draw_truth(strokes, size)
