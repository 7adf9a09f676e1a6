"""One look at each distance of a tile: what is smallest in it, by row and by column.

Minima of many are taken of the bits of the numbers, as integers of the same width: compilers vectorise minima of these
and not of floats. Negative numbers lie in the order of their bits once all but the sign are turned. Of equal distances
the first counts. None may be NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 64  # columns; of fewer, their minima take longer than what they save
_ZERO, _INF = np.float32(0), np.float32(np.inf)
_ABOVE = np.int32(2**31 - 1)


@compiled
def groups(
    squares: NDArray[np.float32],
    floor: np.float32,
    least: NDArray[np.float32],
    last: NDArray[np.float32],
    low: NDArray[np.float32],
    reach: NDArray[np.float32],
    hit: NDArray[np.int32],
) -> None:
    """What is smallest in each group of `GROUP` neighbouring columns, of each row of (n, m).

    Parameters
    ----------
    squares, floor :
        none counts as less than the floor.
    least, last :
        (m,), less than which none of a column counts for ``reach``, not negative, and less than which one is a hit.
    low, reach, hit :
        (n, groups): the smallest; the smallest by ``least``; whether there is a hit.
    """
    for i in range(len(squares)):
        for g in range(low.shape[1]):
            part = squares[i, g * GROUP : (g + 1) * GROUP]
            above, bound = least[g * GROUP : (g + 1) * GROUP], last[g * GROUP : (g + 1) * GROUP]
            first, second, below = _ABOVE, _ABOVE, np.int32(0)
            for j in range(len(part)):
                bits = np.float32(part[j]).view(np.int32)
                first = min(first, np.int32(bits ^ np.int32(np.int32(bits >> 31) & _ABOVE)))
                second = min(second, np.float32(max(part[j], above[j])).view(np.int32))
                below |= np.int32(part[j] < bound[j])
            low[i, g] = max(np.int32(first ^ (first >> 31 & _ABOVE)).view(np.float32), floor)
            reach[i, g], hit[i, g] = np.int32(second).view(np.float32), below


@compiled
def smallest(
    squares: NDArray[np.float32],
    floor: np.float32,
    low: NDArray[np.float32],
    values: NDArray[np.float32],
    columns: NDArray[np.int32],
) -> None:
    """The L smallest of each row of (n, m), ascending, and where they are, into (n, L) values and columns.

    L is at most m, and few: they are kept in order by insertion. Only groups are looked into whose ``low`` allows it.
    """
    count = values.shape[1]
    for i in range(len(squares)):
        best, where = values[i], columns[i]
        best[:] = _INF
        for g in range(low.shape[1]):
            if low[i, g] < best[count - 1]:
                at = count - 1
                while at > 0 and best[at - 1] > low[i, g]:
                    best[at] = best[at - 1]
                    at -= 1
                best[at] = low[i, g]
        bound = best[count - 1]  # as many as are sought do not exceed it
        best[:], where[:] = _INF, 0
        for g in range(low.shape[1]):
            if low[i, g] <= bound:
                part = squares[i, g * GROUP : (g + 1) * GROUP]
                for j in range(len(part)):
                    square = max(part[j], floor)
                    if square <= bound and square < best[count - 1]:
                        at = count - 1
                        while at > 0 and best[at - 1] > square:
                            best[at], where[at] = best[at - 1], where[at - 1]
                            at -= 1
                        best[at], where[at] = square, g * GROUP + j


@compiled
def closest(
    squares: NDArray[np.float32],
    least: NDArray[np.float32],
    reach: NDArray[np.float32],
    value: NDArray[np.float32],
    column: NDArray[np.int32],
) -> None:
    """The smallest of each row of (n, m), none less than its column's ``least``, and where it is: (n,) each.

    Looked for in the first group whose ``reach`` it is.
    """
    for i in range(len(squares)):
        g = np.argmin(reach[i])
        value[i], column[i] = reach[i, g], g * GROUP
        for j in range(g * GROUP, min((g + 1) * GROUP, squares.shape[1])):
            if max(squares[i, j], least[j]) == reach[i, g]:
                column[i] = j
                break


@compiled
def lower(
    squares: NDArray[np.float32], hit: NDArray[np.int32], last: NDArray[np.float32], state: NDArray[np.float32]
) -> None:
    """Take the distances of a tile's rows to m sampled rows, (n, m), into their (m, k) smallest, ascending.

    Only groups with a ``hit`` are looked into. ``last`` : (m,) is the k-th of each, in one piece.
    """
    k = state.shape[1]
    for i in range(len(squares)):
        for g in range(hit.shape[1]):
            if hit[i, g]:
                part, bound = squares[i, g * GROUP : (g + 1) * GROUP], last[g * GROUP : (g + 1) * GROUP]
                for j in range(len(part)):
                    if part[j] < bound[j]:
                        square, best, at = max(part[j], _ZERO), state[g * GROUP + j], k - 1
                        while at > 0 and best[at - 1] > square:
                            best[at] = best[at - 1]
                            at -= 1
                        best[at] = square
                        bound[j] = best[k - 1]


@compiled
def around(
    distance: NDArray[np.float32],
    radius: NDArray[np.float32],
    least: NDArray[np.float32],
    weight: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Over the columns within each row's radii: distances, none less than its column's ``least``, weights, and ones.

    Parameters
    ----------
    distance, radius :
        (n, m) and (n, K), the last radius the largest.
    least, weight :
        (K, m).
    sums :
        (n, K, 3).
    """
    n, m = distance.shape
    inside = np.empty(m, np.int32)
    for i in range(n):
        count = 0
        for j in range(m):
            inside[count] = j
            count += distance[i, j] <= radius[i, radius.shape[1] - 1]
        for q in range(radius.shape[1]):
            reach, weights, held = 0.0, 0.0, 0
            for at in range(count):
                j = inside[at]
                if distance[i, j] <= radius[i, q]:
                    reach += max(distance[i, j], least[q, j])
                    weights += weight[q, j]
                    held += 1
            sums[i, q, 0], sums[i, q, 1], sums[i, q, 2] = reach, weights, held
