"""Nearest centres from products of tiles, and steps of k-means that look for them, in loops of one piece.

A tile's rows and products stay in the processor's cache, and a thread holds the interpreter only between its blocks.
Products are BLAS's, through numba. Of equal distances the first counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ZERO, _TWO, _INF = np.float32(0), np.float32(2), np.float32(np.inf)
_TILE = 256  # rows of a step that are looked at together


@compiled
def least(
    scores: NDArray[np.float32],
    half: NDArray[np.float32],
    both: bool,
    best: NDArray[np.float32],
    at: NDArray[np.int32],
) -> None:
    """The least of each column of ``scores + half``, (k, n) and (k,), and the next one if it is asked for.

    best, at : (2, n), the values, infinite where there is none, and their rows. Columns are the inner loop: however few
    centres a set has, the processor compares several rows of data at once.
    """
    n = scores.shape[1]
    best[:], at[:] = _INF, 0
    for c in range(len(scores)):
        row, extra, number = scores[c], half[c], np.int32(c)
        for i in range(n):
            score = row[i] + extra
            first = score < best[0, i]
            if both:
                second = score < best[1, i]
                best[1, i] = best[0, i] if first else score if second else best[1, i]
                at[1, i] = at[0, i] if first else number if second else at[1, i]
            best[0, i] = score if first else best[0, i]
            at[0, i] = number if first else at[0, i]


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
    """Per set of centres the lowest of ``scores + half`` of some of the rows, and the next one if it is asked for.

    Parameters
    ----------
    scores, half :
        (m, n) and (m,), ``-z.c`` and ``||c||^2 / 2``.
    ends :
        (s + 1,), where the sets begin and end, none empty; counted from anywhere.
    norms, start :
        (t,), ``||z||^2`` of all rows, and the first of the n that have scores here.
    rounding :
        the share of its terms up to which a squared distance is doubtful.
    both :
        whether the next one is wanted.
    labels, sqdist, doubtful :
        (s, t), (s, 2, t) and (t,): the lowest, counted from each set's beginning, the squared distances, and where
        rounding could have decided. The next distance stays as it is where there is none, as does what is not doubtful.
        Where a half is infinite, more may be doubtful.
    """
    n = scores.shape[1]
    best, at = np.empty((2, n), np.float32), np.empty((2, n), np.int32)
    for s in range(len(ends) - 1):
        low, high = ends[s] - ends[0], ends[s + 1] - ends[0]
        extra = half[low:high]
        least(scores[low:high], extra, both, best, at)
        for i in range(n):
            labels[s, start + i] = at[0, i]
        for rank in range(1 + (both and len(extra) > 1)):
            for i in range(n):
                norm = norms[start + i]
                square = max(norm + _TWO * best[rank, i], _ZERO)
                sqdist[s, rank, start + i] = square
                doubtful[start + i] |= square <= rounding * (norm + _TWO * extra[at[rank, i]])


@compiled
def lowest_of_sets(
    Z: NDArray[np.float32],
    minus: NDArray[np.float32],
    half: NDArray[np.float32],
    ends: NDArray[np.int64],
    parts: NDArray[np.int64],
    again: NDArray[np.int64],
    first: NDArray[np.int64],
    step: int,
    rounding: float,
    both: bool,
    norms: NDArray[np.float32],
    labels: NDArray[np.int32],
    sqdist: NDArray[np.float64],
    doubtful: NDArray[np.bool_],
) -> None:
    """`lowest` of rows and sets of centres whose products are taken here.

    Parameters
    ----------
    Z :
        (t, p), the rows.
    minus, half, ends :
        (m, p), (m,) and (s + 1,): ``-c`` and ``||c||^2 / 2`` of all sets, and where they begin and end.
    parts :
        which of the sets begin a product that they share, and s.
    again, first :
        which centres repeat an earlier one of their set, and which.
    step :
        so many rows at a time.
    norms :
        (t,), to be filled with ``||z||^2``.
    rounding, both, labels, sqdist, doubtful :
        as of `lowest`.
    """
    most = 0
    for g in range(len(parts) - 1):
        most = max(most, ends[parts[g + 1]] - ends[parts[g]])
    scratch = np.empty(most * min(step, len(Z)), np.float32)
    for start in range(0, len(Z), step):
        rows = Z[start : start + step]
        for i in range(len(rows)):
            norms[start + i] = np.dot(rows[i], rows[i])
        for g in range(len(parts) - 1):
            low, high = ends[parts[g]], ends[parts[g + 1]]
            scores = scratch[: (high - low) * len(rows)].reshape(high - low, len(rows))
            np.dot(minus[low:high], rows.T, scores)
            for r in range(len(again)):
                if low <= again[r] < high:
                    for i in range(len(rows)):
                        scores[again[r] - low, i] = scores[first[r] - low, i]
            a, b = parts[g], parts[g + 1]
            mine = ends[a : b + 1]
            lowest(scores, half[low:high], mine, norms, rounding, start, both, labels[a:b], sqdist[a:b], doubtful)


@compiled
def lowest_near(
    X: NDArray[np.float32],
    order: NDArray[np.int64],
    ends: NDArray[np.int64],
    origin: NDArray[np.float32],
    minus: NDArray[np.float32],
    half: NDArray[np.float32],
    choices: NDArray[np.int64],
    last: NDArray[np.int64],
    rounding: float,
    largest: float,
    labels: NDArray[np.int32],
    sqdist: NDArray[np.float64],
    doubtful: NDArray[np.bool_],
) -> None:
    """As `lowest` of one set, for rows in groups, each of which is compared with centres of its own.

    Parameters
    ----------
    X, order, ends :
        (n, p), the rows in the order of their groups, and (g,), where each group ends.
    origin, minus, half :
        (p,), (k, p) and (k,): what is taken from rows and centres, ``-c`` and ``||c||^2 / 2`` of all centres then.
    choices, last :
        which centres, ascending in each group and none empty, and (g,), where those of each group end.
    rounding, largest :
        as of `lowest`, and the ``||z||^2`` from which on a row is doubtful as well.
    labels, sqdist, doubtful :
        as of `lowest`, (n,) each; a row that is not doubtful is said to be so.
    """
    rows, norms = np.empty((_TILE, X.shape[1]), np.float32), np.empty(_TILE, np.float32)
    best, at = np.empty((2, _TILE), np.float32), np.empty((2, _TILE), np.int32)
    for g in range(len(ends)):
        chosen = choices[last[g - 1] if g else 0 : last[g]]
        here, extra = minus[chosen], half[chosen]
        for start in range(ends[g - 1] if g else 0, ends[g], _TILE):
            n = min(_TILE, ends[g] - start)
            for i in range(n):
                for j in range(len(origin)):
                    rows[i, j] = X[order[start + i], j] - origin[j]
                norms[i] = np.dot(rows[i], rows[i])
            least(np.dot(here, rows[:n].T), extra, False, best, at)
            for i in range(n):
                row, norm, found = order[start + i], norms[i], at[0, i]
                square = max(norm + _TWO * best[0, i], _ZERO)
                labels[row], sqdist[row] = chosen[found], square
                doubtful[row] = square <= rounding * (norm + _TWO * extra[found]) or not norm < largest


@compiled
def _closest(row: NDArray[np.float32], minus: NDArray[np.float32]) -> int:
    """The centre nearest to a row : (p,) by differences in float64, of minus themselves : (k, p)."""
    found, lowest_square = 0, np.inf
    for c in range(len(minus)):
        square = 0.0
        for j in range(len(row)):
            square += (np.float64(row[j]) + minus[c, j]) ** 2
        if square < lowest_square:
            found, lowest_square = c, square
    return found


@compiled
def walk(
    X: NDArray[np.float32],
    order: NDArray[np.int64],
    size: int,
    kept: NDArray[np.float64],
    origin: NDArray[np.float32],
    unit: np.float32,
    rounding: float,
    means: NDArray[np.float64],
) -> None:
    """Steps of minibatch k-means, each over the next rows of an order that begins anew at its end.

    Parameters
    ----------
    X, order, size :
        (n, p), which rows, and so many in each step.
    kept :
        (steps,), which share of the rows that the centres remember is remembered at each step.
    origin, unit :
        (p,), what is taken from rows, and what they are multiplied by then.
    rounding :
        as of `lowest`; what is doubtful is compared by differences.
    means :
        (k, p), the centres, so measured, which move; those that no row is near stay.
    """
    k, p = means.shape
    minus, half, ends, all_in_one = (
        np.empty((k, p), np.float32),
        np.empty(k, np.float32),
        np.array([0, k]),
        np.arange(2),
    )
    rows, norms, none = np.empty((size, p), np.float32), np.empty(size, np.float32), np.empty(0, np.int64)
    labels, sqdist, doubtful = np.empty((1, size), np.int32), np.empty((1, 2, size)), np.empty(size, np.bool_)
    counts, met, sums, about = np.zeros(k), np.zeros(k), np.zeros((k, p)), (minus, half, ends, all_in_one, none, none)
    for step in range(len(kept)):
        for c in range(k):
            for j in range(p):
                minus[c, j] = -means[c, j]
            half[c] = np.dot(minus[c], minus[c]) / _TWO
        for i in range(size):
            row = X[order[(step * size + i) % len(order)]]
            for j in range(p):
                rows[i, j] = (row[j] - origin[j]) * unit
        sums[:], met[:], doubtful[:] = 0, 0, False
        lowest_of_sets(rows, *about, _TILE, rounding, False, norms, labels, sqdist, doubtful)
        for i in range(size):
            label = _closest(rows[i], minus) if doubtful[i] else labels[0, i]
            met[label] += 1
            for j in range(p):
                sums[label, j] += rows[i, j]
        for c in range(k):
            counts[c] = kept[step] * counts[c] + met[c]
            if met[c] > 0:
                for j in range(p):
                    means[c, j] += (sums[c, j] - met[c] * means[c, j]) / counts[c]
