"""What mutual information chance alone gives: its mean over random tables with given margins, in few terms a cell.

A cell of such a table is hypergeometric. Of ``x log(x / mean)`` the mean is that of ``x log(x / mean) - x + mean``,
none of whose terms is negative, so that nothing cancels.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.compiled import compiled

Doubles = NDArray[np.float64]

_OUTSIDE = 40.0  # less than 2 exp(-40) of a cell's law lies beyond its reach
_STIRLING = 16.0  # from which on three terms of its series give every digit


def expected_mutual_info(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]) -> float:
    """Mean mutual information in nats of all tables with these margins : (r,) and (c,), positive, of one sum.

    Where a cell's law is wide and ends far away only every h-th of its terms is taken, h half its deviation: the sum
    over such a lattice differs from the whole by the law's characteristic function at 2 pi / h, which is below 1e-30.
    The reach is Bernstein's. Source: Vinh, Epps and Bailey, JMLR 11 (2010) 2837-2854.
    """
    n = float(rows.sum())
    (a, times_a), (b, times_b) = (np.unique(margin, return_counts=True) for margin in (rows, columns))
    a, b = (cells.ravel().astype(np.float64) for cells in np.meshgrid(a, b, indexing="ij"))
    mean = a * b / n
    variance = mean * (1 - a / n) * (1 - b / n) * n / max(n - 1, 1)
    reach = _OUTSIDE / 3 + np.sqrt((_OUTSIDE / 3) ** 2 + 2 * _OUTSIDE * variance)
    step = np.maximum(np.floor(np.sqrt(variance) / 2), 1)
    room = np.minimum(mean - np.maximum(0, a + b - n), np.minimum(a, b) - mean)
    wide = (room > reach + step + _STIRLING) & (step > 1)
    found = np.empty(len(a))
    found[wide] = _wide(a[wide], b[wide], n, reach[wide], step[wide])
    found[~wide] = _narrow(a[~wide], b[~wide], n, reach[~wide])
    return float(np.multiply.outer(times_a, times_b).ravel() @ found) / n


@compiled
def _narrow(rows: Doubles, columns: Doubles, n: float, reaches: Doubles) -> Doubles:
    """Of each cell the mean of ``x log(x / mean) - x + mean``, by quotients of neighbours from the middle on."""
    found = np.empty(len(rows))
    for i in range(len(rows)):
        a, b, reach = rows[i], columns[i], reaches[i]
        rest, mean = n - a - b, a * b / n
        middle = np.floor(mean + 0.5)
        x, weight, weights, terms = middle, 1.0, 0.0, 0.0
        while x <= mean + reach and weight > 0:  # it is 0 beyond an end
            weights += weight
            terms += weight * ((x * log(x / mean) if x > 0 else 0.0) - x + mean)
            weight *= (a - x) * (b - x) / ((x + 1) * (rest + x + 1))
            x += 1
        x, weight = middle, 1.0
        while x >= mean - reach and weight > 0:
            weight *= x * (rest + x) / ((a - x + 1) * (b - x + 1))
            x -= 1
            weights += weight
            terms += weight * ((x * log(x / mean) if x > 0 else 0.0) - x + mean)
        found[i] = terms / weights
    return found


@compiled
def _wide(rows: Doubles, columns: Doubles, n: float, reaches: Doubles, steps: Doubles) -> Doubles:
    """The same by every so many of the terms, with logarithms of factorials by Stirling's series."""
    found = np.empty(len(rows))
    for i in range(len(rows)):
        a, b, step = rows[i], columns[i], steps[i]
        rest, mean = n - a - b, a * b / n
        middle, each = np.floor(mean + 0.5), int(reaches[i] / step)
        weights, terms, peak = 0.0, 0.0, 0.0
        for t in range(-1, 2 * each + 1):
            x = middle + (t - each) * step if t >= 0 else middle
            law = 0.0
            for y in (x, a - x, b - x, rest + x):
                square = 1 / (y * y)
                law -= (y + 0.5) * log(y) - y + (1 / 12 - square * (1 / 360 - square / 1260)) / y
            if t < 0:
                peak = law
                continue
            weight = exp(law - peak)
            weights += weight
            terms += weight * (x * log(x / mean) - x + mean)
        found[i] = terms / weights
    return found
