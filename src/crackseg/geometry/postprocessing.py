"""Post-process a probability map into lines: thinning, hysteresis, linking across gaps, removing short components.

Applied between the predicted map and its threshold. The paper names edge thinning and edge linking, as in Canny's
detector, as the next step (discussion of Figure 4). A method turns a map into another map, whose masks are nested over
the thresholds; the crack mask at a threshold is that map at that threshold. So scoring and use see the same masks.

Each fraction is relative to the map's range, so the result does not depend on stretching the map to [0, 1] before or
after.

Shape legend: H rows, W columns; h, w the same with a border of one pixel.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass

import cv2
import numpy as np

from crackseg.errors import CracksegError

METHODS = ("none", "thin", "hysteresis", "link")

_3X3 = np.ones((3, 3), np.float32)
_log = logging.getLogger("crackseg")
_PX_PER_PATH, _LEAST_PATHS = 100, 1000  # a path takes 0.4 ms; maps of trained networks have far fewer gaps
_LINK_STEPS = 64  # thresholds at which ends are searched, evenly spaced over the map's range
_LEAST_FRACTION = 1e-3  # in a path's cost: the logarithm of zero would be infinite

_Pixel = tuple[int, int]  # row, column


def postprocess(
    crack_prob_HW: np.ndarray,
    *,
    threshold: float,
    method: str,
    low_ratio: float = 0.6,
    max_gap_px: int = 10,
    min_length_px: int = 0,
    floor: float = 0.25,
    name: str = "",
) -> np.ndarray:
    """Return the crack mask: the map of :func:`postprocess_map` where it is at least ``threshold``.

    Args:
        threshold: in [0, 1], for this map without stretching.
        crack_prob_HW, method, low_ratio, max_gap_px, min_length_px, floor, name: see :func:`postprocess_map`.
    Returns:
        bool (H, W).
    Raises:
        CracksegError: no map, or a setting out of its range.
    """
    _check(crack_prob_HW, method, low_ratio, max_gap_px, min_length_px, floor)
    if crack_prob_HW.max() < threshold:  # no crack; searching for lines in noise takes the longest
        return np.zeros(crack_prob_HW.shape, bool)
    processed_HW = postprocess_map(
        crack_prob_HW,
        method=method,
        low_ratio=low_ratio,
        max_gap_px=max_gap_px,
        min_length_px=min_length_px,
        floor=floor,
        name=name,
    )
    return processed_HW >= threshold


def postprocess_map(
    crack_prob_HW: np.ndarray,
    *,
    method: str,
    low_ratio: float = 0.6,
    max_gap_px: int = 10,
    min_length_px: int = 0,
    floor: float = 0.25,
    name: str = "",
) -> np.ndarray:
    """Return a map whose mask at each threshold is the result of the method at that threshold.

    With p the map, at a threshold t:

    - ``none``: the pixels with p >= t.
    - ``thin``: of these, the pixels on the ridge lines of the map, one pixel wide. The lines are those of the whole
      map (ordered homotopic thinning, the least probable pixel first), not of the mask at t: else a pixel could
      vanish when the threshold falls.
    - ``hysteresis``: the 8-connected components of p >= low_ratio * t that hold a pixel with p >= t. Exact at every
      threshold, by a greyscale reconstruction of p under p / low_ratio (Vincent 1993).
    - ``link``: the result of ``thin``, and ends of different components at most max_gap_px apart joined along the
      path of least -log p, if the mean of p between them is at least low_ratio * t.

    Then components shorter than min_length_px are removed, exactly at every threshold.

    Args:
        crack_prob_HW: float32 or float64 (H, W) in [0, 1]. A constant map has no line and is returned unchanged.
        method: one of ``METHODS``.
        low_ratio: in (0, 1], fraction of the threshold that a weak pixel (``hysteresis``) or the mean of a gap
            (``link``) must reach.
        max_gap_px: >= 1, longest straight distance between two ends that ``link`` bridges, in pixels.
        min_length_px: >= 0, longer side of a component's bounding box, in pixels; 0 and 1 keep all.
        floor: in (0, 1), fraction of the map's range below which no pixel is a crack, for any method and for
            min_length_px. Thresholds below it give the same mask as the floor.
        name: of the map in warnings, e.g. its path.
    Returns:
        (H, W), same dtype, at most the map's highest value; 0 where no threshold shows a crack.
    Raises:
        CracksegError: no map, or a setting out of its range.
    """
    _check(crack_prob_HW, method, low_ratio, max_gap_px, min_length_px, floor)
    low, high = float(crack_prob_HW.min()), float(crack_prob_HW.max())
    if low == high or (method == "none" and min_length_px <= 1):
        return crack_prob_HW
    span = _Span(low, high, low + floor * (high - low))
    processed_HW = np.where(crack_prob_HW >= span.floor, crack_prob_HW, low)
    if method == "thin":
        processed_HW = np.where(_find_ridges(processed_HW, span), processed_HW, low)
    elif method == "hysteresis":
        processed_HW = _apply_hysteresis(processed_HW, span, low_ratio)
    elif method == "link":
        thin_HW = np.where(_find_ridges(processed_HW, span), processed_HW, low)
        processed_HW = _link_ends(thin_HW, crack_prob_HW, span, low_ratio, max_gap_px, name)
    if min_length_px > 1:
        processed_HW = _drop_short_pieces(processed_HW, span, min_length_px)
    # In a map that is nowhere near 0, a threshold below its lowest value would mark what was removed.
    return np.where(processed_HW > low, processed_HW, 0).astype(processed_HW.dtype)


@dataclass(frozen=True, slots=True)
class _Span:
    """A map's lowest and highest value, and the lowest value that can be crack; probabilities."""

    low: float
    high: float
    floor: float

    def at(self, fraction: float) -> float:
        """Return the value at a fraction of the range, counted from the lowest value."""
        return self.low + fraction * (self.high - self.low)


