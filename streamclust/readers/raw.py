"""A matrix that lies in a file as plain bytes: which dtypes are accepted, and blocks of rows read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import Fingerprint, check_unchanged, open_regular, pread_into, truncated

_PIECE_BYTES = 1 << 20  # what a conversion holds beside the block; near the size of a processor's cache
_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_KINDS = {
    "O": "an array of Python objects",
    "V": "a structured array",
    "[": "a structured array",
    "M": "an array of dates",
    "m": "an array of time differences",
    "c": "an array of complex numbers",
    "S": "an array of byte strings",
    "a": "an array of byte strings",
    "U": "an array of texts",
    "T": "an array of texts",
}


class NoMatrixError(InputError):
    """An array that is sound, but not a 2-D array of real numbers. Beside others in one file it may be passed over."""


def parse_dtype(where: object, byteorder: str, code: str) -> np.dtype[Any]:
    """The dtype that ``code`` (such as ``f4``) names; InputError unless it holds real numbers of up to 8 bytes."""
    if code not in _CODES:
        found = _KINDS.get(code[:1], f"an array of the unknown dtype {code[:20]!r}")
        raise NoMatrixError(where, f"is {found}", "numbers", "save it as x.astype('float32')")
    if byteorder not in {"<", ">", "|"} or (byteorder == "|" and code[1:] != "1"):
        raise InputError(where, f"has no known byte order ({byteorder[:4]!r})", "'<' or '>'")
    return np.dtype(byteorder + code)


def stored_dtype(source: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype a source is kept as: float16 and float32 as they come, float64, integers and bool as float32."""
    return np.dtype(np.float16) if source == np.dtype(source.byteorder + "f2") else np.dtype(np.float32)


@dataclass(frozen=True)
class RawArray:
    """An (n, d) matrix whose bytes lie uncompressed in one file.

    Parameters
    ----------
    path : the file.
    shape : (n, d), both at least 1.
    source_dtype : as in the file.
    dtype : native-endian dtype of the blocks, see `stored_dtype`.
    offset : where the first element lies, in bytes; need not be aligned.
    fortran : whether columns rather than rows are contiguous.
    fingerprint : (size, mtime_ns) of the file when it was opened.
    """

    path: Path
    shape: tuple[int, int]
    source_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    offset: int
    fortran: bool
    fingerprint: Fingerprint

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``: (stop - start, d), C-contiguous, native-endian, aligned, of `dtype`.

        A float64 beyond the range of float32 becomes infinite. Safe to call from several threads.
        Errors: InputError where the file was cut or changed since it was opened.
        """
        n, d = self.shape
        if not 0 <= start <= stop <= n:
            raise ValueError(f"rows {start}:{stop} of {n}")
        out = np.empty((stop - start, d), self.dtype)
        with open_regular(self.path) as fd, np.errstate(over="ignore", invalid="ignore"):
            check_unchanged(self.path, fd, self.fingerprint)
            if self.fortran:
                self._read_columns(fd, start, out)
            elif self.source_dtype == self.dtype:
                pread_into(self.path, fd, out, self.offset + start * d * self.dtype.itemsize)
            else:
                self._read_rows(fd, start, out)
            check_unchanged(self.path, fd, self.fingerprint)
        return out

    def _read_rows(self, fd: int, start: int, out: NDArray[Any]) -> None:
        row = out.shape[1] * self.source_dtype.itemsize
        step = max(1, _PIECE_BYTES // row)
        piece = np.empty((min(step, len(out)), out.shape[1]), self.source_dtype)
        for low in range(0, len(out), step):
            part = piece[: min(step, len(out) - low)]
            pread_into(self.path, fd, part, self.offset + (start + low) * row)
            out[low : low + step] = _numbers(part)

    def _read_columns(self, fd: int, start: int, out: NDArray[Any]) -> None:
        size, (n, d) = self.source_dtype.itemsize, self.shape
        rows = max(
            1, min(len(out), _PIECE_BYTES // (16 * size))
        )  # 16 columns at a time fill whole cache lines of `out`
        columns = max(1, min(d, _PIECE_BYTES // (rows * size)))
        piece = np.empty(rows * columns, self.source_dtype)
        for low in range(0, len(out), rows):
            count = min(rows, len(out) - low)
            for left in range(0, d, columns):
                part = piece[: min(columns, d - left) * count].reshape(-1, count)
                for i, line in enumerate(part):
                    pread_into(self.path, fd, line, self.offset + ((left + i) * n + start + low) * size)
                out[low : low + count, left : left + columns] = _numbers(part).T


def _numbers(part: NDArray[Any]) -> NDArray[Any]:
    """A bool of a foreign file may hold any byte: whatever is not zero counts as true."""
    return part.view(np.uint8) != 0 if part.dtype.kind == "b" else part


def check_shape(where: object, shape: Sequence[int]) -> tuple[int, int]:
    """(n, d); InputError unless there are two dimensions, both at least 1."""
    if len(shape) != 2:
        raise NoMatrixError(where, f"is a {len(shape)}-D array", "a 2-D array (n images, d numbers)")
    n, d = shape
    if n < 0 or d < 0:
        raise HostileFileError(where, f"has the impossible shape ({n}, {d})", "a 2-D array")
    if n == 0 or d == 0:
        raise NoMatrixError(where, f"is an empty array of shape ({n}, {d})", "at least one row and one column")
    return n, d


def raw_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    offset: int,
    fortran: bool,
    payload: int,
    seen: Fingerprint,
) -> RawArray:
    """A `RawArray` after every check on its geometry.

    ``payload`` is how many bytes the file says the array has, ``seen`` its fingerprint.
    Errors: InputError unless the array is 2-D and not empty; HostileFileError where sizes contradict each other.
    """
    n, d = check_shape(path, shape)
    needed = n * d * dtype.itemsize
    if needed != payload:
        raise HostileFileError(path, f"shape ({n}, {d}) of {dtype} needs {needed:,} bytes", f"the {payload:,} it has")
    if offset + payload > seen[0]:
        raise truncated(path, offset + payload)
    return RawArray(path, (n, d), dtype, stored_dtype(dtype), offset, fortran, seen)
