"""Exact PCA from moments, with no pass over the data; a randomised range finder where d x d is too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.moments import Moments
from streamclust.preprocessing import Affine

F8 = NDArray[np.float64]
_FAR = 1e36


@dataclass(frozen=True)
class Projection:
    """Scaler and PCA as one affine map from d features to p components.

    affine : the scaler.
    mean : (d,) mean of the rows in the source's units.
    components : (p, d) orthonormal rows, in scaled units.
    explained_variance : (p,) descending, of scaled data, with n - 1 in the denominator as scikit-learn has it.
    total_variance : of all d scaled columns.
    """

    affine: Affine
    mean: F8
    components: F8
    explained_variance: F8
    total_variance: float

    @property
    def explained_variance_ratio(self) -> F8:
        """(p,) fractions of the total variance; zeros where there is none."""
        return self.explained_variance / (self.total_variance or 1.0)


class Reduced(NamedTuple):
    """What one block becomes: ``rows`` (n, p) float32, and per row (n,) float32 in scaled units ..."""

    rows: NDArray[np.float32]
    norm: NDArray[np.float32]  # the row's distance from the mean
    residual: NDArray[np.float32]  # its reconstruction error, the part of ``norm`` outside the components


def fit_pca(moments: Moments, affine: Affine, keep: float) -> Projection:
    """All components of the scaled covariance by one symmetric eigendecomposition, cut to ``keep``.

    keep : a fraction of the variance in (0, 1], or a number of components >= 1 (an int).
    The result is that of a full SVD of the scaled rows up to the sign, which makes the largest loading positive.
    """
    from scipy.linalg import eigh

    if moments.scatter is None:
        msg = "moments without scatter: use find_range"
        raise ValueError(msg)
    degrees = max(moments.n - 1, 1)
    alive = moments.variance > 0
    inverse = np.where(alive, 1.0 / affine.scale, 0.0)
    covariance = moments.scatter * (inverse[:, None] / degrees)
    covariance *= inverse
    total = float(np.trace(covariance))
    if not np.isfinite(covariance).all():
        found, hint = "their covariance is not finite", "withdraw the batch with the extreme values, or ingest it anew"
        raise InputError("the moments of the rows", found, "values that float64 can square", hint)
    values, vectors = eigh(covariance, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    rank = min(len(values), degrees)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    p = _count(values, total, keep)
    return Projection(affine, moments.mean, _signed(vectors[:, :p].T), np.maximum(values[:p], 0.0), total)


def _count(values: F8, total: float, keep: float) -> int:
    real = max(1, int((values > total * len(values) * np.finfo(np.float64).eps).sum()))
    if isinstance(keep, int):
        return min(keep, real)
    return min(real, int(np.searchsorted(np.cumsum(values), keep * total * (1 - 1e-12))) + 1)


def _signed(components: F8) -> F8:
    largest = np.abs(components).argmax(axis=1)
    signs = np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)
    return np.ascontiguousarray(components * signs[:, None])


def transform(projection: Projection, X: NDArray[Any]) -> Reduced:
    """Scale and project ``X : (n, d)`` finite rows by one GEMM.

    The mean is taken off before the product, so that a common offset does not cancel in float32.
    """
    deviations = _deviations(projection, X)
    rows = deviations @ projection.components.astype(np.float32).T
    norm = np.einsum("ij,ij->i", deviations, deviations, dtype=np.float64)
    inside = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    residual = np.sqrt(np.maximum(norm - inside, 0.0))
    return Reduced(rows, np.sqrt(norm).astype(np.float32), residual.astype(np.float32))


def _deviations(projection: Projection, X: NDArray[Any]) -> NDArray[np.float32]:
    """``X`` less the mean in scaled units; at most 1e36, so that float32 holds the length of a row."""
    mean, scale = projection.mean, projection.affine.scale
    farthest = max(float(X.max(initial=0)), -float(X.min(initial=0))) + float(np.abs(mean).max())
    if farthest > _FAR * scale.min():
        return np.clip((X.astype(np.float64) - mean) / scale, -_FAR, _FAR).astype(np.float32)
    deviations = X.astype(np.float32) - mean.astype(np.float32)
    deviations /= scale.astype(np.float32)
    return deviations


def scaled(projection: Projection, X: NDArray[Any]) -> NDArray[Any]:
    """``X`` less the mean, in scaled units, as float64 where ``X`` is; what :func:`find_range` multiplies with."""
    dtype = np.float64 if X.dtype == np.float64 else np.float32
    return np.asarray((X.astype(dtype) - projection.mean.astype(dtype)) / projection.affine.scale.astype(dtype))


def range_block(projection: Projection, X: NDArray[Any], basis: NDArray[np.float32]) -> F8:
    """``X'(X B)`` of one block, (d, q) float64: additive over blocks."""
    Z = scaled(projection, X)
    return np.asarray(Z.T @ (Z @ basis), dtype=np.float64)


def find_range(
    multiply: Callable[[Projection, NDArray[np.float32]], F8], moments: Moments, affine: Affine, keep: float, seed: int
) -> Projection:
    """The leading components of a wide descriptor by block subspace iteration; never d x d.

    ``multiply(projection, basis)`` is the fold of :func:`range_block` over all rows. Starting from a random basis, the
    number of columns is doubled until they hold ``keep`` of the known trace (Halko, Martinsson and Tropp, "Finding
    structure with randomness", SIAM Review 2011, algorithms 4.2 and 4.4, with two power iterations at each width).
    """
    d, degrees = len(moments.mean), max(moments.n - 1, 1)
    alive = moments.variance > 0
    total = float((moments.variance * moments.n / degrees / affine.scale**2)[alive].sum())
    frame = Projection(affine, moments.mean, np.empty((0, d)), np.empty(0), total)
    most = max(1, min(d, degrees))
    rng = np.random.default_rng(seed)
    basis = np.empty((d, 0))
    width = min(most, keep + 16 if isinstance(keep, int) else 128)
    while True:
        basis = np.concatenate([basis, rng.standard_normal((d, width - basis.shape[1])) * alive[:, None]], axis=1)
        for _ in range(3):
            basis = np.linalg.qr(basis)[0]
            product = multiply(frame, basis.astype(np.float32)) / degrees
            values, inner = np.linalg.eigh(basis.T @ product)
            ritz, basis = basis @ inner[:, ::-1], product
        values = values[::-1]
        if width == most or isinstance(keep, int) or values.sum() >= keep * total:
            p = _count(np.maximum(values, 0.0), total, keep)
            return Projection(affine, moments.mean, _signed(ritz[:, :p].T), np.maximum(values[:p], 0.0), total)
        width = min(most, 2 * width)
