"""HDF5: every 2-D dataset of numbers in the file itself is a matrix. Runs in the process of `child`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import open_regular
from streamclust.readers.foreign.bands import band
from streamclust.readers.raw import check_shape, parse_dtype, stored_dtype
from streamclust.readers.sources import choose

_MAX_OBJECTS = 4096
_LZF = 32000
_FILTERS = frozenset(range(1, 7)) | {_LZF}  # deflate, shuffle, fletcher32, szip, nbit, scaleoffset: the libraries' own

Described = tuple[str, tuple[int, int], bool]


def describe(path: str) -> dict[str, Described]:
    """(dtype, (n, d), column after column) of each matrix, by its name in the file."""
    with _open(path) as file:
        names = _datasets(path, file)
        return choose(Path(path), {name: partial(_describe, path, file, name) for name in names})


def pour(path: str, key: str) -> Iterator[bytes]:
    """The matrix's bytes, row after row or column after column."""
    with _open(path) as file:
        code, (n, d), fortran = _describe(path, file, key)
        dataset = file[key]
        step, _ = band(path, (n, d), dataset.chunks, dataset.dtype.itemsize)
        for start in range(0, d if fortran else n, step):
            block = dataset[:, start : start + step].T if fortran else dataset[start : start + step]
            with np.errstate(over="ignore", invalid="ignore"):
                yield np.ascontiguousarray(block).astype(f"<{code}", copy=False).tobytes()


def _open(path: str) -> Any:
    with open_regular(Path(path)):  # not a pipe, not a device
        return h5py.File(path, "r", locking=False, rdcc_nbytes=1 << 20)


def _datasets(path: str, file: Any) -> list[str]:
    """Names by hard links only: soft ones are further names, external ones lead out of the file."""
    links: list[str] = []
    names: list[str] = []

    def look_at_link(name: str, link: Any) -> str | None:  # a value ends the visit, an exception must not
        links.append(name)
        return name if isinstance(link, h5py.ExternalLink) or len(links) > _MAX_OBJECTS else None

    def look_at(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            names.append(name)

    name = file.visititems_links(look_at_link)
    if len(links) > _MAX_OBJECTS:
        raise InputError(path, f"holds more than {_MAX_OBJECTS:,} objects", "a dataset for each descriptor")
    if name is not None:
        raise HostileFileError(path, f"{name[:80]!r} leads to another file", "datasets in this file")
    file.visititems(look_at)
    return names


def _describe(path: str, file: Any, name: str) -> Described:
    where, dataset = f"{path} {name[:80]!r}", file[name]
    shape = check_shape(where, dataset.shape or ())
    dtype = parse_dtype(where, *_spelled(dataset.dtype))
    if dataset.is_virtual or dataset.external:
        raise HostileFileError(where, "has its numbers in another file", "numbers in this file")
    filters = dataset.id.get_create_plist()
    for i in range(filters.get_nfilters()):
        if (number := filters.get_filter(i)[0]) not in _FILTERS:
            hint = "write it with compression='gzip' or 'lzf', or without"
            raise InputError(where, f"is stored by the filter {number}", "a filter of HDF5 itself", hint)
    _refuse_holes(where, dataset)
    _, fortran = band(where, shape, dataset.chunks, dataset.dtype.itemsize)
    return stored_dtype(dtype).str[1:], shape, fortran


def _spelled(dtype: np.dtype[Any]) -> tuple[str, str]:
    """Byte order and code; a kind that is no number has its kind for a code."""
    if dtype.fields or dtype.subdtype or h5py.check_dtype(ref=dtype) or h5py.check_dtype(enum=dtype):
        return "|", "V"
    return dtype.str[0], dtype.str[1:]


def _refuse_holes(where: str, dataset: Any) -> None:
    """What was never written would read as zeros."""
    if dataset.chunks is None:
        missing = dataset.id.get_storage_size() == 0 and dataset.size > 0
    else:
        wanted = np.prod([-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)])
        missing = dataset.id.get_num_chunks() < wanted
    if missing:
        raise InputError(where, "has rows that were never written", "a complete dataset", "write it again")
