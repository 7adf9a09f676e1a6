"""What a run says and what it cost: stages with time, rows, bytes and peak memory, notes and warnings."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import psutil

_SHARE = 20
_CHANGED = 0.02
_MMAP_THRESHOLD, _LARGE, _LARGEST = -3, 2**22, 2**25  # glibc's parameter; bytes; where its own rule ends


@dataclass(frozen=True)
class StageRecord:
    """One finished stage: seconds, rows worked on, bytes moved by this process, peak memory of the process tree."""

    name: str
    seconds: float
    rows: int
    bytes_read: int
    bytes_written: int
    peak_bytes: int


class Listener(Protocol):
    """Who shows a run to a person."""

    def stage(self, name: str) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def finished(self, record: StageRecord) -> None: ...
    def note(self, text: str, *, warning: bool) -> None: ...


class Silent:
    """Shows nothing."""

    def stage(self, name: str) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def finished(self, record: StageRecord) -> None: ...
    def note(self, text: str, *, warning: bool) -> None: ...


@dataclass
class Journal:
    """Collects what happens and passes it on to a listener."""

    listener: Listener = field(default_factory=Silent)
    stages: list[StageRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, rows: int) -> Iterator[None]:
        """Time and measure one stage."""
        self.listener.stage(name)
        before, begin = _moved(), time.perf_counter()
        with PeakMemory() as memory:
            yield
        _trim()
        after = _moved()
        record = StageRecord(
            name, time.perf_counter() - begin, rows, after[0] - before[0], after[1] - before[1], memory.peak
        )
        self.stages.append(record)
        self.listener.finished(record)

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.notes.append(text)
        self.listener.note(text, warning=False)

    def warn(self, text: str) -> None:
        """Something to look at."""
        self.warnings.append(text)
        self.listener.note(text, warning=True)


class PeakMemory:
    """Peak memory of this process and its children while the block runs.

    The tree is sampled; of this process Linux keeps the highest mark itself, so that nothing of it is missed. One block
    at a time, as there is one mark.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.peak, self._every, self._stop = 0, every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._marked = False

    def __enter__(self) -> Self:
        self._marked = _lower_mark()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._marked:
            self.peak = max(self.peak, _high_mark())

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, _TREE.bytes())
            if self._stop.wait(self._every):
                return


@contextmanager
def large_arrays_go_back() -> Iterator[None]:
    """Meanwhile what is freed of 4 MB and more goes back to the system at once; without glibc nothing changes.

    Once it has seen large arrays freed, glibc keeps those of up to 32 MB for the next that fit (mallopt(3),
    M_MMAP_THRESHOLD): a sixth faster, but what does not fit is held beside them.
    """
    _glibc("mallopt", _MMAP_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        _glibc("mallopt", _MMAP_THRESHOLD, _LARGEST)


def _trim() -> None:
    """Give the system back what was freed, which the C library's arenas of every thread keep (glibc's malloc_trim)."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *values: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*values)


def _lower_mark() -> bool:
    """Set this process's highest mark to what is resident now; whether the system does so (proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_mark() -> int:
    """Bytes that were resident at once since then (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


class TreeMemory:
    """Bytes that this process and its children hold, pages that they share counted once over all.

    Only where there are children is it asked who shares what, since the kernel walks all pages for that; and again when
    what is resident has changed, or so long after that asking takes a twentieth of the time.
    """

    def __init__(self) -> None:
        self._resident = self._held = 0
        self._until = 0.0

    def bytes(self) -> int:
        """What they hold now."""
        me = psutil.Process()
        tree = [me, *me.children(recursive=True)]
        resident = sum(_of(process, lambda each: each.memory_info().rss) for process in tree)
        if len(tree) == 1:
            return resident
        begin = time.perf_counter()
        if abs(resident - self._resident) > _CHANGED * self._resident or begin > self._until:
            self._resident, self._held = resident, sum(_of(process, _proportional) for process in tree)
            self._until = begin + _SHARE * (time.perf_counter() - begin)
        return self._held


def _proportional(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.rss))


def _of(process: psutil.Process, measure: Callable[[psutil.Process], int]) -> int:
    try:
        return measure(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


_TREE = TreeMemory()  # one for all stages: there is one tree of processes


def _moved() -> tuple[int, int]:
    counters = psutil.Process().io_counters()
    return getattr(counters, "read_chars", 0), getattr(counters, "write_chars", 0)
