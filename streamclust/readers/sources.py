"""What a matrix in a file can do: give any of its rows, or be poured once, from the front, into a plain file."""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import BudgetError, HostileFileError, InputError
from streamclust.readers.files import Fingerprint
from streamclust.readers.foreign.helper import together
from streamclust.readers.npy import open_npy
from streamclust.readers.raw import NoMatrixError

_SPARE_BYTES = 64 << 20  # what pouring leaves free on a disk


class Matrix(Protocol):
    """An (n, d) matrix in a file. Small, immutable and picklable, so that a task can carry it to where it is read."""

    @property
    def path(self) -> Path:
        """The file, or the folder of its parts."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d), both at least 1."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the blocks: float16 or float32."""

    @property
    def fingerprint(self) -> Fingerprint:
        """(size, mtime_ns) of the file when it was opened."""


@runtime_checkable
class ArraySource(Matrix, Protocol):
    """A matrix of which any rows can be read."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``: (stop - start, d), C-contiguous, native-endian, aligned, of `dtype`."""


@runtime_checkable
class Stream(Matrix, Protocol):
    """A matrix that can be read from the front only. `addressable` makes an `ArraySource` of it."""

    @property
    def unpacked_bytes(self) -> int:
        """How many bytes `pour` gives but for its header, as far as the file tells the truth."""

    def pour(self) -> Iterator[bytes]:
        """The bytes of a .npy file that holds this matrix, in pieces of bounded size.

        Errors: InputError where the file is damaged, or was cut or changed since it was opened.
        """


Source = ArraySource | Stream


@dataclass(frozen=True)
class Parts:
    """Matrices of equal width, one below the other, as one. `read` needs every part to be an `ArraySource`."""

    path: Path
    parts: tuple[Source, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest that holds every part's."""
        return np.result_type(*{part.dtype for part in self.parts})

    @property
    def fingerprint(self) -> Fingerprint:
        """Bytes of all files, and a digest of every part's name, size and time in place of a time."""
        facts = [(str(part.path), *part.fingerprint) for part in self.parts]
        digest = blake2b(repr(facts).encode(), digest_size=7).digest()
        return sum(size for size, _ in {path: (size, t) for path, size, t in facts}.values()), int.from_bytes(digest)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, of whichever parts they are."""
        n, d = self.shape
        if not 0 <= start <= stop <= n:
            raise ValueError(f"rows {start}:{stop} of {n}")
        out = np.empty((stop - start, d), self.dtype)
        ends = list(accumulate(part.shape[0] for part in self.parts))
        at = start
        while at < stop:
            i = bisect_right(ends, at)
            part, end = self.parts[i], min(stop, ends[i])
            begin = ends[i] - part.shape[0]
            assert isinstance(part, ArraySource), "a stream was not unpacked"
            out[at - start : end - start] = part.read(at - begin, end - begin)
            at = end
        return out


def join(path: Path, parts: Sequence[Source]) -> Source:
    """Parts in order as one matrix; InputError unless their widths are equal."""
    d = parts[0].shape[1]
    for i, part in enumerate(parts):
        if part.shape[1] != d:
            where = part.path if part.path != path else f"{path} part {i + 1}"
            raise InputError(where, f"has {part.shape[1]:,} columns", f"{d:,}, as the first part has")
    return parts[0] if len(parts) == 1 else Parts(path, tuple(parts))


T = TypeVar("T")


def choose(path: Path, openers: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Every matrix among the arrays of a file, by name; arrays that are no matrices are passed over.

    Errors: InputError where there is no matrix; where there is but one array, what is wrong with that.
    """
    found, refused = {}, list[NoMatrixError]()
    for name, opener in openers.items():
        try:
            found[name] = opener()
        except NoMatrixError as error:
            refused.append(error)
    if found:
        return found
    if len(refused) == 1:
        raise refused[0]
    some = f", the first {refused[0].found}" if refused else ""
    raise NoMatrixError(path, f"holds {len(refused)} arrays{some}", "at least one 2-D array of numbers")


def unpacked_bytes(source: Source) -> int:
    """Bytes that `addressable` writes."""
    if isinstance(source, Parts):
        return sum(map(unpacked_bytes, source.parts))
    return source.unpacked_bytes if isinstance(source, Stream) else 0


def addressable(source: Source, place: Path) -> ArraySource:
    """The same matrix as one of which any rows can be read: a stream is poured into ``place``, once.

    What a killed run left there whole is kept. Errors: BudgetError where the disk is too small, InputError and
    HostileFileError where the stream does not give what its header promised.
    """
    if isinstance(source, Parts):
        places = (place.with_suffix(".parts") / f"{i}.npy" for i in range(len(source.parts)))
        with together():
            return replace(source, parts=tuple(map(addressable, source.parts, places)))
    if not isinstance(source, Stream):
        return source
    if not place.exists():
        _pour(source, place)
    found = open_npy(place)
    if (found.shape, found.dtype) != (source.shape, source.dtype):
        raise HostileFileError(source.path, f"gives an array of shape {found.shape}", f"{source.shape}, as it promised")
    return found


def _pour(source: Stream, place: Path) -> None:
    """Into a file beside ``place`` that takes its name once it is whole and on the disk."""
    place.parent.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(place.parent).free, source.unpacked_bytes
    if free < needed + _SPARE_BYTES:
        where = f"{source.path}, unpacked into {place.parent}"
        raise BudgetError(where, f"the disk has {free:,} bytes free", f"{needed + _SPARE_BYTES:,}", "make room")
    partial = place.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            for piece in source.pour():
                file.write(piece)
                if file.tell() > needed + _SPARE_BYTES:
                    raise HostileFileError(source.path, "unpacks without end", f"{needed:,} bytes")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(place)
    finally:
        partial.unlink(missing_ok=True)
