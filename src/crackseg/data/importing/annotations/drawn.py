"""Shapes, images and files as every annotation tool's reader returns them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DRAWABLE_KINDS = ("polygon", "polyline", "mask")
DAMAGES = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""Errors that a reader meets in a damaged file."""


def name_damage(error: Exception) -> str:
    """Say what is wrong with a part of a file, for a message."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth value
class Shape:
    """Something drawn on an image.

    Attributes:
        label: its category.
        kind: one of ``DRAWABLE_KINDS``, or the tool's word for what cannot say which pixels are crack (``rectangle``,
            ``box``, ``tag``).
        points: float (N, 2), x and y, of a polygon or polyline.
        holes: float (N, 2) each, polygons that are cut out of a polygon.
        widths_px: float (N,), of a polyline: its width at each of its points; empty where the file says none.
        runs: of a mask, lengths of runs of pixels that are off, on, off, …
        box: of a mask, left, top, width, height.
        by_column: whether the runs go down the columns (COCO) or along the rows (CVAT, LabelMe).
        place: where the file has it, for messages, e.g. ``annotation 17``.
    """

    label: str
    kind: str
    points: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    holes: tuple[np.ndarray, ...] = ()
    widths_px: np.ndarray = field(default_factory=lambda: np.empty(0))
    runs: tuple[int, ...] = ()
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    by_column: bool = False
    place: str = ""

    def draws_like(self, other: Shape) -> bool:
        """Return whether the other shape has the same label and the same pixels, wherever its file has it."""
        return (
            (self.label, self.kind, self.runs, self.box, self.by_column)
            == (other.label, other.kind, other.runs, other.box, other.by_column)
            and np.array_equal(self.points, other.points)
            and np.array_equal(self.widths_px, other.widths_px)
            and len(self.holes) == len(other.holes)
            and all(np.array_equal(a, b) for a, b in zip(self.holes, other.holes, strict=True))
        )


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """Annotations of one image in a file.

    Attributes:
        name: the image's file name, perhaps with folders.
        other_name: another one that it may have, too; empty where there is none.
        path: the annotation file.
        size: width and height as the file says them, or None.
        shapes: may be empty: an image without cracks.
        embedded: whether the file holds the photograph itself, too (LabelMe's imageData).
        subset: of the tool's project, e.g. ``Train`` or ``default``; empty where the file says none.
    """

    name: str
    path: Path
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    embedded: bool = False
    subset: str = ""
    other_name: str = ""


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """One annotation file.

    Attributes:
        path: the file.
        images: that it tells of.
        says_empty: whether a file in which nothing is drawn says that there are no cracks. A LabelMe file is saved
            for its image by a person; a COCO or CVAT file without shapes may be a list of images not annotated yet.
        labels: that the file declares, drawn or not.
        remarks: how many shapes have a mark that does not change what is drawn, by the mark.
    """

    path: Path
    images: list[AnnotatedImage]
    says_empty: bool = False
    labels: frozenset[str] = frozenset()
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def is_silent(self) -> bool:
        """True for a file that says nothing of any image."""
        return not self.says_empty and not any(image.shapes for image in self.images)


def as_points(values: Any) -> np.ndarray:
    """Convert coordinates, flat or in pairs, to float (N, 2).

    Raises:
        ValueError: there are none, an odd number of them, or one that is no finite number.
    """
    flat = np.array(values, float).ravel()
    if not len(flat):
        raise ValueError("no points")
    if len(flat) % 2:
        raise ValueError(f"{len(flat)} coordinates; expected pairs of x and y")
    if not np.isfinite(flat).all():
        raise ValueError("a coordinate that is not a finite number")
    return flat.reshape(-1, 2)


def as_runs(pixels: np.ndarray) -> tuple[int, ...]:
    """Convert pixels, bool (N,), to lengths of runs that are off, on, off, …"""
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(pixels)]]))
    return (*((0,) if pixels[0] else ()), *(int(run) for run in runs))


def find_widths(points: np.ndarray, width: Any, profile: Any) -> np.ndarray:
    """Find the width of a line at each of its points: its one width counts before its profile.

    The profile says at which places the line has which width, so that a point may be moved, added or deleted: it has
    the width of the nearest place.

    Args:
        points: float (N, 2), x and y.
        width: in pixels; None where the file says none.
        profile: rows of x, y and width in pixels; None where the file says none.
    Returns:
        float (N,), pixels; empty where the file says neither.
    Raises:
        ValueError: a row is not three numbers, or a width is not over 0.
    """
    if width is not None:
        return np.full(len(points), _as_width(width))
    if profile is None:
        return np.empty(0)
    rows = list(profile)
    if not rows or any(len(row) != 3 for row in rows):
        raise ValueError("a width profile that is not made of x, y and width")
    places = as_points([row[:2] for row in rows])
    widths = np.array([_as_width(row[2]) for row in rows])
    nearest = ((points[:, None] - places[None]) ** 2).sum(axis=2).argmin(axis=1)
    return np.asarray(widths[nearest])


def _as_width(value: Any) -> float:
    try:
        width_px = float(value)
    except (TypeError, ValueError):
        width_px = math.nan
    if not 0 < width_px < math.inf:
        raise ValueError(f"a width of {value!r}; expected a number of pixels over 0")
    return width_px


def as_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return (width, height) where a file says both; some tools write 0 or nothing."""
    size = (int(float(width or 0)), int(float(height or 0)))
    return size if min(size) > 0 else None
