"""A Gaussian mixture fitted by EM over blocks: every E-step is a fold of sums that merge.

Dempster, Laird and Rubin, J. Royal Statistical Society B 39 (1977) 1-38; Bishop, Pattern Recognition and Machine
Learning (2006), chapter 9. Parameters, M-step and convergence are those of scikit-learn's GaussianMixture.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.gaussians import Components, CovarianceType, Sums, normalise, precisions_cholesky, tiles

__all__ = ["CovarianceType", "Mixture", "MixtureResult", "MixtureState", "em", "identity"]
__all__ += ["labelled_block", "log_density", "maximise", "merge", "mixture_block", "posterior", "responsibilities"]

Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Labels = NDArray[np.int32]
Key = TypeVar("Key", bound=Hashable)

_PRIOR = 10 * np.finfo(np.float64).eps  # scikit-learn's addition to every component's responsibilities


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """k Gaussian components of p features; `Mixture.of` derives the factors.

    Attributes
    ----------
    weights : (k,) float64, sum 1. means : (k, p) float64.
    covariances, precisions_cholesky : float64, (k, p, p) full, (p, p) tied, (k, p) diag, (k,) spherical. The factors
        as scikit-learn's: upper triangular U with U U' the inverse covariance, or 1 / standard deviation.
    """

    covariance_type: CovarianceType
    weights: Doubles
    means: Doubles
    covariances: Doubles
    precisions_cholesky: Doubles

    @classmethod
    def of(cls, covariance_type: CovarianceType, weights: Float, means: Float, covariances: Float) -> Mixture:
        """The mixture of these parameters.

        Raises
        ------
        InputError
            Where a covariance is not positive definite in float64.
        """
        w, m, c = (np.ascontiguousarray(a, np.float64) for a in (weights, means, covariances))
        return cls(covariance_type, w, m, c, precisions_cholesky(covariance_type, c, len(w)))

    @property
    def n_parameters(self) -> int:
        """How many parameters are free."""
        k, p = self.means.shape
        per_matrix = p * (p + 1) // 2
        free = {"full": k * per_matrix, "tied": per_matrix, "diag": k * p, "spherical": k}[self.covariance_type]
        return int(free + k * p + k - 1)

    @property
    def largest_first(self) -> Mixture:
        """The same mixture, its components ordered by weight."""
        order = np.argsort(-self.weights, kind="stable")
        ordered = replace(self, weights=self.weights[order], means=self.means[order])
        if self.covariance_type == "tied":
            return ordered
        factors = self.precisions_cholesky[order]
        return replace(ordered, covariances=self.covariances[order], precisions_cholesky=factors)


@dataclass(frozen=True, slots=True, eq=False)
class MixtureState:
    """Unfinished sums of one E-step, about a fixed centre c per component so that no offset of the data cancels.

    Attributes
    ----------
    centers : (k, p) float64. n : rows. log_likelihood : sum of the rows' log densities.
    responsibilities : (k,) float64, sums of r. first : (k, p) float64, of ``r (x - c)``.
    second : float64, of r times the outer products of ``x - c`` : (k, p, p) full, (p, p) over all components tied, or
        of its squares : (k, p) diag, (k,) over all features spherical.
    """

    covariance_type: CovarianceType
    centers: Doubles
    n: int
    log_likelihood: float
    responsibilities: Doubles
    first: Doubles
    second: Doubles

    @property
    def mean_log_likelihood(self) -> float:
        """Mean log density of a row; 0 without rows."""
        return self.log_likelihood / max(self.n, 1)


@dataclass(frozen=True, slots=True, eq=False)
class MixtureResult:
    """Final mixture, largest component first, and what the last pass measured at exactly these parameters.

    ``log_likelihood`` is the mean of a row over all n rows; ``n_iter`` counts M-steps, one less than passes;
    ``converged`` is false where ``max_iter`` ended the search.
    """

    mixture: Mixture
    log_likelihood: float
    n: int
    n_iter: int
    converged: bool

    @property
    def bic(self) -> float:
        """Bayesian information criterion over all rows: lower is better. Schwarz, Ann. Statistics 6 (1978) 461-464."""
        return float(self.mixture.n_parameters * np.log(max(self.n, 1)) - 2 * self.log_likelihood * self.n)

    @property
    def aic(self) -> float:
        """Akaike information criterion over all rows: lower is better."""
        return 2 * self.mixture.n_parameters - 2 * self.log_likelihood * self.n


def identity(mixture: Mixture) -> MixtureState:
    """The state of no rows."""
    return _state(Sums(mixture.covariance_type, mixture.means), 0, 0.0)


def merge(a: MixtureState, b: MixtureState) -> MixtureState:
    """The state of both blocks' rows; both about the same centres."""
    return replace(
        a,
        n=a.n + b.n,
        log_likelihood=a.log_likelihood + b.log_likelihood,
        responsibilities=a.responsibilities + b.responsibilities,
        first=a.first + b.first,
        second=a.second + b.second,
    )


def mixture_block(Z: Float, mixture: Mixture) -> MixtureState:
    """One block's part of an E-step: Z : (n, p) float32, finite. Beside the state it holds a few MiB, whatever n."""
    sums, total = Sums(mixture.covariance_type, mixture.means), 0.0
    for _, tile, density, shares in _expect(Z, mixture):
        sums.add(tile, shares)
        total += float(density.sum())
    return _state(sums, len(Z), total)


