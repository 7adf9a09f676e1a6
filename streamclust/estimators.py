"""Any fitted scikit-learn estimator over a whole store, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamclust.store.store import Store
from streamclust.store.table import NO_VALUE

if TYPE_CHECKING:
    import dask.array as da


def label_with(store: Store, descriptor: str, estimator: Any) -> da.Array:
    """What a fitted estimator's ``predict`` says of every row of a descriptor, as a lazy (n,) integer dask array.

    ``estimator`` was fitted on rows of the same width. Rows that are not valid, or that lack the descriptor, get -2.
    dask-ml's ParallelPostFit hands each block to ``predict``, so nothing of size n is ever held.
    """
    import dask.array as da
    from dask_ml.wrappers import ParallelPostFit

    X = store[descriptor]
    valid = da.isfinite(X).all(axis=1)
    labels = ParallelPostFit(estimator).predict(da.where(valid[:, None], X, 0))
    return da.where(valid, labels, NO_VALUE)
