"""Zarr v3 arrays read and written by whole row ranges; a missing or altered chunk is an error, never fill values."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from streamclust.errors import DamageError
from streamclust.planning import chunk_rows
from streamclust.store import chunks, documents, metadata
from streamclust.store.metadata import Form


@dataclass(frozen=True)
class Part:
    """Rows of a larger array that stand for one of their own: ``rows`` from ``first`` on, in blocks of ``step``."""

    path: Path
    first: int
    rows: int
    step: int


Where = Path | Part  # an array, whole or within a larger one


def create_group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """An ordinary Zarr group; a present one takes the attributes."""
    if not (path / "zarr.json").is_file():
        path.mkdir(parents=True, exist_ok=True)
        chunks.put(path / "zarr.json", documents.of_group())
    if attributes:
        zarr.open_group(path, mode="r+", zarr_format=3).update_attributes(dict(attributes))


def create_parents(root: Path, path: Path) -> None:
    """Groups for every folder between ``root``, itself a group, and ``path``."""
    for parent in reversed(path.relative_to(root).parents[:-1]):
        if not (root / parent / "zarr.json").is_file():
            create_group(root / parent)


def create_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    rows: int | None = None,
    *,
    compress: bool = False,
    inner: int = 0,
) -> None:
    """An array with crc32c on every chunk, ``rows`` per chunk (by default by :func:`chunk_rows`).

    Descriptors do not compress; ``compress`` is for what is mostly zeros. With ``inner``, a file of ``rows`` is a shard
    of chunks of that many rows each.
    """
    dtype = np.dtype(dtype)
    if rows is None:
        rows = chunk_rows(shape[0], math.prod(shape[1:]) * (dtype.itemsize or 1))
    rows = rows if inner else max(1, min(rows, shape[0]))
    wide = tuple(max(1, size) for size in shape[1:])
    text = isinstance(dtype, np.dtypes.StringDType)
    if path.exists():
        shutil.rmtree(path)
    document = documents.of_array(
        shape, (inner or rows, *wide), (rows, *wide) if inner else None, dtype, compress=compress, text=text
    )
    path.mkdir(parents=True)
    chunks.put(path / "zarr.json", document)


@lru_cache(maxsize=4096)
def _open(path: Path) -> Any:
    """A plain array's description, or any other array as Zarr opens it: both have a shape, chunks and a type."""
    return chunks.plain(metadata.read(path)) or _open_with_zarr(path)


@lru_cache(maxsize=512)
def _open_with_zarr(path: Path) -> Any:
    metadata.read(path)
    try:
        # open_array drops a config: without this an all-zero chunk would not be written, and read as damage.
        return zarr.open_array(path, mode="r+", zarr_format=3).with_config({"write_empty_chunks": True})
    except Exception as error:
        raise DamageError(
            path / "zarr.json", f"the array cannot be opened ({type(error).__name__})", hint="restore it"
        ) from error


def forget_open_arrays() -> None:
    """Drop cached handles, for when files were replaced underneath."""
    _open.cache_clear()
    _described.cache_clear()
    _open_with_zarr.cache_clear()


def is_as_said(where: Where, shape: tuple[int, ...], dtype: str, grid: tuple[int, ...]) -> bool:
    """Whether metadata fits what is known of an array; it is read again only where the file is another one."""
    path = where.path if isinstance(where, Part) else where
    stamp = _stamp(path)
    found = _described(path, stamp) if stamp else metadata.describe(path)
    return holds(found, where, shape, dtype) if isinstance(where, Part) else found == (shape, dtype, grid)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with every write to an array's metadata that the file system tells apart; of a lost file nothing."""
    try:
        about = os.stat(f"{path}/zarr.json")  # noqa: PTH116 - a third of the time
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


@lru_cache(maxsize=4096)
def _described(path: Path, stamp: tuple[int, ...]) -> Form | None:
    return metadata.describe(path)


def holds(found: Form | None, part: Part, shape: Any, dtype: str) -> bool:
    """Whether an array of that shape, data type and chunk shape can have such a part."""
    if found is None or len(found[0]) != len(shape):
        return False
    (n, *width), of, (step, *whole) = found
    fits = (width, whole, of) == (list(shape[1:]), list(shape[1:]), dtype)
    return fits and step > 0 and part.first + part.rows <= n


def shape_of(where: Where) -> tuple[int, ...]:
    """The array's shape."""
    if isinstance(where, Part):
        return where.rows, *_open(where.path).shape[1:]
    return tuple(_open(where).shape)


def rows_per_chunk(where: Where) -> int:
    """The array's chunk length along its rows."""
    return where.step if isinstance(where, Part) else int(_grid(_open(where))[0])


