"""Additive counts: contingency tables and what they say of two labelings, alignment of rows, density grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.chance import expected_mutual_info

Labels = NDArray[np.integer[Any]]
Table = NDArray[np.int64]
Doubles = NDArray[np.float64]

SHIFTS = (-3, -2, -1, 0, 1, 2, 3)
STANDS_OUT = 5.0  # times the largest of six draws of chance
NEAR_ZERO = 0.01
FEW_ROWS = 100


def contingency_block(a: Labels, b: Labels, ka: int, kb: int) -> Table:
    """How many rows carry each pair of labels a, b : (n,): (ka, kb) int64, additive. Negative labels are left out."""
    both = (a >= 0) & (b >= 0)
    pair = a[both].astype(np.int64) * kb + b[both]
    return np.bincount(pair, minlength=ka * kb).reshape(ka, kb).astype(np.int64)


def adjusted_rand(C: Table) -> float:
    """Adjusted Rand index of a contingency table : (ka, kb), as ``sklearn.metrics.adjusted_rand_score``.

    Source: Hubert and Arabie, "Comparing partitions", J. Classification 2 (1985) 193-218.
    """
    n, same = float(C.sum()), _pairs(C)
    rows, columns = _pairs(C.sum(axis=1)), _pairs(C.sum(axis=0))
    if rows == same == columns:
        return 1.0
    chance = rows * columns / (n * (n - 1) / 2)
    return (same - chance) / ((rows + columns) / 2 - chance)


def adjusted_mutual_info(C: Table) -> float:
    """Mutual information beyond chance, as ``sklearn.metrics.adjusted_mutual_info_score`` (mean of both entropies).

    What it costs does not grow with the rows. Source: Vinh, Epps and Bailey, JMLR 11 (2010) 2837-2854.
    """
    C = _occupied(C)
    if C.shape[0] == C.shape[1] == np.count_nonzero(C):
        return 1.0  # the same labels under other names; with one row each the quotient would be 0 / 0
    if min(C.shape) == 1:
        return 0.0
    expected = expected_mutual_info(C.sum(axis=1), C.sum(axis=0))
    ceiling = (_entropy(C.sum(axis=1)) + _entropy(C.sum(axis=0))) / 2
    return (_mutual_info(C) - expected) / (ceiling - expected)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Whether two labelings describe the same rows.

    Attributes
    ----------
    aligned : the agreement is not near zero, and no shift agrees better than none.
    shift : b's row ``i + shift`` is what agrees best with a's row ``i``.
    agreement : shift -> adjusted Rand index.
    sentence : the verdict with its numbers.
    """

    aligned: bool
    shift: int
    agreement: dict[int, float]
    sentence: str


def shift_block(a: Labels, b: Labels, ka: int, kb: int, shifts: Sequence[int] = SHIFTS) -> Table:
    """Contingency of a[i] and b[i + shift] inside a block, per shift : (len(shifts), ka, kb) int64, additive."""
    n = len(a)
    parts = [(slice(max(0, -s), max(0, n - max(0, s))), slice(max(0, s), max(0, n + min(0, s)))) for s in shifts]
    return np.stack([contingency_block(a[i], b[j], ka, kb) for i, j in parts])


def alignment_verdict(tables: Table, shifts: Sequence[int] = SHIFTS) -> Alignment:
    """What the tables of `shift_block` say: aligned, shifted, or no agreement at all.

    Neighbouring rows are often alike, so a shifted pair still agrees: what counts is where the agreement is highest.
    "Near zero" is an adjusted Rand index below 0.01, unless it stands out from the shifted ones, whose spread is what
    chance gives: descriptors of independent properties agree little, but only row by row. Fewer than 100 rows cannot
    tell and count as aligned.
    """
    agreement = {s: adjusted_rand(table) for s, table in zip(shifts, tables, strict=True)}
    best = max(agreement, key=lambda s: (agreement[s], -abs(s)))
    other = max((v for s, v in agreement.items() if s), default=0.0)
    here = agreement[0]
    rows = int(tables[list(shifts).index(0)].sum())
    if rows < FEW_ROWS:
        return Alignment(True, 0, agreement, f"too few rows ({rows}) to tell whether they are aligned")
    numbers = (
        f"adjusted Rand index {here:z.3f} row by row, at most {other:z.3f} with rows shifted by up to {max(shifts)}"
    )
    chance = max((abs(v) for s, v in agreement.items() if s != best), default=0.0)
    near_zero = agreement[best] < min(NEAR_ZERO, STANDS_OUT * chance)
    if near_zero:
        sentence = f"rows do not seem to be the same images: near-zero agreement ({numbers})"
    elif best:
        sentence = f"rows seem shifted by {best:+d}: agreement is highest there ({numbers})"
    else:
        sentence = f"rows are aligned ({numbers})"
    return Alignment(best == 0 and not near_zero, best, agreement, sentence)


def grid_block(
    x: NDArray[np.floating[Any]],
    y: NDArray[np.floating[Any]],
    category: Labels | None,
    extent: tuple[float, float, float, float],
    size: tuple[int, int] | tuple[int, int, int],
) -> NDArray[np.uint32]:
    """Count points per cell of a grid; grids of the same extent and size add up.

    Parameters
    ----------
    x, y : (n,)
        Places. Those outside the extent or NaN are left out; the upper edges belong to the last cells.
    category : (n,) int or None
        Layer of each point, 0 .. C - 1; negative ones are left out.
    extent : (x_min, x_max, y_min, y_max)
        In the units of x and y.
    size : (H, W), or (H, W, C) with categories
        Cells.

    Returns
    -------
    uint32 of that size; row 0 is the lowest y.
    """
    height, width = size[:2]
    x_min, x_max, y_min, y_max = extent
    cell = _cell(y, y_min, y_max, height) * width + _cell(x, x_min, x_max, width)
    inside = (x >= x_min) & (x <= x_max) & (y >= y_min) & (y <= y_max)
    if category is not None:
        layers = size[-1]
        inside &= category >= 0
        cell = cell * layers + category
    if not inside.all():
        cell = cell[inside]
    grid = np.zeros(size, np.uint32)
    np.add.at(grid.reshape(-1), cell, np.uint32(1))
    return grid


def _cell(v: NDArray[np.floating[Any]], low: float, high: float, cells: int) -> NDArray[np.int64]:
    scale = cells / (high - low) if high > low else 0.0
    with np.errstate(invalid="ignore"):
        return np.clip((v.astype(np.float64) - low) * scale, 0, cells - 1).astype(np.int64)


def _pairs(counts: Table) -> float:
    """Pairs of rows that share a cell; exact up to 3e9 rows in a cell."""
    return float((counts.astype(np.int64) * (counts.astype(np.int64) - 1) // 2).sum())


def _occupied(C: Table) -> Table:
    return C[np.ix_(C.sum(axis=1) > 0, C.sum(axis=0) > 0)]


def _entropy(counts: Table) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def _mutual_info(C: Table) -> float:
    """Mutual information in nats of a table without empty rows or columns; never negative."""
    i, j = np.nonzero(C)
    share = C[i, j] / C.sum()
    surprise = np.log(share) - np.log(C.sum(axis=1) / C.sum())[i] - np.log(C.sum(axis=0) / C.sum())[j]
    return max(0.0, float((share * surprise).sum()))
