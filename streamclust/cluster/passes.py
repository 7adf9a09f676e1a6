"""One pass of Lloyd's algorithm: what blocks of rows say of sets of centres, as states that merge."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster import two_level
from streamclust.cluster.assign import LONG_TILE, exact_sqdist, tiles
from streamclust.cluster.two_level import TwoLevel
from streamclust.metrics import LabelSums, group_sums
from streamclust.metrics import identity as no_sums
from streamclust.metrics import merge as merge_sums

Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

SPARE = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """What rows add up to: ``sums`` are counts, sums and squares per cluster about its centre."""

    sums: LabelSums

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows per cluster : (k,) int64."""
        return self.sums.counts

    @property
    def inertia(self) -> float:
        """Sum of squared distances to the nearest centre."""
        return float(self.sums.squares.sum())


@dataclass(frozen=True, slots=True)
class LloydState(Measured):
    """What the rows of some blocks say of a set of centres.

    Attributes
    ----------
    far_dist, far_rows : (f,) float64 and (f, p) float32, the distinct rows farthest from their centres, squared
        distances > 0, farthest first: one for each cluster without a row, at most ``spare``.
    """

    far_dist: Doubles
    far_rows: Float
    spare: int

    @property
    def empty(self) -> int:
        """How many clusters have no row."""
        return int((self.counts == 0).sum())


def identity(centers: Float, spare: int = SPARE) -> LloydState:
    """The state of no rows for centers : (k, p)."""
    k, p = centers.shape
    return LloydState(no_sums(centers), np.empty(0), np.empty((0, p), np.float32), min(k, spare))


def lloyd_block(X: Float, sets: Mapping[Key, Float | TwoLevel], spare: int = SPARE) -> dict[Key, LloydState]:
    """One block's part of a Lloyd pass: X : (n, p) float32, finite, against each set's centers : (k, p) float32.

    Of centres on two levels, nearly every row counts for the nearest, and every other for one that is near.
    """
    every = {key: centers for key, centers in sets.items() if not isinstance(centers, TwoLevel)}
    found = _against_all(X, every, spare)
    return {
        key: _against_near(X, centers, spare) if isinstance(centers, TwoLevel) else found[key]
        for key, centers in sets.items()
    }


def _against_near(X: Float, levels: TwoLevel, spare: int) -> LloydState:
    centers, k = levels.centers, len(levels.centers)
    labels, sqdist = two_level.assign(X, levels)
    origin = levels.origin
    totals = group_sums(X - origin if origin.any() else X, labels, k)
    return _state(X, centers, labels, sqdist, totals, origin, spare)


def _against_all(X: Float, sets: Mapping[Key, Float], spare: int) -> dict[Key, LloydState]:
    keys, centers = list(sets), list(sets.values())
    sizes = [len(c) for c in centers]
    labels = [np.empty(len(X), np.int32) for _ in keys]
    sqdist = [np.empty(len(X)) for _ in keys]
    totals, origins = [np.zeros(c.shape) for c in centers], [np.zeros(c.shape[1], np.float32) for c in centers]
    for tile in tiles(X, centers, most=LONG_TILE):
        first = np.cumsum([0] + [sizes[i] for i in tile.sets])
        sums = group_sums(tile.centred, tile.labels.T + first[:-1], first[-1])
        for j, i in enumerate(tile.sets):
            origins[i] = tile.origin
            labels[i][tile.rows], sqdist[i][tile.rows] = tile.labels[j], tile.sqdist[j]
            totals[i] += sums[first[j] : first[j + 1]]
    found = zip(centers, labels, sqdist, totals, origins, strict=True)
    return {key: _state(X, *of_set, spare) for key, of_set in zip(keys, found, strict=True)}


