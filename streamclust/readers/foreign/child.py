"""The process that reads foreign formats: loads a format's library, then forks for each file that it is asked about.

Started as ``python -m streamclust.readers.foreign.child FORMAT`` with a socket as its standard input, over which come
requests ``[describe|pour, path, key, bytes, seconds]``, a line each, with two files: one for what is asked for, one for
an error, as one line of JSON. A fork bounds itself and reads one file, so that no file meets what another left behind;
how it ended is the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NoReturn

from streamclust.errors import InputError


def _bound(memory: int, seconds: int) -> None:
    """Limit memory, time, and what can be written."""
    limits = {"RLIMIT_DATA": memory, "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # where a system knows no such limit
            resource.setrlimit(getattr(resource, name), (limit, limit))


def _refuse(*facts: str) -> NoReturn:
    sys.stderr.write(f"\n{json.dumps(facts)}\n")
    sys.stderr.flush()
    os._exit(2)  # no library may end this any other way


def _write(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[os.write(1, left) :]


def read(reader: Any, kind: str, verb: str, path: str, key: str, memory: int, seconds: int) -> NoReturn:
    """Describe or pour, and end this process. Anything that goes wrong is one line."""
    _bound(memory, seconds)
    try:
        if verb == "describe":
            _write(iter([json.dumps(reader.describe(path)).encode()]))
        else:
            _write(reader.pour(path, key))
    except InputError as error:
        _refuse(type(error).__name__, error.where, error.found, error.expected, error.hint)
    except MemoryError:
        hint = "write it with smaller chunks or pages"
        _refuse("InputError", path, f"needs more than {memory >> 20} MiB at once to be read", "", hint)
    except BrokenPipeError:
        os._exit(2)  # whoever asked is gone
    except BaseException as error:  # noqa: BLE001 - whatever a library raises on broken bytes
        reason = " ".join(str(error).split())[:200]
        _refuse("InputError", path, f"cannot be read ({type(error).__name__}: {reason})", f"a sound {kind} file")
    os._exit(0)


def main(kind: str) -> None:
    """Answer requests until whoever asks is gone."""
    reader = import_module(f"streamclust.readers.foreign.{kind}")
    asked = socket.socket(fileno=os.dup(0))
    while True:
        line, files, _, _ = socket.recv_fds(asked, 1 << 16, 2)
        while line and not line.endswith(b"\n"):
            line += asked.recv(1 << 16)
        if not line:
            return
        if not (pid := os.fork()):
            asked.close()
            for theirs, ours in ((os.open(os.devnull, os.O_RDONLY), 0), (files[0], 1), (files[1], 2)):
                os.dup2(theirs, ours)
                os.close(theirs)
            read(reader, kind, *json.loads(line))
        for file in files:
            os.close(file)
        asked.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


if __name__ == "__main__":
    main(sys.argv[1])
