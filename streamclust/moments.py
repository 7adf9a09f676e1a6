"""Mean, scatter and range of a descriptor, folded block by block in the rows' own precision and float64 sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]

_SMALL, _LARGE = 1e-15, 1e15  # spreads of a column whose products with others float32 holds


@dataclass(frozen=True)
class Moments:
    """Unfinished sums over the valid rows seen so far.

    n : number of rows.
    mean, m2, min, max : (d,) float64; ``m2`` is the sum of squared deviations from the mean.
    scatter : (d, d) float64, lower triangle of the sum of outer products of deviations; ``None`` where not kept.
    eps : the coarsest relative rounding among the rows, of float32 or float64.
    """

    n: int
    mean: F8
    m2: F8
    min: F8
    max: F8
    scatter: F8 | None
    eps: float = float(np.finfo(np.float32).eps)

    @property
    def variance(self) -> F8:
        """Population variance of each column, (d,); columns within rounding of constant have exactly 0.

        A float32 column of magnitude ``a`` cannot show a deviation below a few units of ``eps32 * a``.
        """
        variance = self.m2 / max(self.n, 1)
        largest = np.maximum(np.abs(self.min), np.abs(self.max)) if self.n else np.zeros_like(variance)
        noise = (8 * self.eps * largest) ** 2
        return np.where(variance <= noise, 0.0, variance)


def identity(d: int, *, scatter: bool) -> Moments:
    """The moments of no rows of ``d`` features."""
    zeros, most = np.zeros(d), np.full(d, np.inf)
    return Moments(0, zeros, zeros, most, -most, np.zeros((d, d)) if scatter else None, 0.0)


def from_block(X: NDArray[Any], *, scatter: bool) -> Moments:
    """Moments of a block ``X : (n, d)`` float16, float32 or float64 of finite rows."""
    return accumulate(identity(X.shape[1], scatter=scatter), X)


def accumulate(state: Moments, X: NDArray[Any]) -> Moments:
    """The moments of ``state``'s rows and of ``X : (n, d)``; reuses ``state.scatter``'s memory, for a fold's own state.

    Deviations are taken from the block's mean rounded as the rows are, so that no offset cancels, and corrected in
    float64. Only float64 rows are worked on in float64, and those whose squares float32 might not hold.
    """
    n = len(X)
    if n == 0:
        return state
    X = X.astype(np.float64 if X.dtype == np.float64 else np.float32, copy=False)
    eps, low, high = float(np.finfo(X.dtype).eps), X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
    spread = high - low
    if ((spread > _LARGE) | ((spread > 0) & (spread < _SMALL))).any():
        X = X.astype(np.float64, copy=False)
    mean = X.mean(axis=0, dtype=np.float64)
    center = mean.astype(X.dtype)
    deviations = X - center
    shift = mean - center
    squares = np.einsum("ij,ij->j", deviations, deviations, dtype=np.float64)
    block = Moments(
        n,
        mean,
        np.maximum(squares - n * shift**2, 0.0),
        low,
        high,
        None,
        eps,
    )
    gram = None if state.scatter is None else deviations.T @ deviations  # NumPy halves the work, without the lock
    return _join(state, block, gram, shift)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets of rows (Chan, Golub and LeVeque, "Updating formulae", 1979)."""
    if b.n == 0 or a.n == 0:
        return a if b.n == 0 else b
    scatter = None if a.scatter is None or b.scatter is None else a.scatter.copy()
    return _join(replace(a, scatter=scatter), b, b.scatter, np.zeros_like(b.mean))


def _join(a: Moments, b: Moments, products: NDArray[Any] | None, shift: F8) -> Moments:
    """Add to ``a``, in its own memory, block ``b`` whose ``products`` were taken ``shift`` away from its mean."""
    n = a.n + b.n
    delta = b.mean - a.mean
    weight = a.n * b.n / n
    if a.scatter is not None and products is not None:
        corrections = np.stack([-b.n * shift, weight * delta], axis=1), np.stack([shift, delta])
        for start in range(0, len(delta), 128):
            stop = start + 128
            part = a.scatter[start:stop, :stop]
            part += products[start:stop, :stop]
            part += corrections[0][start:stop] @ corrections[1][:, :stop]
    return Moments(
        n,
        a.mean + delta * (b.n / n),
        a.m2 + b.m2 + weight * delta**2,
        np.minimum(a.min, b.min),
        np.maximum(a.max, b.max),
        a.scatter,
        max(a.eps, b.eps),
    )


def pack(scatter: F8) -> F8:
    """The lower triangle of a symmetric (d, d) matrix as (d * (d + 1) / 2,)."""
    return np.concatenate([row[: i + 1] for i, row in enumerate(scatter)])


def unpack(packed: F8, d: int) -> F8:
    """The inverse of :func:`pack`, upper triangle zero."""
    scatter = np.zeros((d, d))
    end = 0
    for i in range(d):
        begin, end = end, end + i + 1
        scatter[i, : i + 1] = packed[begin:end]
    return scatter
