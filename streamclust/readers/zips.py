"""A zip file's directory as arrays (24 bytes per entry, where zipfile takes 300), and the bytes of one entry."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.readers.files import hash64, path_fault, pread_exactly

_PARTITION_BYTES = 256 << 20  # of directory: about 4 million entries, whose arrays weigh 100 MB
_WINDOW = 4 << 20
_BATCH = 65536
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_STREAMED = 0x8
STORED, DEFLATED = 0, 8
_IN_EXTRA = 0xFFFFFFFF


@dataclass(frozen=True)
class Directory:
    """Where the directory of a zip file lies, and how many bytes stand before the zip in its file (``shift``)."""

    offset: int
    size: int
    shift: int

    @property
    def partitions(self) -> int:
        """In how many parts its index is built, so that each fits in memory."""
        return max(1, -(-self.size // _PARTITION_BYTES))


def _broken(path: Path, what: str = "has a broken directory", expected: str = "a zip of pictures") -> InputError:
    return InputError(path, what, expected, "copy it again from its source")


def find_directory(path: Path, fd: int, expected: str = "a zip of pictures") -> Directory:
    """The directory of an open zip file. Errors: InputError where there is none. Source: PKWARE APPNOTE 4.3.12-16."""
    size = os.fstat(fd).st_size
    low = max(0, size - _LOCATOR64.size - _END.size - 0xFFFF)
    tail = pread_exactly(path, fd, size - low, low)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise _broken(path, "is not a complete zip file", expected)
    end = low + at
    *_, length, start, _ = _END.unpack_from(tail, at)
    locator = at - _LOCATOR64.size
    if locator >= 0 and tail.startswith(b"PK\6\7", locator):
        end = low + locator - _END64.size  # the zip64 record stands just before its locator
        record = pread_exactly(path, fd, _END64.size, end) if end >= 0 else b""
        if not record.startswith(b"PK\6\6"):
            raise _broken(path, "has a broken zip64 directory")
        *_, length, start = _END64.unpack(record)
    shift = end - length - start
    if shift < 0:
        raise _broken(path)
    return Directory(start + shift, length, shift)


class Entry(NamedTuple):
    """One entry as the directory describes it: ``size`` bytes in the file become ``full``."""

    name: str
    offset: int
    size: int
    full: int
    crc: int
    readable: bool


def entries(path: Path, fd: int, directory: Directory) -> Iterator[tuple[str, int, int]]:
    """Name, offset of the local header and compressed size of each entry that can be read, in directory order.

    Folders, encrypted entries, methods other than stored and deflate, and names that are absolute or lead upwards are
    passed over. Errors: InputError where the directory is broken.
    """
    for name, offset, size, _, _, readable in every_entry(path, fd, directory):
        if readable:
            yield name, offset, size


def every_entry(path: Path, fd: int, directory: Directory) -> Iterator[Entry]:
    """All entries, in directory order. Errors: InputError where the directory is broken."""
    position, stop = directory.offset, directory.offset + directory.size
    window, low = b"", 0
    while position + low < stop:
        if len(window) - low < _ENTRY.size + 3 * 0xFFFF and position + len(window) < stop:
            position, low = position + low, 0
            window = pread_exactly(path, fd, min(_WINDOW, stop - position), position)
        if len(window) - low < _ENTRY.size or not window.startswith(b"PK\1\2", low):
            raise _broken(path)
        _, _, _, flags, method, _, _, crc, size, full, n_name, n_extra, n_comment, _, _, _, offset = _ENTRY.unpack_from(
            window, low
        )
        low += _ENTRY.size
        raw, extra = window[low : low + n_name], window[low + n_name : low + n_name + n_extra]
        low += n_name + n_extra + n_comment
        if _IN_EXTRA in {size, full, offset}:
            full, size, offset = _from_extra(path, extra, full, size, offset)
        name, offset = decode_name(raw), offset + directory.shift
        readable = not flags & _ENCRYPTED and method in {STORED, DEFLATED} and offset + size <= directory.offset
        yield Entry(name, offset, size, full, crc, readable and name[-1:] != "/" and not path_fault(name))


def _from_extra(path: Path, extra: bytes, full: int, size: int, offset: int) -> tuple[int, int, int]:
    """Size, size in the file and offset by the zip64 field, which holds those that did not fit, in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = [full, size, offset]
            missing = [i for i, value in enumerate(values) if value == _IN_EXTRA]
            if min(length, len(extra) - at - 4) < 8 * len(missing):
                break
            for k, i in enumerate(missing):
                values[i] = int.from_bytes(extra[at + 4 + 8 * k : at + 12 + 8 * k], "little")
            return values[0], values[1], values[2]
        at += 4 + length
    raise _broken(path, "has a broken zip64 entry")


