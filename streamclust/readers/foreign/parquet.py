"""Parquet: a column of lists is a matrix; where there is none, the numeric columns together are one.

Runs in the process of `child`. Pages, not row groups, are held in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.raw import NoMatrixError
from streamclust.readers.sources import choose

pa.array([0.0]).to_numpy()  # pyarrow looks for pandas at the first of these: better here than in every fork
_PIECE = 4 << 20
_BUFFER = 1 << 20
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)

Described = tuple[str, tuple[int, int], bool]


def describe(path: str) -> dict[str, Described]:
    """(dtype, (n, d), column after column) of each matrix, by name."""
    file = _open(path)
    fields, n = list(file.schema_arrow), file.metadata.num_rows
    if twice := [name for name, count in Counter(f.name for f in fields).items() if count > 1]:
        raise InputError(path, f"has two columns {twice[0][:80]!r}", "every column once")
    lists = {f.name: (f, leaf) for f, leaf in zip(fields, _first_leaves(fields), strict=True) if _is_list(f.type)}
    if lists:
        return choose(Path(path), {name: partial(_list_column, file, path, *at) for name, at in lists.items()})
    columns = [fields[i] for i in _features(file)]
    if not columns or not n:
        raise NoMatrixError(path, f"holds {n:,} rows and no column of numbers", "a column of lists, or one per feature")
    code = "f2" if all(pa.types.is_float16(f.type) for f in columns) else "f4"
    return {"": (code, (n, len(columns)), True)}


def pour(path: str, key: str) -> Iterator[bytes]:
    """The matrix's bytes: rows of a column of lists, else one column after the other."""
    file = _open(path)
    (code, (_, d), fortran) = describe(path)[key]
    step = max(1, _PIECE // (4 if fortran else 4 * d))
    for name in [file.schema_arrow.names[i] for i in _features(file)] if fortran else [key]:
        start = 0
        for batch in file.iter_batches(batch_size=step, columns=[name], use_threads=False):
            column = _plain(batch.column(batch.schema.get_field_index(name)))
            yield _numbers(column if fortran else _flat(path, name, start, column, d), code).tobytes()
            start += batch.num_rows


def _open(path: str) -> Any:
    return pq.ParquetFile(path, memory_map=False, buffer_size=_BUFFER, pre_buffer=False)


def _plain(column: Any) -> Any:
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _storage(kind: Any) -> Any:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: Any) -> bool:
    return any(test(_storage(kind)) for test in _LISTS)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _features(file: Any) -> list[int]:
    """The numeric columns but a pandas index."""
    index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", [])
    return [i for i, f in enumerate(file.schema_arrow) if _is_number(f.type) and f.name not in index]


def _first_leaves(fields: list[Any]) -> list[int]:
    """Where each field's columns begin among those of the file: a nested one has several."""
    counts = [_leaves(field.type) for field in fields]
    return [sum(counts[:i]) for i in range(len(counts))]


def _leaves(kind: Any) -> int:
    kind = _storage(kind)
    return sum(_leaves(kind.field(i).type) for i in range(kind.num_fields)) if kind.num_fields else 1


def _list_column(file: Any, path: str, field: Any, leaf: int) -> Described:
    """The width of lists of any length is how many numbers there are per row."""
    kind, n, meta = _storage(field.type), file.metadata.num_rows, file.metadata
    if not _is_number(kind.value_type):
        raise NoMatrixError(path, f"column {field.name[:80]!r} holds lists of {kind.value_type}", "lists of numbers")
    if pa.types.is_fixed_size_list(kind):
        d = kind.list_size
    else:
        count = sum(meta.row_group(i).column(leaf).num_values for i in range(meta.num_row_groups))
        d = count // n if n else 0
        if n and count % n:
            raise InputError(path, f"column {field.name[:80]!r} holds lists of several lengths", "one length")
    if n < 1 or d < 1:
        raise NoMatrixError(path, f"column {field.name[:80]!r} is empty", "at least one row and one number")
    return "f2" if pa.types.is_float16(kind.value_type) else "f4", (n, d), False


def _flat(path: str, name: str, start: int, column: Any, d: int) -> Any:
    """The numbers of a batch of lists, each of length ``d``."""
    if column.null_count:
        row = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(path, f"column {name[:80]!r} has no list in row {row:,}", "a list of numbers in every row")
    if not pa.types.is_fixed_size_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        if (wrong := np.flatnonzero(lengths != d)).size:
            found = f"column {name[:80]!r} has {lengths[wrong[0]]:,} numbers in row {start + int(wrong[0]):,}"
            raise InputError(path, found, f"{d:,}, as the rows have on average")
    flat = column.flatten()
    if len(flat) != len(column) * d:
        raise HostileFileError(path, f"column {name[:80]!r} lies about its lists", f"{d:,} numbers in each")
    return flat


def _numbers(values: Any, code: str) -> NDArray[Any]:
    """What is missing is NaN."""
    target = np.dtype(f"<{code}")
    if values.null_count or pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.float16() if code == "f2" else pa.float64())
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False)).astype(target, copy=False)
