"""Named elements that the sample's four looks lack, drawn over patches of scenes: cracks, and hard negatives.

A negative leaves the ground truth as it is, but for what it hides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from crackseg.data.synthetic import area_elements as areas
from crackseg.data.synthetic import crack_elements as cracks
from crackseg.data.synthetic import line_elements as lines

Draw = Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Element:
    """An element by name.

    Attributes:
        draw: from the generator of random numbers, a photograph, float32 (H, W, 3), and a mask, uint8 (H, W), to new
            ones.
        fraction: of the patches that get it.
        summary: one line for documents.
        is_crack: adds to the ground truth.
    """

    draw: Draw
    fraction: float
    summary: str
    is_crack: bool = False


def list_elements(names: Sequence[str] | None, *, with_cracks: bool) -> tuple[str, ...]:
    """Return the names (None: all), or those of the elements that are no cracks."""
    return tuple(
        n for n in (DEFAULT_ELEMENTS if names is None else names) if with_cracks or not ELEMENTS[n].is_crack
    )


def draw_elements(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw elements over a patch, each by its own chance, in the order of ``ELEMENTS``.

    Args:
        image: uint8 (H, W, 3), RGB; not changed.
        mask: uint8 (H, W), 0 or 1; not changed.
        names: keys of ``ELEMENTS``; None takes ``DEFAULT_ELEMENTS``.
    Returns:
        float32 (H, W, 3), maybe beyond 0 to 255, and the new mask.
    """
    wanted = set(DEFAULT_ELEMENTS if names is None else names)
    light = image.astype(np.float32)
    for name, element in ELEMENTS.items():
        if name in wanted and rng.random() < element.fraction:
            light, mask = element.draw(rng, light, mask)
    return light, mask


def _as_light(draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]) -> Draw:
    """Make an element of a change of light."""

    def add(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        change = draw(rng, mask.shape).astype(np.float32)
        if rng.random() < 0.5:
            cv2.GaussianBlur(change, (0, 0), rng.uniform(0.4, 1.0), dst=change)
        return image + change[..., None] * (1 + rng.normal(0, 0.03, 3).astype(np.float32)), mask

    return add


def _as_area(draw: Callable[[np.random.Generator, np.ndarray], areas.Drawn]) -> Draw:
    """Make an element of something with an area, which may hide cracks."""

    def cover(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image, visible = draw(rng, image)
        return image.astype(np.float32), mask if visible is None else mask * visible

    return cover


ELEMENTS: dict[str, Element] = {
    "coarse_grain": Element(_as_area(areas.draw_coarse_grain), 0.12, "coarse grain of asphalt with dark gaps"),
    "more_cracks": Element(
        cracks.draw_more_cracks, 0.2, "cracks: hair-thin, wide, faint, or lighter than the surface", is_crack=True
    ),
    "alligator": Element(cracks.draw_alligator, 0.1, "cracks: networks of map cracking", is_crack=True),
    "bricks": Element(_as_area(areas.draw_bricks), 0.08, "masonry and tiles as the whole surface"),
    "veins": Element(_as_light(lines.draw_veins), 0.08, "veins of marble"),
    "repairs": Element(_as_area(areas.draw_repairs), 0.2, "repaired areas and worn-off layers"),
    "spalls": Element(_as_area(areas.draw_spalls), 0.1, "broken spots, holes and blots"),
    "pits": Element(_as_light(lines.draw_pits), 0.06, "short dark strokes, pores and scratches"),
    "joints": Element(
        _as_light(lines.draw_joints), 0.55, "joints of planks, with steps of brightness and stains along them"
    ),
    "tie_holes": Element(_as_light(lines.draw_tie_holes), 0.4, "up to three dark round holes of 1 to 6 px"),
    "grid": Element(_as_light(lines.draw_grid), 0.08, "joints of tiles and bricks"),
    "rust": Element(_as_area(areas.draw_rust), 0.08, "streaks of rust and lime"),
    "stains": Element(_as_light(lines.draw_stains), 0.12, "wet or painted areas with soft edges"),
    "tyre_marks": Element(_as_light(lines.draw_tyre_marks), 0.08, "dark streaks of tyres"),
    "paint": Element(_as_area(areas.draw_paint), 0.15, "markings of roads with worn edges"),
    "text": Element(_as_light(lines.draw_text), 0.03, "letters and strokes of chalk, marker or spray"),
    "seals": Element(_as_area(areas.draw_seals), 0.06, "sealed joints: smooth tar with sharp edges"),
    "wires": Element(_as_light(lines.draw_wires), 0.04, "wires and stalks: smooth arcs of even width"),
    "plants": Element(_as_area(areas.draw_plants), 0.08, "grass, leaves and twigs"),
    "borders": Element(_as_area(areas.draw_borders), 0.15, "kerbs, walls and the sky beyond an edge"),
    "shadow_lines": Element(_as_light(lines.draw_shadow_lines), 0.06, "soft shadows of railings"),
    "cast_shadows": Element(_as_area(areas.draw_cast_shadows), 0.12, "shadows of trees, walls and poles"),
}

# The shipped model was trained with these; docs/shipped-model.md has what they gave.
DEFAULT_ELEMENTS = tuple(n for n in ELEMENTS if n not in ("coarse_grain", "more_cracks", "alligator"))
