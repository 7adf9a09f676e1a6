"""Squared distances by one product, tile by tile, and what the rows are centred on before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SCRATCH = 8 * 2**20  # bytes of one tile's distances; up to four such arrays live at a time


def middle(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """The median of some points, which one absurd row cannot move as it would the mean."""
    return np.median(points[:1024], axis=0).astype(np.float64)


def centred(X: NDArray[np.float32], centre: NDArray[np.float64]) -> NDArray[np.float32]:
    """Subtracted in float64: under a common offset float32 distances would cancel."""
    shifted: NDArray[np.float32] = np.clip(X - centre, -1e15, 1e15).astype(np.float32)
    return shifted


def tiles(n: int, columns: int, most: int = 1024) -> Iterator[slice]:
    """Slices of at most ``most`` rows whose distances to ``columns`` points stay within the scratch bytes."""
    rows = max(1, min(most, _SCRATCH // (4 * max(columns, 1))))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def position(sorted_ids: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each id stands among the sorted ones, or -1."""
    at = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return np.where(sorted_ids[at] == ids, at, -1)


def lifted(A: NDArray[np.float32]) -> NDArray[np.float32]:
    """(a, p + 2): rows whose product with those of :func:`lowered` is their squared distance, with no pass after it."""
    return np.column_stack([A, np.vecdot(A, A), np.ones(len(A), np.float32)])


def lowered(B: NDArray[np.float32]) -> NDArray[np.float32]:
    """(b, p + 2): the other side of the product."""
    return np.column_stack([-2 * B, np.ones(len(B), np.float32), np.vecdot(B, B)])


def products(
    A: NDArray[np.float32], B: NDArray[np.float32], own: NDArray[np.int64], to_oneself: float = 0.0
) -> NDArray[np.float32]:
    """(a, b) float32 squared distances of rows A, `lifted`, and B, `lowered`, some of which rounding made negative.

    ``own`` (a,) names the column that is the same row (or -1), which gets ``to_oneself``.
    """
    squares: NDArray[np.float32] = A @ B.T
    inside = np.flatnonzero(own >= 0)
    squares[inside, own[inside]] = to_oneself
    return squares


def squared_distances(
    A: NDArray[np.float32], B: NDArray[np.float32], own: NDArray[np.int64], to_oneself: float = 0.0
) -> NDArray[np.float32]:
    """The same, none negative."""
    squares = products(A, B, own, to_oneself)
    np.maximum(squares, 0, out=squares)
    return squares


def among(
    S: NDArray[np.float32], to_oneself: float = 0.0, most: int = 1024
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Squared distances of some rows of S : (m, p) to all of them, tile by tile."""
    left, right = lifted(S), lowered(S)
    for tile in tiles(len(S), len(S), most):
        yield tile, squared_distances(left[tile], right, np.arange(tile.start, tile.stop), to_oneself)
