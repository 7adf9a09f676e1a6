"""Heights at which clusters merge: of all pairs, or only of those that a graph of nearest neighbours links."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Linkage = Literal["ward", "average", "complete"]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


class Pairs:
    """Heights of all pairs, condensed as scipy's ``pdist``; infinite for clusters that are gone.

    A cluster goes by its smallest leaf, as in `Links`.
    """

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
        """The lowest height between a cluster and the later ones, and which of them that is: the first."""
        later = self.height[self.row[a] + a + 1 : self.row[a] + self.m]
        return (float(later.min()), a + 1 + int(later.argmin())) if len(later) else (np.inf, a)

    def merge(self, a: int, b: int) -> tuple[Indices, Doubles]:
        """Make b part of a < b; returns the clusters that a may merge with now, and the heights."""
        w_a, w_b = self.w[[a, b]]
        self.w[[a, b]] = 0  # no rows: gone
        others = np.flatnonzero(self.w)
        to_a, to_b = (self.row[np.minimum(others, i)] + np.maximum(others, i) for i in (a, b))
        d, both = self.height, self.row[a] + b
        height = _united(self.linkage, d[to_a], d[to_b], d[both], w_a, w_b, self.w[others])
        d[to_a], d[to_b], d[both] = height, np.inf, np.inf
        self.w[a] = w_a + w_b
        return others, height


class Links:
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
        """See `Pairs`; infinity where no later one is linked."""
        return min(((height, x) for x, height in self.links[a].items() if x > a), default=(np.inf, a))

    def merge(self, a: int, b: int) -> tuple[Indices, Doubles]:
        """See `Pairs`."""
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
