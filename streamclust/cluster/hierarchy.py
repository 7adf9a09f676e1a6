"""Agglomerative clustering of rows or of weighted micro-clusters, which stand for the rows of data of any size.

``cut(tree, k)[assign(X, centers)[0]]`` labels every row of a block through its micro-cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.heights import Doubles, Indices, Linkage, Links, Pairs
from streamclust.errors import InputError

Float = NDArray[np.floating[Any]]

UNRESTRICTED = 20_000  # heights of all pairs of so many are 1.6 GB


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
        memory; None: any two, in 4 m^2 bytes, for m <= 20,000. Components of the graph are linked at their closest
        centres: all pairs of components, as scikit-learn does, or where there are more than sqrt(m x neighbors) each
        with the nearest ones.

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
    clusters = Pairs(C, weights, linkage) if neighbors is None else Links(C, weights, linkage, neighbors)
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


def _merges(clusters: Pairs | Links, m: int) -> tuple[Indices, Doubles]:
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
