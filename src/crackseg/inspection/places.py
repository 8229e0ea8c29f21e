"""Places where photographs were taken, from GPS in their EXIF, as points of a map: GeoJSON, and SVG for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

_EARTH_M = 6_371_008.8  # mean radius (IUGG)
_SIDE_PX, _MARGIN_PX, _DOT_PX = 640, 40, 6
_STEPS_M = tuple(step * 10**power for power in range(-1, 7) for step in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Place:
    """WGS 84, in degrees: latitude in [-90, 90], longitude in [-180, 180]."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the map: a place, its label, its colour (RGB)."""

    place: Place
    label: str
    colour: tuple[int, int, int]


def read_place(path: Path) -> Place | None:
    """Return where a photograph was taken; None if its EXIF has no GPS position, or none that can be read."""
    try:
        with Image.open(path) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        latitude = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], "S")
        longitude = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], "W")
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        ZeroDivisionError,
        SyntaxError,
        Image.DecompressionBombError,
    ):
        return None
    if not (math.isfinite(latitude + longitude) and abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return None if latitude == longitude == 0 else Place(latitude, longitude)  # cameras write 0, 0 for "not known"


def _degrees(parts: Sequence[Any], reference: str, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return -value if str(reference).strip().upper() == negative else value


def point_features(marks: Sequence[tuple[Place, dict[str, Any]]]) -> dict[str, Any]:
    """Return places with their properties as a GeoJSON feature collection of points (WGS 84, longitude first)."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": {"type": "Point", "coordinates": [round(p.longitude, 8), round(p.latitude, 8)]},
            }
            for p, properties in marks
        ],
    }


def draw_map(marks: Sequence[Mark]) -> str:
    """Draw places as an SVG, north up, with a scale bar; no map tiles, since these would come from a server.

    Args:
        marks: at least one; later ones lie on top.
    """
    latitude = math.radians(sum(mark.place.latitude for mark in marks) / len(marks))
    east_m = [math.radians(m.place.longitude) * math.cos(latitude) * _EARTH_M for m in marks]
    north_m = [math.radians(m.place.latitude) * _EARTH_M for m in marks]
    west_m, top_m = min(east_m), max(north_m)
    extent_m = max(max(east_m) - west_m, top_m - min(north_m), 1.0)
    px_per_m = (_SIDE_PX - 2 * _MARGIN_PX) / extent_m
    height = round((top_m - min(north_m)) * px_per_m) + 3 * _MARGIN_PX
    dots = "".join(
        f"<circle cx='{_MARGIN_PX + (east - west_m) * px_per_m:.1f}' "
        f"cy='{_MARGIN_PX + (top_m - north) * px_per_m:.1f}' r='{_DOT_PX}' fill='rgb{mark.colour}' stroke='#141414'>"
        f"<title>{escape(mark.label)}</title></circle>"
        for mark, east, north in zip(marks, east_m, north_m, strict=True)
    )
    bar_m = max((step for step in _STEPS_M if step <= extent_m / 3), default=_STEPS_M[0])
    bar = f"{bar_m / 1000:g} km" if bar_m >= 1000 else f"{bar_m:g} m"
    base = height - _MARGIN_PX
    return (
        f"<svg class='map' viewBox='0 0 {_SIDE_PX} {height}' role='img' aria-label='places of the photographs'>"
        f"<rect width='{_SIDE_PX}' height='{height}' fill='#f6f6f4' stroke='#ccc'/>{dots}"
        f"<path d='M{_MARGIN_PX} {base} h{bar_m * px_per_m:.1f}' stroke='#141414' stroke-width='3'/>"
        f"<text x='{_MARGIN_PX}' y='{base + 18}' font-size='14'>{bar}</text>"
        f"<text x='{_SIDE_PX - _MARGIN_PX}' y='{base + 18}' font-size='14' text-anchor='end'>north is up</text></svg>"
    )
