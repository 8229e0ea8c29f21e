"""Grade measured cracks: kind, width class and uncertainty; without a scale there are no millimetres and no class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crackseg.geometry.cells import Cells, Kind, find_cells, find_kind
from crackseg.geometry.components import Branch, Crack
from crackseg.geometry.scale import Scale
from crackseg.params.sections import MeasureParams
from crackseg.params.width_classes import WIDTH_CLASSES, WidthClass
from crackseg.types import Surface

_PIXEL_PX = 0.5  # standard uncertainty of a width, and of each end of a length
# Blocks are 0.3 m x 0.3 m or more (ASTM D6433); smaller cells are those of alligator cracking.
_BLOCK_M2 = 0.3**2
# ASTM D6433 has words only for the severity of alligator cracking; these densities are crackseg's: cells of 0.2 m and
# of 0.1 m.
_ALLIGATOR_CELLS_PER_M2 = (25.0, 100.0)
# Okabe and Ito's colours (Color Universal Design, 2008), from cold to warm.
_COLOURS = {
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "orange": (230, 159, 0),
    "vermilion": (213, 94, 0),
    "reddish purple": (204, 121, 167),
}


@dataclass(frozen=True, slots=True)
class Grading:
    """Rules that cracks are graded by.

    Attributes:
        surface: decides the names and severity of networks of cracks.
        classes: width classes, the finest first, covering every width.
        direction_deg: of the road or member in the picture.
        own_classes: the classes are a user's own and not the surface's.
    """

    surface: Surface = "concrete"
    classes: tuple[WidthClass, ...] = WIDTH_CLASSES["concrete"]
    direction_deg: float = 90.0
    own_classes: bool = False

    def class_of(self, width_mm: float) -> WidthClass:
        """Return the class of a width."""
        return next(c for c in reversed(self.classes) if width_mm >= c.from_mm)

    def identify(self) -> list[object]:
        """Return what tells these rules from others, as JSON has it."""
        classes = [[each.name, each.from_mm] for each in self.classes]
        return [self.surface, self.direction_deg, self.own_classes, classes]

    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Return a colour, RGB, for each class: colour-blind-safe, from cold to warm."""
        palette = list(_COLOURS.values())
        if len(self.classes) == len(palette):
            return tuple(palette)
        places = np.linspace(len(palette) - 2, 0, len(self.classes)).round().astype(int)[::-1]
        return tuple(palette[place] for place in places)

    def colour_of(self, name: str) -> tuple[int, int, int]:
        """Return the colour of the class with this name."""
        return self.colours()[[each.name for each in self.classes].index(name)]


OF_CONCRETE = Grading()


def make_grading(params: MeasureParams, surface: Surface | None = None) -> Grading:
    """Return the rules of params.yaml.

    Args:
        params: section ``measure``.
        surface: instead of that of params; the width classes are then those of this surface.
    """
    own = params.classes if surface in (None, params.surface) else None
    surface = surface or params.surface
    return Grading(surface, own or WIDTH_CLASSES[surface], params.direction_deg, own_classes=own is not None)


@dataclass(frozen=True, slots=True)
class Grade:
    """Grade of one crack. Values that need a scale are None without one.

    Attributes:
        kind: see :func:`crackseg.geometry.cells.find_kind`; with a scale, networks on pavements are ``block`` or
            ``alligator``.
        num_cells: closed cells.
        cells_per_m2: cells over their area; None also without cells.
        severity: name of the width class of its largest width, or for alligator cracking of its density.
        severity_range: the finest and the widest class within the width's standard uncertainty.
    """

    kind: Kind
    num_cells: int
    cells_per_m2: float | None = None
    severity: str | None = None
    severity_range: tuple[str, str] | None = None


def grade_crack(crack: Crack, grading: Grading, scale: Scale | None) -> Grade:
    """Grade a crack."""
    cells = find_cells(crack)
    kind = find_kind(crack, cells, grading.direction_deg)
    if scale is None:
        return Grade(kind, len(cells.areas_px))
    density = _density(cells, scale)
    if kind == "map" and grading.surface == "pavement":
        assert density is not None
        kind = "block" if density <= 1 / _BLOCK_M2 else "alligator"
    if kind == "alligator" and not grading.own_classes:
        assert density is not None
        level = sum(density >= bound for bound in _ALLIGATOR_CELLS_PER_M2)
        name = grading.classes[level].name
        return Grade(kind, len(cells.areas_px), density, name, (name, name))
    width_mm = crack.max_width_px * scale.mm_per_px
    off_mm = width_uncertainty_mm(crack.max_width_px, scale)
    low, at, high = (grading.class_of(max(0.0, w)).name for w in (width_mm - off_mm, width_mm, width_mm + off_mm))
    return Grade(kind, len(cells.areas_px), density, at, (low, high))


def _density(cells: Cells, scale: Scale) -> float | None:
    area_m2 = sum(cells.areas_px) * (scale.mm_per_px / 1000) ** 2
    return len(cells.areas_px) / area_m2 if area_m2 else None


def width_uncertainty_mm(width_px: float, scale: Scale) -> float:
    """Compute the standard uncertainty of a width: half a pixel and the scale's, added in quadrature."""
    return scale.mm_per_px * math.hypot(_PIXEL_PX, width_px * scale.relative_error)


def length_uncertainty_mm(length_px: float, scale: Scale) -> float:
    """Compute the standard uncertainty of a length: half a pixel at each end and the scale's, in quadrature."""
    return scale.mm_per_px * math.hypot(_PIXEL_PX, _PIXEL_PX, length_px * scale.relative_error)


def class_lengths_px(
    cracks: Sequence[Crack], grades: Sequence[Grade], grading: Grading, scale: Scale
) -> list[float]:
    """Measure the length of centre line in each width class, by :func:`classes_along`."""
    totals = np.zeros(len(grading.classes))
    for crack, grade in zip(cracks, grades, strict=True):
        for branch, along in zip(crack.branches, classes_along(crack, grade, grading, scale), strict=True):
            totals += branch.length_px * np.bincount(along, minlength=len(totals)) / len(along)
    return [float(total) for total in totals]


def classes_along(crack: Crack, grade: Grade, grading: Grading, scale: Scale) -> list[np.ndarray]:
    """Classify each place of a crack's centre lines by the width there; pictures and lengths by class agree on it.

    A crack that is graded by its cells has one class. Near ends and junctions, where a width is not defined, the
    nearest one along the branch counts.

    Returns:
        For each branch, int (N,): the index in ``grading.classes`` at each of the N points of its line.
    """
    if grade.kind == "alligator" and not grading.own_classes:
        index = [each.name for each in grading.classes].index(str(grade.severity))
        return [np.full(len(branch.line.points), index) for branch in crack.branches]
    bounds = [each.from_mm for each in grading.classes[1:]]
    return [
        np.searchsorted(bounds, _known_widths(branch) * scale.mm_per_px, side="right") for branch in crack.branches
    ]


def _known_widths(branch: Branch) -> np.ndarray:
    widths = branch.line.widths
    known = np.flatnonzero(np.isfinite(widths))
    middles = (known[1:] + known[:-1]) / 2
    return widths[known[np.searchsorted(middles, np.arange(len(widths)))]]
