"""LabelMe JSON: a file for each photograph, with polygons, lines, and masks (a PNG in base64 inside a box)."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crackseg.data.importing.annotations.drawn import (
    DAMAGES,
    AnnotatedImage,
    AnnotationFile,
    Shape,
    as_points,
    as_runs,
    as_size,
    find_widths,
    name_damage,
)
from crackseg.errors import CracksegError

_KINDS = {"polygon": "polygon", "linestrip": "polyline", "line": "polyline", "mask": "mask"}


def is_labelme(data: Any) -> bool:
    """Return whether parsed JSON has the form of LabelMe."""
    return isinstance(data, dict) and {"shapes", "imagePath"} <= data.keys()


def read_labelme(path: Path, data: dict[str, Any]) -> AnnotationFile:
    """Read parsed LabelMe JSON.

    Raises:
        CracksegError: a shape cannot be read.
    """
    shapes = []
    for number, shape in enumerate(data["shapes"], start=1):
        place = f"shape {number}"
        try:
            shapes.append(_read_shape(shape, place))
        except (*DAMAGES, OSError, SyntaxError) as error:
            raise CracksegError(
                f"{path}: {place} is damaged ({name_damage(error)}); save it again in LabelMe"
            ) from error
    # A flag of the whole image is a label without a place, like CVAT's tags.
    flags = data.get("flags")
    if isinstance(flags, dict):
        shapes += [Shape(str(name), "tag", place="flags") for name, is_set in flags.items() if is_set is True]
    size = as_size(data.get("imageWidth"), data.get("imageHeight"))
    image = AnnotatedImage(
        str(data["imagePath"] or ""), path, size, tuple(shapes), embedded=bool(data.get("imageData"))
    )
    return AnnotationFile(path, [image], says_empty=True)


def _read_shape(shape: dict[str, Any], place: str) -> Shape:
    label = str(shape["label"])
    word = str(shape.get("shape_type") or "polygon")
    kind = _KINDS.get(word, word)
    if kind not in _KINDS.values():
        return Shape(label, kind, place=place)
    points = as_points(shape["points"])
    if kind == "mask":
        return _read_mask(shape, label, points, place)
    if kind == "polygon":
        return Shape(label, kind, points, place=place)
    widths_px = find_widths(points, shape.get("width_px"), shape.get("width_profile"))
    return Shape(label, kind, points, widths_px=widths_px, place=place)


def _read_mask(shape: dict[str, Any], label: str, points: np.ndarray, place: str) -> Shape:
    """Read a mask: its two points are the first and the last pixel of its box, both inside."""
    if not shape.get("mask"):
        raise ValueError("a mask without pixels")
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
        values = np.asarray(image)
    pixels = (values[..., :3].any(axis=-1) if values.ndim == 3 else values > 0).ravel()
    left, top = (int(v) for v in np.floor(points.min(axis=0)))
    right, bottom = (int(v) for v in np.floor(points.max(axis=0)))
    height, width = values.shape[:2]
    if len(points) != 2 or abs(right - left + 1 - width) > 1 or abs(bottom - top + 1 - height) > 1:
        raise ValueError(
            f"its mask has {width} x {height} pixels, but its box goes from {left}, {top} to {right}, {bottom}"
        )
    return Shape(label, "mask", runs=as_runs(pixels), box=(left, top, width, height), place=place)
