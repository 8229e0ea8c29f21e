"""Compare the cracks of two photographs in one frame along their lines: new, longer, wider, gone.

What a model finds changes a little with the place of the camera, the light and the sharpness. So each photograph is
predicted twice, once resampled, and crackseg.inspection.joint_lines tells along the lines of both where each shows the
crack and where there is a sign of it; between the two nothing is said to have changed.

Shape legend: H rows, W columns of the frame: the pixels of the earlier photograph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

from crackseg.geometry.components import Measurement, measure_mask
from crackseg.geometry.length import Line
from crackseg.inspection.least_lengths import MIN_GROWTH_PX

FAINT = 0.3  # of the threshold: what is above is a sign of a crack
_TOLERANCE_PX, _LARGEST_TOLERANCE_PX = 3.0, 10.0  # across a line; more with the registration's error
_BORDER_PX = 4  # near a picture's border cracks are found less surely
_GAP_PX = 6  # matched points between two unmatched runs that do not part them
_CERTAIN = 3  # standard uncertainties by which widths differ if the crack has changed
_MIN_SHARED = 5  # points that two cracks share if they are the same one
_WIDTH_ERROR_PX = 0.5  # standard uncertainty of a width, in pixels of its photograph


@dataclass(frozen=True, slots=True)
class View:
    """A photograph's cracks in the frame.

    Attributes:
        measurement: of the mask.
        mask_HW: bool, where there is a crack.
        faint_HW: bool, where there is a sign of a crack.
        found: what the network finds in this photograph alone; widths are measured on it.
    """

    measurement: Measurement
    mask_HW: np.ndarray
    faint_HW: np.ndarray
    found: Measurement


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a line that the other photograph does not show: points in the frame, and its length there."""

    points: np.ndarray
    length_px: float
    error_px: float


