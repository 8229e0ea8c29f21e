"""Scale of an image in millimetres per pixel: given directly, or by two points and their distance."""

from __future__ import annotations

import math

from crackseg.errors import CracksegError

_EXPECTED = "expected millimetres per pixel, over 0, e.g. 0.25"


def check_mm_per_px(mm_per_px: float) -> float:
    """Return the scale if it is valid.

    Raises:
        CracksegError: it is 0, negative, infinite or no number.
    """
    if not (math.isfinite(mm_per_px) and mm_per_px > 0):
        raise CracksegError(f"the scale is {mm_per_px:g} mm per pixel; {_EXPECTED}")
    return mm_per_px


def scale_of_points(text: str) -> float:
    """Compute millimetres per pixel from ``x1,y1,x2,y2,MM``: two points in pixels, and their distance.

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
    distance_px = math.hypot(x2 - x1, y2 - y1)
    if not (math.isfinite(distance_px) and distance_px > 0):
        raise CracksegError(
            f"--scale {text}: the two points are {distance_px:g} pixels apart; give two different ones"
        )
    if not (math.isfinite(distance_mm) and distance_mm > 0):
        raise CracksegError(f"--scale {text}: the distance is {distance_mm:g} mm; expected more than 0")
    return check_mm_per_px(distance_mm / distance_px)


def choose_scale(mm_per_px: float | None, points: str | None) -> float | None:
    """Return millimetres per pixel from the option that was given; None if neither was.

    Raises:
        CracksegError: both were given, or the scale is not valid.
    """
    if mm_per_px is not None and points is not None:
        raise CracksegError("both --mm-per-px and --scale were given; give one of them")
    if points is not None:
        return scale_of_points(points)
    return None if mm_per_px is None else check_mm_per_px(mm_per_px)
