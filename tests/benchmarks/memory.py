"""Peak memory of a whole process tree: proportional set sizes, so that shared pages count once."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Measured(NamedTuple):
    """What a command took: wall seconds, peak bytes (PSS of it and its children), its return code and stdout."""

    seconds: float
    peak: int
    returncode: int
    stdout: str


LARGE = 250_000_000  # bytes, for each of which looks stand one interval farther apart


class PeakMemory:
    """Context manager: samples the tree under `pid` (this process by default) from a thread; `peak` is in bytes.

    A page shared by k processes counts 1/k in each; page cache of files that are read, not mapped, counts nowhere.
    What comes and goes within `interval` seconds, or four times that at 1 GB, may be missed.
    """

    def __init__(self, pid: int | None = None, interval: float = 0.05) -> None:
        self.pid, self.interval, self.peak = pid, interval, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, tree_pss(self.pid, above=self.peak))
            # the kernel walks all pages under their lock: 20 looks a second would slow a large process
            if self._stop.wait(self.interval * max(1, self.peak // LARGE)):
                return


def tree_pss(pid: int | None = None, above: int = 0) -> int:
    """Bytes (PSS) of a process and all its descendants now; 0 for what has ended.

    0 as well where the resident sizes, which are cheap to read and never less, do not exceed ``above``.
    """
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    if sum(_resident(process) for process in tree) <= above:
        return 0
    return sum(_pss(process.pid) for process in tree)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _pss(pid: int) -> int:
    # smaps_rollup sums in the kernel: tens of times cheaper than reading every mapping.
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def measure(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    interval: float = 0.05,
) -> Measured:
    """Run a command to its end and return its time, peak memory, return code and stdout; stderr passes through.

    After `timeout` seconds it is killed with its children and the return code is -9.
    """
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=cwd) as process:
        with PeakMemory(process.pid, interval) as memory:
            try:
                stdout, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                tree = psutil.Process(process.pid)
                for member in (*tree.children(recursive=True), tree):
                    member.kill()
                stdout, _ = process.communicate()
        seconds = time.perf_counter() - begin
    return Measured(seconds, memory.peak, process.returncode, stdout)
