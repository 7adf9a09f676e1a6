"""Nearest centre of every row, by tiled GEMM: never (n, k) in memory, and exact where float32 would cancel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Labels = NDArray[np.int32]
Distances = NDArray[np.float64]

# Scores of one tile stay in the second-level cache for small k (argmin is bound by it) and below 16 MiB for any k.
_TILE_SCORES = 2**17
_SCRATCH = 2**22
_PAIRS = 2**18


@dataclass(frozen=True, slots=True)
class Tile:
    """Some consecutive rows, centred on an origin that their centres share, and what `assign` says of them."""

    rows: slice
    centred: Float
    labels: Labels
    sqdist: Distances


def default_tile_rows(k: int) -> int:
    """Rows per tile: a function of k only, so that it never depends on the machine."""
    rows = min(2048, max(256, _TILE_SCORES // k), max(16, _SCRATCH // k))
    return int(2 ** int(np.log2(rows)))


def origin_of(centers: Float) -> NDArray[np.float32]:
    """What `tiles` subtracts from rows and centres: the coordinate-wise lower median, which no far centre moves."""
    middle = (len(centers) - 1) // 2
    return np.asarray(np.partition(centers, middle, axis=0)[middle], np.float32)


def tiles(X: Float, centers: Float, tile_rows: int | None = None) -> Iterator[Tile]:
    """Walk over X : (n, p) in tiles with the nearest of centers : (k, p); see `assign`.

    ``Tile.centred`` is scratch that the next tile overwrites.
    """
    k, p = centers.shape
    rows = tile_rows or default_tile_rows(k)
    origin = origin_of(centers)
    centred, scores = np.empty((rows, p), np.float32), np.empty((rows, k), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = centers.astype(np.float32) - origin
        for start in range(0, len(X), rows):
            tile = X[start : start + rows]
            Z: Float = np.subtract(tile, origin, out=centred[: len(tile)], casting="same_kind")
            labels, sqdist = _nearest(tile, Z, centers, moved, scores[: len(tile)])
            if not np.isfinite(sqdist).all():  # squares beyond float32: the same in float64
                Z = tile.astype(np.float64) - origin
                wide = centers.astype(np.float64) - origin
                labels, sqdist = _nearest(tile, Z, centers, wide, np.empty((len(tile), k)))
            yield Tile(slice(start, start + len(tile)), Z, labels, sqdist)


def assign(X: Float, centers: Float, tile_rows: int | None = None) -> tuple[Labels, Distances]:
    """Label every row with its nearest centre.

    Parameters
    ----------
    X : (n, p) float32
        Finite.
    centers : (k, p) float32
        At least one.
    tile_rows : int
        Rows per GEMM; by default as many as keep the scratch small (at most 16 MiB).

    Returns
    -------
    labels : (n,) int32, equal distances to the lowest id. sqdist : (n,) float64, squared Euclidean distances.

    Notes
    -----
    ``||x||^2 - 2 x.c + ||c||^2`` about the median centre in float32, with rounding near ``eps (||x||^2 + ||c||^2)``.
    Where that could reach 1 % of the distance, the row's possible centres are compared by differences in float64, so
    that duplicates are at distance 0 exactly and a common offset costs nothing (scikit-learn#9354).
    """
    labels, sqdist = np.empty(len(X), np.int32), np.empty(len(X), np.float64)
    for tile in tiles(X, centers, tile_rows):
        labels[tile.rows], sqdist[tile.rows] = tile.labels, tile.sqdist
    return labels, sqdist


def exact_sqdist(X: Float, centers: Float, labels: NDArray[np.integer[Any]]) -> Distances:
    """Squared distance of each row to the centre it is labelled with, by differences in float64 : (n,)."""
    difference = X.astype(np.float64) - centers[labels]
    squares: Distances = np.einsum("ij,ij->i", difference, difference)
    return squares


def _nearest(tile: Float, Z: Float, centers: Float, moved: Float, scores: Float) -> tuple[Labels, Distances]:
    """Argmin of ``||c||^2 / 2 - z.c`` for the centred rows Z, repeated exactly where rounding could decide."""
    half = np.einsum("ij,ij->i", moved, moved) / 2
    np.matmul(Z, -moved.T, out=scores)
    scores += half
    labels = scores.argmin(axis=1).astype(np.int32)
    best = scores[np.arange(len(labels)), labels]
    norms = np.einsum("ij,ij->i", Z, Z)
    sqdist = np.maximum(norms + 2 * best, 0).astype(np.float64)
    rounding = np.finfo(Z.dtype).eps * (4 + Z.shape[1] ** 0.5)
    doubtful = np.flatnonzero(sqdist < 100 * rounding * (norms + 2 * half[labels]))
    if len(doubtful):
        margin = 2 * (scores[doubtful] - best[doubtful, None])
        possible = margin <= rounding * (norms[doubtful, None] + 2 * half)
        labels[doubtful], sqdist[doubtful] = _compare(tile[doubtful], centers, possible)
    return labels, sqdist


def _compare(rows: Float, centers: Float, possible: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Distances]:
    """The nearest of each row's possible centres : (m, k) bool, by direct differences."""
    row, center = np.nonzero(possible)
    step = max(1, _PAIRS // centers.shape[1])
    parts = (slice(i, i + step) for i in range(0, len(row), step))
    distance = np.concatenate([exact_sqdist(rows[row[s]], centers, center[s]) for s in parts])
    order = np.lexsort((center, distance, row))
    first = order[np.flatnonzero(np.diff(row, prepend=-1))]  # each row's pairs stay together under the sort
    return center[first], distance[first]
