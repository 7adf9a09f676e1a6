"""The few sampled rows nearest to each row: verdicts are read from them, without a second look at all distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUPS = 32  # per neighbour sought: the smallest of one group seldom hides another

_MANY = 2**18  # places at a time; only of rows with thousands of twins are there so many


class Nearest(NamedTuple):
    """Of n rows: squared distances (n, L) float32, ascending, and (n, L) int32 which sampled rows these are."""

    squares: NDArray[np.float32]
    columns: NDArray[np.int32]


def nearest(squares: NDArray[np.float32], count: int) -> Nearest:
    """The ``count`` smallest of each row of (n, m) squared distances, or all m; the first of equal ones.

    Columns are folded until few are left. As many of these as are sought lie within a bound, and all that are sought
    lie within it: two passes of comparing, several times faster than a partition.
    """
    n, m = squares.shape
    count = min(count, m)
    found = np.flatnonzero(squares <= _bound(squares, count)[:, None])
    if len(found) > _MANY and n > 1:
        step = max(1, n * _MANY // len(found))
        parts = [nearest(squares[start : start + step], count) for start in range(0, n, step)]
        return Nearest(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    row, column = np.divmod(found, m)
    first = np.searchsorted(row, np.arange(n))
    place = np.arange(len(row)) - first[row]
    values = np.full((n, place.max(initial=count - 1) + 1), np.inf, np.float32)
    columns = np.zeros(values.shape, np.int32)
    values[row, place], columns[row, place] = squares[row, column], column
    order = np.argsort(values, axis=1, kind="stable")[:, :count]
    return Nearest(np.take_along_axis(values, order, 1), np.take_along_axis(columns, order, 1))


def _bound(squares: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(n,): a value that at least ``count`` of each row do not exceed."""
    low = squares
    while (half := low.shape[1] // 2) >= _GROUPS * count // 2 and half >= count:
        low = np.minimum(low[:, :half], low[:, half : 2 * half])
    smallest: NDArray[np.float32] = np.sort(low, axis=1)[:, count - 1]
    return smallest
