"""Finds where NumPy arrays lie inside a pickle, without executing the pickle or reading the arrays."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from streamclust.errors import InputError
from streamclust.readers.encoded import encoded_array
from streamclust.readers.files import Fingerprint, ForwardReader, fingerprint_of, open_regular
from streamclust.readers.machine import EXPECTED, WRITE_AGAIN, Bytes, Global, Machine, Text
from streamclust.readers.pickled import Array, ArrayRules, Dtype
from streamclust.readers.raw import parse_dtype, raw_array
from streamclust.readers.sources import Source, choose, join

_MAGICS = {
    b"\x93NUMPY": "a .npy file", b"PK\x03\x04": "a zip file (.npz or PyTorch)", b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2", b"\xfd7zXZ": "compressed by xz", b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"x\x01": "compressed by zlib", b"x\x9c": "compressed by zlib", b"x^": "compressed by zlib",
    b"x\xda": "compressed by zlib", b"\x89HDF": "an HDF5 file", b"PAR1": "a Parquet file",
    b"\x04\x22\x4d\x18": "compressed by lz4", b"\x5d\x00\x00": "compressed by lzma",
}  # fmt: skip
_FIRST = b"c(]}"  # of an array, a dict or a list of protocol 0 or 1


def open_pickle(path: Path) -> dict[str, Source]:
    """The 2-D NumPy arrays of a pickle of any protocol, as NumPy 1 and 2 and joblib write them. Nothing in it is run.

    One array is called ``""``, and so is a list of them: parts in order. A dict gives its arrays (and lists of parts)
    by name. joblib's files count where they are not compressed.
    Errors: InputError where the file is cut or holds something else, HostileFileError where it asks for anything
    beyond what such arrays need.
    """
    with open_regular(path) as fd:
        seen = fingerprint_of(fd)
        stream = ForwardReader(path, fd, seen[0])
        _start(stream)
        machine = Machine(stream, ArrayRules())
        found = machine.run()
    if type(found) is dict:
        openers = {
            name: partial(_matrix, machine, f" under {name[:60]!r}", value, seen) for name, value in found.items()
        }
        sources = choose(path, openers)
    else:
        sources = {"": _matrix(machine, "", found, seen)}
    left = stream.size - stream.position
    if left:
        raise InputError(path, f"has {left:,} bytes after the array", "nothing behind the pickle", WRITE_AGAIN)
    return sources


def _start(stream: ForwardReader) -> None:
    """Step over the protocol, or say what else the file is."""
    start = os.pread(stream.fd, 8, 0)
    for magic, name in _MAGICS.items():
        if start.startswith(magic):
            raise InputError(stream.path, f"is {name}", EXPECTED, WRITE_AGAIN)
    if len(start) < 2:
        raise InputError(stream.path, "is no pickle" if start else "is an empty file", EXPECTED)
    if start[0] == 0x80 and start[1] not in {2, 3, 4, 5}:
        raise InputError(stream.path, f"is a pickle of protocol {start[1]}", EXPECTED, WRITE_AGAIN)
    if start[0] == 0x80:
        stream.position = 2
    elif start[0] not in _FIRST:
        raise InputError(stream.path, "is no pickle of arrays", EXPECTED, WRITE_AGAIN)


def _matrix(machine: Machine, where: str, value: Any, seen: Fingerprint) -> Source:
    """One array, or a list of them as parts in order."""
    if type(value) is not list:
        return _array(machine, where, value, seen)
    if not value:
        raise machine.other(f"is an empty list{where}")
    return join(machine.path, [_array(machine, f"{where} in a list", part, seen) for part in value])


def _array(machine: Machine, where: str, value: Any, seen: Fingerprint) -> Source:
    if not isinstance(value, Array):
        names = {Dtype: "a dtype", Global: "a class", Bytes: "a byte string", Text: "a str"}
        raise machine.other(f"is {names.get(type(value)) or f'a {type(value).__name__}'}{where}")
    if value.bytes.offset < 0:
        raise machine.hostile("holds an array without its bytes")
    path, dtype, at = machine.path, parse_dtype(machine.path, value.dtype.order or "", value.dtype.code), value.bytes
    if at.coding != "raw":
        return encoded_array(path, value.shape, dtype, at, fortran=value.fortran, seen=seen)
    fortran = value.fortran
    return raw_array(path, value.shape, dtype, offset=at.offset, fortran=fortran, payload=at.length, seen=seen)
