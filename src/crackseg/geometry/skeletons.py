"""Build a graph of a crack's skeleton: nodes are its ends and junctions, edges the branches between them.

First step of a measurement, for one crack (8-connected component of a mask) at a time. Places are (x, y) of pixel
centres in pixels, y downwards.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

_STEPS = ((0, 1), (1, -1), (1, 0), (1, 1))  # row, column; the other four are these reversed
_SPUR_RADII, _SPUR_PX = 2.0, 2.0  # a branch that is not longer than this is a bump of the outline


def build_skeleton_graph(pixels: np.ndarray, half_widths: np.ndarray) -> nx.MultiGraph:
    """Build the graph of one crack's skeleton, without the spurs that bumps of the outline cause.

    Args:
        pixels: int (N, 2), row and column of each pixel of the skeleton, sorted by row, then column; N >= 1.
        half_widths: float (N,), half of the crack's width there.
    Returns:
        Nodes with ``place``, float (2,), and ``half_width``. Edges with ``points``, float (M, 2), from the place of the
        node ``start`` to the other node's. A loop without a junction is an edge from a node to itself; a dot is a node
        without edges.
    """
    graph = _trace(pixels, half_widths)
    _drop_spurs(graph)
    if _merge_near_junctions(graph):
        _drop_spurs(graph)
    return graph


def path_length(points: np.ndarray) -> float:
    """Measure the length of the line through points, float (N, 2)."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def _trace(pixels: np.ndarray, half_widths: np.ndarray) -> nx.MultiGraph:
    links = _link_neighbours(pixels)
    degree = np.diff(links.indptr)
    places = pixels[:, ::-1].astype(float)
    graph = nx.MultiGraph()

    # Pixels with three neighbours or more that touch each other are one junction.
    crowded = np.flatnonzero(degree >= 3)
    num_junctions, cluster = connected_components(links[crowded][:, crowded], directed=False)
    junction = np.full(len(pixels), -1)
    junction[crowded] = cluster
    order = np.argsort(cluster, kind="stable")
    for node, members in enumerate(
        np.split(crowded[order], np.searchsorted(cluster[order], range(1, num_junctions)))
    ):
        if len(members):
            graph.add_node(node, place=places[members].mean(axis=0), half_width=half_widths[members].max())

    waiting = junction < 0
    beside_junction = np.unique(links[crowded].indices)
    starts = [*np.flatnonzero(degree <= 1), *beside_junction[waiting[beside_junction]]]
    for first in map(int, starts):
        if waiting[first]:
            chain = _walk(links, first, waiting)
            _add_chain(graph, chain, _junctions_at_ends(links, chain, junction), places, half_widths)
    for first in map(int, np.flatnonzero(waiting)):  # the others are loops
        if waiting[first]:
            chain = _walk(links, first, waiting)
            node = graph.number_of_nodes()
            graph.add_node(node, place=places[first], half_width=half_widths[first])
            graph.add_edge(node, node, points=places[[*chain, first]], start=node)
    return graph


