"""Rows of one day that are close to one another: near-identical bursts, crowds where few were fitted, their heart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
Spaces = Mapping[str, Single]  # the same rows in each descriptor's space

PAIRED = 2048  # rows of a day, and of a sample, whose pairs are compared
NEAR = 1e-3  # near-identical: in every descriptor closer than all but so many of the pairs of fitted rows
AROUND = 0.05  # a row's surroundings: the distance below which so many of the pairs of fitted rows lie
LEAST, BURST_SHARE = 8, 0.05  # rows of a burst; a vehicle that waits in front of a camera is none
MOST = 8  # bursts of one day
CROWD_SHARE, CROWD_RATIO = 0.03, 6.0  # of the day's rows around a row; times the share of the fitted ones
_TILE = 512
_ROUNDING = 8 * float(np.finfo(np.float32).eps)
_LARGE = 1e16  # whose square, many times over, float32 still holds


@dataclass(frozen=True, eq=False)
class Kind:
    """Rows that may be one new kind: who is amid them, and its members by distance, both as indices.

    ``closeness`` is how far half of all candidates are from the medoid, over what is usual between members of one
    cluster.
    """

    medoid: int
    members: NDArray[np.intp]
    closeness: float


def radii(Z: Single) -> tuple[float, float]:
    """The distances below which NEAR and AROUND of all pairs of different rows of Z : (m, p) lie; 0 without a pair."""
    rows, norms = np.arange(len(Z)), np.square(Z, dtype=np.float64).sum(axis=1)
    pairs = [
        squares[(rows[tile, None] < rows) & (squares > _ROUNDING * norms[tile, None])]
        for tile, squares in _squares(Z, Z)
    ]
    squares = np.concatenate(pairs)
    near, around = np.sqrt(np.quantile(squares, [NEAR, AROUND])) if len(squares) else (0.0, 0.0)
    return float(near), float(around)


def bursts(Y: Spaces, n: int) -> NDArray[np.intp]:
    """Indices of the rows amid bursts, largest first: so many rows are near-identical to each that it is no chance.

    Y : descriptor -> (n, p) float32 finite, scaled so that near-identical rows are at most 1 apart. A burst's rows
    belong to no other; equal counts go to the smaller index.
    """
    least = max(LEAST, int(np.ceil(BURST_SHARE * n)))
    free, found = np.arange(n), list[int]()
    while len(free) >= least and len(found) < MOST:
        left = {d: rows[free] for d, rows in Y.items()}
        counts = np.concatenate([near.sum(axis=1) for _, near in _near(left, left)])
        best = int(counts.argmax())
        if counts[best] < least:
            break
        found.append(int(free[best]))
        free = free[~near_any(left, {d: rows[[best]] for d, rows in left.items()})]
    return np.array(found, np.intp)


def near_any(Y: Spaces, centres: Spaces) -> NDArray[np.bool_]:
    """Whether each row is near-identical to one of the centres, both scaled; rows that are not finite are not."""
    return np.concatenate([near.any(axis=1) for _, near in _near(Y, centres)])


def _near(A: Spaces, B: Spaces) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
    """Which of B's rows are near-identical to each of A's, a tile of A's rows at a time."""
    for parts in zip(*(_squares(A[d], B[d]) for d in A), strict=True):
        tile = parts[0][0]
        yield tile, np.logical_and.reduce([squares <= 1 for _, squares in parts])


def crowded(Z: Single, fitted: Single, around: float) -> NDArray[np.bool_]:
    """Which rows of a day have many of the day's rows around them where hardly any of the fitted ones are; (n,).

    At least LEAST rows and CROWD_SHARE of the day, and CROWD_RATIO times the share of the fitted rows: whatever
    the shape of a new kind, its rows are close to one another and to little else.
    """
    found = np.zeros(len(Z), bool)
    for (tile, ours), (_, theirs) in zip(_squares(Z, Z), _squares(Z, fitted), strict=True):
        count = (ours <= around**2).sum(axis=1) - 1
        share = count / max(len(Z) - 1, 1)
        usual = ((theirs <= around**2).sum(axis=1) + 1) / (len(fitted) + 1)
        found[tile] = (count >= LEAST) & (share >= np.maximum(CROWD_SHARE, CROWD_RATIO * usual))
    return found


def heart(Z: Single, usual: float, expected: int) -> Kind:
    """The densest place among candidates Z : (m, p): the row whose ``expected`` nearest others are closest.

    usual : the distance of a row to its cluster's centre that is usual; two members of one cluster are about sqrt(2)
    times as far apart. Members are the rows as close as the ``expected``-th, at least the row itself.
    """
    k = min(max(expected, 1), len(Z)) - 1
    reach, half = np.empty(len(Z)), np.empty(len(Z))
    for tile, squares in _squares(Z, Z):
        reach[tile] = np.partition(squares, k, axis=1)[:, k]
        half[tile] = np.median(squares, axis=1)
    medoid = int(reach.argmin())
    order = np.argsort(np.square(Z.astype(np.float64) - Z[medoid]).sum(axis=1), kind="stable")
    closeness = float(np.sqrt(half[medoid])) / (np.sqrt(2) * usual) if usual > 0 else 0.0
    return Kind(medoid, order[: k + 1], closeness)


def _squares(A: Single, B: Single) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Squared distances of A's rows to B's, a tile of A's rows at a time, about B's middle, which keeps them exact.

    Where float32 would not hold squares they come of differences in float64.
    """
    tiles = [slice(start, min(start + _TILE, len(A))) for start in range(0, max(len(A), 1), _TILE)]
    if _large(A) or _large(B):
        from scipy.spatial.distance import cdist

        yield from ((rows, cdist(A[rows], B, "sqeuclidean")) for rows in tiles)
        return
    middle = np.median(B, axis=0).astype(np.float32) if len(B) else np.float32(0)
    moved = B - middle
    norms = np.vecdot(moved, moved)
    for rows in tiles:
        tile = A[rows] - middle
        squares = np.vecdot(tile, tile)[:, None] - 2 * (tile @ moved.T) + norms
        yield rows, np.maximum(squares, 0)


def _large(Z: Single) -> bool:
    return bool(np.abs(Z).max(initial=0, where=np.isfinite(Z)) > _LARGE)
