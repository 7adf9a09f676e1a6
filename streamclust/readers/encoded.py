"""A matrix whose bytes are spelled as text in a pickle of protocol 0, 1 or 2: decoded from the front by pieces."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.errors import HostileFileError
from streamclust.readers.files import Fingerprint, check_unchanged, open_regular, truncated
from streamclust.readers.machine import Bytes
from streamclust.readers.npy import header_bytes
from streamclust.readers.raw import check_shape, stored_dtype

_PIECE = 1 << 20
_WORST = {"utf-8": 2, "escaped": 6, "quoted": 4}  # bytes of the file for one of the array
_WHOLE = {  # what can be decoded without knowing what comes next; in Python 2's text a quote stands at either end
    "escaped": re.compile(rb"(?:[^\\]++|\\u[0-9a-f]{4})*+"),
    "quoted": re.compile(rb"(?:[^\\]++|\\x[0-9a-f]{2}|\\[nrt\\'\"])*+"),
}


@dataclass(frozen=True)
class EncodedArray:
    """An (n, d) matrix of ``source_dtype`` spelled as the text at ``at``; a `sources.Stream`."""

    path: Path
    shape: tuple[int, int]
    source_dtype: np.dtype[Any]
    fortran: bool
    at: Bytes
    fingerprint: Fingerprint

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the blocks, see `stored_dtype`."""
        return stored_dtype(self.source_dtype)

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the array."""
        return self.shape[0] * self.shape[1] * self.source_dtype.itemsize

    def pour(self) -> Iterator[bytes]:
        """The bytes of a .npy file. Errors: InputError where the file changed, HostileFileError for another text."""
        yield header_bytes(self.source_dtype, self.shape, fortran=self.fortran)
        left = self.unpacked_bytes
        with open_regular(self.path) as fd:
            check_unchanged(self.path, fd, self.fingerprint)
            for piece in decoded(_pieces(self.path, fd, self.at), self.at.coding):
                left -= len(piece)
                if piece is _BROKEN or left < 0:
                    break
                yield piece
            check_unchanged(self.path, fd, self.fingerprint)
        if left:
            expected = f"{self.unpacked_bytes:,} bytes, as its shape says"
            raise HostileFileError(self.path, "holds an array whose text does not give its bytes", expected)


def encoded_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], at: Bytes, *, fortran: bool, seen: Fingerprint
) -> EncodedArray:
    """An `EncodedArray` after every check that needs no decoding."""
    found = EncodedArray(path, check_shape(path, shape), dtype, fortran, at, seen)
    needed = found.unpacked_bytes
    if not needed <= at.length <= _WORST[at.coding] * needed + 2:
        expected = f"one of {at.length:,} bytes of text"
        raise HostileFileError(path, f"shape {found.shape} of {dtype} needs {needed:,} bytes", expected)
    return found


_BROKEN = b"broken"


def decoded(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """The bytes that a text's characters stand for; ends with `_BROKEN` where they are none."""
    try:
        yield from _from_utf8(pieces) if coding == "utf-8" else _from_escapes(pieces, coding)
    except ValueError:
        yield _BROKEN


def _pieces(path: Path, fd: int, at: Bytes) -> Iterator[bytes]:
    quotes = at.coding == "quoted"
    position, stop = at.offset + quotes, at.offset + at.length - quotes
    while position < stop:
        piece = os.pread(fd, min(_PIECE, stop - position), position)
        if not piece:
            raise truncated(path, stop)
        position += len(piece)
        yield piece


def _from_utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in pieces:
        yield decoder.decode(piece).encode("latin-1")
    decoder.decode(b"", final=True)


def _from_escapes(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        match = _WHOLE[coding].match(held)
        end = match.end() if match else 0
        if coding == "escaped":
            yield held[:end].decode("raw-unicode-escape").encode("latin-1")
        else:
            yield codecs.escape_decode(held[:end])[0]
        held = held[end:]
        if len(held) > len(r"\u0000"):
            raise ValueError("no escape")
    if held:
        raise ValueError("no escape")
