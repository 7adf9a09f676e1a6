"""The few sampled rows nearest to each row: verdicts are read from them, without a second look at all distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamclust.cluster import scans

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Nearest(NamedTuple):
    """Of n rows: squared distances (n, L) float32, ascending, and (n, L) int32 which sampled rows these are."""

    squares: NDArray[np.float32]
    columns: NDArray[np.int32]


class Reached(NamedTuple):
    """Of n rows: the smallest squared distance (n,) float32, none less than its column allows, and where (n,) int32."""

    squares: NDArray[np.float32]
    columns: NDArray[np.int32]


def nearest(squares: NDArray[np.float32], count: int) -> Nearest:
    """The ``count`` smallest of each row of (n, m) squared distances, or all m; the first of equal ones."""
    return compare(squares, count, np.zeros(squares.shape[1], np.float32), floor=-np.inf)[0]


def compare(
    squares: NDArray[np.float32],
    count: int,
    least: NDArray[np.float32],
    state: NDArray[np.float32] | None = None,
    *,
    floor: float = 0.0,
) -> tuple[Nearest, Reached]:
    """All that is sought among the squared distances of rows to m sampled ones, in one look at them.

    Parameters
    ----------
    squares, floor :
        (n, m); none counts as less than the floor, as what rounding made negative must not.
    count :
        how many of the smallest of each row are wanted.
    least :
        (m,), not negative, less than which no distance to a sampled row counts as reached.
    state :
        (m, k), ascending, the smallest distances to each sampled row so far; these are taken into them.
    """
    n, m = squares.shape
    near = Nearest(np.empty((n, min(count, m)), np.float32), np.empty((n, min(count, m)), np.int32))
    reached = Reached(np.empty(n, np.float32), np.empty(n, np.int32))
    if m:
        last = np.full(m, -np.inf, np.float32) if state is None else state[:, -1].copy()
        low, reach = (np.empty((n, -(-m // scans.GROUP)), np.float32) for _ in range(2))
        hit = np.empty(low.shape, np.int32)
        scans.groups(squares, np.float32(floor), least, last, low, reach, hit)
        scans.closest(squares, least, reach, *reached)
        if count:
            scans.smallest(squares, np.float32(floor), low, *near)
        if state is not None:
            scans.lower(squares, hit, last, state)
    return near, reached
