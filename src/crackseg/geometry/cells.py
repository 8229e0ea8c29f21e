"""Find the closed cells of a crack's centre lines, and the kind of crack: by direction, or a network of cells.

Places are (x, y) in pixels, y downwards; angles are counter-clockwise as seen on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from crackseg.geometry.components import Crack

Kind = Literal["longitudinal", "transverse", "diagonal", "random", "map", "block", "alligator"]
_MIN_CELL_PX, _MIN_CELL_WIDTHS = (
    10.0,
    4.0,
)  # side of a square of the same area; smaller ones are gaps in a wide crack
_MIN_CELLS = 3  # of a network; fewer are loops of a branched crack
_MIN_LENGTH_IN_CELLS = 0.5  # fraction of a network's length that bounds cells
_ALONG_DEG, _ACROSS_DEG = 22.5, 67.5  # from the direction of the road or member
_AHEAD = 8  # points (about px) along a branch that tell its direction at a junction


@dataclass(frozen=True, slots=True)
class Cells:
    """Closed cells of one crack.

    Attributes:
        areas_px: of each cell, in pixels, between the centre lines around it.
        length_px: of the branches that bound a cell.
    """

    areas_px: tuple[float, ...]
    length_px: float


def find_cells(crack: Crack) -> Cells:
    """Find the areas that a crack's branches enclose.

    Each branch is walked in both directions, turning at each junction into the next branch clockwise: each walk goes
    around one area, and the one around the outside turns the other way.
    """
    branches = crack.branches
    ways = [(i, way) for i in range(len(branches)) for way in (0, 1)]
    paths = {(i, way): branches[i].line.points[:: 1 - 2 * way] for i, way in ways}
    starts = {(i, way): (branches[i].line.end if way else branches[i].line.start) for i, way in ways}
    around: dict[int, list[tuple[int, int]]] = {}
    for way in ways:
        around.setdefault(starts[way], []).append(way)

    def angle(way: tuple[int, int]) -> float:
        path = paths[way]
        x, y = path[min(_AHEAD, len(path) - 1)] - path[0]
        return float(np.arctan2(y, x))

    following: dict[tuple[int, int], tuple[int, int]] = {}
    for leaving in around.values():
        leaving.sort(key=angle)
        for k, (i, direction) in enumerate(leaving):
            following[i, 1 - direction] = leaving[k - 1]  # arriving on this branch
    walks, waiting = [], set(ways)
    while waiting:
        first = at = min(waiting)
        walk = []
        while at in waiting:
            waiting.remove(at)
            walk.append(at)
            at = following[at]
        assert at == first
        walks.append(walk)
    areas = [_signed_area(np.concatenate([paths[way] for way in walk])) for walk in walks]
    outside = int(np.argmax(np.abs(areas)))
    least = max(_MIN_CELL_PX, _MIN_CELL_WIDTHS * crack.mean_width_px) ** 2
    found = [
        k for k, area in enumerate(areas) if k != outside and area * areas[outside] < 0 and abs(area) >= least
    ]
    # A branch that is walked twice in one walk only leads into the cell.
    bounding = {i for k in found for i, way in walks[k] if (i, 1 - way) not in walks[k]}
    return Cells(tuple(abs(areas[k]) for k in found), sum(branches[i].length_px for i in bounding))


def _signed_area(points: np.ndarray) -> float:
    x, y = points.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def find_kind(crack: Crack, cells: Cells, direction_deg: float) -> Kind:
    """Return the kind of a crack, without a scale.

    Args:
        crack: measured.
        cells: of the crack.
        direction_deg: of the road or member, [0, 180).
    Returns:
        ``map`` for a network: at least 3 cells, which bound at least half of its length. Else by the angle to that
        direction: ``longitudinal`` up to 22.5 degrees, ``transverse`` from 67.5, ``diagonal`` between. ``random``
        without a main direction.
    """
    if len(cells.areas_px) >= _MIN_CELLS and cells.length_px >= _MIN_LENGTH_IN_CELLS * crack.length_px:
        return "map"
    if crack.orientation_deg is None:
        return "random"
    off = abs((crack.orientation_deg - direction_deg + 90) % 180 - 90)
    return "longitudinal" if off <= _ALONG_DEG else "transverse" if off >= _ACROSS_DEG else "diagonal"
