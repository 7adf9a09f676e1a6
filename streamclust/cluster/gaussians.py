"""Log densities and weighted sums of Gaussian components over a block, tile by tile: never (n, k) in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import origin_of
from streamclust.errors import InputError

CovarianceType = Literal["full", "tied", "diag", "spherical"]
Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

_TILE_NUMBERS = 2**16  # a tile (rows, max(k, p)) in float64 stays in the second-level cache
_UNSEEN = 1e-50  # a component's responsibilities add up to 1e-15 at least in the M-step: less changes no sum


def tiles(Z: Float, centers: Float) -> Iterator[tuple[slice, Doubles]]:
    """Walk over Z in float64 about the centres' origin; the next tile overwrites the last."""
    step = min(2048, max(32, _TILE_NUMBERS // max(centers.shape)))
    origin, buffer = origin_of(centers), np.empty((min(len(Z), step), Z.shape[1]))
    for start in range(0, len(Z), step):
        rows = slice(start, min(start + step, len(Z)))
        yield rows, np.subtract(Z[rows], origin, out=buffer[: rows.stop - start], dtype=np.float64)


class Components:
    """Weights : (k,), means : (k, p) and factors of the precisions made ready for many tiles; see `Mixture`."""

    def __init__(self, kind: CovarianceType, weights: Doubles, means: Doubles, factors: Doubles) -> None:
        p = means.shape[1]
        self.factors, self.moved = factors, means - origin_of(means)
        self.full, self.tied, self.diag = (kind == name for name in ("full", "tied", "diag"))
        roots = np.einsum("...ii->...i", factors) if self.full or self.tied else factors
        log_det = p * np.log(roots) if kind == "spherical" else np.log(roots).sum(axis=-1)
        with np.errstate(divide="ignore"):  # a weight of 0
            self.constant = np.log(weights) + log_det - p / 2 * np.log(2 * np.pi)
        if not self.full:
            e = self.moved @ factors if self.tied else self.moved
            precisions = np.ones((len(e), 1)) if self.tied else np.square(factors).reshape(len(e), -1)
            self.constant = self.constant - (precisions * e**2).sum(axis=1) / 2
            self.linear, self.quadratic = precisions * e, -precisions / 2

    def log_joint(self, tile: Doubles) -> Doubles:
        """Log of weight times density of every component at a tile's m rows : (k, m)."""
        if self.full:
            joint = self._mahalanobis(tile)
            joint *= -0.5
            joint += self.constant[:, None]
            return joint
        Y = tile @ self.factors if self.tied else tile  # tied is spherical after whitening
        joint = np.asarray(self.linear @ Y.T, np.float64)
        joint += self.quadratic @ _squares(Y, per_feature=self.diag).T
        joint += self.constant[:, None]
        return joint

    def _mahalanobis(self, tile: Doubles) -> Doubles:
        """Squared Mahalanobis distances to every component : (k, m)."""
        from scipy.linalg.blas import dtrmm

        squares, buffer = np.empty((len(self.moved), len(tile))), np.empty_like(tile)
        for c, (e, factor) in enumerate(zip(self.moved, self.factors, strict=True)):
            np.subtract(tile, e, out=buffer)
            # Fortran order is the transpose without a copy, and the triangle half the arithmetic of a GEMM.
            white = dtrmm(1.0, factor.T, buffer.T, lower=1, overwrite_b=1)
            np.vecdot(white.T, white.T, out=squares[c])
        return squares


def normalise(joint: Doubles) -> tuple[Doubles, Doubles]:
    """Log densities : (m,) and, in the memory of joint : (k, m), responsibilities."""
    top = joint.max(axis=0)
    joint -= top
    np.exp(joint, out=joint)
    total = joint.sum(axis=0)
    joint /= total
    return top + np.log(total), joint


class Sums:
    """Sums of a block under way: full ones about each centre, the others about one origin until `about_centers`."""

    def __init__(self, kind: CovarianceType, centers: Doubles) -> None:
        k, p = centers.shape
        self.kind, self.centers, self.moved = kind, centers, centers - origin_of(centers)
        self.responsibilities, self.first = np.zeros(k), np.zeros((k, p))
        self.second = np.zeros({"full": (k, p, p), "tied": (p, p), "diag": (k, p), "spherical": (k, 1)}[kind])

    def add(self, tile: Doubles, responsibilities: Doubles) -> None:
        """Add a tile's m rows under responsibilities : (k, m), which sum to 1 for each row."""
        self.responsibilities += responsibilities.sum(axis=1)
        if self.kind == "full":
            self._add_full(tile, responsibilities)
            return
        self.first += responsibilities @ tile
        if self.kind == "tied":
            self.second += tile.T @ tile
        else:
            self.second += responsibilities @ _squares(tile, per_feature=self.kind == "diag")

    def _add_full(self, tile: Doubles, responsibilities: Doubles) -> None:
        for c, share in enumerate(responsibilities):
            rows = np.flatnonzero(share > _UNSEEN)
            if len(rows):
                root, deviation = np.sqrt(share[rows]), tile[rows]
                deviation -= self.moved[c]
                deviation *= root[:, None]
                self.first[c] += root @ deviation
                self.second[c] += deviation.T @ deviation

    def about_centers(self) -> tuple[Doubles, Doubles]:
        """First and second moments about the centres (Huygens' theorem); see `MixtureState`."""
        if self.kind == "full":
            return self.first, self.second
        e, first = self.moved, self.first - self.responsibilities[:, None] * self.moved
        if self.kind == "tied":
            return first, self.second - e.T @ self.first - first.T @ e
        lever = e * (self.first + first)
        return first, self.second - lever if self.kind == "diag" else self.second[:, 0] - lever.sum(axis=1)


def _squares(Y: Doubles, *, per_feature: bool) -> Doubles:
    """Squares of every feature : (m, p), or of the rows' norms : (m, 1)."""
    return np.square(Y) if per_feature else np.vecdot(Y, Y)[:, None]


def precisions_cholesky(kind: CovarianceType, covariances: Doubles, k: int) -> Doubles:
    """Factors of the inverses of k components' covariances, or InputError; see `Mixture`."""
    if kind in {"full", "tied"}:
        p = covariances.shape[-1]
        matrices = covariances.reshape(-1, p, p)
        factors = np.stack([_inverse_factor(matrix) for matrix in matrices]).reshape(covariances.shape)
        bad = np.flatnonzero(~np.isfinite(factors).reshape(len(matrices), -1).all(axis=1))
    else:
        bad = np.flatnonzero(~(covariances > 0).reshape(k, -1).all(axis=1))
        factors = 1 / np.sqrt(np.where(covariances > 0, covariances, 1))
    if len(bad):
        raise InputError(
            "the covariance of all components" if kind == "tied" else f"component {bad[0]} of {k} (from 0)",
            f"its {kind} covariance is not positive definite in float64",
            "a variance above rounding in every direction",
            "raise reg_covar, or take fewer components of the mixture or of the PCA",
        )
    return factors


def _inverse_factor(matrix: Doubles) -> Doubles:
    """Upper triangular U, U U' the inverse of a symmetric matrix : (p, p); NaN where it is not positive definite."""
    from scipy.linalg import LinAlgError, solve_triangular

    try:
        lower = np.linalg.cholesky(matrix)
        return np.asarray(solve_triangular(lower, np.eye(len(matrix)), lower=True, check_finite=False).T, np.float64)
    except LinAlgError:
        return np.full_like(matrix, np.nan)
