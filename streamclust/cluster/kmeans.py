"""k-means over blocks: Lloyd passes whose states merge, and steps with momentum between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster import two_level
from streamclust.cluster.assign import exact_sqdist, origin_of, tiles
from streamclust.cluster.two_level import Asked, TwoLevel, roughly
from streamclust.metrics import LabelSums, group_sums
from streamclust.metrics import identity as no_sums
from streamclust.metrics import merge as merge_sums

Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

SPARE = 64
_MOMENTUM, _STEP = 0.85, 1.3
_EXACT = 2  # last passes, in which rows are compared with all of many centres


@dataclass(frozen=True, slots=True)
class LloydState:
    """What the rows of some blocks say of a set of centres.

    Attributes
    ----------
    sums : counts, sums and squares per cluster about its centre.
    far_dist, far_rows : (f,) float64 and (f, p) float32, the distinct rows farthest from their centres, squared
        distances > 0, farthest first: one for each cluster without a row, at most ``spare``.
    """

    sums: LabelSums
    far_dist: Doubles
    far_rows: Float
    spare: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows per cluster : (k,) int64."""
        return self.sums.counts

    @property
    def inertia(self) -> float:
        """Sum of squared distances to the nearest centre."""
        return float(self.sums.squares.sum())

    @property
    def empty(self) -> int:
        """How many clusters have no row."""
        return int((self.counts == 0).sum())


@dataclass(frozen=True, slots=True)
class LloydResult:
    """Final centres, largest cluster first, and what the last of ``n_iter`` passes measured at exactly these centres.

    ``converged`` is false where ``max_iter`` ended the search.
    """

    centers: NDArray[np.float32]
    sums: LabelSums
    n_iter: int
    converged: bool

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows per cluster : (k,) int64, none 0."""
        return self.sums.counts

    @property
    def inertia(self) -> float:
        """Sum of squared distances to the nearest centre."""
        return float(self.sums.squares.sum())


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
    centers = levels.centers
    labels, sqdist = two_level.assign(X, levels)
    origin = origin_of(centers)
    totals = group_sums(X - origin if origin.any() else X, labels, len(centers))
    totals -= np.bincount(labels, minlength=len(centers))[:, None] * (centers.astype(np.float64) - origin)
    return _state(X, centers, labels, sqdist, totals, spare)


def _against_all(X: Float, sets: Mapping[Key, Float], spare: int) -> dict[Key, LloydState]:
    keys, centers = list(sets), list(sets.values())
    sizes = [len(c) for c in centers]
    labels = [np.empty(len(X), np.int32) for _ in keys]
    sqdist = [np.empty(len(X)) for _ in keys]
    totals, origins = [np.zeros(c.shape) for c in centers], [np.zeros(c.shape[1], np.float32) for c in centers]
    for tile in tiles(X, centers):
        first = np.cumsum([0] + [sizes[i] for i in tile.sets])
        sums = group_sums(tile.centred, tile.labels.T + first[:-1], first[-1])
        for j, i in enumerate(tile.sets):
            origins[i] = tile.origin
            labels[i][tile.rows], sqdist[i][tile.rows] = tile.labels[j], tile.sqdist[j]
            totals[i] += sums[first[j] : first[j + 1]]
    for i, c in enumerate(centers):
        totals[i] -= np.bincount(labels[i], minlength=len(c))[:, None] * (c.astype(np.float64) - origins[i])
    return {key: _state(X, centers[i], labels[i], sqdist[i], totals[i], spare) for i, key in enumerate(keys)}


def _state(
    X: Float, centers: Float, labels: NDArray[np.int32], sqdist: Doubles, totals: Doubles, spare: int
) -> LloydState:
    k = len(centers)
    counts = np.bincount(labels, minlength=k).astype(np.int64)
    squares: Doubles = np.bincount(labels, sqdist, k).astype(np.float64)
    sums = LabelSums(centers, counts, totals, squares)
    # A cluster that is empty in the end is empty in every block, so no block need keep more.
    wanted = min(spare, int((counts == 0).sum()))
    return LloydState(sums, *_farthest(X, centers, labels, sqdist, wanted), spare)


def merge(a: LloydState, b: LloydState) -> LloydState:
    """The state of both blocks' rows; both about the same centres."""
    rows, dist = np.concatenate([a.far_rows, b.far_rows]), np.concatenate([a.far_dist, b.far_dist])
    sums = merge_sums(a.sums, b.sums)
    return LloydState(sums, *_distinct(rows, dist, min(a.spare, int((sums.counts == 0).sum()))), a.spare)


def update(state: LloydState) -> tuple[NDArray[np.float32], int]:
    """Means of the clusters, largest first; an empty one starts again on a farthest row, each row used once.

    Returns
    -------
    centers : (k, p) float32, and how many clusters stay empty because too few rows have a distance left.
    """
    return _reseed(state, state.sums.means.astype(np.float32))


def settled(state: LloydState, tol: float = 1e-4) -> bool:
    """Whether the means are where the centres are and every cluster has rows, or no row has a distance left."""
    if state.empty:
        return not len(state.far_rows)
    if np.array_equal(state.sums.means.astype(np.float32), state.sums.centers):
        return True  # under a large offset float32 centres cannot come closer
    moves = state.sums.sums / state.counts[:, None]
    return bool(np.einsum("ij,ij->", moves, moves) <= tol * state.inertia / state.counts.sum())


