"""k-means over rows that need not fit in memory, in scikit-learn's form: Lloyd passes from starts on a sample."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from streamclust.blocks import one_blas_thread
from streamclust.cluster import kmeans, minibatch, passes
from streamclust.cluster.annealing import anneal
from streamclust.cluster.assign import assign
from streamclust.cluster.restarts import restarts, rows_at_hand
from streamclust.cluster.seeding import GREEDY
from streamclust.cluster.two_level import Asked
from streamclust.streaming.rows import Rows, each_row, rows_of

Centers = NDArray[np.float32]
_CHAINS = 2
_POSITIVE = Interval(Integral, 1, None, closed="left")


class StreamingKMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """k-means: many restarts on a sample, chains of random steps from the best, then Lloyd's algorithm over all rows.

    Parameters
    ----------
    n_clusters : int
        Clusters. Where X has fewer distinct rows there are as many as those, none empty, and a ConvergenceWarning.
    n_init : int
        Restarts on the sample, more where it has few rows; 1 for more than 100 clusters, whose local optima differ
        little.
    n_finalists : int
        How many go on over all rows in shared reads; the one that ends lowest counts. They are the best of at least two
        chains from the best restart, see `streamclust.cluster.annealing`; of more than 100 clusters, or few rows, the
        best restarts.
    max_iter : int
        Passes over all rows that may improve the centres.
    tol : float
        The search ends when the squared moves of all centres add up to at most ``tol`` x inertia / n.
    random_state : int, RandomState or None
        Of the sample and the restarts.
    sample_rows : int or None
        Rows at hand for restarts and chains; None for 20,000, or 1000 for each cluster (40 of more than 100) if that is
        more. Chains of a fit then look at all rows of an array in memory.

    Attributes
    ----------
    cluster_centers_ : (k, d) float32, largest cluster first. labels_ : (n,) int32, lazy where X was a dask array;
        equal to ``predict(X)``. inertia_ : float, sum of squared distances to the centres. n_iter_ : int, passes,
        those included that measured the final centres. n_features_in_, feature_names_in_ : as in scikit-learn.

    Notes
    -----
    X : (n, d) is an array or a dask array, of which only blocks are in memory; a dask array is computed once in each
    pass, so persist it where it fits. Rows count as float32. Source: Lloyd, IEEE Trans. Inf. Theory 28 (1982) 129-137,
    with momentum as in `streamclust.cluster.kmeans.onward`; starts as in `streamclust.cluster.restarts`. From 1000
    clusters on, all but the last passes compare a row with those clusters that are near it.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [_POSITIVE],
        "n_init": [_POSITIVE],
        "n_finalists": [_POSITIVE],
        "max_iter": [_POSITIVE],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "sample_rows": [_POSITIVE, None],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_init: int = 12,
        n_finalists: int = 1,
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: Any = None,
        sample_rows: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.n_finalists = n_finalists
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.sample_rows = sample_rows

    def fit(self, X: Any, y: Any = None) -> StreamingKMeans:  # noqa: ARG002 -- scikit-learn's signature
        """The clusters of X : (n, d).

        Raises
        ------
        ValueError
            As `rows_of`, or n is below n_clusters.
        """
        self._validate_params()
        rows = self._enough(rows_of(self, X, reset=True, dtype=np.float32))
        begin = self._starts(rows, self.n_finalists, rows.whole)
        found = lloyd(rows, begin, self.max_iter, self.tol, self.n_finalists)
        if len(found.centers) < self.n_clusters:
            text = (
                f"Number of distinct clusters ({len(found.centers)}) found smaller than n_clusters ({self.n_clusters})."
            )
            warnings.warn(f"{text} Possibly due to duplicate points in X.", ConvergenceWarning, stacklevel=2)
        self.cluster_centers_ = found.centers[passes.largest_first(found)]
        self.inertia_, self.n_iter_ = found.inertia, found.n_iter
        self.labels_ = self.predict(X)
        self._chain: Any = None
        return self

    def partial_fit(self, X: Any, y: Any = None) -> StreamingKMeans:  # noqa: ARG002 -- scikit-learn's signature
        """Move the centres by minibatches of X : (n, d) in its order, as scikit-learn's MiniBatchKMeans does.

        The first call starts from a sample of its rows, or from the centres of a fit before; afterwards ``labels_`` are
        those of X, and ``inertia_`` and ``n_iter_`` are of an earlier fit, if any.

        Raises
        ------
        ValueError
            As `rows_of`, or the first piece has fewer rows than clusters.
        """
        self._validate_params()
        fitted = hasattr(self, "cluster_centers_")
        rows = rows_of(self, X, reset=not fitted, dtype=np.float32)
        chain = getattr(self, "_chain", None)
        if chain is None:
            start = self.cluster_centers_ if fitted else self._best_start(self._enough(rows))
            chain = minibatch.start({0: start}, rows.sample(max(len(start), minibatch.MINIBATCH), 0))
            self._enough(rows, len(start))
        self._chain = rows.chain(minibatch.step, chain)
        self.cluster_centers_ = minibatch.centers(self._chain)[0]
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: Any) -> Any:
        """The nearest centre of every row of X : (n, d), as (n,) int32; lazy for a dask array."""
        check_is_fitted(self)
        return each_row(self, X, _labels, self.cluster_centers_, dtype=np.float32, out=np.int32)

    def transform(self, X: Any) -> Any:
        """Distances of X : (n, d) to every centre, (n, k) float32 for float32, else float64; lazy for a dask array."""
        check_is_fitted(self)
        return each_row(self, X, _distances, self.cluster_centers_, out=None, columns=self._n_features_out)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002 -- scikit-learn's signature
        """Minus the sum of squared distances of X : (n, d) to their nearest centres."""
        check_is_fitted(self)
        rows = rows_of(self, X, reset=False, dtype=np.float32)
        return -rows.fold(_inertia, float.__add__, self.cluster_centers_)

    def _enough(self, rows: Rows, wanted: int | None = None) -> Rows:
        wanted = wanted or self.n_clusters
        if rows.shape[0] < wanted:
            raise ValueError(f"n_samples={rows.shape[0]} should be >= n_clusters={wanted}.")
        return rows

    def _starts(self, rows: Rows, keep: int, whole: Centers | None = None) -> list[Centers]:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        over = whole if self.sample_rows is None else None
        return starts(rows, self.n_clusters, seed, self.n_init, keep, self.sample_rows, over)

    def _best_start(self, rows: Rows) -> Centers:
        begin = self._starts(rows, 1)
        if len(begin) == 1:
            return begin[0]
        return min(begin, key=lambda centers: rows.fold(_inertia, float.__add__, centers))

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def starts(
    rows: Rows,
    k: int,
    seed: int,
    n_init: int = 12,
    keep: int = 1,
    sample_rows: int | None = None,
    over: Centers | None = None,
) -> list[Centers]:
    """The best restarts on a sample of rows that are read as float32, or the best one after chains : (k, d) each.

    The chains, ``keep`` or two if that is more, look at the sample or at what they are to go ``over``. Few end above
    where they began, so `lloyd` is to keep what is best over all rows.
    """
    sample = rows.sample(sample_rows or rows_at_hand(k), seed)
    return rows.executor.map(_restarted, [seed], sample, over, k, n_init, keep, rows.executor.threads)[0]


