"""Scale from two points that are clicked on the photograph, and from the fields next to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crackseg.errors import CracksegError
from crackseg.geometry.scale import Scale, choose_scale, scale_between

_CLICK, _TOUCH = 1.0, 8.0  # standard uncertainty in pixels of the screen
_LEAST_PX = 0.5  # and never less than this, in pixels of the photograph
# The viewBox is the photograph, so the browser itself computes the place of a click in it. On a phone, two fingers
# enlarge the page, and a touch is the more exact.
ON_CLICK = """
element.addEventListener('click', (event) => {
  const svg = element.querySelector('svg');
  if (!svg) return;
  const matrix = svg.getScreenCTM();
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
  const screen_px = 1 / (matrix.a * (window.visualViewport?.scale ?? 1));
  trigger('click', { x: place.x, y: place.y, screen_px, touch: event.pointerType === 'touch' });
});
"""


@dataclass(frozen=True, slots=True)
class Point:
    """A clicked place, in pixels of the photograph, and its standard uncertainty in the same."""

    x: float
    y: float
    error_px: float


def make_point(x: float, y: float, screen_px: float, *, touch: bool) -> Point:
    """Make a point.

    Args:
        x, y: in pixels of the photograph.
        screen_px: pixels of the photograph in one of the screen.
        touch: by a finger, not by a mouse or pen.
    """
    return Point(x, y, max(_LEAST_PX, screen_px * (_TOUCH if touch else _CLICK)))


def add_point(points: tuple[Point, ...], point: Point) -> tuple[Point, ...]:
    """Add a point; a third one begins again."""
    return (*points, point) if len(points) == 1 else (point,)


def read_clicks(points: tuple[Point, ...], distance: str) -> tuple[Scale | None, str]:
    """Compute the scale of two points, and say what is there and what is missing.

    Args:
        points: at most two.
        distance: as typed, in mm.
    Returns:
        None while there are not two points and a distance; and a sentence, "" while there is neither.
    Raises:
        CracksegError: the points coincide, or the distance is no number over 0.
    """
    if len(points) < 2:
        asked = "Click two points on the photograph." if distance.strip() else ""
        return None, "One point. Click the second one." if points else asked
    one, other = points
    distance_px = math.hypot(other.x - one.x, other.y - one.y)
    apart = f"The points are {distance_px:,.1f} px apart"
    if not distance.strip():
        return None, f"{apart}. Type their distance in millimetres."
    distance_mm = _read_number(distance, "distance", "millimetres between the two points, over 0, e.g. 100")
    scale = scale_between(distance_px, distance_mm, (one.error_px, other.error_px))
    return scale, (
        f"{apart}: {scale.mm_per_px:.4g} mm per pixel ± {100 * scale.relative_error:.2g} %, if each point is right to "
        f"{max(one.error_px, other.error_px):.2g} px (one pixel of the screen, {_TOUCH:g} under a finger)."
    )


def read_scale(mm_per_px: str, error_pct: str = "") -> Scale | None:
    """Read millimetres per pixel and their uncertainty in percent, with a point or a comma; None for pixels.

    Raises:
        CracksegError: no number above 0, or an uncertainty that is not in [0, 100).
    """
    if not mm_per_px.strip():
        return None
    scale = _read_number(mm_per_px, "scale", "millimetres per pixel, over 0, e.g. 0.25, or nothing for pixels")
    if not error_pct.strip():
        return choose_scale(scale)
    expected = "its standard uncertainty in percent, from 0 to under 100, e.g. 3, or nothing if it is not known"
    error = _read_number(error_pct, "uncertainty of the scale", expected)
    if not 0 <= error < 100:
        raise CracksegError(f"the uncertainty of the scale is {error_pct.strip()!r}; expected {expected}")
    return choose_scale(scale, error_pct=error)


def _read_number(text: str, name: str, expected: str) -> float:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError as error:
        raise CracksegError(f"the {name} is {text.strip()!r}; expected {expected}") from error
