"""Exact PCA in one pass over rows that need not fit in memory, in scikit-learn's form."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from streamclust import decomposition, moments
from streamclust.decomposition import Projection
from streamclust.planning import WIDE
from streamclust.preprocessing import fit_scaler, resolve
from streamclust.streaming.rows import FLOATS, Rows, each_row, is_lazy, rows_of

F8 = NDArray[np.float64]


class StreamingPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """PCA, after scaling if wanted, by the eigenvectors of a covariance that is added up block by block.

    Parameters
    ----------
    n_components : int >= 1, float in (0, 1] or None
        How many components, or the fraction of the variance that is kept, or all. Directions without variance never
        become components.
    scaler : {"standard", "min-max", "max-abs", "none", "auto"}
        What columns are divided by; a column without spread is left as it is. "auto" is "none" unless one spreads over
        ten times as far as another, then "standard". With "none" the components are those of
        scikit-learn's PCA(svd_solver="full") up to the sign, which here makes the largest loading positive.

    Attributes
    ----------
    components_ : (p, d) float64, orthonormal rows, in scaled units. mean_, scale_ : (d,) in the units of X.
    explained_variance_, explained_variance_ratio_ : (p,) of the scaled data, largest first.
    n_components_, n_samples_seen_, n_features_in_ : int. feature_names_in_ : where X had names.

    Notes
    -----
    X : (n, d) is an array or a dask array, of which only blocks are in memory. float32 rows are multiplied in float32
    and added up in float64. Beyond 4,096 features `fit` reads the rows several times (`decomposition.find_range`) and
    `partial_fit` holds d x d sums all the same.
    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm", 1979.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right"), None],
        "scaler": [StrOptions({"standard", "min-max", "max-abs", "none", "auto"})],
    }

    def __init__(self, n_components: float | None = 0.9, *, scaler: str = "standard") -> None:
        self.n_components = n_components
        self.scaler = scaler

    def fit(self, X: Any, y: Any = None) -> StreamingPCA:  # noqa: ARG002 -- scikit-learn's signature
        """The components of X : (n, d), whatever was seen before.

        Raises
        ------
        ValueError
            As `rows_of`, or n_components is above min(n, d).
        """
        self._validate_params()
        rows = rows_of(self, X, reset=True)
        self._moments = rows.fold(_moments, moments.merge, rows.shape[1] <= WIDE)
        self._found: Projection | None = self._project(rows)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> StreamingPCA:  # noqa: ARG002 -- scikit-learn's signature
        """Take in X : (n, d) beside what was seen: the same as one fit on all of it.

        The components are computed when they are next asked for.

        Raises
        ------
        ValueError
            As `rows_of`, or after a fit of more than 4,096 features, which keeps no sums that could be added to.
        """
        self._validate_params()
        seen = self.__sklearn_is_fitted__()
        if seen and self._moments.scatter is None:
            raise ValueError(f"a fit of more than {WIDE} features cannot be continued; call partial_fit from the start")
        found = rows_of(self, X, reset=not seen).fold(_moments, moments.merge, True)
        self._moments = moments.merge(self._moments, found) if seen else found
        self._found = None
        return self

    def transform(self, X: Any) -> Any:
        """Components of X : (n, d), as (n, p) float32 for float32, else float64; lazy for a dask array."""
        check_is_fitted(self)
        found = self._projection
        return each_row(self, X, _transform, found, out=None, columns=len(found.components))

    def inverse_transform(self, X: Any) -> Any:
        """Rows : (n, d) in the units of the data, from components X : (n, p)."""
        check_is_fitted(self)
        X = X if is_lazy(X) else check_array(X, dtype=FLOATS, input_name="X")
        found, dtype = self._projection, np.result_type(X.dtype, np.float32)
        return X @ (found.components * found.affine.scale).astype(dtype) + found.mean.astype(dtype)

    def _project(self, rows: Rows | None = None) -> Projection:
        known, most = self._moments, min(self._moments.n, len(self._moments.mean))
        wanted: Any = 1.0 if self.n_components is None else self.n_components
        keep = int(wanted) if isinstance(wanted, Integral) else float(wanted)
        if keep > most:
            raise ValueError(f"n_components={keep} must be between 1 and min(n_samples, n_features)={most}")
        affine = fit_scaler(resolve(self.scaler, known), known, np.empty((0, 0)))
        if known.scatter is not None or rows is None:
            return decomposition.fit_pca(known, affine, keep)

        def multiply(frame: Projection, basis: NDArray[np.float32]) -> F8:
            return rows.fold(_range, np.add, frame, basis)

        return decomposition.find_range(multiply, known, affine, keep, seed=0)

    @property
    def _projection(self) -> Projection:
        if self._found is None:
            self._found = self._project()
        return self._found

    @property
    def components_(self) -> F8:
        return self._projection.components

    @property
    def explained_variance_(self) -> F8:
        return self._projection.explained_variance

    @property
    def explained_variance_ratio_(self) -> F8:
        return self._projection.explained_variance_ratio

    @property
    def mean_(self) -> F8:
        return self._projection.mean

    @property
    def scale_(self) -> F8:
        return self._projection.affine.scale

    @property
    def n_components_(self) -> int:
        return len(self._projection.components)

    @property
    def n_samples_seen_(self) -> int:
        return self._moments.n

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_is_fitted__(self) -> bool:
        return "_moments" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _moments(X: NDArray[Any], scatter: bool) -> moments.Moments:
    return moments.from_block(X, scatter=scatter)


def _range(X: NDArray[Any], frame: Projection, basis: NDArray[np.float32]) -> F8:
    return decomposition.range_block(frame, X, basis)


def _transform(X: NDArray[Any], projection: Projection) -> NDArray[Any]:
    return np.asarray(decomposition.scaled(projection, X) @ projection.components.astype(X.dtype).T)
