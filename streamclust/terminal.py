"""Progress for a person: a bar with rate and time left, a line per finished stage, notes as they come; and a stop."""

from __future__ import annotations

import errno
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from streamclust.errors import Stopped, StreamclustError, SystemFailure
from streamclust.journal import Silent, StageRecord

_SLOW = 2.0


class Quiet(Silent):
    """Shows nothing, as a context."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        return None


class Terminal(Quiet):
    """Shows a run on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not sys.stderr.isatty())
        self._task: Any = None
        self._name, self._began = "", 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def stage(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()

    def progress(self, done: int, total: int) -> None:
        if self._task is None and time.monotonic() - self._began < _SLOW and done < total:
            return
        if self._task is None:
            self._task = self._progress.add_task(self._name, total=total)
        self._progress.update(self._task, completed=done, total=total)

    def finished(self, record: StageRecord) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        rate = f"{record.rows / record.seconds:>12,.0f} rows/s" if record.rows and record.seconds > 0 else ""
        line = f"{record.name:<36} {record.seconds:8.1f} s {rate:>19} {record.peak_bytes / 1e6:9,.0f} MB"
        self._console.print(line, markup=False)

    def note(self, text: str, *, warning: bool) -> None:
        self._console.print(("warning: " if warning else "") + text, style="yellow" if warning else "", markup=False)


def columns(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in plain text: the first column to the left, the others to the right."""
    table = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    lines = [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
    return "\n".join(lines)


def listener(*, quiet: bool) -> Quiet:
    """What the command line shows a run with."""
    return Quiet() if quiet else Terminal()


class Terminated(KeyboardInterrupt):
    """What ends on Ctrl-C ends on SIGTERM, in the same way."""


def _terminate(*_: object) -> None:
    raise Terminated


def _failure(error: OSError) -> SystemFailure:
    hint = "; make room, then run the same command again" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    if refused := error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        hint = "; expected a place where you may read and write"
    return SystemFailure(f"{error.filename or 'system'}: {error.strerror or error}{hint}", 2 if refused else 1)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, in the main thread, Ctrl-C and SIGTERM let go of all that is held and become one error: Stopped.

    What the system fails at becomes a SystemFailure.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except Terminated:
        raise Stopped("stopped by SIGTERM", 128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise Stopped("interrupted", 128 + signal.SIGINT) from None
    except MemoryError:
        raise SystemFailure("out of memory: give fewer --workers or a --memory budget to be told before", 1) from None
    except OSError as error:
        raise _failure(error) from error
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """As `stoppable`; errors become one line on stderr, after the name, and the exit code of their kind."""
    try:
        with stoppable():
            yield
    except StreamclustError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
