"""How this package touches a stranger's file: regular files only, positioned reads, nothing that changes meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import HostileFileError, InputError

Fingerprint = tuple[int, int]

_WINDOW = 4096
_SCAN = 1 << 20
_MAX_TEXT = 256
_MAX_LENGTH = 1 << 56  # no file system holds more: a longer length is a lie, a shorter one may be a cut file


def fingerprint_of(fd: int) -> Fingerprint:
    """Size in bytes and modification time in nanoseconds of an open file."""
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """A read-only file descriptor of a regular file (links are followed).

    Errors: InputError where the file is missing, unreadable, a folder, a pipe, a socket or a device. The kind is looked
    at before the file is opened, since opening a pipe waits for its writer and opening a device may do anything.
    """
    try:
        _check_kind(path, path.stat().st_mode)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(path, f"cannot be opened ({reason})", "a readable file") from error
    try:
        _check_kind(path, os.fstat(fd).st_mode)
        yield fd
    finally:
        os.close(fd)


def _check_kind(path: Path, mode: int) -> None:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(mode):
        found = kinds.get(stat.S_IFMT(mode), "a device")
        raise InputError(path, f"is {found}", "a regular file", "copy the data into a file first")


def check_unchanged(path: Path, fd: int, fingerprint: Fingerprint) -> None:
    """InputError unless the open file still has the size and the time that it had when it was first looked at."""
    if fingerprint_of(fd) != fingerprint:
        hint = "wait until its writer is done, then start again"
        raise InputError(path, "the file changed while it was being read", "a file that nobody writes to", hint)


def pread_exactly(path: Path, fd: int, size: int, offset: int) -> bytes:
    """``size`` bytes from ``offset``; InputError where the file ends before."""
    data = os.pread(fd, size, offset)
    while len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            raise truncated(path, offset + size)
        data += more
    return data


def pread_into(path: Path, fd: int, out: NDArray[Any], offset: int) -> None:
    """Fill the C-contiguous array ``out`` with the bytes from ``offset``; InputError where the file ends before."""
    raw = out.reshape(-1).view(np.uint8)
    done = 0
    while done < raw.size:
        count = os.preadv(fd, [raw[done:].data], offset + done)
        if not count:
            raise truncated(path, offset + raw.size)
        done += count


def truncated(path: Path, needed: int) -> InputError:
    """The error for a file that ends too early."""
    return InputError(path, "the file is truncated", f"at least {needed:,} bytes", "copy it again from its source")


def hash64(names: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit BLAKE2b of each name's UTF-8 bytes: (n,) uint64, the same in every process."""
    digests = [blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def path_fault(path: str) -> str:
    """Why a path is not one below a root (``is absolute``, ...), or nothing."""
    if not path.strip():
        return "is empty"
    if "\0" in path:
        return "holds a NUL"
    if path[0] in "/\\" or (":" in path[1:2] and path[0].isalpha()):
        return "is absolute"
    if ".." in path and ".." in re.split(r"[/\\]", path):
        return "leads upwards"
    return ""


class ForwardReader:
    """Reads a file of opcodes forward through a small window, and steps over payloads without reading them.

    Errors: InputError where the file ends too early, HostileFileError where a length cannot be true.
    """

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path, self.fd, self.size = path, fd, size
        self.position, self._start, self._window = 0, 0, b""

    def take(self, count: int) -> bytes:
        low = self.position - self._start
        if low < 0 or low + count > len(self._window):
            self._start, low = self.position, 0
            self._window = os.pread(self.fd, max(_WINDOW, count), self.position)
        data = self._window[low : low + count]
        if len(data) < count:
            raise truncated(self.path, self.position + count)
        self.position += count
        return data

    def number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def check_room(self, length: int) -> None:
        if length > _MAX_LENGTH:
            raise HostileFileError(self.path, f"declares a length of {length:,} bytes", f"at most {self.size:,}")
        if self.position + length > self.size:
            raise truncated(self.path, self.position + length)

    def skip(self, length: int) -> int:
        """Step over ``length`` bytes; where they begin."""
        self.check_room(length)
        self.position += length
        return self.position - length

    def line_length(self) -> int:
        """Bytes up to the next line's end, which may be far away."""
        position = self.position
        while piece := os.pread(self.fd, _SCAN, position):
            if (at := piece.find(b"\n")) >= 0:
                return position + at - self.position
            position += len(piece)
        raise truncated(self.path, position + 1)

    def line(self) -> str:
        begin = self.position
        while self.take(1) != b"\n":
            if self.position - begin > _MAX_TEXT:
                raise HostileFileError(self.path, "holds an endless name")
        end, self.position = self.position, begin
        try:
            return self.take(end - begin)[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise HostileFileError(self.path, "holds a text that is not UTF-8") from error
