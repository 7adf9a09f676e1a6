"""Centres that hardly matter go where another one is missed, which Lloyd's algorithm by itself cannot do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import tiles
from streamclust.metrics import group_sums

Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Centers = NDArray[np.float32]
Labels = NDArray[np.int32]

_SLICE, _TILE = 4096, 1024  # rows and centres at a time
_POWERS = 4  # steps of the power iteration
_CUT = 2 / np.pi  # of a normal cluster's squares along a line, what a cut at the mean takes away


def swapped(X: Float, centers: Centers, n_jobs: int = 1) -> Centers:
    """The means about centers : (k, p), some of them moved from where they are needed least to where they are most.

    A cluster without its centre would cost what its rows are farther from the next one. A second centre would gain what
    a cut across the longest axis does, were the cluster normal; the two then stand at the means of the halves. As many
    centres move, at most half, as gain more than they cost on X : (m, p); each only if the one nearest to it stays, as
    two that lie together cost little one by one and much together.

    Sources: Fritzke, "The breathing k-means algorithm", arXiv:2006.15666 (2020), for moves by such costs; Boley,
    "Principal direction divisive partitioning", Data Min. Knowl. Discov. 2 (1998) 325-344, for the cut.
    """
    k = len(centers)
    with ThreadPoolExecutor(n_jobs) as pool:
        found = list(pool.map(partial(_nearest, centers=centers), _slices(X)))
    labels, sqdist, second = (np.concatenate(part) for part in zip(*found, strict=True))
    counts = np.bincount(labels, minlength=k)[:, None]
    means = np.where(counts, group_sums(X, labels, k) / np.maximum(counts, 1), centers)
    cost = np.bincount(labels, second - sqdist, k)
    axes, squares = _longest(X, labels, sqdist, means, n_jobs)
    needless = _apart(np.argsort(cost, kind="stable"), _neighbours(centers))[: k // 2]
    wanting = np.argsort(-squares, kind="stable")[: len(needless)]
    pays = cost[needless] < _CUT * squares[wanting]
    pays &= ~np.isin(wanting, needless[pays])
    needless, wanting = needless[pays], wanting[pays]
    apart = np.sqrt(_CUT * squares[wanting, None] / counts[wanting]) * axes[wanting]
    means[needless] = means[wanting] + apart
    means[wanting] -= apart
    return means.astype(np.float32)


def _apart(order: NDArray[np.intp], neighbours: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those whose neighbour does not come before them, unless it is left out."""
    taken = np.zeros(len(order), np.bool_)
    for i in order:
        taken[i] = not taken[neighbours[i]]
    return order[taken[order]]


def _neighbours(centers: Centers) -> NDArray[np.intp]:
    """Which of the other centres is nearest to each."""
    about = centers - np.median(centers, axis=0)
    about /= max(np.abs(about).max(), np.finfo(np.float32).tiny)  # squares of 1e25 are beyond float32
    half, nearest = np.vecdot(about, about) / 2, np.empty(len(about), np.intp)
    for start in range(0, len(about), _TILE):
        scores = half - about[start : start + _TILE] @ about.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = np.inf
        nearest[start : start + _TILE] = scores.argmin(axis=1)
    return nearest


def _slices(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [values[start : start + _SLICE] for start in range(0, len(values), _SLICE)]


def _nearest(X: Float, centers: Centers) -> tuple[Labels, Doubles, Doubles]:
    """The nearest centre, and squared distances to it and to the next : (m,) each."""
    found = [(tile.labels[0], tile.sqdist[0], tile.second[0]) for tile in tiles(X, [centers], second=True)]
    labels, sqdist, second = (np.concatenate(part) for part in zip(*found, strict=True))
    return labels, sqdist, second


def _longest(X: Float, labels: Labels, sqdist: Doubles, means: Doubles, n_jobs: int) -> tuple[Doubles, Doubles]:
    """Nearly each cluster's longest axis, of length 1 : (k, p), and the sum of squares along it : (k,).

    By a few steps of the power iteration from the farthest row.
    """
    order = np.argsort(sqdist, kind="stable")
    farthest = np.zeros(len(means), np.intp)
    farthest[labels[order]] = order  # the last one stays
    turned = X[farthest] - means
    with ThreadPoolExecutor(n_jobs) as pool:
        for _ in range(_POWERS + 1):
            axes = turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), np.finfo(np.float64).tiny)
            parts = pool.map(partial(_along, means=means, axes=axes), _slices(X), _slices(labels))
            turned, squares = reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), parts)
    return axes, squares


def _along(X: Float, labels: Labels, means: Doubles, axes: Doubles) -> tuple[Doubles, Doubles]:
    """Each cluster's squares, times its axis : (k, p), and along it : (k,)."""
    about = X - means[labels]
    along = np.vecdot(about, axes[labels])
    squares: Doubles = np.bincount(labels, along * along, len(means)).astype(np.float64)
    return group_sums(about * along[:, None], labels, len(means)), squares