def decode_name(raw: bytes) -> str:
    """UTF-8 where it is valid, since many writers forget its flag, else code page 437 as the format says."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


class ZipIndex:
    """Where the entries of (one partition of) a zip file lie: sorted 64-bit hashes of names, offsets, sizes.

    Two names of one hash are told apart by `read_entry`, which checks the name beside the bytes.
    """

    def __init__(self, path: Path, fd: int, partition: int = 0) -> None:
        directory = find_directory(path, fd)
        parts = np.uint64(directory.partitions)
        names, places = list[str](), list[tuple[int, int]]()
        hashes, found = [np.empty(0, np.uint64)], [np.empty((0, 2), np.int64)]

        def keep() -> None:
            batch = hash64(names)
            mine = batch % parts == partition
            hashes.append(batch[mine])
            found.append(np.array(places, np.int64).reshape(-1, 2)[mine])
            names.clear()
            places.clear()

        for name, offset, size in entries(path, fd, directory):
            names.append(name)
            places.append((offset, size))
            if len(names) == _BATCH:
                keep()
        keep()
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        self._hashes, self._places = every[order], np.concatenate(found)[order]

    def locate(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offset of the local header and compressed size for `hash64` of each name, -1 where it is not here.

        Of entries with the same name the last counts, as it does for every unzip program.
        """
        out = np.full((len(hashes), 2), -1, np.int64)
        at = np.searchsorted(self._hashes, hashes, side="right") - 1
        here = at >= 0
        here[here] = self._hashes[at[here]] == hashes[here]
        out[here] = self._places[at[here]]
        return out[:, 0].copy(), out[:, 1].copy()


def locate_data(path: Path, fd: int, name: str, offset: int) -> tuple[int, int, int, int]:
    """Where the data of the entry at ``offset`` begins, its method, its flags and its checksum.

    Errors: InputError where another entry is there, or one that cannot be read.
    """
    where = f"{path} {name!r}"
    head = _LOCAL.unpack(pread_exactly(path, fd, _LOCAL.size, offset))
    signature, _, flags, method, _, _, crc, _, _, n_name, n_extra = head
    if signature != b"PK\3\4" or flags & _ENCRYPTED or method not in {STORED, DEFLATED}:
        raise InputError(where, "cannot be read from the zip", "a stored or deflated entry")
    if decode_name(pread_exactly(path, fd, n_name, offset + _LOCAL.size)) != name:
        raise InputError(where, "is not where it was in the zip", hint="the zip was replaced: import its case again")
    return offset + _LOCAL.size + n_name + n_extra, method, flags, crc


def read_entry(path: Path, fd: int, name: str, offset: int, size: int, limit: int) -> bytes:
    """The bytes of an entry, of which there may be ``limit`` after inflation.

    Errors: InputError where the entry at ``offset`` has another name, is broken, or is larger.
    """
    where = f"{path} {name!r}"
    begin, method, flags, crc = locate_data(path, fd, name, offset)
    if size > limit:
        raise InputError(where, f"has {size:,} bytes", f"at most {limit:,}")
    data = pread_exactly(path, fd, size, begin)
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(data, limit + 1)
        except zlib.error as error:
            raise InputError(where, "is broken in the zip", "a picture") from error
        if len(data) > limit:
            raise InputError(where, "inflates without end", f"at most {limit:,} bytes")
    if not flags & _STREAMED and zlib.crc32(data) != crc:
        raise InputError(where, "does not match its checksum in the zip", "a picture")
    return data