def lloyd(
    fold: Callable[[dict[Key, Asked]], Mapping[Key, LloydState]],
    starts: Mapping[Key, Float],
    max_iter: int = 6,
    tol: float = 1e-4,
    *,
    descending: bool = True,
) -> dict[Key, LloydResult]:
    """Lloyd's algorithm, accelerated as `onward` says, for many sets of centres that share every read of the data.

    Parameters
    ----------
    fold : function
        Evaluates every given set of centres over all rows (`lloyd_block`, `merge`), or one of many on two levels.
    starts : mapping of key to (k, p)
        A repeated centre is an empty cluster, to be placed where rows are far.
    max_iter : int
        Passes that may improve the centres, the last by going to the means. Then only sets with an empty cluster, or
        whose sizes do not descend, are read again: usually once. Until the last two, or until it settles, a search of
        1000 centres or more compares rows with those that are near, see `two_level`.
    tol : float
        A set is done when its centres' squared moves add up to at most ``tol`` x inertia / n.
    descending : bool
        Whether the largest cluster must come first, for which most sets are read once more.

    Returns
    -------
    One result per key with min(k, distinct rows) clusters, none empty: what `assign` finds at its centres.
    """
    active = {key: np.ascontiguousarray(centers, np.float32) for key, centers in starts.items()}
    converged, ordered, done = dict.fromkeys(starts, False), set[Key](), dict[Key, LloydResult]()
    trails, passes = dict[Key, Trail](), 0
    rough, asked = set(active), dict[Key, Asked]()
    while active:
        passes += 1
        rough = rough if passes <= max_iter - _EXACT else set()
        asked = {key: roughly(c, asked.get(key)) if key in rough else c for key, c in active.items()}
        states = fold(dict(asked))
        for key, centers in list(active.items()):
            state = states[key]
            if not isinstance(asked[key], TwoLevel):
                converged[key] |= settled(state, tol)
            elif settled(state, tol):
                rough.discard(key)
            elif state.empty:
                del asked[key]  # its centres go elsewhere, and are put in order
            if not converged[key] and passes < max_iter - 1:
                active[key], trails[key] = onward(state, trails.get(key))
            elif not converged[key] and passes < max_iter:
                active[key] = update(state)[0]
            elif state.empty and len(state.far_rows):
                active[key] = _reseed(state, centers)[0]
            elif descending and key not in ordered and not state.empty and (np.diff(state.counts) > 0).any():
                active[key] = centers[_largest_first(state)]
                ordered.add(key)  # once: equal distances may fall otherwise under other ids
            else:
                done[key] = _result(state, passes, converged[key])
                del active[key]
    return {key: done[key] for key in starts}


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a search stood: its inertia, and the centres before momentum (k, p), None where it has none."""

    inertia: float
    centers: Doubles | None


def onward(state: LloydState, trail: Trail | None) -> tuple[NDArray[np.float32], Trail]:
    """Centres beyond the means, with momentum; the means alone where the inertia grew or a cluster is empty.

    Lloyd's step is one of gradient descent in the metric of the counts (Bottou and Bengio, NIPS 1994), and a safe one:
    no eigenvalue of its derivative is negative. Hence `_STEP` of it is stable under a momentum m of Nesterov (Soviet
    Math. Dokl. 27, 1983) up to 1 + 1 / (1 + 2 m). Starting over where the inertia grows: O'Donoghue and Candes, Found.
    Comput. Math. 15 (2015) 715-732.
    """
    if state.empty:
        return update(state)[0], Trail(np.inf, None)
    means = state.sums.means
    if trail is not None and state.inertia > trail.inertia:
        return means.astype(np.float32), Trail(state.inertia, None)
    centers = state.sums.centers + _STEP * (means - state.sums.centers)
    before = centers if trail is None or trail.centers is None else trail.centers
    ahead = centers + _MOMENTUM * (centers - before)
    return ahead.astype(np.float32), Trail(state.inertia, centers)


def _reseed(state: LloydState, centers: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The centres, largest cluster first, with farthest rows in place of empty ones.

    Cannot go round in circles while the other centres stay: a centre on a row that none had keeps that row.
    """
    centers = centers[_largest_first(state)]
    first = len(centers) - state.empty
    rows = state.far_rows[: state.empty]
    centers[first : first + len(rows)] = rows
    return centers, state.empty - len(rows)


def _largest_first(state: LloydState) -> NDArray[np.intp]:
    return np.argsort(-state.counts, kind="stable")


def _result(state: LloydState, passes: int, converged: bool) -> LloydResult:
    """What was measured. Clusters that are still empty go: every row is on a centre, so no row changes its cluster."""
    s = state.sums
    keep = _largest_first(state)[: len(s.counts) - state.empty] if state.empty else np.arange(len(s.counts))
    kept = LabelSums(s.centers[keep], s.counts[keep], s.sums[keep], s.squares[keep])
    return LloydResult(np.asarray(kept.centers, np.float32), kept, passes, converged)


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
