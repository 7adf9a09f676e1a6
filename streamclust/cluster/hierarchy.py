"""Agglomerative clustering of weighted micro-clusters: k-means centres stand for the rows of data of any size.

``cut(tree, k)[assign(X, centers)[0]]`` labels every row of a block through its micro-cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError

Linkage = Literal["ward", "average", "complete"]
Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

UNRESTRICTED = 5_000  # condensed distances of so many micro-clusters are 100 MB


@dataclass(frozen=True, eq=False, slots=True)
class Tree:
    """Merges in the order they were made: leaves are 0 .. m - 1, merge i makes node m + i (scipy's and scikit-learn's).

    Attributes
    ----------
    children : (m - 1, 2) int64, the smaller id first.
    heights : (m - 1,) float64. Under a graph a merge may be lower than an earlier one (an inversion); none is hidden.
    sizes, weights : (m - 1,) and (m,), rows of each merge and of each leaf, int64 or, as the weights came, float64.
    """

    children: Indices
    heights: Doubles
    sizes: NDArray[Any]
    weights: NDArray[Any]


def agglomerate(
    centers: Float, weights: NDArray[Any], *, linkage: Linkage = "ward", neighbors: int | None = 10
) -> Tree:
    """Merge the closest two clusters until one is left; of equally close ones those with the smallest leaves.

    Parameters
    ----------
    centers : (m, p) float32 or float64
        Micro-clusters, m >= 1, finite, below 1e150 (squares overflow).
    weights : (m,)
        Rows of each, > 0.
    linkage : str
        ward: sqrt(2 x increase of the within-cluster sum of squares), exact for the rows given their micro-clusters.
        average: the mean distance between rows, approximated as if each lay on its centre. complete: the largest
        distance between centres.
    neighbors : int, optional
        Only clusters that a symmetrised graph of so many nearest neighbours links may merge, in O(m x neighbors)
        memory; None: any two, for m <= 5,000. Components of the graph are linked at their closest centres: all pairs of
        components, as scikit-learn does, or where there are more than sqrt(m x neighbors) each with the nearest ones.

    Returns
    -------
    For unit weights the tree of scipy's ``linkage``, or of scikit-learn under the same graph. InputError for arguments
    other than the above.

    Notes
    -----
    Under a graph ward is exact, from centroids. average and complete know the distances of links only, as in
    scikit-learn: where but one of two merged clusters had a link to a third, its distance stands for both. So they
    chain where clusters overlap (as scikit-learn's do): prefer them without a graph.

    References
    ----------
    Ward, JASA 58 (1963) 236-244. Lance and Williams, Computer J. 9 (1967) 373-380. Murtagh and Legendre, J.
    Classification 31 (2014) 274-295: the scale of ward's heights. Müllner, arXiv:1109.2378 (2011): the search.
    """
    _check(centers, weights, linkage, neighbors)
    C = centers - centers.mean(axis=0, dtype=np.float64)  # GEMM finds neighbours: an offset would cost digits
    clusters = _Pairs(C, weights, linkage) if neighbors is None else _Links(C, weights, linkage, neighbors)
    children, heights = _merges(clusters, len(C))
    rows = np.array(weights, np.int64 if np.issubdtype(np.asarray(weights).dtype, np.integer) else np.float64)
    return Tree(children, heights, _added_up(children, rows), rows)


def cut(tree: Tree, k: int) -> NDArray[np.int32]:
    """The k clusters that all merges but the last k - 1 leave : (m,) int32 per micro-cluster, most rows first.

    Equal sizes in the order of their smallest leaves. Smaller k unite clusters of larger k, inversions or not.
    InputError unless 1 <= k <= m.
    """
    m = len(tree.weights)
    if not 1 <= k <= m:
        raise InputError("cut", f"k = {k}", f"1 to {m}, the number of micro-clusters")
    top = np.arange(2 * m - 1)
    top[tree.children[: m - k]] = np.arange(m, 2 * m - k)[:, None]
    while (top != (higher := top[top])).any():
        top = higher
    _, first, label = np.unique(top[:m], return_index=True, return_inverse=True)
    rank = np.empty(k, np.int32)
    rank[np.lexsort((first, -np.bincount(label, tree.weights)))] = np.arange(k)
    return rank[label]


def cut_all(tree: Tree, ks: Iterable[int]) -> dict[int, NDArray[np.int32]]:
    """`cut` at each of many k, O(m log m) each: nothing is merged again."""
    return {k: cut(tree, k) for k in ks}


def linkage_matrix(tree: Tree) -> Doubles:
    """What scipy's ``dendrogram`` draws : (m - 1, 4) float64, children, height, and leaves (not rows) under the merge.

    An inversion is drawn at the height of the highest merge before it, so that a horizontal line cuts what `cut` cuts.
    """
    leaves = _added_up(tree.children, np.ones(len(tree.weights)))
    return np.column_stack([tree.children, np.maximum.accumulate(tree.heights), leaves])


def _added_up(children: Indices, leaves: NDArray[Any]) -> NDArray[Any]:
    nodes = leaves.tolist()
    for a, b in children.tolist():
        nodes.append(nodes[a] + nodes[b])
    return np.array(nodes[len(leaves) :], leaves.dtype)


def _check(centers: Float, weights: NDArray[Any], linkage: str, neighbors: int | None) -> None:
    if centers.ndim != 2 or not centers.size or not (np.abs(centers, dtype=np.float64) < 1e150).all():
        raise InputError("centers", f"shape {centers.shape}, or not finite", "(m, p) not empty, values below 1e150")
    m = len(centers)
    if np.shape(weights) != (m,) or not (np.isfinite(weights) & (np.asarray(weights) > 0)).all():
        raise InputError("weights", f"shape {np.shape(weights)}, or values not positive", f"({m},) finite and > 0")
    if linkage not in get_args(Linkage):
        raise InputError("linkage", repr(linkage), f"one of {', '.join(get_args(Linkage))}")
    if neighbors is not None and neighbors < 1:
        raise InputError("neighbors", str(neighbors), "at least 1, or None for merges without a graph")
    if neighbors is None and m > UNRESTRICTED:
        raise InputError("centers", f"{m} without a graph", f"at most {UNRESTRICTED}", "set neighbors or use fewer")


def _merges(clusters: _Pairs | _Links, m: int) -> tuple[Indices, Doubles]:
    """Children and heights. A cluster goes by its smallest leaf; a pair belongs to the smaller of its two clusters.

    ``best`` is the height of a cluster's closest later one; where not ``exact``, a lower bound, searched when lowest.
    """
    children, heights = np.empty((m - 1, 2), np.int64), np.empty(m - 1)
    best, nearest = np.full(m, -np.inf), np.arange(m)
    exact, node = np.zeros(m, bool), np.arange(m)
    for step in range(m - 1):
        while not exact[a := int(best.argmin())]:
            (best[a], nearest[a]), exact[a] = clusters.closest(a), True
        b = int(nearest[a])
        children[step], heights[step] = np.sort(node[[a, b]]), best[a]
        others, height = clusters.merge(a, b)
        unmoved = (nearest[others] != a) & (nearest[others] != b)
        exact[others] &= unmoved & (height > best[others])
        best[others] = np.minimum(best[others], height)
        best[b], exact[b] = np.inf, True
        best[a], nearest[a] = clusters.closest(a)
        node[a] = m + step
    return children, heights


def _united(linkage: Linkage, to_a: Doubles, to_b: Doubles, a_b: float, a: float, b: float, w: Doubles) -> Doubles:
    """Lance and Williams' update: heights between a + b and others from those of a and b, by rows a, b and w."""
    if linkage == "complete":
        return np.maximum(to_a, to_b)
    if linkage == "average":
        return (a * to_a + b * to_b) / (a + b)
    squares = ((a + w) * to_a**2 + (b + w) * to_b**2 - w * a_b**2) / (a + b + w)
    return np.sqrt(np.maximum(squares, 0))


def _ward(sqdist: Doubles, a: float, w: Doubles) -> Doubles:
    """Heights between a cluster of a rows and others of w rows, at squared distances of their centroids."""
    return np.sqrt(2 * a * w / (a + w) * sqdist)


class _Pairs:
    """Heights of all pairs, condensed as scipy's ``pdist``; infinite for clusters that are gone."""

    def __init__(self, C: Doubles, weights: NDArray[Any], linkage: Linkage) -> None:
        from scipy.spatial.distance import pdist

        self.m, self.linkage, self.w = len(C), linkage, np.asarray(weights, np.float64).copy()
        before = np.arange(self.m)
        self.row = before * self.m - before * (before + 1) // 2 - before - 1  # + the later of two gives their place
        self.height = pdist(C)
        if linkage == "ward":
            for a in range(self.m - 1):
                later = slice(self.row[a] + a + 1, self.row[a] + self.m)
                self.height[later] = _ward(self.height[later] ** 2, self.w[a], self.w[a + 1 :])

    def closest(self, a: int) -> tuple[float, int]:
        later = self.height[self.row[a] + a + 1 : self.row[a] + self.m]
        return (float(later.min()), a + 1 + int(later.argmin())) if len(later) else (np.inf, a)

    def merge(self, a: int, b: int) -> tuple[Indices, Doubles]:
        w_a, w_b = self.w[[a, b]]
        self.w[[a, b]] = 0  # no rows: gone
        others = np.flatnonzero(self.w)
        to_a, to_b = (self.row[np.minimum(others, i)] + np.maximum(others, i) for i in (a, b))
        d, both = self.height, self.row[a] + b
        height = _united(self.linkage, d[to_a], d[to_b], d[both], w_a, w_b, self.w[others])
        d[to_a], d[to_b], d[both] = height, np.inf, np.inf
        self.w[a] = w_a + w_b
        return others, height


class _Links:
    """Heights of the pairs that a graph links; links only become fewer."""

    def __init__(self, C: Doubles, weights: NDArray[Any], linkage: Linkage, neighbors: int) -> None:
        self.C, self.linkage, self.w = C, linkage, np.asarray(weights, np.float64).copy()
        graph = _graph(C, neighbors)
        self.links: list[dict[int, float]] = []
        for a in range(len(C)):
            others = graph.indices[graph.indptr[a] : graph.indptr[a + 1]]
            self.links.append(dict(zip(others.tolist(), self._between(a, others).tolist(), strict=True)))

    def _between(self, a: int, others: Indices) -> Doubles:
        difference = self.C[others] - self.C[a]
        sqdist: Doubles = np.einsum("ij,ij->i", difference, difference)
        return _ward(sqdist, self.w[a], self.w[others]) if self.linkage == "ward" else np.sqrt(sqdist)

    def closest(self, a: int) -> tuple[float, int]:
        return min(((height, x) for x, height in self.links[a].items() if x > a), default=(np.inf, a))

    def merge(self, a: int, b: int) -> tuple[Indices, Doubles]:
        near_a, near_b = self.links[a], self.links[b]
        a_b, _ = near_a.pop(b), near_b.pop(a)
        of_a, of_b = near_b | near_a, near_a | near_b  # where only one has a link, it stands for both
        others = np.fromiter(of_a, np.int64, len(of_a))
        w_a, w_b = self.w[[a, b]]
        self.w[a] += w_b
        if self.linkage == "ward":
            self.C[a] += (self.C[b] - self.C[a]) * (w_b / self.w[a])
            height = self._between(a, others)
        else:
            to_a, to_b = np.array([*of_a.values()]), np.array([of_b[x] for x in of_a])
            height = _united(self.linkage, to_a, to_b, a_b, w_a, w_b, self.w[others])
        self.links[a], self.links[b] = dict(zip(others.tolist(), height.tolist(), strict=True)), {}
        for x in near_b:
            del self.links[x][b]
        for x, to_x in self.links[a].items():
            self.links[x][a] = to_x
        return others, height


def _graph(C: Doubles, neighbors: int) -> Any:
    """Which centres are linked : (m, m) csr_array, symmetric, one component, and O(m x neighbors) links."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import kneighbors_graph

    m = len(C)
    graph = csr_array(kneighbors_graph(C, min(neighbors, m - 1), include_self=False) if m > 1 else (1, 1))
    while True:
        graph = graph + graph.T
        count, component = connected_components(graph, directed=False)
        if count == 1:
            return graph
        most = m * neighbors // count
        a, b = np.concatenate([_nearest_components(C, component, own, most) for own in range(count)], axis=1)
        graph = graph + coo_array((np.ones(len(a)), (a, b)), shape=(m, m)).tocsr()


def _nearest_components(C: Doubles, component: NDArray[np.int32], own: int, most: int) -> Indices:
    """The closest centres of a component and of each of the ``most`` components nearest to it : (2, <= most)."""
    from sklearn.metrics import pairwise_distances_argmin_min

    inside, outside = np.flatnonzero(component == own), np.flatnonzero(component != own)
    nearest, distance = pairwise_distances_argmin_min(C[outside], C[inside])
    order = np.lexsort((distance, component[outside]))
    closest = order[np.unique(component[outside][order], return_index=True)[1]]
    closest = closest[np.argsort(distance[closest], kind="stable")[:most]]
    return np.stack([inside[nearest[closest]], outside[closest]])
