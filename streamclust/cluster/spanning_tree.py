"""Minimum spanning tree of mutual reachability in one subsample: what HDBSCAN's and OPTICS' clusters are cut from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.cluster.distances import among

if TYPE_CHECKING:
    from numpy.typing import NDArray


def spanning_tree(S: NDArray[np.float32], core: NDArray[np.float32]) -> NDArray[np.float64]:
    """Prim's algorithm on max(distance, both core distances), with every distance from one tiled GEMM.

    In hundreds of dimensions this spares a tree search that prunes nothing, for (m, m) float32 in memory.

    Parameters
    ----------
    S, core :
        (m, p) float32 rows and their (m,) core distances.

    Returns
    -------
    (m - 1, 3) float64: row, row, mutual reachability, in ascending order of the last.

    References
    ----------
    Prim, Bell System Technical Journal 36 (1957) 1389-1401. Campello et al., PAKDD 2013.
    """
    m = len(S)
    reach = np.empty((m, m), np.float32)
    for tile, squares in among(S):
        reach[tile] = np.maximum(np.maximum(np.sqrt(squares), core[tile, None]), core)
    edges = np.empty((max(m - 1, 0), 3))
    nearest, parent = np.full(m, np.inf, np.float32), np.zeros(m, np.intp)
    outside, current = np.ones(m, bool), 0
    for edge in edges:
        outside[current] = False
        closer = outside & (reach[current] < nearest)
        nearest[closer], parent[closer] = reach[current][closer], current
        current = int(np.argmin(np.where(outside, nearest, np.inf)))
        edge[:] = parent[current], current, nearest[current]
    return edges[np.argsort(edges[:, 2], kind="stable")]


def hdbscan_labels(tree: NDArray[np.float64], min_cluster_size: int) -> NDArray[np.int32]:
    """HDBSCAN's clusters by excess of mass from a spanning tree, (m,) int32, -1 noise: hdbscan's own extraction."""
    from hdbscan._hdbscan_linkage import label
    from hdbscan.hdbscan_ import _tree_to_labels

    return np.asarray(_tree_to_labels(None, label(tree), min_cluster_size)[0], np.int32)


def dbscan_labels(tree: NDArray[np.float64], core: NDArray[np.float32], eps: float) -> NDArray[np.int32]:
    """OPTICS' clusters at eps, (m,) int32 over core rows, -1 for all others, the largest first.

    Core rows whose mutual reachability is at most eps are connected: ``cluster_optics_dbscan`` cuts the same
    components (Ankerst et al., SIGMOD 1999, section 4.1).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = tree[tree[:, 2] <= eps, :2].astype(np.intp).T
    links = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(core), len(core)))
    component = connected_components(links, directed=False)[1]
    component[core > eps] = -1
    found, first, sizes = np.unique(component[component >= 0], return_index=True, return_counts=True)
    rank = np.full(int(component.max(initial=-1)) + 2, -1, np.int32)
    rank[found[np.lexsort((first, -sizes))]] = np.arange(len(found))
    return np.where(component >= 0, rank[component], -1).astype(np.int32)
