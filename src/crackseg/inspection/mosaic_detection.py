"""Tell an orthomosaic from a photograph by the tags of its TIFF, without reading pixels or further libraries."""

from __future__ import annotations

import struct
from pathlib import Path

from crackseg.data.images.files import MAX_PIXELS

_WIDTH, _HEIGHT = 256, 257
_PLACES = {33550, 33922, 34264, 34735}  # GeoTIFF: pixel scale, tie points, transform, keys
_MOST_TAGS = 4096


def is_mosaic(path: Path) -> bool:
    """Return True for a TIFF or BigTIFF that has a place on earth, or more pixels than a photograph may have.

    False for all else, also for what cannot be read: reading it as a photograph says what is wrong.
    """
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return False
        tags = _read_tags(path)
    except (OSError, ValueError, OverflowError, struct.error):  # the last three of damaged offsets
        return False
    return bool(_PLACES & tags.keys()) or tags.get(_WIDTH, 0) * tags.get(_HEIGHT, 0) > MAX_PIXELS


def _read_tags(path: Path) -> dict[int, int]:
    """Read the tags of the first page; values of one whole number each, 0 for others."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        version = struct.unpack(f"{order}H", head[2:4])[0] if order else 0
        if version == 42:
            offset, count, entry, size = struct.unpack(f"{order}I", head[4:8])[0], "H", "HHI", 4
        elif version == 43:
            offset, count, entry, size = struct.unpack(f"{order}Q", head[8:16])[0], "Q", "HHQ", 8
        else:
            return {}
        file.seek(offset)
        (number,) = struct.unpack(f"{order}{count}", file.read(struct.calcsize(count)))
        tags: dict[int, int] = {}
        for _ in range(min(number, _MOST_TAGS)):
            tag, kind, many = struct.unpack(f"{order}{entry}", file.read(struct.calcsize(f"={entry}")))
            value, form = file.read(size), {3: "H", 4: "I", 16: "Q"}.get(kind)
            single = form is not None and many == 1
            tags[tag] = struct.unpack_from(f"{order}{form}", value)[0] if single else 0
    return tags
