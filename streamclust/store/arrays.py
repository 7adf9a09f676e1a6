"""Zarr v3 arrays read and written by whole row ranges; a missing or altered chunk is an error, never fill values."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from streamclust.errors import DamageError
from streamclust.planning import chunk_rows
from streamclust.store import chunks

_CHUNK_KEYS = {"name": "default", "configuration": {"separator": "/"}}


def create_group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """An ordinary Zarr group; a present one takes the attributes."""
    group = zarr.open_group(path, mode="a", zarr_format=3)
    if attributes:
        group.update_attributes(dict(attributes))


def create_parents(root: Path, path: Path) -> None:
    """Groups for every folder between ``root``, itself a group, and ``path``."""
    for parent in reversed(path.relative_to(root).parents[:-1]):
        if not (root / parent / "zarr.json").is_file():
            create_group(root / parent)


def create_array(
    path: Path, shape: tuple[int, ...], dtype: DTypeLike, rows: int | None = None, *, compress: bool = False
) -> None:
    """An array with crc32c on every chunk, ``rows`` per chunk (by default by :func:`chunk_rows`).

    Descriptors do not compress; ``compress`` is for what is mostly zeros.
    """
    dtype = np.dtype(dtype)
    row_bytes = math.prod(shape[1:]) * (dtype.itemsize or 1)
    rows = chunk_rows(shape[0], row_bytes) if rows is None else max(1, min(rows, shape[0]))
    text = isinstance(dtype, np.dtypes.StringDType)
    zarr.create_array(
        path,
        shape=shape,
        chunks=(rows, *(max(1, size) for size in shape[1:])),
        dtype=dtype,
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if compress else [Crc32cCodec()],
        filters=None if not text else "auto",
        fill_value="" if text else (np.nan if dtype.kind == "f" else 0),
        config={"write_empty_chunks": True},
        zarr_format=3,
        overwrite=True,
    )


@lru_cache(maxsize=4096)
def _open(path: Path) -> Any:
    """A plain array's description, or any other array as Zarr opens it: both have a shape, chunks and a type."""
    return chunks.plain(read_metadata(path)) or _open_with_zarr(path)


@lru_cache(maxsize=512)
def _open_with_zarr(path: Path) -> Any:
    read_metadata(path)
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
    _open_with_zarr.cache_clear()


def describe(path: Path) -> tuple[tuple[int, ...], Any, tuple[int, ...]] | None:
    """Shape, data type and chunk shape as an array's metadata gives them; ``None`` for a group.

    Raises
    ------
    DamageError : the metadata is missing, cannot be read, or would have chunks sought where none are.
    """
    meta = read_metadata(path)
    return None if meta["node_type"] == "group" else _shape_in(meta)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of an array or a group, as it is on disk; raises as :func:`describe`."""
    try:
        meta: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())
        group = meta["node_type"] == "group"
        if not group:
            _shape_in(meta)
        ours = meta["zarr_format"] == 3 and (group or _as_written(meta))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DamageError(path / "zarr.json", f"cannot be read ({error!r})", hint="restore it") from None
    if not ours:
        raise DamageError(path / "zarr.json", "is not as this program writes it", hint="restore it")
    return meta


def _as_written(meta: Mapping[str, Any]) -> bool:
    """Zarr knows other byte orders, and other places for chunks, where it would find none: fill values, all of them."""
    codecs = meta["codecs"]
    little = all(codec.get("configuration", {}).get("endian", "little") == "little" for codec in codecs)
    return bool(little and meta["chunk_key_encoding"] == _CHUNK_KEYS and codecs[-1]["name"] == "crc32c")


def _shape_in(meta: Mapping[str, Any]) -> tuple[tuple[int, ...], Any, tuple[int, ...]]:
    return tuple(meta["shape"]), meta["data_type"], tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])


def item_bytes(data_type: str) -> int:
    """Bytes of one number, by the name that metadata has for its type."""
    return type_of(data_type).itemsize


def type_of(data_type: str) -> np.dtype[Any]:
    """The NumPy type that metadata calls so."""
    return np.dtype(np.dtypes.StringDType()) if data_type == "string" else np.dtype(data_type)


def shape_of(path: Path) -> tuple[int, ...]:
    """The array's shape."""
    return tuple(_open(path).shape)