def _link_neighbours(pixels: np.ndarray) -> csr_array:
    """Link neighbouring pixels; diagonal neighbours only if no third pixel joins them."""
    rows, columns = pixels.T.astype(np.int64)
    width = int(columns.max()) + 3
    keys = rows * width + columns + 1  # sorted, as the pixels are

    def find(step: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        wanted = keys + step[0] * width + step[1]
        at = np.searchsorted(keys, wanted).clip(0, len(keys) - 1)
        return at, keys[at] == wanted

    ones, others = [], []
    for row, column in _STEPS:
        at, there = find((row, column))
        if row and column:
            there &= ~find((0, column))[1] & ~find((row, 0))[1]
        ones.append(np.flatnonzero(there))
        others.append(at[there])
    a, b = np.concatenate(ones), np.concatenate(others)
    links = (np.ones(2 * len(a), np.int8), (np.concatenate([a, b]), np.concatenate([b, a])))
    return csr_array(links, shape=(len(keys), len(keys)))


def _walk(links: csr_array, first: int, waiting: np.ndarray) -> list[int]:
    """Follow a chain of pixels from one of its ends, and clear them in ``waiting``."""
    chain = [first]
    waiting[first] = False
    while True:
        further = [n for n in links.indices[links.indptr[chain[-1]] : links.indptr[chain[-1] + 1]] if waiting[n]]
        if not further:
            return chain
        chain.append(int(further[0]))
        waiting[further[0]] = False


def _junctions_at_ends(links: csr_array, chain: list[int], junction: np.ndarray) -> tuple[int, int]:
    """Find the junctions at which a chain begins and ends; -1 for an end of the skeleton."""

    def around(pixel: int) -> list[int]:
        nodes = junction[links.indices[links.indptr[pixel] : links.indptr[pixel + 1]]]
        return [int(node) for node in nodes if node >= 0]

    if len(chain) == 1:
        first, last, *_ = [*around(chain[0]), -1, -1]
        return first, last
    return (around(chain[0]) or [-1])[0], (around(chain[-1]) or [-1])[0]


def _add_chain(
    graph: nx.MultiGraph, chain: list[int], ends: tuple[int, int], places: np.ndarray, half_widths: np.ndarray
) -> None:
    if len(chain) == 1 and ends == (-1, -1):
        graph.add_node(graph.number_of_nodes(), place=places[chain[0]], half_width=half_widths[chain[0]])
        return
    parts = [places[chain]]
    nodes = list(ends)
    for end, pixel in ((0, chain[0]), (1, chain[-1])):
        if nodes[end] < 0:
            nodes[end] = graph.number_of_nodes()
            graph.add_node(nodes[end], place=places[pixel], half_width=half_widths[pixel])
        else:
            parts.insert(end * len(parts), graph.nodes[nodes[end]]["place"][None])
    graph.add_edge(*nodes, points=np.concatenate(parts), start=nodes[0])


def _drop_spurs(graph: nx.MultiGraph) -> None:
    """Remove short branches with a free end, the shortest first, and join the two that remain at a junction."""
    while True:
        spurs = []
        for node in [n for n, degree in graph.degree if degree == 1]:
            ((_, junction, points),) = graph.edges(node, data="points")
            if graph.degree(junction) >= 3:
                spurs.append((path_length(points), node, junction))
        dropped = False
        for length, node, junction in sorted(spurs):
            limit = _SPUR_RADII * graph.nodes[junction]["half_width"] + _SPUR_PX
            if length <= limit and graph.degree(junction) >= 3:
                graph.remove_node(node)
                dropped = True
        _join_through(graph)
        if not dropped:
            return


def _join_through(graph: nx.MultiGraph) -> None:
    """Merge two branches that meet at a node without further branches."""
    for node in [n for n, degree in graph.degree if degree == 2]:
        edges = list(graph.edges(node, keys=True, data=True))
        if len(edges) != 2:  # a loop
            continue
        (_, before, _, one), (_, after, _, other) = edges
        if before == node or after == node:
            continue
        to_node = one["points"] if one["start"] != node else one["points"][::-1]
        from_node = other["points"] if other["start"] == node else other["points"][::-1]
        points = np.concatenate([to_node, from_node[1:]])
        graph.remove_node(node)
        graph.add_edge(before, after, points=points, start=before)


def _merge_near_junctions(graph: nx.MultiGraph) -> bool:
    """Merge two junctions within each other's half width: thinning splits the crossing of thick lines in two."""
    merged = False
    for one, other in list(graph.edges()):
        if one == other or one not in graph or other not in graph:
            continue
        if graph.degree(one) < 3 or graph.degree(other) < 3:
            continue
        nodes = graph.nodes
        reach = max(nodes[one]["half_width"], nodes[other]["half_width"])
        if np.hypot(*(nodes[one]["place"] - nodes[other]["place"])) > reach:
            continue
        for key, edge in list(graph[one].get(other, {}).items()):
            if path_length(edge["points"]) <= 2 * reach + 1:
                graph.remove_edge(one, other, key)
        place = (nodes[one]["place"] + nodes[other]["place"]) / 2
        nodes[one].update(place=place, half_width=reach)
        for node in (one, other):
            for _, far, key, edge in list(graph.edges(node, keys=True, data=True)):
                points = edge["points"].copy()
                if edge["start"] == node:
                    points[0] = place
                if edge["start"] != node or far == node:
                    points[-1] = place
                start = one if edge["start"] == node else edge["start"]
                graph.remove_edge(node, far, key)
                graph.add_edge(one, one if far == node else far, points=points, start=start)
        graph.remove_node(other)
        merged = True
    return merged