def labelled_block(Z: Float, labels: Labels, centers: Float, covariance_type: CovarianceType) -> MixtureState:
    """Sums of Z : (n, p) under hard labels : (n,) about centers : (k, p), say of k-means: `maximise` makes a start.

    Negative labels are left out. The log likelihood is 0.
    """
    sums, ids = Sums(covariance_type, centers.astype(np.float64)), np.arange(len(centers))
    for rows, tile in tiles(Z, sums.centers):
        label = labels[rows]
        keep = label >= 0
        sums.add(tile[keep], np.equal.outer(ids, label[keep]).astype(np.float64))
    return _state(sums, int((labels >= 0).sum()), 0.0)


def maximise(state: MixtureState, reg_covar: float = 1e-6) -> Mixture:
    """The mixture that explains the state's rows best (M-step); ``reg_covar`` is added to every variance.

    A component that lost all its rows stays where it is, with a weight near 2e-15 / n and the variance ``reg_covar``.

    Raises
    ------
    InputError
        Where a covariance is not positive definite in float64.
    """
    kind, weights = state.covariance_type, state.responsibilities + _PRIOR
    shift = state.first / weights[:, None]
    if kind == "full":
        covariances = state.second / weights[:, None, None] - shift[:, :, None] * shift[:, None, :]
    elif kind == "tied":
        covariances = (state.second - (weights * shift.T) @ shift) / weights.sum()
    elif kind == "diag":
        covariances = np.maximum(state.second / weights[:, None] - shift**2, 0) + reg_covar
    else:
        variances = state.second / (weights * shift.shape[1]) - np.square(shift).mean(axis=1)
        covariances = np.maximum(variances, 0) + reg_covar
    if kind in {"full", "tied"}:
        np.einsum("...ii->...i", covariances)[...] += reg_covar
    return Mixture.of(kind, weights / weights.sum(), state.centers + shift, covariances)


def em(
    fold: Callable[[dict[Key, Mixture]], Mapping[Key, MixtureState]],
    starts: Mapping[Key, Mixture],
    max_iter: int = 100,
    tol: float = 1e-3,
    reg_covar: float = 1e-6,
) -> dict[Key, MixtureResult]:
    """Expectation maximisation for many mixtures that share every read of the data.

    Parameters
    ----------
    fold : function
        Evaluates every given mixture over all rows (`mixture_block`, `merge`).
    starts : mapping of key to Mixture
        As `maximise` makes them of the sums of `labelled_block`.
    max_iter : int
        M-steps, at least 1. One more pass measures what the last one gave.
    tol : float
        A mixture is done when its mean log likelihood changes by less.
    reg_covar : float
        Added to every variance.

    Raises
    ------
    InputError
        As `maximise`.
    """
    active, before = dict(starts), dict.fromkeys(starts, -np.inf)
    ended, done, n_iter = dict[Key, bool](), dict[Key, MixtureResult](), 0
    while active:
        states = fold(dict(active))
        for key, mixture in list(active.items()):
            found = states[key].mean_log_likelihood
            if key in ended:
                done[key] = MixtureResult(mixture, found, states[key].n, n_iter, ended[key])
                del active[key]
                continue
            active[key] = maximise(states[key], reg_covar)
            converged = abs(found - before[key]) < tol
            before[key] = found
            if converged or n_iter + 1 >= max_iter:
                ended[key], active[key] = converged, active[key].largest_first
        n_iter += 1
    return {key: done[key] for key in starts}


def posterior(Z: Float, mixture: Mixture) -> tuple[Labels, NDArray[np.float32], NDArray[np.float32]]:
    """Label every row of Z : (n, p) float32, finite, with its most probable component, ties to the lowest id.

    Returns
    -------
    labels : (n,) int32. confidence : (n,) float32, the component's posterior probability. log_density : (n,) float32,
        the lowest float32 where it is lower still.
    """
    labels = np.empty(len(Z), np.int32)
    confidence, density = np.empty(len(Z), np.float32), np.empty(len(Z), np.float32)
    for rows, _, found, shares in _expect(Z, mixture):
        labels[rows] = shares.argmax(axis=0)
        confidence[rows] = shares.max(axis=0)
        density[rows] = np.maximum(found, np.finfo(np.float32).min)
    return labels, confidence, density


def log_density(Z: Float, mixture: Mixture) -> Doubles:
    """Log density of every row of Z : (n, p), finite : (n,)."""
    found = np.empty(len(Z))
    for rows, _, density, _ in _expect(Z, mixture):
        found[rows] = density
    return found


def responsibilities(Z: Float, mixture: Mixture) -> Doubles:
    """Posterior probability of every component at every row of Z : (n, p), finite : (n, k)."""
    found = np.empty((len(Z), len(mixture.weights)))
    for rows, _, _, shares in _expect(Z, mixture):
        found[rows] = shares.T
    return found


def _expect(Z: Float, mixture: Mixture) -> Iterator[tuple[slice, Doubles, Doubles, Doubles]]:
    """Walk over Z : rows, the m rows about an origin, their log densities : (m,), responsibilities : (k, m)."""
    components = Components(mixture.covariance_type, mixture.weights, mixture.means, mixture.precisions_cholesky)
    for rows, tile in tiles(Z, mixture.means):
        yield rows, tile, *normalise(components.log_joint(tile))


def _state(sums: Sums, n: int, log_likelihood: float) -> MixtureState:
    first, second = sums.about_centers()
    return MixtureState(sums.kind, sums.centers, n, log_likelihood, sums.responsibilities, first, second)
