"""Zarr's metadata, v2 and v3, as what it takes to find and decode a chunk. Runs in the process of `child`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.raw import NoMatrixError, check_shape, parse_dtype

_CODECS = frozenset({"blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "crc32c", "shuffle", "adler32", "crc32"})
_DTYPES = {"bool": "b1", **{f"{k}{8 * b}": f"{k[0]}{b}" for k in ("int", "uint", "float") for b in (1, 2, 4, 8)}}
_NONE = 2**64 - 1  # of a shard's index: no such chunk


@dataclass(frozen=True)
class Codecs:
    """From the bytes of a chunk to its numbers: ``steps`` are numcodecs' configurations, in the order of decoding."""

    steps: tuple[Mapping[str, Any], ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    def decode(self, where: str, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array of ``shape``. Errors: InputError for anything but exactly its bytes."""
        raw: Any = data
        try:
            for step in self.steps:
                raw = numcodecs.get_codec(dict(step)).decode(raw)
            raw = np.frombuffer(raw, np.uint8)
        except MemoryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(where, f"the chunk is damaged ({reason})", hint="copy it again from its source") from error
        if raw.nbytes != math.prod(shape) * self.dtype.itemsize:
            raise InputError(where, f"the chunk has {raw.nbytes:,} bytes", f"{shape} of {self.dtype}", "copy it again")
        numbers: NDArray[Any] = raw.view(self.dtype)
        return numbers.reshape(shape[::-1]).T if self.fortran else numbers.reshape(shape)


@dataclass(frozen=True)
class Array:
    """A 2-D array: ``chunks`` is what is decoded at once; a file holds ``shard`` of them (1 x 1 without sharding)."""

    shape: tuple[int, int]
    chunks: tuple[int, int]
    dtype: np.dtype[Any]
    codecs: Codecs
    prefix: str = ""
    separator: str = "."
    shard: tuple[int, int] = (1, 1)
    index: Codecs | None = None
    index_first: bool = False

    @property
    def stored_chunk_bytes(self) -> int:
        """Bytes of a file's numbers."""
        return math.prod(self.chunks) * math.prod(self.shard) * self.dtype.itemsize

    def key(self, i: int, j: int) -> str:
        """Where the file of a chunk lies."""
        return f"{self.prefix}{i // self.shard[0]}{self.separator}{j // self.shard[1]}"

    def decode(self, where: str, data: bytes, i: int, j: int) -> NDArray[Any]:
        """The numbers of a chunk, by its file's bytes."""
        if self.index:
            tail = sum(4 for step in self.index.steps if step["id"] == "crc32c")
            length = 16 * math.prod(self.shard) + tail
            entries = data[:length] if self.index_first else data[max(0, len(data) - length) :]
            at, size = self.index.decode(where, entries, (*self.shard, 2))[
                i % self.shard[0], j % self.shard[1]
            ].tolist()
            if at == _NONE:
                raise InputError(where, "a chunk of the shard is missing", hint="write it with write_empty_chunks=True")
            data = data[at : at + size]
        return self.codecs.decode(where, data, self.chunks)


def parse_v2(where: str, text: bytes) -> Array:
    """The array of a ``.zarray``. Errors: InputError for what is no 2-D array of numbers, or damaged."""
    meta = parse_object(where, text)
    code = meta.get("dtype")
    if not isinstance(code, str):
        raise NoMatrixError(where, "is a structured array", "numbers")
    dtype = parse_dtype(where, code[:1], code[1:])
    if meta.get("filters"):
        raise InputError(where, f"has the filters {str(meta['filters'])[:80]}", "none")
    steps = [_step(where, meta["compressor"])] if meta.get("compressor") else []
    separator = meta.get("dimension_separator", ".")
    if separator not in {".", "/"} or meta.get("order") not in {"C", "F"}:
        raise _odd(where, "separator or order")
    codecs = Codecs(tuple(steps), dtype, meta["order"] == "F")
    return Array(*_sizes(where, meta.get("shape"), meta.get("chunks")), dtype, codecs, separator=separator)


def parse_v3(where: str, text: bytes) -> Array:
    """The array of a ``zarr.json``. Errors: see `parse_v2`."""
    meta = parse_object(where, text)
    kind, grid, keys = meta.get("data_type"), meta.get("chunk_grid"), meta.get("chunk_key_encoding")
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise NoMatrixError(where, f"is an array of {str(kind)[:40]}", "numbers")
    if not (isinstance(grid, dict) and grid.get("name") == "regular" and isinstance(keys, dict)):
        raise _odd(where, "chunk grid")
    shape, chunks = _sizes(where, meta.get("shape"), _configuration(grid).get("chunk_shape"))
    default = keys.get("name") == "default"
    separator = _configuration(keys).get("separator", "/" if default else ".")
    if keys.get("name") not in {"default", "v2"} or separator not in {".", "/"}:
        raise _odd(where, "chunk keys")
    prefix = f"c{separator}" if default else ""
    dtype, codecs = np.dtype(_DTYPES[kind]), meta.get("codecs")
    if isinstance(codecs, list) and [_name(c) for c in codecs] == ["sharding_indexed"]:
        how = _configuration(codecs[0])
        _, inner = _sizes(where, shape, how.get("chunk_shape"))
        if any(big % small for big, small in zip(chunks, inner, strict=True)):
            raise _odd(where, "shards")
        shard = chunks[0] // inner[0], chunks[1] // inner[1]
        parsed, index = (
            _codecs(where, how.get("codecs"), dtype),
            _codecs(where, how.get("index_codecs"), np.dtype("u8")),
        )
        first = how.get("index_location", "end") == "start"
        return Array(shape, inner, parsed.dtype, parsed, prefix, separator, shard, index, first)
    parsed = _codecs(where, codecs, dtype)
    return Array(shape, chunks, parsed.dtype, parsed, prefix, separator)


def _codecs(where: str, listed: Any, dtype: np.dtype[Any]) -> Codecs:
    """Transposition, then bytes, then what numcodecs knows: decoded the other way round."""
    if not isinstance(listed, list) or not all(isinstance(c, dict) for c in listed):
        raise _odd(where, "codecs")
    names = [_name(c) for c in listed]
    fortran = names[:1] == ["transpose"] and _configuration(listed[0]).get("order") in ([1, 0], "F")
    if (names[:1] == ["transpose"] and not fortran) or names[fortran : fortran + 1] != ["bytes"]:
        raise InputError(where, f"is stored by the codecs {str(names)[:80]}", "transposed or not, then bytes")
    order = _configuration(listed[fortran]).get("endian", "little")
    if order not in {"little", "big"}:
        raise _odd(where, "byte order")
    steps = [
        _step(where, {"id": _name(c).removeprefix("numcodecs."), **_configuration(c)}) for c in listed[fortran + 1 :]
    ]
    return Codecs(tuple(steps[::-1]), dtype.newbyteorder("<" if order == "little" else ">"), fortran)


def _step(where: str, config: Any) -> dict[str, Any]:
    """A compressor's configuration, of which decoding needs the name alone."""
    name = config.get("id") if isinstance(config, dict) else None
    if name not in _CODECS:
        raise InputError(where, f"is stored by the codec {str(name)[:40]!r}", f"one of {', '.join(sorted(_CODECS))}")
    return {"id": name, "elementsize": int(config["elementsize"])} if name == "shuffle" else {"id": name}


def _sizes(where: str, shape: Any, chunks: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    for sizes in (shape, chunks):
        if not isinstance(sizes, Sequence) or not all(type(s) is int and s < 2**62 for s in sizes):
            raise _odd(where, "shape")
    found = check_shape(where, shape)
    if len(chunks) != len(shape) or min(chunks) < 1:
        raise _odd(where, "chunk shape")
    return found, (chunks[0], chunks[1])


def parse_object(where: str, text: bytes) -> dict[str, Any]:
    """Metadata. Errors: InputError where it is no JSON object."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise InputError(where, "its metadata is damaged", "a JSON object", "copy it again from its source")
    return meta


def _name(codec: Any) -> str:
    return str(codec.get("name"))


def _configuration(value: Any) -> dict[str, Any]:
    found = value.get("configuration") or {}
    return found if isinstance(found, dict) else {}


def _odd(where: str, what: str) -> HostileFileError:
    return HostileFileError(where, f"has a {what} that no writer gives", "Zarr of version 2 or 3")