def _find_ridges(crack_prob_HW: np.ndarray, span: _Span) -> np.ndarray:
    """Thin the pixels at or above the floor to lines of one pixel along the map's ridges; bool (H, W).

    Ordered homotopic thinning (Pudney 1998, there by distance): pixels are removed from the least probable one up, if
    the number of components and holes stays the same and the pixel is not the end of a line. scikit-image's skeletons
    are ordered by the distance from the edge only: in a blurred map their lines miss the ridges and break at a
    threshold.
    """
    region_hw = np.pad(crack_prob_HW >= span.floor, 1)
    width = region_hw.shape[1]
    # Of equal values, in a plateau, pixels near its edge are removed first.
    depth_hw = cv2.distanceTransform(region_hw.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = np.flatnonzero(region_hw)
    order = np.lexsort((depth_hw.ravel()[inside], np.pad(crack_prob_HW, 1).ravel()[inside]))

    on = bytearray(region_hw.tobytes())
    kept = bytearray(len(on))  # kept so far; tested again when a neighbour is removed
    ring = (-width, 1 - width, 1, 1 + width, width, width - 1, -1, -1 - width)  # clockwise from the top
    n, ne, e, se, s, sw, w, nw = ring
    for start in inside[order].tolist():
        waiting = [start]
        while waiting:
            i = waiting.pop()
            if _REMOVABLE[
                on[i + n]
                | on[i + ne] << 1
                | on[i + e] << 2
                | on[i + se] << 3
                | on[i + s] << 4
                | on[i + sw] << 5
                | on[i + w] << 6
                | on[i + nw] << 7
            ]:
                on[i] = kept[i] = 0
                waiting += [i + step for step in ring if kept[i + step]]
            else:
                kept[i] = 1
    return np.frombuffer(on, bool).reshape(region_hw.shape)[1:-1, 1:-1]


def _list_removable() -> bytes:
    """List the 256 neighbourhoods (bit k: neighbour k, clockwise from the top): 1 if the middle can be removed.

    It can if this does not change the topology (Yokoi's connectivity number is 1, with 8-connected lines and a
    4-connected background) and if more than one neighbour is on (else the pixel is the end of a line).
    """
    removable = bytearray(256)
    for code in range(256):
        off = [1 - (code >> k & 1) for k in range(8)]
        connectivity = sum(off[k] - off[k] * off[k + 1] * off[(k + 2) % 8] for k in (0, 2, 4, 6))
        removable[code] = connectivity == 1 and sum(off) < 7
    return bytes(removable)


_REMOVABLE = _list_removable()


def _apply_hysteresis(crack_prob_HW: np.ndarray, span: _Span, low_ratio: float) -> np.ndarray:
    # A pixel is in the result at t if a path from it to a pixel >= t stays at or above low_ratio * t:
    # the highest such t is, by definition, the reconstruction of the map under the map / low_ratio.
    # Here and below, inside the functions: without post-processing a stage need not wait for these libraries.
    from skimage.morphology import reconstruction

    ceiling_HW = span.low + (crack_prob_HW - span.low) / low_ratio
    return reconstruction(crack_prob_HW, np.maximum(ceiling_HW, crack_prob_HW)).astype(crack_prob_HW.dtype)


def _link_ends(
    thin_HW: np.ndarray, crack_prob_HW: np.ndarray, span: _Span, low_ratio: float, max_gap_px: int, name: str
) -> np.ndarray:
    """Draw the paths that join ends, each with the highest threshold at which it joins them."""
    from scipy.cluster.hierarchy import DisjointSet
    from scipy.spatial import cKDTree

    linked_HW = thin_HW.copy()
    fraction_HW = (crack_prob_HW - span.low) / (span.high - span.low)
    paths: dict[tuple[_Pixel, _Pixel], np.ndarray] = {}
    most_paths, left_out = max(crack_prob_HW.size // _PX_PER_PATH, _LEAST_PATHS), set()
    for step in range(_LINK_STEPS - 1, 0, -1):
        fraction = step / _LINK_STEPS
        threshold = span.at(fraction)
        if threshold < span.floor:
            break
        line_HW = (linked_HW >= threshold).astype(np.uint8)
        # An inner pixel of a line has two neighbours besides itself, an end has one, a dot none.
        around_HW = cv2.filter2D(line_HW, -1, _3X3, borderType=cv2.BORDER_CONSTANT)
        ends = np.argwhere((line_HW == 1) & (around_HW <= 2))
        if len(ends) < 2:
            continue
        num_pieces, piece_HW = cv2.connectedComponents(line_HW, connectivity=8)
        joins = []
        for a, b in _sort_by_distance(ends, cKDTree(ends).query_pairs(max_gap_px, output_type="ndarray")):
            pair = (_pixel(ends[a]), _pixel(ends[b]))
            if piece_HW[pair[0]] == piece_HW[pair[1]]:
                continue
            if pair not in paths:
                if len(paths) >= most_paths:
                    left_out.add(pair)
                    continue
                paths[pair] = _find_path(fraction_HW, *pair, margin_px=max_gap_px // 2)
            path = _cut_to_gap(paths[pair], piece_HW)
            mean = float(fraction_HW[tuple(path[1:-1].T)].mean()) if len(path) > 2 else 1.0
            if mean >= low_ratio * fraction:
                joins.append((-mean, pair, path))
        # The most probable first, and no second one between the same components: that would draw a loop.
        joined = DisjointSet(range(num_pieces))
        for _, (start, end), path in sorted(joins, key=lambda join: join[:2]):
            if joined.merge(piece_HW[start], piece_HW[end]):
                rows, columns = path.T
                linked_HW[rows, columns] = np.maximum(linked_HW[rows, columns], threshold)
    if left_out:
        _log.warning(
            "%slink: %d gaps of at most %d px were looked at and %d not: a map with so many line ends is mostly noise",
            f"{name}: " if name else "", len(paths), max_gap_px, len(left_out),
        )  # fmt: skip
    return linked_HW


def _sort_by_distance(ends: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Sort pairs of indices by the distance between their ends, and then by index."""
    gaps = ends[pairs[:, 0]] - ends[pairs[:, 1]]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], (gaps**2).sum(axis=1)))]


def _find_path(fraction_HW: np.ndarray, start: _Pixel, end: _Pixel, *, margin_px: int) -> np.ndarray:
    """Find the most probable path between two ends, within a margin around them; (N, 2) rows and columns."""
    from skimage.graph import route_through_array

    corner = np.maximum(np.minimum(start, end) - margin_px, 0)
    rows, columns = (slice(c, max(s, e) + margin_px + 1) for c, s, e in zip(corner, start, end, strict=True))
    cost = -np.log(fraction_HW[rows, columns].clip(_LEAST_FRACTION, 1))
    return np.array(route_through_array(cost, start - corner, end - corner)[0]) + corner


def _cut_to_gap(path: np.ndarray, piece_HW: np.ndarray) -> np.ndarray:
    """Cut a path to its part between the component where it starts and the one where it ends.

    A path along a line costs almost nothing, so the cheapest path may follow a component and leave it elsewhere.
    """
    pieces = piece_HW[tuple(path.T)]
    left = int(np.flatnonzero(pieces == pieces[0])[-1])
    reached = left + int(np.flatnonzero(pieces[left:] == pieces[-1])[0])
    return path[left : reached + 1]


def _pixel(place: np.ndarray) -> _Pixel:
    return int(place[0]), int(place[1])


def _drop_short_pieces(crack_prob_HW: np.ndarray, span: _Span, min_length_px: int) -> np.ndarray:
    """Lower each pixel to the highest threshold at which its component is long enough.

    Goes through the pixels from the most probable down and joins each with its earlier neighbours: these are the
    components at the pixel's own value as the threshold. (scikit-image's diameter_opening does the same, in seconds.)
    """
    prob_hw = np.pad(crack_prob_HW, 1, constant_values=span.low)
    width = prob_hw.shape[1]
    result = np.full(prob_hw.size, span.low, prob_hw.dtype)
    inside = np.flatnonzero((prob_hw >= span.floor) & (prob_hw > span.low))
    ring = (-width - 1, -width, 1 - width, -1, 1, width - 1, width, 1 + width)
    parent: dict[int, int] = {}
    boxes: dict[int, tuple[int, int, int, int]] = {}  # of each root's component: first and last row, and column
    waiting: dict[int, list[int]] = {}  # its pixels that have no value yet
    for i in inside[np.argsort(-prob_hw.ravel()[inside])].tolist():
        row, column = divmod(i, width)
        top, bottom, left, right = row, row, column, column
        parent[i] = root = i
        pixels = [i]
        for step in ring:
            j = i + step
            if j not in parent:
                continue
            while parent[j] != j:
                parent[j] = j = parent[parent[j]]
            if j == root:
                continue
            box = boxes[j]
            top, bottom = min(top, box[0]), max(bottom, box[1])
            left, right = min(left, box[2]), max(right, box[3])
            fewer, more = sorted((pixels, waiting.pop(j)), key=len)
            more += fewer
            pixels = more
            parent[root] = root = j
        boxes[root] = top, bottom, left, right
        if max(bottom - top, right - left) + 1 >= min_length_px:
            result[pixels] = prob_hw.ravel()[i]
            pixels = []
        waiting[root] = pixels
    return result.reshape(prob_hw.shape)[1:-1, 1:-1]


def _check(
    crack_prob_HW: np.ndarray, method: str, low_ratio: float, max_gap_px: int, min_length_px: int, floor: float
) -> None:
    if method not in METHODS:
        nearest = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(METHODS)}"
        raise CracksegError(f"no post-processing method is called {method!r}; {hint}")
    if not 0 < low_ratio <= 1:
        raise CracksegError(f"low_ratio is {low_ratio}; expected a fraction of the threshold, over 0 and up to 1")
    if not 0 < floor < 1:
        raise CracksegError(f"floor is {floor}; expected a fraction of the map's range, over 0 and under 1")
    if max_gap_px < 1:
        raise CracksegError(
            f"max_gap_px is {max_gap_px}; expected 1 pixel or more (method none or thin links nothing)"
        )
    if min_length_px < 0:
        raise CracksegError(f"min_length_px is {min_length_px}; expected 0 (keep all) or more pixels")
    if crack_prob_HW.ndim != 2 or crack_prob_HW.dtype not in (np.float32, np.float64) or not crack_prob_HW.size:
        raise CracksegError(
            f"expected a map of float32 or float64 (H, W), got {crack_prob_HW.dtype} {crack_prob_HW.shape}; "
            "divide a stored map by its full scale first"
        )
    if not (crack_prob_HW.min() >= 0 and crack_prob_HW.max() <= 1):  # false for NaN, too
        raise CracksegError(
            f"expected probabilities in [0, 1], got values from {crack_prob_HW.min():g} to {crack_prob_HW.max():g}"
        )
