"""Scale of an image in millimetres per pixel: given directly, or by two points and their distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crackseg.errors import CracksegError

_LEAST_MM, _MOST_MM = 1e-6, 1e6  # per pixel: a nanometre, a kilometre
_EXPECTED = f"expected millimetres per pixel, over 0 ({_LEAST_MM:g} to {_MOST_MM:g}), e.g. 0.25"
_POINT_PX = 0.5  # standard uncertainty of a point that someone read off the picture


@dataclass(frozen=True, slots=True)
class Scale:
    """Scale of a picture.

    Attributes:
        mm_per_px: millimetres per pixel.
        relative_error: standard uncertainty as a fraction of it; 0 if it is not known.
    """

    mm_per_px: float
    relative_error: float = 0.0


def check_mm_per_px(mm_per_px: float) -> float:
    """Return the scale if it is valid.

    Raises:
        CracksegError: it is no number, or out of the range of anything that is photographed.
    """
    if not _LEAST_MM <= mm_per_px <= _MOST_MM:  # nan is in no range
        raise CracksegError(f"the scale is {mm_per_px:g} mm per pixel; {_EXPECTED}")
    return mm_per_px


def scale_of_points(text: str) -> Scale:
    """Compute the scale from ``x1,y1,x2,y2,MM``: two points in pixels, each right to half a pixel, and their distance.

    Raises:
        CracksegError: not five numbers, the points coincide, or the distance is 0, negative or no number.
    """
    try:
        x1, y1, x2, y2, distance_mm = (float(part) for part in text.split(","))
    except ValueError as error:
        raise CracksegError(
            f"--scale {text}: expected five numbers x1,y1,x2,y2,MM: two points in pixels and their distance in mm, "
            "e.g. 120,80,620,80,500"
        ) from error
    try:
        return scale_between(math.hypot(x2 - x1, y2 - y1), distance_mm)
    except CracksegError as error:
        raise CracksegError(f"--scale {text}: {error}") from error


def scale_between(
    distance_px: float, distance_mm: float, errors_px: tuple[float, float] = (_POINT_PX, _POINT_PX)
) -> Scale:
    """Compute the scale from two points.

    Args:
        distance_px, distance_mm: between the points.
        errors_px: standard uncertainty of each point along the line between them.
    Raises:
        CracksegError: the points coincide, or the distance is 0, negative or no number.
    """
    if not (math.isfinite(distance_px) and distance_px > 0):
        raise CracksegError(f"the two points are {distance_px:g} pixels apart; give two different ones")
    if not (math.isfinite(distance_mm) and distance_mm > 0):
        raise CracksegError(f"the distance is {distance_mm:g} mm; expected more than 0")
    return Scale(check_mm_per_px(distance_mm / distance_px), math.hypot(*errors_px) / distance_px)


def choose_scale(
    mm_per_px: float | None, points: str | None = None, error_pct: float | None = None
) -> Scale | None:
    """Return the scale from the option that was given; None if neither was.

    Args:
        mm_per_px: millimetres per pixel.
        points: see :func:`scale_of_points`.
        error_pct: standard uncertainty of the scale in percent, [0, 100), instead of that of the points.
    Raises:
        CracksegError: both were given, an uncertainty without a scale was, or the scale is not valid.
    """
    if mm_per_px is not None and points is not None:
        raise CracksegError("both --mm-per-px and --scale were given; give one of them")
    if points is not None:
        scale = scale_of_points(points)
    elif mm_per_px is not None:
        scale = Scale(check_mm_per_px(mm_per_px))
    elif error_pct is not None:
        raise CracksegError("--scale-error-pct is the uncertainty of a scale; give the scale, too: --mm-per-px")
    else:
        return None
    return scale if error_pct is None else Scale(scale.mm_per_px, error_pct / 100)
