"""The gradient of t-SNE in the plane from all pairs of points: exact, and for thousands faster than from a tree.

van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9 (2008), equation 5; without its factor of 4, as
openTSNE leaves it out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from streamclust.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 256  # points whose sums stay in the cache while all others pass
_AWAY = np.float32(1e15)  # so far that nothing is felt, and its square is still a float32


def gradient(
    Y: NDArray[np.float64], P: Any, *, pool: ThreadPoolExecutor, parts: int, should_eval_error: bool, **_: Any
) -> tuple[float, NDArray[np.float64]]:
    """An objective for `openTSNE.TSNEEmbedding`, which hands it more than it needs.

    Parameters
    ----------
    Y : (n, 2) float64
        Places; what pushes them apart is computed in float32.
    P : (n, n) float64, scipy's CSR
        Affinities; without those that are nearly none.
    pool, parts :
        Threads, and in how many parts they take the points, which does not change the result.
    should_eval_error :
        Whether the divergence is wanted.

    Returns
    -------
    divergence : of Kullback and Leibler, or NaN. gradient : (n, 2) float64.
    """
    x, y = np.ascontiguousarray(Y.T)
    planes = np.ascontiguousarray(Y.T, np.float32)
    pushed, pulled = np.empty((3, len(Y)), np.float32), np.empty((2, len(Y)))

    def force(rows: tuple[int, int]) -> None:
        push(planes, *rows, pushed)
        pull(P.indptr, P.indices, P.data, x, y, *rows, pulled)

    list(pool.map(force, pairwise(np.linspace(0, len(Y), parts + 1).astype(int).tolist())))
    total = pushed[0].sum(dtype=np.float64)
    found = pulled - pushed[1:] / max(total, np.finfo(np.float64).tiny)
    return _divergence(Y, P, total) if should_eval_error else np.nan, np.ascontiguousarray(found.T)


def _divergence(Y: NDArray[np.float64], P: Any, total: float) -> float:
    """Sum of p log(p / q) over the pairs that have affinities."""
    rows = np.repeat(np.arange(len(Y)), np.diff(P.indptr))
    distance = np.log1p(((Y[rows] - Y[P.indices]) ** 2).sum(axis=1))
    return float((P.data * (np.log(np.maximum(P.data, np.finfo(np.float64).tiny)) + distance + np.log(total))).sum())


@compiled
def push(Y: NDArray[np.float32], start: int, stop: int, sums: NDArray[np.float32]) -> None:
    """Over all other points Y : (2, n), for those from start to stop: sums (3, n) of q, of q^2 dx and of q^2 dy."""
    for first in range(start, stop, _AT_ONCE):
        last = min(first + _AT_ONCE, stop)
        x, y = Y[0, first:last].copy(), Y[1, first:last]
        near, across, up = sums[0, first:last], sums[1, first:last], sums[2, first:last]
        near[:], across[:], up[:] = 0, 0, 0
        for j in range(Y.shape[1]):
            itself = first <= j < last
            if itself:
                x[j - first] = _AWAY  # its own q is 1, which would swallow the others' in float32
            for i in range(len(x)):
                dx, dy = x[i] - Y[0, j], y[i] - Y[1, j]
                q = np.float32(1) / (np.float32(1) + dx * dx + dy * dy)
                near[i] += q
                across[i] += q * q * dx
                up[i] += q * q * dy
            if itself:
                x[j - first] = Y[0, j]


@compiled
def pull(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    affinities: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    start: int,
    stop: int,
    sums: NDArray[np.float64],
) -> None:
    """For the points from start to stop: sums (2, n) of p q dx and p q dy over those that have an affinity to them."""
    for i in range(start, stop):
        across = up = 0.0
        for at in range(indptr[i], indptr[i + 1]):
            dx, dy = x[i] - x[indices[at]], y[i] - y[indices[at]]
            weight = affinities[at] / (1.0 + dx * dx + dy * dy)
            across += weight * dx
            up += weight * dy
        sums[0, i], sums[1, i] = across, up
