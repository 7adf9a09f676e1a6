"""The matrices of a .npz file: stored ones are read where they lie, deflated ones inflated from the front."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import Fingerprint, check_unchanged, fingerprint_of, open_regular, truncated
from streamclust.readers.npy import MAX_HEADER, npy_within, parse_header
from streamclust.readers.raw import stored_dtype
from streamclust.readers.sources import Source, choose
from streamclust.readers.zips import STORED, Entry, every_entry, find_directory, locate_data

_PIECE = 1 << 20
_MAX_MEMBERS = 4096
_MOST = 1040  # deflate makes at most 1,032 bytes of one; a little for short members


@dataclass(frozen=True)
class Deflated:
    """An (n, d) matrix of ``source_dtype`` in a deflated .npy member; a `sources.Stream`.

    offset, size : where its compressed bytes lie. full, crc : length and checksum of the member.
    """

    path: Path
    member: str
    shape: tuple[int, int]
    source_dtype: np.dtype[Any]
    offset: int
    size: int
    full: int
    crc: int
    fingerprint: Fingerprint

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the blocks, see `stored_dtype`."""
        return stored_dtype(self.source_dtype)

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the member."""
        return self.full

    def pour(self) -> Iterator[bytes]:
        """The member's bytes. Errors: InputError where they do not match their length or checksum."""
        crc = length = 0
        with open_regular(self.path) as fd:
            check_unchanged(self.path, fd, self.fingerprint)
            for piece in _inflate(self.path, self.member, fd, self.offset, self.size):
                crc, length = zlib.crc32(piece, crc), length + len(piece)
                if length > self.full:
                    break
                yield piece
            check_unchanged(self.path, fd, self.fingerprint)
        if (length, crc) != (self.full, self.crc):
            where = f"{self.path} {self.member!r}"
            raise InputError(where, "does not match its length and checksum", "a file written by numpy.savez")


def open_npz(path: Path) -> dict[str, Source]:
    """The 2-D arrays of a .npz file by name.

    Errors: InputError where the file is no .npz or a member is encrypted, unreadable or there twice; HostileFileError
    where a member's name leads out of the file or its length cannot be true.
    """
    with open_regular(path) as fd:
        seen = fingerprint_of(fd)
        if os.pread(fd, 2, 0) != b"PK":
            raise InputError(path, "is not a .npz file", "a file written by numpy.savez")
        members = _members(path, fd)
        return choose(path, {name: partial(_open, path, fd, entry, seen) for name, entry in members.items()})


def _members(path: Path, fd: int) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in every_entry(path, fd, find_directory(path, fd, "a .npz file")):
        where = f"{path} {entry.name[:80]!r}"
        if not entry.readable:
            raise HostileFileError(where, "is not what numpy.savez writes", "a stored or deflated NAME.npy")
        name = entry.name.removesuffix(".npy")
        if name == entry.name:
            raise InputError(where, "is no array", "members NAME.npy, as numpy.savez writes them")
        if name in found:
            raise HostileFileError(where, "is there twice", "every array once")
        if entry.full > _MOST * entry.size + _MOST:
            raise HostileFileError(where, f"declares {entry.full:,} bytes from {entry.size:,}", "what deflate can do")
        found[name] = entry
        if len(found) > _MAX_MEMBERS:
            raise InputError(path, f"holds more than {_MAX_MEMBERS:,} arrays", "one for each descriptor")
    return found


def _open(path: Path, fd: int, entry: Entry, seen: Fingerprint) -> Source:
    begin, method, _, _ = locate_data(path, fd, entry.name, entry.offset)
    where = f"{path} {entry.name!r}"
    if begin + entry.size > seen[0]:
        raise truncated(path, begin + entry.size)
    if method == STORED:
        return npy_within(path, where, fd, begin, entry.size, seen)
    start = b""
    for piece in _inflate(path, entry.name, fd, begin, entry.size):
        start += piece
        if len(start) >= 12 + MAX_HEADER:
            break
    header = parse_header(where, start)
    if header.size + header.payload != entry.full:
        promised = f"its shape {header.shape} needs {header.size + header.payload:,} bytes"
        raise HostileFileError(where, promised, f"{entry.full:,}, its length in the zip")
    facts = header.shape, header.dtype, begin, entry.size, entry.full, entry.crc
    return Deflated(path, entry.name, *facts, seen)


def _inflate(path: Path, member: str, fd: int, offset: int, size: int) -> Iterator[bytes]:
    """The inflated bytes in pieces of at most a mebibyte; ends where the compressed ones do."""
    inflater, stop = zlib.decompressobj(-15), offset + size
    try:
        while not inflater.eof:
            data = inflater.unconsumed_tail
            if not data:
                data = os.pread(fd, min(_PIECE // 16, stop - offset), offset)
                offset += len(data)
            piece = inflater.decompress(data, _PIECE)
            if not data and not piece:
                return
            yield piece
    except zlib.error as error:
        raise InputError(f"{path} {member!r}", "is broken", "a file written by numpy.savez") from error
