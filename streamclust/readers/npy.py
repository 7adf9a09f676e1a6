"""The .npy format: its header, matched against a pattern and never evaluated, and the matrix behind it."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import Fingerprint, fingerprint_of, open_regular, truncated
from streamclust.readers.raw import RawArray, check_shape, parse_dtype, raw_array

MAX_HEADER = 10_000  # NumPy's own limit for a file that is not trusted
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{\s*'descr':\s*(?:'(?P<order>[<>|=]?)(?P<code>\w[^']*)'|(?P<fields>\[).*),\s*'fortran_order':\s*"
    r"(?P<fortran>True|False),\s*'shape':\s*\((?P<shape>[\d, L]*)\),?\s*\}\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Header:
    """What stands before the bytes of an array: ``size`` is its own length, ``payload`` that of the array."""

    dtype: np.dtype[Any]
    shape: tuple[int, int]
    fortran: bool
    size: int

    @property
    def payload(self) -> int:
        """Bytes of the array."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def parse_header(where: object, start: bytes) -> Header:
    """The header at the beginning of ``start``, which need not hold more than 12 + `MAX_HEADER` bytes.

    Errors: InputError for anything but a 2-D array of numbers, HostileFileError for what cannot be true.
    Source: numpy.lib.format, versions 1 to 3.
    """
    if len(start) < 12 or start[:6] != _MAGIC or start[6] not in {1, 2, 3}:
        raise InputError(where, "is not a .npy file", "a file written by numpy.save")
    first = 10 if start[6] == 1 else 12
    length = int.from_bytes(start[8:first], "little")
    if length > MAX_HEADER:
        raise HostileFileError(where, f"declares a header of {length:,} bytes", f"at most {MAX_HEADER:,}")
    header = start[first : first + length].decode("latin-1")
    match = _HEADER.fullmatch(header)
    if len(header) < length or match is None:
        raise InputError(where, "has a header that numpy.save does not write", "a file written by numpy.save")
    dtype = parse_dtype(where, match["order"] or "|", match["fields"] or match["code"])
    parts = [part.strip() for part in match["shape"].split(",") if part.strip()]
    if not all(re.fullmatch(r"\d{1,19}L?", part) for part in parts):
        raise HostileFileError(where, f"has the impossible shape ({match['shape'][:60]})", "a 2-D array")
    shape = check_shape(where, [int(part.rstrip("L")) for part in parts])
    return Header(dtype, shape, match["fortran"] == "True", first + length)


def header_bytes(dtype: np.dtype[Any], shape: tuple[int, int], *, fortran: bool) -> bytes:
    """The header of a .npy file of version 1."""
    out = io.BytesIO()
    facts = {"descr": dtype.str, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(out, facts)
    return out.getvalue()


def npy_within(path: Path, where: object, fd: int, offset: int, length: int, seen: Fingerprint) -> RawArray:
    """The matrix of a .npy that lies from ``offset`` on over ``length`` bytes of the open file ``path``.

    Errors: InputError where that is anything but a 2-D array of numbers, HostileFileError where it lies.
    """
    header = parse_header(where, os.pread(fd, min(length, 12 + MAX_HEADER), offset))
    left = length - header.size
    if left < header.payload:
        raise truncated(path, offset + header.size + header.payload)
    if left > header.payload:
        raise InputError(where, f"has {left - header.payload:,} bytes after the array", "one array in the file")
    begin, fortran = offset + header.size, header.fortran
    return raw_array(path, header.shape, header.dtype, offset=begin, fortran=fortran, payload=left, seen=seen)


def open_npy(path: Path) -> RawArray:
    """The matrix of a ``.npy`` file. Errors: see `npy_within`."""
    with open_regular(path) as fd:
        seen = fingerprint_of(fd)
        return npy_within(path, path, fd, 0, seen[0], seen)
