"""One look at each distance of a tile: what is smallest in it, by row, by column, and by set of centres.

Minima of groups of columns are vectorised and say which few groups are worth a closer look. Of equal distances the
first counts. None may be NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUP = 32  # columns; of fewer, their minima take longer than what they save
_INF = np.float32(np.inf)


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
            least = _INF
            for j in range(len(part)):
                if part[j] < least:  # noqa: PLR1730 - with min() it takes three times as long
                    least = part[j]
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
    """The smallest of each row of (n, m), none less than its column's ``least``, and where it is: (n,) each."""
    n, m = squares.shape
    for i in range(n):
        best, at = _INF, 0
        for start in range(0, m, _GROUP):
            part, bound = squares[i, start : start + _GROUP], least[start : start + _GROUP]
            low = _INF
            for j in range(len(part)):
                larger = max(bound[j], part[j])
                low = min(low, larger)
            if low < best:
                for j in range(len(part)):
                    larger = max(bound[j], part[j])
                    if larger < best:
                        best, at = larger, start + j
        value[i], column[i] = best, at


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
    more: NDArray[np.float32],
    ends: NDArray[np.int64],
    labels: NDArray[np.int32],
    best: NDArray[np.float32],
    both: bool,
) -> None:
    """Per set of columns the lowest of ``scores + more`` in each row, and the next one if ``both`` are asked for.

    Parameters
    ----------
    scores, more :
        (n, m) and (m,).
    ends :
        (s + 1,), where the sets begin and end.
    both :
        whether the next one is wanted.
    labels, best :
        (n, s, 2), counted from each set's beginning; the next stays as it is where there is none.
    """
    for i in range(len(scores)):
        for s in range(len(ends) - 1):
            first = second = _INF
            at = after = ends[s]
            for start in range(ends[s], ends[s + 1], _GROUP):
                stop = min(start + _GROUP, ends[s + 1])
                part, extra = scores[i, start:stop], more[start:stop]
                low = _INF
                for j in range(len(part)):
                    low = min(low, part[j] + extra[j])
                if low < second:
                    for j in range(len(part)):
                        score = part[j] + extra[j]
                        if score < first:
                            second, after = first, at
                            first, at = score, start + j
                        elif score < second:
                            second, after = score, start + j
            best[i, s, 0], labels[i, s, 0] = first, at - ends[s]
            if both and ends[s + 1] - ends[s] > 1:
                best[i, s, 1], labels[i, s, 1] = second, after - ends[s]


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
