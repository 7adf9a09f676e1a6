"""A descriptor over all batches, as one dask array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.planning import chunk_rows
from streamclust.store import arrays
from streamclust.store.arrays import Where
from streamclust.store.store import Batch, Store

if TYPE_CHECKING:
    import dask.array as da


def stacked(store: Store, descriptor: str) -> da.Array:
    """(n, d); rows of a batch that lacks it are NaN.

    Raises
    ------
    InputError : no batch has it.
    """
    import dask.array as da
    from dask import delayed

    if descriptor not in store.descriptors:
        raise InputError(store.path, f"no descriptor {descriptor!r}", f"one of {', '.join(store.descriptors)}")
    d = store.descriptors[descriptor]
    dtype = np.result_type(*(_dtype(batch, descriptor) for batch in store.batches if batch.has(descriptor)))
    step = chunk_rows(store.n, d * dtype.itemsize)
    parts = []
    for batch in store.batches:
        path = store.array(batch.name, f"descriptors/{descriptor}") if batch.has(descriptor) else None
        for rows in store.rows(batch, step, {}):
            block = delayed(_block)(path, rows.start, rows.stop, d, dtype)
            parts.append(da.from_delayed(block, (len(rows), d), dtype))
    return da.concatenate(parts)


def _dtype(batch: Batch, descriptor: str) -> np.dtype[Any]:
    return np.dtype(str(batch.entry.attributes["descriptors"][descriptor]["dtype"]))


def _block(path: Where | None, start: int, stop: int, d: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if path is None:
        return np.full((stop - start, d), np.nan, dtype)
    return arrays.read_rows(path, start, stop).astype(dtype, copy=False)
