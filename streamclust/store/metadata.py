"""What the ``zarr.json`` of an array says: shape, type, and the files that chunks are in. Nothing is opened for it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.errors import DamageError
from streamclust.store import chunks
from streamclust.store.files import read_file

Form = tuple[tuple[int, ...], Any, tuple[int, ...]]  # shape, data type as metadata calls it, and chunk shape

_TEXT_BYTES = 64  # of a text in memory, a guess
_CHUNK_KEYS = {"name": "default", "configuration": {"separator": "/"}}


def describe(path: Path) -> Form | None:
    """Shape, data type and chunk shape as an array's metadata gives them; ``None`` for a group.

    Raises
    ------
    DamageError : the metadata is missing, cannot be read, or would have chunks sought where none are.
    """
    meta = read(path)
    return None if meta["node_type"] == "group" else shape_in(meta)


def read(path: Path) -> dict[str, Any]:
    """The metadata of an array or a group, as it is on disk; raises as :func:`describe`."""
    try:
        meta: dict[str, Any] = json.loads(read_file(path / "zarr.json"))
        group = meta["node_type"] == "group"
        if not group:
            shape_in(meta)
        ours = meta["zarr_format"] == 3 and (group or _as_written(meta))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DamageError(path / "zarr.json", f"cannot be read ({error!r})", hint="restore it") from None
    if not ours:
        raise DamageError(path / "zarr.json", "is not as this program writes it", hint="restore it")
    return meta


def _as_written(meta: Mapping[str, Any]) -> bool:
    """Zarr knows other byte orders, and other places for chunks, where it would find none: fill values, all of them."""
    codecs = meta["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        about = codecs[0]["configuration"]
        return len(codecs) == 1 and all(
            _as_written({**meta, "codecs": about[which]}) for which in ("codecs", "index_codecs")
        )
    little = all(codec.get("configuration", {}).get("endian", "little") == "little" for codec in codecs)
    return bool(little and meta["chunk_key_encoding"] == _CHUNK_KEYS and codecs[-1]["name"] == "crc32c")


def shape_in(meta: Mapping[str, Any]) -> Form:
    """Shape, data type and chunk shape, which is that of a file."""
    return tuple(meta["shape"]), meta["data_type"], tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])


def item_bytes(data_type: str) -> int:
    """Bytes of one number, by the name that metadata has for its type."""
    return type_of(data_type).itemsize


def type_of(data_type: str) -> np.dtype[Any]:
    """The NumPy type that metadata calls so."""
    return np.dtype(np.dtypes.StringDType()) if data_type == "string" else np.dtype(data_type)


def row_bytes(shape: tuple[int, ...], data_type: str) -> int:
    """Bytes of a row in memory."""
    return math.prod(shape[1:]) * (_TEXT_BYTES if data_type == "string" else item_bytes(data_type))


@lru_cache(maxsize=4096)
def chunk_paths(path: Path, shape: tuple[int, ...], grid: tuple[int, ...], start: int, stop: int) -> tuple[Path, ...]:
    """The same for an array of this shape and chunk shape, which is not opened."""
    if stop <= start:
        return ()
    indices = [range(start // grid[0], -(-stop // grid[0]))]
    indices += [range(-(-size // chunk)) for size, chunk in zip(shape[1:], grid[1:], strict=True)]
    return tuple(path / "/".join(["c", *map(str, index)]) for index in itertools.product(*indices))


def sized_files(path: Path, meta: Mapping[str, Any], start: int, stop: int) -> list[tuple[Path, int | None]]:
    """The chunk files that hold rows ``start .. stop`` of an array of that metadata, each with how long it is.

    The length is ``None`` where chunks are compressed or hold text.
    """
    shape, _, grid = shape_in(meta)
    n, step, plain = shape[0], grid[0], chunks.plain(meta)
    files = chunk_paths(path, shape, grid, start, stop)
    if plain is None:
        return [(file, None) for file in files]
    bases = range(start - start % step, stop, step)
    return [(f, chunks.file_bytes(plain, min(step, n - base))) for f, base in zip(files, bases, strict=True)]


def index_fits(path: Path, meta: Mapping[str, Any], start: int) -> bool:
    """Whether the file from row ``start`` on has the index that it should; that of texts is read with them."""
    plain = chunks.plain(meta)
    if plain is None:
        return True
    (file,) = chunk_paths(path, plain.shape, plain.chunks, start, start + 1)
    return chunks.indexed(file, plain, min(plain.chunks[0], plain.shape[0] - start))
