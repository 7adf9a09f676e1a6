"""Nearest centre of every row, by tiled GEMM: never (n, k) in memory, and exact where float32 would cancel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.products import lowest_of_sets

Float = NDArray[np.floating[Any]]
Labels = NDArray[np.int32]
Distances = NDArray[np.float64]

TILE_ROWS, LONG_TILE = 4096, 2**14
# Scores of one GEMM stay in the second-level cache for small k and below 16 MiB for any k.
_CACHED_SCORES = 2**16
_SCRATCH = 2**22
_PAIRS = 2**18
_JOINT = 256  # centres of small sets that share one GEMM, which a few columns at a time would leave half idle
FAR = 1e38  # terms below it sum to something finite in float32
_NEAR_ZERO = 4.0  # squares of the origin up to so many times those of the centres about it cost little precision
_PLAINLY_NEAR = 2.01  # a median lies no farther from the mean than the spread, so that 2 says the same unsought


@dataclass(frozen=True, slots=True)
class Tile:
    """Some consecutive rows, centred on an origin that some sets of centres share, and what `assign` says of them.

    Attributes
    ----------
    rows : which of the block's m rows. origin : (p,). centred : (m, p), to be read only, which the next tile may
        overwrite.
    sets : which s sets of centres. labels, sqdist : (s, m) int32 and float64.
    second : (s, m) float64, squared distances to the second nearest centre, where they were asked for; infinite for a
        lone centre.
    """

    rows: slice
    origin: Float
    centred: Float
    sets: tuple[int, ...]
    labels: Labels
    sqdist: Distances
    second: Distances


def gemm_rows(k: int) -> int:
    """Rows per GEMM against k centres: a function of k only, so that it never depends on the machine."""
    rows = min(TILE_ROWS, max(256, _CACHED_SCORES // k), max(16, _SCRATCH // k))
    return int(2 ** int(np.log2(rows)))


def origin_of(centers: Float) -> NDArray[np.float32]:
    """What `tiles` subtracts from rows and centres: 0, unless the centres lie far from it beside their spread.

    Then their coordinate-wise lower median, which no far centre moves.
    """
    about = centers.astype(np.float64)
    mean = about.mean(axis=0)
    if _PLAINLY_NEAR * (mean @ mean) <= np.vecdot(about, about).mean():
        return np.zeros(len(mean), np.float32)
    middle = (len(centers) - 1) // 2
    origin = np.partition(about, middle, axis=0)[middle]
    spread = np.square(about - origin).sum(axis=1).mean()
    return np.asarray(origin if origin @ origin > _NEAR_ZERO * spread else np.zeros_like(origin), np.float32)


def tiles(
    X: Float,
    sets: Sequence[Float],
    rows_per_gemm: int | None = None,
    *,
    second: bool = False,
    origin: NDArray[np.float32] | None = None,
    most: int = TILE_ROWS,
) -> Iterator[Tile]:
    """Walk over X : (n, p) in tiles of ``most`` rows with the nearest of each set's centers : (k, p); see `assign`.

    Sets that share an origin share a walk. Tiles that are centred for it have at most `TILE_ROWS`.
    """
    sharing: dict[bytes, list[int]] = {}
    for i, centers in enumerate(sets):
        sharing.setdefault((origin_of(centers) if origin is None else origin).tobytes(), []).append(i)
    for key, which in sharing.items():
        about = np.frombuffer(key, np.float32)
        ready = _Sets([sets[i] for i in which], about, rows_per_gemm, second=second)
        far = bool(about.any()) or X.dtype != np.float32
        step = min(most, TILE_ROWS) if far else most
        buffer = np.empty((min(len(X), step) * far, X.shape[1]), np.float32)
        for start in range(0, len(X), step):
            tile = X[start : start + step]
            with np.errstate(over="ignore", invalid="ignore"):
                Z = np.subtract(tile, about, out=buffer[: len(tile)], casting="same_kind") if far else tile
                labels, distances = ready.nearest(tile, Z)
            yield Tile(
                slice(start, start + len(tile)), about, Z, tuple(which), labels, distances[:, 0], distances[:, 1]
            )


def assign(
    X: Float, centers: Float, rows_per_gemm: int | None = None, origin: NDArray[np.float32] | None = None
) -> tuple[Labels, Distances]:
    """Label every row with its nearest centre.

    Parameters
    ----------
    X : (n, p) float32
        Finite.
    centers : (k, p) float32
        At least one.
    rows_per_gemm : int
        By default as many as keep the scratch small (at most 16 MiB).
    origin : (p,) float32
        What is subtracted from both, for those who know; by default what `origin_of` says.

    Returns
    -------
    labels : (n,) int32, equal distances to the lowest id. sqdist : (n,) float64, squared Euclidean distances.

    Notes
    -----
    ``||x||^2 - 2 x.c + ||c||^2`` about an origin amid the centres in float32, with rounding near
    ``eps (||x||^2 + ||c||^2)``. Where that could reach 1 % of the distance, the row's possible centres are compared by
    differences in float64, so that duplicates are at distance 0 exactly and a common offset costs nothing
    (scikit-learn#9354).
    """
    labels, sqdist = np.empty(len(X), np.int32), np.empty(len(X), np.float64)
    for tile in tiles(X, [centers], rows_per_gemm, origin=origin, most=LONG_TILE):
        labels[tile.rows], sqdist[tile.rows] = tile.labels[0], tile.sqdist[0]
    return labels, sqdist


def exact_sqdist(X: Float, centers: Float, labels: NDArray[np.integer[Any]]) -> Distances:
    """Squared distance of each row to the centre it is labelled with, by differences in float64 : (n,)."""
    difference = X.astype(np.float64) - centers[labels]
    squares: Distances = np.einsum("ij,ij->i", difference, difference)
    return squares


class _Sets:
    """Sets of centres made ready for many tiles; small neighbours share a GEMM.

    Distances : (s, 2, m), to the nearest and, if asked for, to the second nearest centre.
    """

    def __init__(self, sets: Sequence[Float], origin: Float, rows_per_gemm: int | None, *, second: bool) -> None:
        self.centers, self.origin, self.second = np.concatenate(sets), origin, second
        sizes = [len(centers) for centers in sets]
        self.ends = np.cumsum([0, *sizes])
        self.sets = [slice(start, stop) for start, stop in pairwise(self.ends)]
        self.parts = _parts(sizes)
        self.rows = rows_per_gemm or gemm_rows(np.diff(self.ends[self.parts]).max())
        self.careful_rows = rows_per_gemm or gemm_rows(self.ends[-1])
        with np.errstate(over="ignore"):
            self.minus = origin - self.centers.astype(np.float32)
            self.half = np.vecdot(self.minus, self.minus) / 2
        repeated = [
            start + _repeated(self.minus[start:stop], self.half[start:stop]) for start, stop in pairwise(self.ends)
        ]
        self.again, self.first = np.concatenate(repeated, axis=1)

    def nearest(self, tile: Float, Z: Float) -> tuple[Labels, Distances]:
        """Per set, of a tile : (s, m); rows that rounding could decide are compared again with more care."""
        m, s = len(Z), len(self.sets)
        labels, sqdist = np.empty((s, m), np.int32), np.full((s, 2, m), np.inf)
        norms, near = np.empty(m, np.float32), np.zeros(m, np.bool_)
        about = self.minus, self.half, self.ends, self.parts, self.again, self.first
        rounding = 100 * rounding_of(Z, Z.shape[1])
        lowest_of_sets(np.ascontiguousarray(Z), *about, self.rows, rounding, self.second, norms, labels, sqdist, near)
        wide = ~(norms + 2 * self.half.max() < FAR)
        for i in self._some(near & ~wide):
            labels[:, i], sqdist[:, :, i] = self._nearest(tile[i], Z[i], norms[i], self.minus, self.half)
        if wide.any():
            minus = self.origin - self.centers.astype(np.float64)
            half = np.vecdot(minus, minus) / 2
            for i in self._some(wide):
                rows = tile[i].astype(np.float64) - self.origin
                labels[:, i], sqdist[:, :, i] = self._nearest(tile[i], rows, np.vecdot(rows, rows), minus, half)
        return labels, sqdist

    def _some(self, rows: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
        """Which rows these are, so few at a time that their scores for the centres of all sets stay small."""
        which = np.flatnonzero(rows)
        return [which[start : start + self.careful_rows] for start in range(0, len(which), self.careful_rows)]

    def _nearest(self, tile: Float, Z: Float, norms: Float, minus: Float, half: Float) -> tuple[Labels, Distances]:
        """As `nearest`, where rounding decides by direct differences."""
        scores = np.matmul(Z, minus.T) + half
        scores[:, self.again] = scores[:, self.first]
        labels = np.empty((len(self.sets), len(tile)), np.int32)
        sqdist = np.full((len(self.sets), 2, len(tile)), np.inf)
        for j, s in enumerate(self.sets):
            part = scores[:, s]
            labels[j], sqdist[j, 0] = _decide(tile, self.centers[s], norms, part, half[s], Z.shape[1])
            if self.second and part.shape[1] > 1:
                part[np.arange(len(tile)), labels[j]] = np.inf
                _, sqdist[j, 1] = _decide(tile, self.centers[s], norms, part, half[s], Z.shape[1])
        return labels, sqdist


def _parts(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Which of some sets of centres begin a GEMM, neighbours together while they have few, and how many sets are."""
    begin, held = [0], sizes[0]
    for i, size in enumerate(sizes[1:], 1):
        held += size
        if held > _JOINT:
            begin.append(i)
            held = size
    return np.array([*begin, len(sizes)])


def _repeated(centers: Float, half: Float) -> NDArray[np.intp]:
    """Which centres : (k, p) repeat an earlier one, and which : (2, r); products may round their scores differently."""
    order = np.argsort(half)
    alike = np.flatnonzero(half[order[1:]] == half[order[:-1]])
    if not len(alike):
        return np.empty((2, 0), np.intp)
    some = np.unique(order[np.concatenate([alike, alike + 1])])
    _, first, vector = np.unique(centers[some], axis=0, return_index=True, return_inverse=True)
    earliest = some[first[vector.ravel()]]
    again = earliest < some
    return np.stack([some[again], earliest[again]])


def rounding_of(like: Float, p: int) -> float:
    """The share of its terms that a score of p columns may be off by."""
    return float(np.finfo(like.dtype).eps * (4 + p**0.5))


def _decide(tile: Float, centers: Float, norms: Float, scores: Float, half: Float, p: int) -> tuple[Labels, Distances]:
    """The lowest score of each row, by direct differences where rounding could reach 1 % of a distance."""
    labels = scores.argmin(axis=1).astype(np.int32)
    best = scores[np.arange(len(labels)), labels]
    sqdist = np.maximum(norms + 2 * best, 0).astype(np.float64)
    doubtful = np.flatnonzero(sqdist <= 100 * rounding_of(norms, p) * (norms + 2 * half[labels]))
    if len(doubtful):
        margin = 2 * (scores[doubtful] - best[doubtful, None])
        possible = margin <= rounding_of(scores, p) * (norms[doubtful, None] + 2 * half)
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