def rows_per_chunk(path: Path) -> int:
    """The array's chunk length along its rows."""
    return int(_open(path).chunks[0])


def chunk_files(path: Path, start: int = 0, stop: int | None = None) -> list[Path]:
    """The chunk files that hold rows ``start .. stop``."""
    array = _open(path)
    return chunk_paths(path, array.shape, array.chunks, start, array.shape[0] if stop is None else stop)


def chunk_paths(path: Path, shape: tuple[int, ...], grid: tuple[int, ...], start: int, stop: int) -> list[Path]:
    """The same for an array of this shape and chunk shape, which is not opened."""
    if stop <= start:
        return []
    indices = [range(start // grid[0], -(-stop // grid[0]))]
    indices += [range(-(-size // chunk)) for size, chunk in zip(shape[1:], grid[1:], strict=True)]
    return [path.joinpath("c", *map(str, index)) for index in itertools.product(*indices)]


def file_bytes(path: Path) -> int | None:
    """How long the file of every chunk is; ``None`` where chunks are compressed or hold text."""
    meta = read_metadata(path)
    if [codec["name"] for codec in meta["codecs"]] != ["bytes", "crc32c"]:
        return None
    return math.prod(_shape_in(meta)[2]) * item_bytes(meta["data_type"]) + chunks.CRC_BYTES


def write_rows(path: Path, start: int, block: NDArray[Any]) -> None:
    """Write rows from ``start``; the caller owns every chunk it touches."""
    array = _open(path)
    stop, step = start + len(block), array.chunks[0]
    whole = start % step == 0 and (stop % step == 0 or stop == array.shape[0])
    if whole and isinstance(array, chunks.Plain):
        for first, file in zip(range(0, len(block), step), chunk_files(path, start, stop), strict=True):
            chunks.write(file, block[first : first + step], array)
    elif len(block):
        _open_with_zarr(path)[start:stop] = block


def read_rows(path: Path, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Rows ``start .. stop`` as a NumPy array.

    Raises
    ------
    DamageError : a chunk file is missing, truncated, or does not match its checksum.
    """
    array = _open(path)
    plain, stop = isinstance(array, chunks.Plain), array.shape[0] if stop is None else stop
    files = chunk_files(path, start, stop)
    for chunk in files:
        if not chunk.is_file():
            raise DamageError(chunk, f"the chunk with rows {start} to {stop} is missing", hint="restore it")
    try:
        return _read_plain(files, array, start, stop) if plain else np.asarray(array[start:stop])
    except MemoryError:
        raise
    except Exception as error:
        where = _first_damaged(path, array, start, stop)
        raise DamageError(where, f"stored bytes are damaged ({error})", hint="restore it") from error


def _read_plain(files: Sequence[Path], array: chunks.Plain, start: int, stop: int) -> NDArray[Any]:
    base = start - start % array.chunks[0]
    parts = [chunks.read(file, array) for file in files]
    if not parts:
        return np.empty((0, *array.shape[1:]), array.dtype)
    return (parts[0] if len(parts) == 1 else np.concatenate(parts))[start - base : stop - base]


def _first_damaged(path: Path, array: Any, start: int, stop: int) -> Path:
    for first in range(start, stop, array.chunks[0]):
        last = min(first + array.chunks[0], stop)
        try:
            _open_with_zarr(path)[first:last]
        except Exception:  # noqa: BLE001 - whatever a codec raises on broken bytes
            return chunk_files(path, first, last)[0]
    return path


def has_rows(path: Path, start: int, stop: int) -> bool:
    """Whether rows ``start .. stop`` were already written, wholly and soundly."""
    if not all(chunk.is_file() for chunk in chunk_files(path, start, stop)):
        return False
    try:
        read_rows(path, start, stop)
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
