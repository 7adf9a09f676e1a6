"""Chunk files of plain numeric arrays, read and written in one go: raw little-endian rows and their CRC-32C.

What Zarr's own pipeline writes for the codecs ``bytes`` and ``crc32c``, without its copies and its single event loop:
several times the rate for chunks of tens of megabytes, which every pass over a descriptor is made of.

A file may also be a shard: many small chunks, each with its checksum, and an index behind them, as ``sharding_indexed``
writes it. Chunks lie in order and are of one size, so that some rows are read without the index.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from streamclust.store.files import naming, open_file, sync

CRC_BYTES = 4
_ABSENT = 2**64 - 1  # in an index: of a chunk behind the array's last row
_AT_ONCE = 512  # chunks; the system takes 1,024 buffers


@dataclass(frozen=True)
class Plain:
    """An array whose chunks are rows as they are, whole in width, with a checksum behind.

    ``inner`` : rows of each chunk in a file that is a shard; ``chunks`` then is the shape of a file.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: float
    inner: int = 0


def plain(meta: Mapping[str, Any]) -> Plain | None:
    """What is needed to read such an array, from its metadata; nothing where it is another one.

    To open an array with Zarr takes longer than to read a small one.
    """
    try:
        shape, grid = tuple(meta["shape"]), tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
        inner, (first, last) = _inner(meta)
        dtype = np.dtype(meta["data_type"])
        fill = {"NaN": math.nan}.get(meta["fill_value"], meta["fill_value"])
        order = first.get("configuration", {}).get("endian", "little" if dtype.itemsize == 1 else "")
        known = (first["name"], order, last["name"]) == ("bytes", "little", "crc32c") and dtype.kind in "biuf"
        regular = meta["chunk_grid"]["name"] == "regular" and not meta.get("storage_transformers")
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    whole = grid[1:] == shape[1:] and len(grid) == len(shape) and isinstance(fill, int | float)
    whole = whole and (not inner or (inner[1:] == shape[1:] and inner[0] > 0 and grid[0] % inner[0] == 0))
    return Plain(shape, grid, dtype, fill, inner[0] if inner else 0) if known and regular and whole else None


def _inner(meta: Mapping[str, Any]) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of the chunks in a file, of one that is a shard with its index behind; and their codecs."""
    codecs = meta["codecs"]
    if codecs[0]["name"] != "sharding_indexed":
        return (), codecs
    about = codecs[0]["configuration"]
    (first, last), where = about["index_codecs"], about["index_location"]
    if (len(codecs), first["name"], last["name"], where) != (1, "bytes", "crc32c", "end"):
        raise ValueError(where)
    return tuple(about["chunk_shape"]), about["codecs"]


def file_bytes(array: Plain, held: int) -> int:
    """How long a chunk file is; ``held`` are the rows of the array that are in it."""
    row = math.prod(array.shape[1:]) * array.dtype.itemsize
    if not array.inner:
        return array.chunks[0] * row + CRC_BYTES
    slots, count = array.chunks[0] // array.inner, -(-held // array.inner)
    return count * (array.inner * row + CRC_BYTES) + 16 * slots + CRC_BYTES


def write(file: Path, block: NDArray[Any], array: Plain, *, durable: bool = False) -> None:
    """Write one whole chunk, the last one padded with the fill value; see :func:`put`."""
    step = array.inner or array.chunks[0]
    padded = -(-len(block) // step) * step
    rows = np.full((padded, *array.chunks[1:]), array.fill_value, array.dtype) if len(block) < padded else None
    if rows is None:
        rows = np.ascontiguousarray(block, array.dtype)
    else:
        rows[: len(block)] = block
    data = rows.reshape(-1).view(np.uint8)
    for folder in file.parents[len(array.shape) - 1 :: -1]:  # not the array itself, which may have been swept
        folder.mkdir(exist_ok=True)
    count = padded // step
    parts: list[bytes | memoryview]
    if array.inner:
        parts = [_with_checksums(data.reshape(count, -1)).data, _index(array, count).data]
    else:
        parts = [data.data, _checksum(data)]
    put(file, *parts, durable=durable)


def put(file: Path, *parts: bytes | memoryview, durable: bool = False) -> None:
    """A file of these parts; it appears at once or not at all.

    ``durable`` is for what takes the place of a published file: it is on the disk before. Folders are the caller's.
    """
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        with naming(file), temporary.open("xb") as out:
            out.writelines(parts)
        if durable:
            sync(temporary)
        os.replace(temporary, file)  # noqa: PTH105 - watched by name where crashes are tried
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _with_checksums(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Chunks, (k, bytes), each with its checksum behind."""
    count, each = data.shape
    body = np.empty((count, each + CRC_BYTES), np.uint8)
    body[:, :each] = data
    body[:, each:] = [list(_checksum(chunk)) for chunk in data]
    return body.reshape(-1)


def _index(array: Plain, count: int) -> NDArray[np.uint8]:
    """Where each chunk of a shard lies and how long it is, and the checksum of that."""
    each = file_bytes(array, array.inner) - file_bytes(array, 0)
    table = np.full((array.chunks[0] // array.inner, 2), _ABSENT, "<u8")
    table[:count, 0], table[:count, 1] = np.arange(count) * each, each
    found = table.reshape(-1).view(np.uint8)
    return np.concatenate([found, np.frombuffer(_checksum(found), np.uint8)])


def indexed(file: Path, array: Plain, held: int) -> bool:
    """Whether the index of a shard, which only other programs read, says where its chunks lie."""
    wanted = _index(array, -(-held // array.inner)).tobytes()
    handle, size = open_file(file)
    try:
        return os.pread(handle, len(wanted), max(0, size - len(wanted))) == wanted
    except OSError:
        return False
    finally:
        os.close(handle)


def read(file: Path, array: Plain, held: int, start: int, stop: int) -> NDArray[Any]:
    """Rows ``start .. stop`` of those in one chunk file, which are ``held``.

    Raises
    ------
    ValueError : the file has another length or a checksum does not fit. OSError : it cannot be read.
    """
    step = array.inner or array.chunks[0]
    first, last = start // step, -(-stop // step)
    rows = np.empty(((last - first) * step, *array.shape[1:]), array.dtype)
    data = rows.reshape(last - first, -1).view(np.uint8)
    handle, size = open_file(file)
    try:
        if size != (wanted := file_bytes(array, held)):
            raise ValueError(f"{size:,} bytes instead of {wanted:,}")
        for i in range(0, last - first, _AT_ONCE):
            part = data[i : i + _AT_ONCE]
            _read_chunks(handle, part, (first + i) * (part.shape[1] + CRC_BYTES))
    finally:
        os.close(handle)
    return rows[start - first * step : stop - first * step]


def _read_chunks(handle: int, data: NDArray[np.uint8], at: int) -> None:
    """Chunks that lie one behind the other from byte ``at``, (k, bytes), each against its checksum."""
    sums, chunks = np.empty(len(data), "<u4"), list(data)
    crcs = sums.view(np.uint8).data
    into = [part for i, chunk in enumerate(chunks) for part in (chunk, crcs[CRC_BYTES * i : CRC_BYTES * (i + 1)])]
    read = os.preadv(handle, into, at)
    if read != (wanted := data.size + sums.nbytes):
        raise ValueError(f"{read:,} bytes could be read instead of {wanted:,}")
    if sums.tolist() != [google_crc32c.value(chunk) for chunk in chunks]:
        raise ValueError("the checksum does not fit")


def _checksum(data: NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")