@dataclass(slots=True)
class Change:
    """A crack in both photographs, or in one of them. Lengths and widths are pixels of the frame.

    Attributes:
        before, after: numbers of the cracks in each photograph, from 1 on, the longest first.
        length_before_px, length_after_px: of what both photographs show.
        grown, lost: what only the later, or only the earlier one shows.
        wider_by_px, wider_error_px: mean difference of the widths where both show the crack, and its standard
            uncertainty; None if it cannot be measured.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    length_before_px: float = 0.0
    length_after_px: float = 0.0
    grown: list[Run] = field(default_factory=list)
    lost: list[Run] = field(default_factory=list)
    wider_by_px: float | None = None
    wider_error_px: float | None = None

    @property
    def grown_px(self) -> float:
        return sum(run.length_px for run in self.grown)

    @property
    def lost_px(self) -> float:
        return sum(run.length_px for run in self.lost)

    @property
    def grown_error_px(self) -> float:
        return float(np.sqrt(sum(run.error_px**2 for run in self.grown)))

    @property
    def lost_error_px(self) -> float:
        return float(np.sqrt(sum(run.error_px**2 for run in self.lost)))

    @property
    def words(self) -> tuple[str, ...]:
        """``new``, ``gone``, or some of ``longer``, ``shorter``, ``wider``, ``narrower``; empty: unchanged."""
        if not self.before:
            return ("new",) if self.grown else ()
        if not self.after:
            return ("gone",) if self.lost else ()
        words = [word for word, runs in (("longer", self.grown), ("shorter", self.lost)) if runs]
        if self.wider_by_px is not None and abs(self.wider_by_px) > _CERTAIN * (self.wider_error_px or 0):
            words.append("wider" if self.wider_by_px > 0 else "narrower")
        return tuple(words)


def make_view(crack_probs: Sequence[np.ndarray], threshold: float, seen_HW: np.ndarray) -> View:
    """Measure the cracks of a photograph.

    Args:
        crack_probs: probability maps, float (H, W), of several predictions, not post-processed.
        threshold: crack is where a map is at least this.
        seen_HW: bool, what both photographs show; all else is left out.
    """
    together_HW = np.mean(crack_probs, axis=0) >= threshold
    mask_HW = together_HW & (np.minimum.reduce(crack_probs) >= FAINT * threshold) & seen_HW
    faint_HW = (np.maximum.reduce(crack_probs) >= FAINT * threshold) & seen_HW
    measurement = measure_mask(mask_HW)
    return View(measurement, mask_HW, faint_HW, measurement)


def compare_views(
    before: View,
    after: View,
    seen_HW: np.ndarray,
    *,
    error_px: float,
    zoom: float = 1.0,
    min_growth_px: float = MIN_GROWTH_PX,
) -> list[Change]:
    """Compare two photographs.

    Args:
        before, after: the photographs.
        seen_HW: bool, what both show.
        error_px: of the registration.
        zoom: pixels of the frame that a pixel of the later photograph is long; its widths are less certain over 1.
        min_growth_px: shorter stretches count as no change.
    Returns:
        A change for each crack, those without a change too; the largest growth first.
    """
    tolerance_px = min(_TOLERANCE_PX + 2 * error_px, _LARGEST_TOLERANCE_PX)
    inner_HW = cv2.erode(seen_HW.astype(np.uint8), np.ones((2 * _BORDER_PX + 1,) * 2, np.uint8), borderValue=0) > 0
    ours = _place_lines(before, after, inner_HW, tolerance_px)
    theirs = _place_lines(after, before, inner_HW, tolerance_px)
    width_error_px = _WIDTH_ERROR_PX * float(np.hypot(1, max(1.0, zoom)))
    changes = []
    for one, other in _pair_cracks(ours, theirs, tolerance_px):
        change = Change(tuple(sorted(k + 1 for k in one)), tuple(sorted(k + 1 for k in other)))
        old, new = [p for p in ours if p.crack in one], [p for p in theirs if p.crack in other]
        change.length_before_px, change.length_after_px = (sum(p.seen_px for p in placed) for placed in (old, new))
        change.lost = _find_runs(old, tolerance_px, error_px, min_growth_px)
        change.grown = _find_runs(new, tolerance_px, error_px, min_growth_px)
        _compare_widths(change, new, before.found, after.found, tolerance_px, width_error_px)
        if change.length_before_px or change.length_after_px:
            changes.append(change)
    changes.sort(key=lambda c: (-c.grown_px, -c.lost_px, -max(c.length_before_px, c.length_after_px)))
    return changes


@dataclass(slots=True)
class _Placed:
    """A branch with what the other photograph shows at its points."""

    crack: int
    line: Line
    in_view: np.ndarray
    near: np.ndarray
    near_faint: np.ndarray
    steps_px: np.ndarray

    @property
    def points(self) -> np.ndarray:
        return self.line.points

    @property
    def widths(self) -> np.ndarray:
        return self.line.widths

    @property
    def seen_px(self) -> float:
        return float(self.steps_px[self.in_view].sum())


def _place_lines(view: View, other: View, inner_HW: np.ndarray, tolerance_px: float) -> list[_Placed]:
    distance_HW, faint_distance_HW = (
        cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for mask in (other.mask_HW, other.faint_HW)
    )
    placed = []
    for number, crack in enumerate(view.measurement.cracks):
        for branch in crack.branches:
            points = branch.line.points
            near, near_faint = (sample(d, points) <= tolerance_px for d in (distance_HW, faint_distance_HW))
            placed.append(_Placed(number, branch.line, sample(inner_HW, points), near, near_faint, _steps(points)))
    return placed


def sample(values_HW: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Read the values at the nearest pixels of points, float (N, 2); outside, at the border."""
    columns, rows = np.rint(points).astype(int).T
    height, width = values_HW.shape
    return values_HW[rows.clip(0, height - 1), columns.clip(0, width - 1)]


def _steps(points: np.ndarray) -> np.ndarray:
    """Length that each point of a line stands for, float (N,)."""
    gaps = np.hypot(*np.diff(points, axis=0).T)
    return (np.concatenate([[0.0], gaps]) + np.concatenate([gaps, [0.0]])) / 2


def _pair_cracks(
    ours: list[_Placed], theirs: list[_Placed], tolerance_px: float
) -> Iterable[tuple[set[int], set[int]]]:
    """Group the cracks that are the same one: by the points that lie on each other."""
    graph = nx.Graph()
    graph.add_nodes_from(("before", p.crack) for p in ours)
    graph.add_nodes_from(("after", p.crack) for p in theirs)
    if ours and theirs:
        tree, owners, widths = _index(ours)
        shared: dict[tuple[int, int], int] = defaultdict(int)
        for placed in theirs:
            on = placed.near & placed.in_view
            distance, nearest = tree.query(placed.points[on])
            for owner in owners[nearest[distance <= tolerance_px + np.nan_to_num(widths[nearest], nan=2.0)]]:
                shared[int(owner), placed.crack] += 1
        for (one, other), count in shared.items():
            if count >= _MIN_SHARED:
                graph.add_edge(("before", one), ("after", other))
    for group in nx.connected_components(graph):
        yield ({k for side, k in group if side == "before"}, {k for side, k in group if side == "after"})


