"""Descriptor files as matrices that are read block by block, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.readers.files import Fingerprint
from streamclust.readers.pickles import open_pickle
from streamclust.readers.raw import RawArray, open_npy

__all__ = ["KNOWN_SUFFIXES", "ArraySource", "RawArray", "open_descriptor", "open_npy"]


class ArraySource(Protocol):
    """An (n, d) matrix in a file. Small, immutable and picklable, so that a task can carry it to where it is read."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d), both at least 1."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the blocks: float16 or float32."""

    @property
    def fingerprint(self) -> Fingerprint:
        """(size, mtime_ns) of the file when it was opened."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``: (stop - start, d), C-contiguous, native-endian, aligned, of `dtype`."""


_OPENERS: dict[str, Callable[[Path], ArraySource]] = {".pickle": open_pickle, ".pkl": open_pickle, ".npy": open_npy}
_NOT_YET = frozenset({".npz", ".parquet", ".zarr", ".h5", ".hdf5"})
KNOWN_SUFFIXES = frozenset(_OPENERS) | _NOT_YET


def open_descriptor(path: Path) -> ArraySource:
    """Open a descriptor file by its suffix; no row is read.

    Errors: InputError for a format that is not read, or contents that are not one 2-D array of numbers.
    """
    suffix = path.suffix.lower()
    hint = "convert to .npy or a pickle of protocol 3-5"
    if suffix in _NOT_YET:
        raise InputError(path, f"{suffix} is not supported yet", hint=hint)
    if suffix not in _OPENERS:
        raise InputError(path, f"has the unknown suffix {suffix!r}", " or ".join(sorted(_OPENERS)), hint)
    return _OPENERS[suffix](path)
