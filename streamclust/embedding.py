"""A map of a sample by t-SNE on exact neighbours, and the place of every other row among its nearest sample rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.distances import centred
from streamclust.cluster.nearest import nearest as candidates
from streamclust.forces import gradient

Float = NDArray[np.floating[Any]]
Map = NDArray[np.float32]

LEADING = 100  # components that neighbours are looked for in: more change next to no neighbour, and each costs time
_SCORES = 2**22
_SPARE = 6
_SMALLEST = 5
_EARLY, _LATE, _MOMENTUM = 100, 400, 0.8
_MANY = 10_000  # points, from which on the FFT is as fast as all pairs
_PLACE_ROWS = 4096
_FAR = 1e15  # beyond which all are equally far: the search for a perplexity would find no scale


def nearest(X: Float, sample: Float, k: int, *, itself: bool = False) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The k nearest sample rows of every row, nearest first, equal distances by id.

    Parameters
    ----------
    X : (n, p) float32
        Rows.
    sample : (m, p) float32
        What to look among.
    k : int
        At most m; at most m - 1 with ``itself``.
    itself : bool
        X is the sample, and a row is not its own neighbour.

    Returns
    -------
    indices : (n, k), distances : (n, k) float64, Euclidean.

    Notes
    -----
    Tiled GEMM in float32 about the sample's mean picks k + 6 candidates; differences in float64 order them.
    """
    origin = sample.mean(axis=0, dtype=np.float64)
    S = centred(sample, origin)
    right = np.column_stack([-S, np.vecdot(S, S) / 2])
    take = min(k + _SPARE, len(S) - itself)
    indices, distances = np.empty((len(X), k), np.intp), np.empty((len(X), k))
    rows = max(16, _SCORES // len(S))
    for start in range(0, len(X), rows):
        tile = X[start : start + rows]
        scores = np.column_stack([centred(tile, origin), np.ones(len(tile), np.float32)]) @ right.T
        if itself:
            scores[np.arange(len(tile)), start + np.arange(len(tile))] = np.inf
        some = candidates(scores, take).columns
        far = np.stack([((tile - sample[some[:, j]].astype(np.float64)) ** 2).sum(axis=1) for j in range(take)], axis=1)
        order = np.lexsort((some, far), axis=1)[:, :k]
        indices[start : start + rows] = np.take_along_axis(some, order, axis=1)
        distances[start : start + rows] = np.sqrt(np.take_along_axis(far, order, axis=1))
    return indices, distances


def fit_map(sample: Float, seed: int, perplexity: float = 30, n_jobs: int = 1) -> Map:
    """t-SNE of the sample: (m, 2) float32, centred, its widest side from -1 to 1.

    Parameters
    ----------
    sample : (m, p) float32
        Finite, at least one row. Rows that are equal share a place.
    seed : int
        Of the jitter that takes the PCA start off its axes.
    perplexity : float
        At most a third of the neighbours that there are.
    n_jobs : int
        Threads; they do not change the result.

    Notes
    -----
    openTSNE (Policar, Strazar and Zupan, J. Stat. Software 109 (2024)) given our own exact neighbours, since annoy's
    depend on the threads. Below 5 distinct rows the map is their PCA.
    """
    distinct, place_of = _distinct(np.ascontiguousarray(sample, np.float32))
    start = _pca(distinct)
    if len(distinct) >= _SMALLEST:
        start = _tsne(distinct, start, seed, perplexity, n_jobs)
    low, high = start.min(axis=0), start.max(axis=0)
    width = float((high - low).max())
    xy = (start - (low + high) / 2) * (2 / width if width > 0 else 0)
    return np.asarray(xy[place_of], np.float32)


def _distinct(X: Map) -> tuple[Map, NDArray[np.intp]]:
    """Distinct rows in the order of their first occurrence, and which of them each row is."""
    X = X + np.float32(0)  # -0 and 0 are one value
    rows = X.view(np.dtype((np.void, X.dtype.itemsize * X.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return X[first[order]], np.argsort(order)[inverse]


def _pca(X: Map) -> NDArray[np.float64]:
    """Projections on the two leading axes, each pointing to its largest entry; zeros beyond the columns of X."""
    Z = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(Z.T @ Z)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.pad(Z @ axes, ((0, 0), (0, 2 - axes.shape[1])))


def _tsne(X: Map, start: NDArray[np.float64], seed: int, perplexity: float, n_jobs: int) -> NDArray[np.float64]:
    """100 iterations of early exaggeration, then 400: more lower the divergence little for their time.

    With the momentum of 0.8 also in the first, whose customary 250 at 0.5 go as far.
    """
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    perplexity = min(perplexity, (len(X) - 1) / 3)
    indices, distances = nearest(X, X, min(len(X) - 1, int(3 * perplexity)), itself=True)
    known = PrecomputedNeighbors(indices.astype(np.int32), np.minimum(distances, _FAR))
    affinities = PerplexityBasedNN(knn_index=known, perplexity=perplexity, n_jobs=n_jobs)
    start = start * (1e-4 / max(float(start[:, 0].std()), 1e-300))
    start = start + np.random.default_rng(seed).normal(0, 1e-6, start.shape)
    with ThreadPoolExecutor(n_jobs) as pool:
        method = "fft" if len(X) >= _MANY else partial(gradient, pool=pool, parts=n_jobs)
        embedding = TSNEEmbedding(start, affinities, negative_gradient_method=method, n_jobs=n_jobs, random_state=seed)
        embedding.optimize(_EARLY, exaggeration=12, momentum=_MOMENTUM, inplace=True)
        embedding.optimize(_LATE, momentum=_MOMENTUM, inplace=True)
    return np.asarray(embedding, np.float64)


def place(X: Float, sample: Float, sample_xy: Float, n_neighbors: int = 10) -> Map:
    """Places of X : (n, p) on the map sample_xy : (m, 2) of sample : (m, p), each row by itself : float32.

    The mean of the nearest sample rows' places, weighted by one over the squared distance; a row that equals a sample
    row lies on it. Neighbours that lie elsewhere on the map than most of them are left out, since the mean of two
    islands is open water. Source: Shepard, "A two-dimensional interpolation function", ACM National Conference 1968.
    """
    indices, distances = nearest(X, sample, min(n_neighbors, len(sample)))
    xy = np.empty((len(X), sample_xy.shape[1]), np.float32)
    for start in range(0, len(X), _PLACE_ROWS):
        rows = slice(start, start + _PLACE_ROWS)
        places, closest = sample_xy[indices[rows]].astype(np.float64), distances[rows]
        weights = np.divide(closest[:, :1], closest, out=np.ones_like(closest), where=closest > 0) ** 2
        weights *= _together(places)
        hit = closest[:, 0] == 0
        weights[hit] = np.arange(weights.shape[1]) == 0
        xy[rows] = np.einsum("ij,ijc->ic", weights, places) / weights.sum(axis=1, keepdims=True)
    return xy


def _together(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of each row's places : (n, k, c) lie within twice the median distance of their medoid : (n, k)."""
    apart = sum((places[:, :, None, c] - places[:, None, :, c]) ** 2 for c in range(places.shape[2])) ** 0.5
    from_medoid = apart[np.arange(len(places)), apart.sum(axis=2).argmin(axis=1)]
    return np.asarray(from_medoid <= 2 * np.median(from_medoid, axis=1, keepdims=True))
