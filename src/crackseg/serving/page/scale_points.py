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


def scale_of_clicks(points: tuple[Point, ...], distance: str) -> Scale | None:
    """Compute the scale of two points; None while there are not two points and a distance.

    Args:
        points: at most two.
        distance: as typed, in mm.
    Raises:
        CracksegError: the points coincide, or the distance is no number over 0.
    """
    if len(points) < 2 or not distance.strip():
        return None
    one, other = points
    distance_mm = _read_number(distance, "distance", "millimetres between the two points, over 0, e.g. 100")
    return scale_between(math.hypot(other.x - one.x, other.y - one.y), distance_mm, (one.error_px, other.error_px))


def describe_clicks(points: tuple[Point, ...], distance: str) -> str:
    """Say what is there and what is missing, a sentence; errors as in :func:`scale_of_clicks`."""
    if not points:
        return "Click two points on the photograph." if distance.strip() else ""
    if len(points) == 1:
        return "One point. Click the second one."
    one, other = points
    apart = f"The points are {math.hypot(other.x - one.x, other.y - one.y):,.1f} px apart"
    scale = scale_of_clicks(points, distance)
    if scale is None:
        return f"{apart}. Type their distance in millimetres."
    return (
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