def _state(
    X: Float, centers: Float, labels: NDArray[np.int32], sqdist: Doubles, totals: Doubles, origin: Float, spare: int
) -> LloydState:
    """The state of rows so labelled, of which ``totals`` are the sums about an origin."""
    k = len(centers)
    counts = np.bincount(labels, minlength=k).astype(np.int64)
    squares: Doubles = np.bincount(labels, sqdist, k).astype(np.float64)
    totals = totals - counts[:, None] * (centers.astype(np.float64) - origin)
    sums = LabelSums(centers, counts, totals, squares)
    # A cluster that is empty in the end is empty in every block, so no block need keep more.
    wanted = min(spare, int((counts == 0).sum()))
    return LloydState(sums, *_farthest(X, centers, labels, sqdist, wanted), spare)


def merge(a: LloydState, b: LloydState) -> LloydState:
    """The state of both blocks' rows; both about the same centres."""
    rows, dist = np.concatenate([a.far_rows, b.far_rows]), np.concatenate([a.far_dist, b.far_dist])
    sums = merge_sums(a.sums, b.sums)
    return LloydState(sums, *_distinct(rows, dist, min(a.spare, int((sums.counts == 0).sum()))), a.spare)


def merge_sets(a: Mapping[Key, LloydState], b: Mapping[Key, LloydState]) -> dict[Key, LloydState]:
    """Both, set by set."""
    return {key: merge(a[key], b[key]) for key in a}


def update(state: LloydState) -> tuple[NDArray[np.float32], int]:
    """Means of the clusters, largest first; an empty one starts again on a farthest row, each row used once.

    Returns
    -------
    centers : (k, p) float32, and how many clusters stay empty because too few rows have a distance left.
    """
    return reseed(state, state.sums.means.astype(np.float32))


def settled(state: LloydState, tol: float = 1e-4) -> bool:
    """Whether the means are where the centres are and every cluster has rows, or no row has a distance left."""
    if state.empty:
        return not len(state.far_rows)
    if np.array_equal(state.sums.means.astype(np.float32), state.sums.centers):
        return True  # under a large offset float32 centres cannot come closer
    moves = state.sums.sums / state.counts[:, None]
    return bool(np.einsum("ij,ij->", moves, moves) <= tol * state.inertia / state.counts.sum())


def reseed(state: LloydState, centers: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The centres, largest cluster first, with farthest rows in place of empty ones.

    Cannot go round in circles while the other centres stay: a centre on a row that none had keeps that row.
    """
    centers = centers[largest_first(state)]
    first = len(centers) - state.empty
    rows = state.far_rows[: state.empty]
    centers[first : first + len(rows)] = rows
    return centers, state.empty - len(rows)


def largest_first(found: Measured) -> NDArray[np.intp]:
    """The order of clusters by their rows."""
    return np.argsort(-found.counts, kind="stable")


def _farthest(
    X: Float, centers: Float, labels: NDArray[np.int32], sqdist: Doubles, spare: int
) -> tuple[Doubles, Float]:
    """The block's distinct rows farthest from their centres; looks further while duplicates fill the list."""
    order = np.flatnonzero(sqdist > 0) if spare else np.empty(0, np.intp)
    size = 4 * spare
    while True:
        some = order if len(order) <= size else order[np.argpartition(-sqdist[order], size)[:size]]
        found = _distinct(X[some], exact_sqdist(X[some], centers, labels[some]), spare)
        if len(found[0]) == spare or len(some) == len(order):
            return found
        size *= 8


def _distinct(rows: Float, dist: Doubles, spare: int) -> tuple[Doubles, Float]:
    """The farthest rows, each vector once, equal distances in the order of the rows' bytes."""
    if not (spare and len(rows)):
        return dist[:0], rows[:0]
    far = np.argsort(-dist, kind="stable")
    rows = np.ascontiguousarray(rows[far], np.float32) + np.float32(0)  # -0 and 0 are one vector
    _, once = np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0], return_index=True)
    keep = once[np.argsort(-dist[far[once]], kind="stable")[:spare]]
    return dist[far[keep]], rows[keep]
