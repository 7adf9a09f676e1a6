"""The ``zarr.json`` that Zarr itself writes: it takes milliseconds for each, and a store has many that are alike."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore


@cache
def of_group() -> bytes:
    """That of a group without attributes."""
    memory: dict[str, Any] = {}
    zarr.create_group(MemoryStore(memory), zarr_format=3)
    return bytes(memory["zarr.json"].to_bytes())


@lru_cache(maxsize=4096)
def of_array(
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    shard: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    *,
    compress: bool,
    text: bool,
) -> bytes:
    """That of an array with crc32c on every chunk.

    ``shard`` is the shape of a file of several chunks, if there are such.
    """
    memory: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(memory),
        shape=shape,
        chunks=chunk,
        shards=shard,
        dtype=dtype,
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if compress else [Crc32cCodec()],
        filters=None if not text else "auto",
        fill_value="" if text else (np.nan if dtype.kind == "f" else 0),
        zarr_format=3,
    )
    return bytes(memory["zarr.json"].to_bytes())
