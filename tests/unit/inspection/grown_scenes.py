"""Two visits to a drawn surface: a crack that has grown by a known length or not, seen from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from crackseg.data.synthetic.drawing import Stroke, draw_contrast, make_stroke, walk
from crackseg.data.synthetic.surfaces import render_surface
from crackseg.geometry.length import resample, smooth
from crackseg.geometry.skeletons import path_length
from crackseg.inspection.growth import Change, compare_views
from crackseg.inspection.growth_pairs import compare_photographs
from crackseg.inspection.joint_lines import PredictedPhotograph, find_views
from crackseg.inspection.registration import find_seen, register, warp_to_before

SURFACES = ("concrete", "asphalt", "far_asphalt", "plaster")
_MIN_LENGTH_PX = 40  # of the shipped model


@dataclass(frozen=True)
class Visits:
    """Two photographs of a surface, and what there is to be found.

    Attributes:
        before, after: uint8 (N, N, 3).
        to_before: homography from the later to the earlier one.
        grown_px: growth in pixels of the earlier one.
        cracks_before, cracks_after: ground truth of each, float32 (N, N): 0, 1 and between at edges of cracks.
    """

    before: np.ndarray
    after: np.ndarray
    to_before: np.ndarray
    grown_px: float
    cracks_before: np.ndarray
    cracks_after: np.ndarray


def visit_twice(seed: int, *, grows: bool, side_px: int = 640) -> Visits:
    """Draw a surface with a crack, and again after it has grown."""
    rng = np.random.default_rng(seed)
    surface, _ = render_surface(SURFACES[seed % len(SURFACES)], seed, size=(side_px, side_px), with_crack=False)
    heading, length = rng.uniform(0, 2 * np.pi), side_px * rng.uniform(0.52, 0.65)
    start = side_px / 2 - np.array([np.cos(heading), np.sin(heading)]) * length / 2
    points = walk(rng, start, heading, length, 0.3)
    crack = make_stroke(rng, points, rng.uniform(2.2, 4), rng.uniform(0.5, 0.75))
    known = int(len(points) * rng.uniform(0.45, 0.65))

    def draw(count: int, contrast: np.ndarray) -> np.ndarray:
        stroke = Stroke(crack.points[:count], crack.width_px[:count], contrast[:count])
        return draw_contrast([stroke], (side_px, side_px)).astype(np.float32)

    def cut(count: int) -> np.ndarray:
        dark = cv2.GaussianBlur(draw(count, crack.contrast), (0, 0), 0.6)
        return surface * (1 - dark[..., None])

    known_later = len(points) if grows else known
    before, later = cut(known), cut(known_later)
    to_after = _another_view(rng, side_px)
    size = (side_px, side_px)
    after = cv2.warpPerspective(later.astype(np.float32), to_after, size, borderMode=cv2.BORDER_REFLECT)
    solid = np.ones(len(points))
    there_later = cv2.warpPerspective(draw(known_later, solid), to_after, size)
    lengths = [path_length(smooth(resample(points[:count]), 2.0)) for count in (known, len(points))]
    return Visits(
        _another_light(rng, before),
        _another_light(rng, after),
        np.linalg.inv(to_after),
        lengths[1] - lengths[0] if grows else 0.0,
        draw(known, solid),
        there_later,
    )


def compare_visits(
    visits: Visits, network: tuple[Callable[[np.ndarray], np.ndarray], float] | None = None
) -> list[Change]:
    """Register two visits and compare them as `crackseg growth` does.

    Args:
        visits: of :func:`visit_twice`.
        network: function from a photograph to its map, and the threshold; None for the ground truth as the maps, which
            leaves the error of the measure alone.
    """
    if network is not None:
        return compare_photographs(visits.before, visits.after, *network, min_length_px=_MIN_LENGTH_PX).changes
    registration = register(visits.before, visits.after)
    size = visits.before.shape[1::-1]
    warped = warp_to_before(visits.after, registration, size, outside=200)
    seen = find_seen(registration, visits.after.shape[:2], visits.before.shape[:2])
    views = find_views(
        PredictedPhotograph([visits.cracks_before], visits.before),
        PredictedPhotograph([warp_to_before(visits.cracks_after, registration, size)], warped),
        0.5,
        seen,
        error_px=registration.error_px,
        min_length_px=_MIN_LENGTH_PX,
    )
    return compare_views(*views, seen, error_px=registration.error_px)


def _another_view(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Rotation by up to 20 degrees, scale 0.8 to 1.25, a shift, and perspective: corners move by up to a twentieth."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side_px
    angle = np.radians(rng.uniform(-20, 20))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corners - side_px / 2) @ turn.T * rng.uniform(0.8, 1.25) + side_px / 2
    moved += rng.uniform(-0.04, 0.04, 2) * side_px + rng.uniform(-0.05, 0.05, (4, 2)) * side_px
    return cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))


def _another_light(rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Exposure, gamma, light from a side, and noise."""
    light = 255 * ((light * rng.uniform(0.75, 1.2)).clip(0, 255) / 255) ** rng.uniform(0.8, 1.25)
    along = np.linspace(0, 1, len(light))
    slope_x, slope_y = rng.uniform(-0.2, 0.2, 2)
    light = light * (1 + slope_x * along[None, :, None] + slope_y * along[:, None, None])
    light = light + rng.standard_normal(light.shape) * rng.uniform(1, 3)
    return light.clip(0, 255).round().astype(np.uint8)