def lloyd(
    rows: Rows, starts: Sequence[Centers], max_iter: int = 100, tol: float = 1e-4, keep: int = 1
) -> kmeans.LloydResult:
    """Lloyd's algorithm over rows that are read as float32, from the starts that are best over all of them.

    The best of the ends, its clusters in any order.
    """

    def fold(sets: Mapping[int, Asked]) -> Mapping[int, passes.LloydState]:
        return rows.fold(passes.lloyd_block, passes.merge_sets, sets)

    with one_blas_thread():
        ends = kmeans.lloyd(fold, dict(enumerate(starts)), max_iter, tol, keep=keep, descending=False)
    return min(ends.values(), key=lambda end: end.inertia)


def _restarted(
    seed: int, sample: Centers, over: Centers | None, k: int, n_init: int, keep: int, n_jobs: int
) -> list[Centers]:
    if k > GREEDY or len(sample) < rows_at_hand(k):
        return restarts(sample, [k], n_init=n_init, keep=keep, seed=seed, n_jobs=n_jobs)[k]
    start = restarts(sample, [k], n_init=n_init, keep=1, seed=seed, n_jobs=n_jobs, polish_iter=0)[k][0]
    rows = sample if over is None else over
    with one_blas_thread(), ThreadPoolExecutor(n_jobs) as pool:
        seeds = [[seed, chain] for chain in range(1, 1 + max(keep, _CHAINS))]
        return [*pool.map(partial(anneal, rows, start), seeds), start]


def _labels(X: Centers, centers: Centers) -> NDArray[np.int32]:
    return assign(X, centers)[0]


def _inertia(X: Centers, centers: Centers) -> float:
    return float(assign(X, centers)[1].sum())


def _distances(X: NDArray[Any], centers: Centers) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(X, centers))  # by differences: 0 on a centre, under any offset
