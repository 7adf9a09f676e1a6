"""Zarr v2 and v3 folders: every 2-D array of numbers is a matrix. Runs in the process of `child`.

Metadata and chunks are read here, and only the codecs come from a library, so that a missing chunk is an error and no
key leads out of the folder. Source: the Zarr specifications, versions 2 and 3.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import fingerprint_of, open_regular, pread_exactly
from streamclust.readers.foreign.bands import band
from streamclust.readers.foreign.zarr_meta import Array, parse_object, parse_v2, parse_v3
from streamclust.readers.raw import stored_dtype
from streamclust.readers.sources import choose

_MAX_META = 1 << 20
_MAX_FOLDERS = 4096
_MAX_CHUNK = 256 << 20

Described = tuple[str, tuple[int, int], bool]


def describe(path: str) -> dict[str, Described]:
    """(dtype, (n, d), column after column) of each matrix, by its name below the folder."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(path, "is no folder", "a Zarr array or group in a folder")
    return choose(root, {name: partial(_describe, root, name) for name in _arrays(root)})


def pour(path: str, key: str) -> Iterator[bytes]:
    """The matrix's bytes, row after row or column after column."""
    root = Path(path)
    array = _open(root, key)
    (n, d), dtype = array.shape, stored_dtype(array.dtype)
    step, fortran = band(path, array.shape, array.chunks, array.dtype.itemsize)
    for start in range(0, d if fortran else n, step):
        stop = min(start + step, d if fortran else n)
        rows, columns = (range(n), range(start, stop)) if fortran else (range(start, stop), range(d))
        block = np.empty((len(rows), len(columns)), dtype)
        for i, j in _chunks_of(array, rows, columns):
            chunk = _read(root, key, array, i, j)
            top, left = i * array.chunks[0] - rows.start, j * array.chunks[1] - columns.start
            part = block[top : top + len(chunk), left : left + chunk.shape[1]]
            with np.errstate(over="ignore", invalid="ignore"):
                part[:] = chunk[: part.shape[0], : part.shape[1]]
        yield (block.T if fortran else block).astype(dtype.newbyteorder("<"), copy=False).tobytes()


def _arrays(root: Path) -> list[str]:
    """Names of arrays, looked for in groups but not inside arrays; links to folders are not followed."""
    found = []
    for count, (folder, below, files) in enumerate(os.walk(root)):
        if count >= _MAX_FOLDERS:
            raise InputError(root, f"holds more than {_MAX_FOLDERS:,} groups", "an array for each descriptor")
        if ".zarray" in files or ("zarr.json" in files and not _is_group(root, Path(folder) / "zarr.json")):
            found.append(Path(folder).relative_to(root).as_posix().removeprefix("."))
            below.clear()
        below.sort()
    return found


def _is_group(root: Path, path: Path) -> bool:
    return parse_object(str(path), _text(root, path)).get("node_type") == "group"


def _text(root: Path, path: Path) -> bytes:
    with open_regular(path) as fd:
        size = fingerprint_of(fd)[0]
        if size > _MAX_META or not path.resolve().is_relative_to(root.resolve()):
            raise HostileFileError(path, "is no metadata of this folder", f"at most {_MAX_META:,} bytes in it")
        return pread_exactly(path, fd, size, 0)


def _open(root: Path, name: str) -> Array:
    folder = root / name
    if (folder / "zarr.json").exists():
        return parse_v3(f"{folder}", _text(root, folder / "zarr.json"))
    return parse_v2(f"{folder}", _text(root, folder / ".zarray"))


def _describe(root: Path, name: str) -> Described:
    array = _open(root, name)
    if array.stored_chunk_bytes > _MAX_CHUNK:
        raise InputError(root / name, f"has chunks of {array.stored_chunk_bytes:,} bytes", f"at most {_MAX_CHUNK:,}")
    _, fortran = band(str(root / name), array.shape, array.chunks, array.dtype.itemsize)
    return stored_dtype(array.dtype).str[1:], array.shape, fortran


def _chunks_of(array: Array, rows: range, columns: range) -> Iterator[tuple[int, int]]:
    (height, width) = array.chunks
    grid = (
        range(rows.start // height, -(-rows.stop // height)),
        range(columns.start // width, -(-columns.stop // width)),
    )
    return itertools.product(*grid)


def _read(root: Path, name: str, array: Array, i: int, j: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """One chunk, decoded: always of the full chunk shape, also at the edges."""
    path = root / name / array.key(i, j)
    if not path.exists():
        hint = "copy it again, or write it with write_empty_chunks=True"
        raise InputError(path, "the chunk is missing", "every chunk of the array", hint)
    with open_regular(path) as fd:
        size = fingerprint_of(fd)[0]
        if size > 2 * _MAX_CHUNK or not path.resolve().is_relative_to(root.resolve()):
            raise HostileFileError(path, "is no chunk of this folder", f"at most {2 * _MAX_CHUNK:,} bytes in it")
        data = pread_exactly(path, fd, size, 0)
    return array.decode(str(path), data, i, j)
