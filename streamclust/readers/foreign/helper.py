"""The side of `child` that asks: starts the process, hands it a request at a time, reads what comes within bounds."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from streamclust import errors
from streamclust.errors import HostileFileError, InputError
from streamclust.readers.raw import NoMatrixError

_STALL_SECONDS = 120.0  # for which nothing may come
_KINDS: dict[str, type[InputError]] = {"NoMatrixError": NoMatrixError} | {
    k: getattr(errors, k) for k in ("InputError", "HostileFileError")
}


@dataclass(frozen=True)
class Request:
    """What is asked for: ``describe`` or ``pour`` a file, with at most so many bytes of memory and seconds."""

    verb: str
    kind: str
    path: Path
    key: str
    memory: int
    seconds: int


class _Helper:
    """A process with the libraries of one format loaded, which answers each request by a fork of itself."""

    def __init__(self, kind: str) -> None:
        # -P: the folder that somebody happens to stand in is no place to import from.
        command = [sys.executable, "-P", "-m", "streamclust.readers.foreign.child", kind]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
        env = os.environ | path | quiet | {"HDF5_PLUGIN_PRELOAD": "::"}  # no plug-ins
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        self.busy = False

    def ask(self, request: Request) -> Iterator[bytes]:
        """The answer in pieces, then its error if there is one. One that is not read to its end ends the helper."""
        self.busy = True
        try:
            with tempfile.TemporaryFile() as said:
                yield from self._pieces(request, said)
                if code := self._code():
                    raise _error(request, code, said)
            self.busy = False
        finally:
            if self.busy:
                self.close()

    def _pieces(self, request: Request, said: IO[bytes]) -> Iterator[bytes]:
        asked = [request.verb, str(request.path.absolute()), request.key, request.memory, request.seconds]
        out, theirs = os.pipe()
        try:
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has no answer then
                    socket.send_fds(self.socket, [json.dumps(asked).encode() + b"\n"], [theirs, said.fileno()])
            finally:
                os.close(theirs)
            with selectors.DefaultSelector() as selector:
                selector.register(out, selectors.EVENT_READ)
                while True:
                    if not selector.select(_STALL_SECONDS):
                        found = f"gives nothing for {_STALL_SECONDS:.0f} seconds"
                        raise InputError(request.path, found, hint="write it again")
                    if not (piece := os.read(out, 1 << 20)):
                        return
                    yield piece
        finally:
            os.close(out)

    def _code(self) -> int:
        """How the fork ended: 0, the code of an error, or minus a signal."""
        self.socket.settimeout(_STALL_SECONDS)
        try:
            answer = self.socket.recv(64)
        except OSError:
            answer = b""
        if not answer:
            self.close()
        self.busy = False
        return int(answer) if answer else self.process.returncode or 1

    def close(self) -> None:
        """End it, with whatever it forked."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.socket.close()


_SHARED: ContextVar[dict[str, _Helper] | None] = ContextVar("shared", default=None)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within it all files of a format are read by forks of one process, which loads its libraries once."""
    if _SHARED.get() is not None:
        yield
        return
    token = _SHARED.set(shared := dict[str, _Helper]())
    try:
        yield
    finally:
        _SHARED.reset(token)
        for helper in shared.values():
            helper.close()


def run(request: Request) -> Iterator[bytes]:
    """What the other process gives, in pieces; then its error, if it ended with one."""
    shared = _SHARED.get()
    known = shared.get(request.kind) if shared else None
    if known is not None and known.busy:
        shared = None  # somebody reads another file from it
    elif known is not None and known.process.poll() is None:
        yield from known.ask(request)
        return
    helper = _Helper(request.kind)
    if shared is not None:
        shared[request.kind] = helper
    try:
        yield from helper.ask(request)
    finally:
        if shared is None:
            helper.close()


def _error(request: Request, code: int, said: IO[bytes]) -> InputError:
    """What the other process said in its last line, else that it did not survive the file."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - 10_000))
    last = said.read().decode("utf-8", "replace").rstrip().rpartition("\n")[2]
    try:
        name, *facts = json.loads(last)
        return _KINDS[name](*map(str, facts))
    except (ValueError, KeyError, TypeError):
        how = f"signal {-code}" if code < 0 else f"code {code}"
        found = f"breaks the library that reads {request.kind} files ({how})"
        return HostileFileError(request.path, found, "a sound file")
