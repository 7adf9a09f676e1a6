"""Formats that a C library has to read: a process of its own does, within bounds of memory and time, from the front.

Whatever a file does to the library, it ends that process and not this one; and what the process says is checked here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.files import Fingerprint, fingerprint_of, open_regular
from streamclust.readers.foreign.helper import Request, run
from streamclust.readers.npy import header_bytes
from streamclust.readers.raw import check_shape

MEMORY_BYTES = 768 << 20  # what the other process may allocate
_CPU_SECONDS = 60  # beside one for every mebibyte that is to come
_MAX_ANSWER = 4 << 20


@dataclass(frozen=True)
class Foreign:
    """An (n, d) matrix called ``key`` in a file of some ``format``; a `sources.Stream`.

    dtype : of the blocks, and what the other process gives. fortran : whether it gives columns after one another.
    """

    path: Path
    format: str
    key: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    fortran: bool
    fingerprint: Fingerprint

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the array."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def pour(self) -> Iterator[bytes]:
        """The bytes of a .npy file. Errors: InputError where the file is damaged, changed, or gives another length."""
        yield header_bytes(self.dtype, self.shape, fortran=self.fortran)
        left = self.unpacked_bytes
        for piece in run(Request("pour", self.format, self.path, self.key, MEMORY_BYTES, _CPU_SECONDS + (left >> 20))):
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if fingerprint(self.path) != self.fingerprint:
            hint = "wait until its writer is done, then start again"
            raise InputError(self.path, "the file changed while it was being read", hint=hint)
        if left:
            got = f"{self.unpacked_bytes - left:,} bytes" if left > 0 else "more bytes"
            raise HostileFileError(self.path, f"gives {got}", f"{self.unpacked_bytes:,}, as its header says")


def open_foreign(path: Path, kind: str) -> dict[str, Foreign]:
    """The matrices of a file of a format (``parquet``, ``hdf5``, ``zarr``), by name.

    Errors: InputError where there is none or the file cannot be read, HostileFileError where it does what no honest one
    would.
    """
    seen, answer = fingerprint(path), b""
    for piece in run(Request("describe", kind, path, "", MEMORY_BYTES, _CPU_SECONDS)):
        answer += piece
        if len(answer) > _MAX_ANSWER:
            raise HostileFileError(path, "holds more than can be listed")
    found = {}
    for key, (code, shape, fortran) in json.loads(answer).items():
        n, d = check_shape(path, shape)
        found[key] = Foreign(
            path, kind, key, (n, d), np.dtype(np.float16 if code == "f2" else np.float32), fortran, seen
        )
    return found


def fingerprint(path: Path) -> Fingerprint:
    """Size and time of a file; of a folder, the size of its files and a digest of their names, sizes and times."""
    if not path.is_dir():
        with open_regular(path) as fd:
            return fingerprint_of(fd)
    found = [(str(p.relative_to(path)), p.lstat().st_size, p.lstat().st_mtime_ns) for p in path.rglob("*")]
    digest = blake2b(repr(sorted(found)).encode(), digest_size=7).digest()
    return sum(size for _, size, _ in found), int.from_bytes(digest)
