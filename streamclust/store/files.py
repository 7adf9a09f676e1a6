"""The one way in which files of a store are opened to be read: for a pipe or a device in their place nobody waits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from streamclust.errors import DamageError

_AT_ONCE = 2**20


def open_file(path: Path) -> tuple[int, int]:
    """A descriptor to read with, which the caller closes, and how many bytes there are.

    Raises
    ------
    DamageError : it is no regular file. OSError : it is missing, or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise DamageError(path, "is no regular file", hint="restore it")
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
