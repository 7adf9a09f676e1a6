"""Gaussian mixtures over rows that need not fit in memory, in scikit-learn's form: every EM step is one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from streamclust.cluster import mixture
from streamclust.cluster.assign import assign
from streamclust.cluster.gaussians import CovarianceType
from streamclust.cluster.mixture import Mixture, MixtureResult, MixtureState
from streamclust.errors import InputError
from streamclust.streaming import kmeans
from streamclust.streaming.rows import Rows, each_row, rows_of

_POSITIVE = Interval(Integral, 1, None, closed="left")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")


class StreamingGaussianMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A Gaussian mixture by expectation maximisation from k-means clusters, a block of rows at a time.

    There is no ``partial_fit``: EM reads all rows at every step, and steps on pieces would fit some other mixture.

    Parameters
    ----------
    n_components : int
        Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}
        As scikit-learn's.
    tol : float
        The search ends when the mean log likelihood changes by less.
    reg_covar : float
        Added to every variance.
    max_iter : int
        EM steps.
    n_init : int
        k-means starts whose mixtures are fitted, sharing every read; the likeliest is kept. The first is the best of 12
        restarts or more, the others are one each.
    random_state : int, RandomState or None
        Of the k-means.

    Attributes
    ----------
    weights_ : (k,), largest first. means_ : (k, d). covariances_, precisions_cholesky_ : (k, d, d) full, (d, d) tied,
        (k, d) diag, (k,) spherical; all float64.
    converged_ : bool. n_iter_ : int. lower_bound_ : float, mean log likelihood of a row at exactly these parameters
        (scikit-learn's is one step older). n_features_in_, feature_names_in_ : as in scikit-learn.

    Notes
    -----
    X : (n, d) is an array or a dask array, of which only blocks are in memory; a dask array is computed once in each
    step, so persist it where it fits. Sources in `streamclust.cluster.mixture`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [_POSITIVE],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "tol": [_NOT_NEGATIVE],
        "reg_covar": [_NOT_NEGATIVE],
        "max_iter": [_POSITIVE],
        "n_init": [_POSITIVE],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> StreamingGaussianMixture:  # noqa: ARG002 -- scikit-learn's signature
        """The mixture of X : (n, d).

        Raises
        ------
        ValueError
            As `rows_of`, n is below n_components, or a covariance is not positive definite in float64.
        """
        self._validate_params()
        rows = rows_of(self, X, reset=True, min_rows=2)
        if rows.shape[0] < self.n_components:
            counts = f"n_components = {self.n_components}, n_samples = {rows.shape[0]}"
            raise ValueError(f"Expected n_samples >= n_components but got {counts}")
        try:
            found = self._search(rows)
        except InputError as error:
            raise ValueError(str(error)) from error
        if not found.converged:
            text = (
                "Best performing initialization did not converge. Try different init parameters, or increase max_iter,"
            )
            warnings.warn(f"{text} tol, or check for degenerate data.", ConvergenceWarning, stacklevel=2)
        best = found.mixture
        self.weights_, self.means_ = best.weights, best.means
        self.covariances_, self.precisions_cholesky_ = best.covariances, best.precisions_cholesky
        self.converged_, self.n_iter_, self.lower_bound_ = found.converged, found.n_iter, found.log_likelihood
        return self

    def fit_predict(self, X: Any, y: Any = None) -> Any:  # noqa: ARG002 -- scikit-learn's signature
        """``fit(X).predict(X)``."""
        return self.fit(X).predict(X)

    def predict(self, X: Any) -> Any:
        """The most probable component of every row of X : (n, d), as (n,) int32; lazy for a dask array."""
        return each_row(self, X, _labels, self._mixture, out=np.int32)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the components at X : (n, d), as (n, k) float64; lazy for a dask array."""
        found = self._mixture
        return each_row(self, X, mixture.responsibilities, found, out=np.float64, columns=len(found.weights))

    def score_samples(self, X: Any) -> Any:
        """Log density of every row of X : (n, d), as (n,) float64; lazy for a dask array."""
        return each_row(self, X, mixture.log_density, self._mixture, out=np.float64)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002 -- scikit-learn's signature
        """Mean log density of the rows of X : (n, d)."""
        return self._measure(X).log_likelihood

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X : (n, d): lower is better."""
        return self._measure(X).bic

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X : (n, d): lower is better."""
        return self._measure(X).aic

    def _search(self, rows: Rows) -> MixtureResult:
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_init)
        # The best of as many restarts would mostly be the same again.
        starts = {i: self._start(rows, int(seed), 1 if i else 12) for i, seed in enumerate(seeds)}

        def fold(mixtures: Mapping[int, Mixture]) -> Mapping[int, MixtureState]:
            return rows.fold(_expect, _merge, mixtures)

        found = mixture.em(fold, starts, self.max_iter, self.tol, self.reg_covar)
        return max(found.values(), key=lambda result: result.log_likelihood)

    def _start(self, rows: Rows, seed: int, restarts: int) -> Mixture:
        single, k = rows.read_as(np.float32), self.n_components
        centers = kmeans.lloyd(single, kmeans.starts(single, k, seed, restarts)).centers
        centers = np.concatenate([centers, np.repeat(centers[:1], k - len(centers), axis=0)])  # few distinct rows
        hard = rows.fold(_under_labels, mixture.merge, centers, self.covariance_type)
        return mixture.maximise(hard, self.reg_covar)

    def _measure(self, X: Any) -> MixtureResult:
        found = self._mixture
        state = rows_of(self, X, reset=False).fold(mixture.mixture_block, mixture.merge, found)
        return MixtureResult(found, state.mean_log_likelihood, state.n, self.n_iter_, self.converged_)

    @property
    def _mixture(self) -> Mixture:
        check_is_fitted(self)
        factors = self.covariances_, self.precisions_cholesky_
        return Mixture(self.covariance_type, self.weights_, self.means_, *factors)


def _labels(X: NDArray[Any], found: Mixture) -> NDArray[np.int32]:
    return mixture.posterior(X, found)[0]


def _under_labels(X: NDArray[Any], centers: NDArray[np.float32], kind: CovarianceType) -> MixtureState:
    return mixture.labelled_block(X, assign(X.astype(np.float32, copy=False), centers)[0], centers, kind)


def _expect(X: NDArray[Any], mixtures: Mapping[int, Mixture]) -> dict[int, MixtureState]:
    return {key: mixture.mixture_block(X, each) for key, each in mixtures.items()}


def _merge(a: Mapping[int, MixtureState], b: Mapping[int, MixtureState]) -> dict[int, MixtureState]:
    return {key: mixture.merge(a[key], b[key]) for key in a}
