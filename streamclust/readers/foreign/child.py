"""The process that reads a foreign format: bounds itself, then lists a file's matrices or pours one of them.

Started as ``python -m streamclust.readers.foreign.child describe|pour FORMAT PATH KEY``. What it was asked for goes to
its standard output, an error as one line of JSON to the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NoReturn

from streamclust.errors import InputError


def _bound() -> int:
    """Limit memory, time, and what can be written; returns the bytes that may be allocated."""
    memory, seconds = map(int, os.environ["STREAMCLUST_READER"].split())
    limits = {"RLIMIT_DATA": memory, "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # where a system knows no such limit
            resource.setrlimit(getattr(resource, name), (limit, limit))
    return memory


def _refuse(*facts: str) -> NoReturn:
    sys.stderr.write(f"\n{json.dumps(facts)}\n")
    sys.stderr.flush()
    os._exit(2)  # no library may end this any other way


def _write(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[os.write(1, left) :]


def main(verb: str, kind: str, path: str, key: str) -> None:
    """Describe or pour. Anything that goes wrong is one line."""
    memory = _bound()
    try:
        reader: Any = import_module(f"streamclust.readers.foreign.{kind}")
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


if __name__ == "__main__":
    main(*sys.argv[1:])
