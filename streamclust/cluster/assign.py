"""Nearest centre of every row, by tiled GEMM: never (n, k) in memory, and exact where float32 would cancel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.scans import lowest

Float = NDArray[np.floating[Any]]
Labels = NDArray[np.int32]
Distances = NDArray[np.float64]

_TILE_ROWS = 4096
# Scores of one GEMM stay in the second-level cache for small k and below 16 MiB for any k.
_CACHED_SCORES = 2**18
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
    rows = min(_TILE_ROWS, max(256, _CACHED_SCORES // k), max(16, _SCRATCH // k))
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
) -> Iterator[Tile]:
    """Walk over X : (n, p) in tiles with the nearest of each set's centers : (k, p); see `assign`.

    A tile stays in the processor's cache while every set that shares its origin is compared with it.
    """
    sharing: dict[bytes, list[int]] = {}
    for i, centers in enumerate(sets):
        sharing.setdefault((origin_of(centers) if origin is None else origin).tobytes(), []).append(i)
    for key, which in sharing.items():
        about = np.frombuffer(key, np.float32)
        joints = [_Joint([sets[i] for i in part], about, rows_per_gemm, second=second) for part in _joined(which, sets)]
        far = bool(about.any()) or X.dtype != np.float32
        buffer = np.empty((min(len(X), _TILE_ROWS) * far, X.shape[1]), np.float32)
        for start in range(0, len(X), _TILE_ROWS):
            tile = X[start : start + _TILE_ROWS]
            with np.errstate(over="ignore", invalid="ignore"):
                Z = np.subtract(tile, about, out=buffer[: len(tile)], casting="same_kind") if far else tile
                norms = np.vecdot(Z, Z)
                found = [joint.nearest(tile, Z, norms) for joint in joints]
            labels = np.concatenate([labels for labels, _ in found])
            distances = np.concatenate([distances for _, distances in found])
            yield Tile(
                slice(start, start + len(tile)), about, Z, tuple(which), labels, distances[:, 0], distances[:, 1]
            )


def _joined(which: Sequence[int], sets: Sequence[Float]) -> list[list[int]]:
    """Neighbours together while they have few centres."""
    parts, held = list[list[int]](), _JOINT + 1
    for i in which:
        held += len(sets[i])
        if held > _JOINT:
            parts.append([])
            held = len(sets[i])
        parts[-1].append(i)
    return parts


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
    for tile in tiles(X, [centers], rows_per_gemm, origin=origin):
        labels[tile.rows], sqdist[tile.rows] = tile.labels[0], tile.sqdist[0]
    return labels, sqdist


def exact_sqdist(X: Float, centers: Float, labels: NDArray[np.integer[Any]]) -> Distances:
    """Squared distance of each row to the centre it is labelled with, by differences in float64 : (n,)."""
    difference = X.astype(np.float64) - centers[labels]
    squares: Distances = np.einsum("ij,ij->i", difference, difference)
    return squares


class _Joint:
    """Sets of centres made ready for many tiles, all compared by one GEMM.

    Distances : (s, 2, m), to the nearest and, if asked for, to the second nearest centre.
    """

    def __init__(self, sets: Sequence[Float], origin: Float, rows_per_gemm: int | None, *, second: bool) -> None:
        self.centers, self.origin, self.second = np.concatenate(sets), origin, second
        self.ends = np.cumsum([0] + [len(centers) for centers in sets])
        self.sets = [slice(start, stop) for start, stop in pairwise(self.ends)]
        self.rows = rows_per_gemm or gemm_rows(len(self.centers))
        with np.errstate(over="ignore"):
            self.minus = origin - self.centers.astype(np.float32)
            self.half = np.vecdot(self.minus, self.minus) / 2
        self.again, self.first = _repeated(self.minus, self.half)
        self.scores = np.empty(min(self.rows, _TILE_ROWS) * len(self.centers), np.float32)

    def nearest(self, tile: Float, Z: Float, norms: Float) -> tuple[Labels, Distances]:
        """Per set, of a tile : (s, m); rows that rounding could decide are compared again with more care."""
        labels, sqdist, near = self._lowest(Z, norms)
        wide = ~(norms + 2 * self.half.max() < FAR)
        doubtful = np.flatnonzero(near & ~wide)
        for start in range(0, len(doubtful), self.rows):
            i = doubtful[start : start + self.rows]
            labels[:, i], sqdist[:, :, i] = self._nearest(tile[i], Z[i], norms[i], self.minus, self.half)
        beyond = np.flatnonzero(wide)
        if len(beyond):
            Z, minus = tile[beyond].astype(np.float64) - self.origin, self.origin - self.centers.astype(np.float64)
            half, norms = np.vecdot(minus, minus) / 2, np.vecdot(Z, Z)
            labels[:, beyond], sqdist[:, :, beyond] = self._nearest(tile[beyond], Z, norms, minus, half)
        return labels, sqdist

    def _lowest(self, Z: Float, norms: Float) -> tuple[Labels, Distances, NDArray[np.bool_]]:
        """The same from one product for the centred rows Z, and where rounding could decide : (m,)."""
        labels, sqdist = np.zeros((len(self.sets), len(Z)), np.int32), np.full((len(self.sets), 2, len(Z)), np.inf)
        near, rounding = np.zeros(len(Z), np.bool_), 100 * rounding_of(Z, Z.shape[1])
        for start in range(0, len(Z), self.rows):
            rows = Z[start : start + self.rows]
            scores = self.scores[: len(self.minus) * len(rows)].reshape(-1, len(rows))
            np.matmul(self.minus, rows.T, out=scores)
            scores[self.again] = scores[self.first]
            lowest(scores, self.half, self.ends, norms, rounding, start, self.second, labels, sqdist, near)
        return labels, sqdist, near

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


def _repeated(centers: Float, half: Float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which centres : (k, p) repeat an earlier one, and which: a product may round their scores differently."""
    order = np.argsort(half)
    alike = np.flatnonzero(half[order[1:]] == half[order[:-1]])
    if not len(alike):
        return alike, alike
    some = np.unique(order[np.concatenate([alike, alike + 1])])
    _, first, vector = np.unique(centers[some], axis=0, return_index=True, return_inverse=True)
    earliest = some[first[vector.ravel()]]
    again = earliest < some
    return some[again], earliest[again]


def rounding_of(like: Float, p: int) -> float:
    """The share of its terms that a score of p columns may be off by."""
    return float(np.finfo(like.dtype).eps * (4 + p**0.5))


def _decide(tile: Float, centers: Float, norms: Float, scores: Float, half: Float, p: int) -> tuple[Labels, Distances]:
    """The lowest score of each row, by direct differences where rounding could reach 1 % of a distance."""
    labels = scores.argmin(axis=1).astype(np.int32)
    best = scores[np.arange(len(labels)), labels]
    sqdist = np.maximum(norms + 2 * best, 0).astype(np.float64)
    doubtful = np.flatnonzero(sqdist < 100 * rounding_of(norms, p) * (norms + 2 * half[labels]))
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
