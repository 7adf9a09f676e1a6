"""One look at each distance of a tile: what is smallest in it, by row, by column, and by set of centres.

Minima of a row are taken of the bits of the numbers, above their column where that is sought: compilers vectorise
minima of integers, and not those of floats. Negative numbers lie in the order of their bits once all but the sign are
turned. Of equal distances the first counts. None may be NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUP = 32  # columns; of fewer, their minima take longer than what they save
_INF = np.float32(np.inf)
_ABOVE = np.int64(2**63 - 1)
_COLUMN = 0xFFFFFFFF


@compiled
def smallest(squares: NDArray[np.float32], values: NDArray[np.float32], columns: NDArray[np.int32]) -> None:
    """The L smallest of each row of (n, m), ascending, and where they are, into (n, L) values and columns.

    L is at most m, and few: they are kept in order by insertion.
    """
    (n, m), count = squares.shape, values.shape[1]
    low = np.empty(-(-m // _GROUP), np.float32)
    for i in range(n):
        best, where = values[i], columns[i]
        best[:] = _INF
        for g in range(len(low)):
            part = squares[i, g * _GROUP : (g + 1) * _GROUP]
            turned = _ABOVE
            for j in range(len(part)):
                bits = np.int64(np.float32(part[j]).view(np.int32))
                turned = min(turned, bits ^ (bits >> 31 & 0x7FFFFFFF))
            least = np.int32(turned ^ (turned >> 31 & 0x7FFFFFFF)).view(np.float32)
            low[g] = least
            if least < best[count - 1]:
                at = count - 1
                while at > 0 and best[at - 1] > least:
                    best[at] = best[at - 1]
                    at -= 1
                best[at] = least
        bound = best[count - 1]  # as many as are sought do not exceed it
        best[:], where[:] = _INF, 0
        for g in range(len(low)):
            if low[g] <= bound:
                part = squares[i, g * _GROUP : (g + 1) * _GROUP]
                for j in range(len(part)):
                    if part[j] < best[count - 1]:
                        at = count - 1
                        while at > 0 and best[at - 1] > part[j]:
                            best[at], where[at] = best[at - 1], where[at - 1]
                            at -= 1
                        best[at], where[at] = part[j], g * _GROUP + j


@compiled
def closest(
    squares: NDArray[np.float32], least: NDArray[np.float32], value: NDArray[np.float32], column: NDArray[np.int32]
) -> None:
    """The smallest of each row of (n, m), none less than its column's ``least``, and where it is: (n,) each.

    None is negative.
    """
    for i in range(len(squares)):
        row, first = squares[i], _ABOVE
        for j in range(len(row)):
            first = min(first, np.int64(np.float32(max(least[j], row[j])).view(np.int32)) << 32 | j)
        at = first & _COLUMN
        value[i], column[i] = max(least[at], row[at]), at


@compiled
def lower(state: NDArray[np.float32], squares: NDArray[np.float32]) -> None:
    """Take the distances of a tile's rows to m sampled rows, (n, m), into their (m, k) smallest, ascending."""
    (n, m), k = squares.shape, state.shape[1]
    last = state[:, k - 1].copy()
    for i in range(n):
        for start in range(0, m, _GROUP):
            part, bound = squares[i, start : start + _GROUP], last[start : start + _GROUP]
            below = 0
            for j in range(len(part)):
                below += part[j] < bound[j]
            if below:
                for j in range(len(part)):
                    if part[j] < bound[j]:
                        best, at = state[start + j], k - 1
                        while at > 0 and best[at - 1] > part[j]:
                            best[at] = best[at - 1]
                            at -= 1
                        best[at] = part[j]
                        bound[j] = best[k - 1]


@compiled
def lowest(
    scores: NDArray[np.float32],
    half: NDArray[np.float32],
    ends: NDArray[np.int64],
    norms: NDArray[np.float32],
    rounding: float,
    start: int,
    both: bool,
    labels: NDArray[np.int32],
    sqdist: NDArray[np.float64],
    doubtful: NDArray[np.bool_],
) -> None:
    """Per set of centres the lowest of ``scores + half`` of some rows of a tile, and the next one if it is asked for.

    Parameters
    ----------
    scores, half :
        (m, n) and (m,), ``-z.c`` and ``||c||^2 / 2``.
    ends :
        (s + 1,), where the sets begin and end, none empty.
    norms, start :
        (t,), ``||z||^2`` of the tile's rows, and the first of the n that have scores here.
    rounding :
        the share of its terms below which a squared distance is doubtful.
    both :
        whether the next one is wanted.
    labels, sqdist, doubtful :
        (s, t), (s, 2, t) and (t,): the lowest, counted from each set's beginning, the squared distances, and where
        rounding could have decided. The next distance stays as it is where there is none, as does what is not doubtful.

    Notes
    -----
    Rows are the inner loop: however few centres a set has, the processor compares several rows at once.
    """
    n = scores.shape[1]
    best, at = np.empty((2, n), np.float32), np.empty((2, n), np.int32)
    for s in range(len(ends) - 1):
        here, size = ends[s], ends[s + 1] - ends[s]
        best[:], at[:] = _INF, 0
        for c in range(size):
            row, extra, number = scores[here + c], half[here + c], np.int32(c)
            for i in range(n):
                score = row[i] + extra
                first = score < best[0, i]
                if both:
                    second = score < best[1, i]
                    best[1, i] = best[0, i] if first else score if second else best[1, i]
                    at[1, i] = at[0, i] if first else number if second else at[1, i]
                best[0, i] = score if first else best[0, i]
                at[0, i] = number if first else at[0, i]
        for i in range(n):
            labels[s, start + i] = at[0, i]
        for rank in range(1 + (both and size > 1)):
            for i in range(n):
                norm = norms[start + i]
                square = max(norm + np.float32(2) * best[rank, i], np.float32(0))
                sqdist[s, rank, start + i] = square
                doubtful[start + i] |= square < rounding * (norm + np.float32(2) * half[here + at[rank, i]])


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
