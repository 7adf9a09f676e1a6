"""What an estimator is given: blocks of rows, in memory or of a dask array, that tasks look at one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data

from streamclust.blocks import Dask, Executor, Serial, Threads, one_blas_thread
from streamclust.sampling import batch_key, sample_rows

S = TypeVar("S")
FLOATS = (np.float64, np.float32)
_MOST_ROWS, _MOST_BYTES = 2**14, 48 * 2**20


class Scheduled(Dask):
    """The verbs on the scheduler that Dask is set to, be it a cluster: a user's array is computed where they want."""

    def _compute(self, values: list[Any]) -> list[Any]:
        with one_blas_thread():
            return list(dask.compute(*values, optimize_graph=False))  # blocks of an array come optimised


@dataclass(frozen=True)
class Rows:
    """n rows of d features in blocks, read as ``dtype``, a type or several as `check_array` takes them.

    Blocks are views of an array in memory, cut by its shape alone, or the delayed blocks of a dask array. Every task
    refuses a block with NaN or infinity (ValueError), so no pass is spent on looking for them. Without a ``dtype`` they
    were checked already, and are taken as they are.

    whole : all rows where they are one array in memory.
    """

    blocks: Sequence[Any]
    lengths: Sequence[int]
    shape: tuple[int, int]
    dtype: Any
    executor: Executor
    whole: NDArray[Any] | None = None

    def fold(self, task: Callable[..., S], merge: Callable[[S, S], S], *args: Any) -> S:
        """``task(X, *args)`` of every block, merged by a tree whose shape follows from the blocks."""
        found: S = self.executor.fold(_start, self.blocks, merge, self.dtype, task, args, run=1)
        return found

    def chain(self, task: Callable[..., S], state: S) -> S:
        """``task(state, X)`` along the blocks in their order."""
        states: list[S] = self.executor.chain(_go_on, self.blocks, [state], self.dtype, task)
        return states[0]

    def sample(self, size: int, seed: int) -> NDArray[Any]:
        """``min(n, size)`` rows in their order, the same however the rows are cut into blocks."""
        if self.whole is not None and size >= len(self.whole):
            return _read(self.whole, self.dtype)
        chosen = sample_rows(self.shape[0], size, batch_key("", seed))[0]
        stops = np.cumsum(self.lengths)
        parts = np.split(chosen, np.searchsorted(chosen, stops[:-1]))
        starts = stops - self.lengths
        wanted = [(b, p - s) for b, p, s in zip(self.blocks, parts, starts, strict=True) if len(p)]
        return np.concatenate(self.executor.map(_pick, wanted, self.dtype))

    def read_as(self, dtype: Any) -> Rows:
        """The same rows in another type."""
        return replace(self, dtype=dtype)


def is_lazy(X: Any) -> bool:
    """Whether X is of Dask, not in memory."""
    return bool(dask.is_dask_collection(X))


def rows_of(estimator: Any, X: Any, *, reset: bool, dtype: Any = FLOATS, min_rows: int = 1) -> Rows:
    """X : (n, d) as blocks, checked for ``estimator`` as scikit-learn's `validate_data` does; see there for ``reset``.

    Raises
    ------
    ValueError
        Not two-dimensional, other features than in the fit, fewer than ``min_rows`` rows, a dask array whose chunks
        have unknown sizes, or (NumPy here, dask arrays when a block is read) values that are no finite numbers.
    TypeError
        Sparse, or a dask collection that is no array.
    """
    if is_lazy(X):
        X = _checked(estimator, X, reset, min_rows)
        filled = [(block, n) for block, n in zip(X.to_delayed()[:, 0], X.chunks[0], strict=True) if n]
        return Rows([block for block, _ in filled], [n for _, n in filled], X.shape, dtype, Scheduled())
    X = validate_data(estimator, X, reset=reset, dtype=dtype, ensure_min_samples=min_rows)
    step = 2 ** int(np.log2(min(_MOST_ROWS, max(1, _MOST_BYTES // (X.shape[1] * X.itemsize)))))
    blocks = [X[start : start + step] for start in range(0, len(X), step)]
    return Rows(blocks, [len(b) for b in blocks], X.shape, None, Threads() if len(blocks) > 1 else Serial(), X)


def each_row(
    estimator: Any,
    X: Any,
    task: Callable[..., NDArray[Any]],
    *args: Any,
    dtype: Any = FLOATS,
    out: Any,
    columns: int = 0,
) -> Any:
    """``task(rows, *args)`` of all rows of X : (n,), or (n, columns), of type ``out`` or, where None, as read.

    An array for an array, block by block; for a dask array a lazy one in the same chunks.
    """
    if not is_lazy(X):
        rows = rows_of(estimator, X, reset=False, dtype=dtype)
        return np.concatenate(rows.executor.map(_judge, rows.blocks, rows.dtype, task, args, out))
    X = _checked(estimator, X, reset=False, min_rows=1)
    if dtype is FLOATS:
        dtype = np.float32 if X.dtype == np.float32 else np.float64
    meta = np.empty((0, 0) if columns else 0, out or dtype)
    chunks = (X.chunks[0], (columns,)) if columns else (X.chunks[0],)
    judge = partial(_judge, dtype=dtype, task=task, args=args, out=meta.dtype)
    return X.map_blocks(judge, drop_axis=None if columns else 1, chunks=chunks, meta=meta)


def _checked(estimator: Any, X: Any, reset: bool, min_rows: int) -> Any:
    """A dask array whose columns are one chunk; nothing of it is computed."""
    if not isinstance(X, da.Array):
        raise TypeError(f"X is a {type(X).__name__}; expected an array: take X.to_dask_array(lengths=True)")
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D array instead: reshape the dask array to (n, d)")
    if np.isnan(X.shape).any():
        raise ValueError("X has chunks of unknown size; expected known ones: call X.compute_chunk_sizes() first")
    for axis, (name, least) in enumerate((("sample", min_rows), ("feature", 1))):
        if X.shape[axis] < least:
            found = f"Found array with {X.shape[axis]} {name}(s) (shape={X.shape})"
            raise ValueError(f"{found} while a minimum of {least} is required by {type(estimator).__name__}.")
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return X.rechunk({1: -1}) if X.numblocks[1] > 1 else X


def _read(block: Any, dtype: Any) -> NDArray[Any]:
    if dtype is not None:
        block = check_array(block, dtype=dtype, ensure_min_samples=0, input_name="X")
    return np.asarray(block)


def _start(state: None, block: Any, dtype: Any, task: Callable[..., S], args: tuple[Any, ...]) -> S:
    return task(_read(block, dtype), *args)


def _go_on(state: S, block: Any, dtype: Any, task: Callable[..., S]) -> S:
    return task(state, _read(block, dtype))


def _pick(wanted: tuple[Any, NDArray[np.int64]], dtype: Any) -> NDArray[Any]:
    block, chosen = wanted
    return _read(block[chosen], dtype)


def _judge(block: Any, dtype: Any, task: Callable[..., NDArray[Any]], args: tuple[Any, ...], out: Any) -> NDArray[Any]:
    rows = _read(block, dtype)
    return task(rows, *args).astype(out or rows.dtype, copy=False)