def _grid(array: Any) -> tuple[int, ...]:
    """The shape of what is in one file."""
    return tuple(getattr(array, "shards", None) or array.chunks)


def grid(where: Where) -> Iterator[tuple[int, int]]:
    """First and last row of each chunk of an array."""
    n, step = shape_of(where)[0], rows_per_chunk(where)
    return ((start, min(n, start + step)) for start in range(0, n, step))


def span(where: Where, start: int = 0, stop: int | None = None) -> tuple[Path, int, int]:
    """The array that holds rows ``start .. stop`` on disk, and which rows of it they are."""
    stop = shape_of(where)[0] if stop is None else stop
    return (where.path, where.first + start, where.first + stop) if isinstance(where, Part) else (where, start, stop)


def whole_files(path: Path, start: int, stop: int) -> tuple[int, int]:
    """The rows of all files that hold rows ``start .. stop``."""
    step = rows_per_chunk(path)
    return start - start % step, min(shape_of(path)[0], -(-stop // step) * step)


def chunk_files(where: Where, start: int = 0, stop: int | None = None) -> Sequence[Path]:
    """The chunk files that hold rows ``start .. stop``."""
    path, start, stop = span(where, start, stop)
    array = _open(path)
    return metadata.chunk_paths(path, array.shape, _grid(array), start, stop)


def write_rows(where: Where, start: int, block: NDArray[Any], *, durable: bool = False) -> None:
    """Write rows from ``start``; the caller owns every chunk it touches.

    ``durable`` : a chunk of a plain array takes the place of a published one only when it is on the disk.
    """
    path, start, stop = span(where, start, start + len(block))
    array = _open(path)
    step = _grid(array)[0]
    whole = start % step == 0 and (stop % step == 0 or stop == array.shape[0])
    if whole and isinstance(array, chunks.Plain):
        for first, file in zip(range(0, len(block), step), chunk_files(path, start, stop), strict=True):
            chunks.write(file, block[first : first + step], array, durable=durable)
    elif len(block):
        _open_with_zarr(path)[start:stop] = block


def read_rows(where: Where, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Rows ``start .. stop`` as a NumPy array.

    Raises
    ------
    DamageError : a chunk file is missing, truncated, or does not match its checksum.
    """
    path, start, stop = span(where, start, stop)
    array = _open(path)
    files = metadata.chunk_paths(path, array.shape, _grid(array), start, stop)
    if isinstance(array, chunks.Plain):
        return _read_plain(files, array, start, stop)
    for chunk in files:
        if not chunk.is_file():
            raise _missing(chunk, start, stop)
    try:
        return np.asarray(array[start:stop])
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(_first_damaged(path, array, start, stop), error) from error


def _missing(file: Path, start: int, stop: int) -> DamageError:
    return DamageError(file, f"the chunk with rows {start} to {stop} is missing", hint="restore it")


def _damaged(file: Path, error: Exception) -> DamageError:
    return DamageError(file, f"stored bytes are damaged ({error})", hint="restore it")


def _read_plain(files: Sequence[Path], array: chunks.Plain, start: int, stop: int) -> NDArray[Any]:
    n, step = array.shape[0], array.chunks[0]
    if not files:
        return np.empty((0, *array.shape[1:]), array.dtype)
    parts = []
    for file, base in zip(files, range(start - start % step, stop, step), strict=True):
        held = min(step, n - base)
        try:
            parts.append(chunks.read(file, array, held, max(0, start - base), min(held, stop - base)))
        except FileNotFoundError:
            raise _missing(file, start, stop) from None
        except (ValueError, OSError) as error:
            raise _damaged(file, error) from error
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _first_damaged(path: Path, array: Any, start: int, stop: int) -> Path:
    step = _grid(array)[0]
    for first in range(start - start % step, stop, step):
        last = min(first + step, array.shape[0])
        try:
            _open_with_zarr(path)[first:last]
        except Exception:  # noqa: BLE001 - whatever a codec raises on broken bytes
            return chunk_files(path, first, last)[0]
    return path


def has_rows(where: Where, start: int, stop: int) -> bool:
    """Whether rows ``start .. stop`` were already written, wholly and soundly."""
    if not all(chunk.is_file() for chunk in chunk_files(where, start, stop)):
        return False
    try:
        read_rows(where, start, stop)
    except DamageError:
        return False
    return True


def digest(block: NDArray[Any]) -> str:
    """SHA-256 of a block's shape, type and bytes (of its text, for strings)."""
    h = hashlib.sha256(f"{block.shape}{block.dtype.str if block.dtype.kind != 'T' else 'str'}".encode())
    if block.dtype.kind == "T":
        h.update("\0".join(block.tolist()).encode())
    else:
        h.update(np.ascontiguousarray(block).view(np.uint8).data)
    return h.hexdigest()
