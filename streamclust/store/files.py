"""Files of a store on the disk: opened so that nobody waits for a pipe in their place, and synced."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from streamclust.errors import DamageError

_AT_ONCE = 2**20


def open_file(path: Path) -> tuple[int, int]:
    """A descriptor to read with, which the caller closes, and how many bytes there are.

    Raises
    ------
    DamageError : it is no regular file. OSError : it is missing, or may not be read.
    """
    return _open(path, os.O_RDONLY, "restore it")


def append_to(path: Path) -> TextIO:
    """A file to add lines to, made if need be; raises DamageError where something else lies there."""
    handle, _ = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "remove it")
    return os.fdopen(handle, "a", buffering=1, encoding="utf-8")


def _open(path: Path, flags: int, hint: str) -> tuple[int, int]:
    try:
        handle = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a pipe that nobody reads, a socket, or a folder
            raise DamageError(path, "is no regular file", hint=hint) from None
        raise
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise DamageError(path, "is no regular file", hint=hint)
    return handle, about.st_size


def read_file(path: Path) -> bytes:
    """All of a file; raises as :func:`open_file`, and DamageError where the disk cannot read it."""
    handle, _ = open_file(path)
    parts = list[bytes]()
    try:
        while part := os.read(handle, _AT_ONCE):
            parts.append(part)
    except OSError as error:
        raise DamageError(path, f"cannot be read ({error.strerror})", hint="restore it") from error
    finally:
        os.close(handle)
    return b"".join(parts)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of a write or a sync, which the system gives no name, gets that of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """fsync every file and folder below ``path``, folders after what is in them.

    What waits to be renamed is of nobody's concern: a task that runs twice has written it already.
    """
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            if not name.endswith(".partial"):
                sync(Path(folder, name))
        sync(Path(folder))