def _index(placed: list[_Placed]) -> tuple[cKDTree, np.ndarray, np.ndarray]:
    points = np.concatenate([p.points for p in placed])
    owners = np.repeat([p.crack for p in placed], [len(p.points) for p in placed])
    return cKDTree(points), owners, np.concatenate([p.widths for p in placed])


def _find_runs(placed: list[_Placed], tolerance_px: float, error_px: float, min_growth_px: float) -> list[Run]:
    """Find the stretches that the other photograph does not show, those that meet at a junction together."""
    stretches: list[tuple[np.ndarray, float, float, float]] = []
    touching = nx.Graph()
    for p in placed:
        missing = p.in_view & ~_fill_gaps(p.near)
        for start, stop in find_stretches(missing):
            chosen = slice(start, stop)
            at_high = float(p.steps_px[chosen].sum())
            at_faint = float(p.steps_px[chosen][~p.near_faint[chosen]].sum())
            # The stretch begins where it is farther than the tolerance from what the other photograph shows.
            known_before = start > 0 and bool(p.in_view[start - 1])
            known_after = stop < len(missing) and bool(p.in_view[stop])
            hidden = tolerance_px * (known_before + known_after)
            number = len(stretches)
            stretches.append((p.points[chosen], at_high, at_faint, hidden))
            touching.add_node(number)
            for at_end, node in ((start == 0, p.line.start), (stop == len(missing), p.line.end)):
                if at_end:
                    touching.add_edge(number, ("node", p.crack, node))
    runs = []
    for group in nx.connected_components(touching):
        members = [stretches[k] for k in group if isinstance(k, int)]
        if sum(at_faint for _, _, at_faint, _ in members) < min_growth_px:
            continue
        for points, at_high, at_faint, hidden in members:
            ends = 1 + (hidden > tolerance_px)
            spread = (at_high - at_faint) / 2
            length = (at_high + at_faint) / 2 + hidden
            runs.append(Run(points, length, float(np.hypot(spread, np.sqrt(ends) * np.hypot(0.5, error_px)))))
    return runs


def find_stretches(on: np.ndarray) -> np.ndarray:
    """Return the first and the one after the last index of each stretch that is True, int (M, 2)."""
    return np.flatnonzero(np.diff(np.concatenate([[0], on.astype(np.int8), [0]]))).reshape(-1, 2)


def _fill_gaps(near: np.ndarray) -> np.ndarray:
    """Return ``near`` without short matched stretches between two unmatched ones."""
    filled = near.copy()
    for start, stop in find_stretches(near):
        if start > 0 and stop < len(near) and stop - start <= _GAP_PX:
            filled[start:stop] = False
    return filled


def _compare_widths(
    change: Change,
    new: list[_Placed],
    before: Measurement,
    after: Measurement,
    tolerance_px: float,
    width_error_px: float,
) -> None:
    """Compare the widths that both photographs have near the crack's line, each from its own mask."""
    places = [p.points[p.in_view] for p in new if p.in_view.any()]
    (ours, our_widths), (theirs, their_widths) = _list_widths(before), _list_widths(after)
    if not places or not len(ours) or not len(theirs):
        return
    on_line = cKDTree(np.concatenate(places)).query(theirs)[0] <= tolerance_px
    distance, nearest = cKDTree(ours).query(theirs[on_line])
    known = distance <= tolerance_px
    difference = their_widths[on_line][known] - our_widths[nearest[known]]
    if len(difference) >= _MIN_SHARED:
        change.wider_by_px = float(np.mean(difference))
        change.wider_error_px = width_error_px


def _list_widths(measurement: Measurement) -> tuple[np.ndarray, np.ndarray]:
    """List the points of all lines whose width is known, float (N, 2), and the widths, float (N,)."""
    lines = [branch.line for crack in measurement.cracks for branch in crack.branches]
    points = np.concatenate([np.empty((0, 2)), *(line.points for line in lines)])
    widths = np.concatenate([np.empty(0), *(line.widths for line in lines)])
    known = np.isfinite(widths)
    return points[known], widths[known]
