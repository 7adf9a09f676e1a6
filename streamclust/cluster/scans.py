"""One look at each distance of a tile: what is smallest in it, by row, by column, and by set of centres.

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
def lowest_near(
    Z: NDArray[np.float32],
    norms: NDArray[np.float32],
    ends: NDArray[np.int64],
    minus: NDArray[np.float32],
    half: NDArray[np.float32],
    choices: NDArray[np.int64],
    last: NDArray[np.int64],
    step: int,
    rounding: float,
    labels: NDArray[np.int32],
    sqdist: NDArray[np.float64],
    doubtful: NDArray[np.bool_],
) -> None:
    """As `lowest` of one set, for rows that stand in groups, each compared with centres of its own.

    Parameters
    ----------
    Z, norms, ends :
        (n, p) and (n,), the rows and their squares, and (g,), where each group of them ends.
    minus, half :
        (k, p) and (k,), ``-c`` and ``||c||^2 / 2`` of all centres.
    choices, last :
        which centres, ascending in each group and none empty, and (g,), where those of each group end.
    step :
        so many rows at a time.
    rounding, labels, sqdist, doubtful :
        as of `lowest`, the last three (n,).
    """
    for g in range(len(ends)):
        chosen = choices[last[g - 1] if g else 0 : last[g]]
        here = minus[chosen]
        for start in range(ends[g - 1] if g else 0, ends[g], step):
            n = min(step, ends[g] - start)
            scores = np.dot(here, Z[start : start + n].T)
            best, at = np.full(n, _INF, np.float32), np.zeros(n, np.int32)
            for c in range(len(chosen)):
                extra, number = half[chosen[c]], np.int32(chosen[c])
                for i in range(n):
                    score = scores[c, i] + extra
                    first = score < best[i]
                    best[i] = score if first else best[i]
                    at[i] = number if first else at[i]
            for i in range(n):
                square = max(norms[start + i] + np.float32(2) * best[i], np.float32(0))
                labels[start + i], sqdist[start + i] = at[i], square
                doubtful[start + i] |= square < rounding * (norms[start + i] + np.float32(2) * half[at[i]])


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
