"""A real `dask scheduler` and `dask worker` processes on loopback, and the real command line at their address."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.conftest import ROOT

CHUNK_BYTES = 4096
STREAMCLUST = Path(sys.executable).with_name("streamclust")
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "false",
}


def environment(folder: Path, more: Mapping[str, str] = {}) -> dict[str, str]:
    """What every process of a test sees: no settings of the person who runs it."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("DASK_")}
    return own | ENVIRONMENT | {"DASK_CONFIG": str(folder / "dask-config")} | dict(more)


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until something holds; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


@dataclass
class Cluster:
    """A scheduler and its workers, each a process group of its own with a log in ``folder``."""

    folder: Path
    security: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that run tasks: the children of the nannies."""
        nannies = [psutil.Process(process.pid) for process in self.processes[1:]]
        return [child for nanny in nannies for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())]

    def start_scheduler(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        protocol = "tls" if self.security else "tcp"
        address = ("--host", "127.0.0.1", "--port", "0", "--protocol", protocol)
        self._start("scheduler", *address, "--no-dashboard", "--scheduler-file", str(self.file))
        until(self.file.is_file, "the scheduler's file")

    def start_worker(self, *options: str, memory: str = "1GB") -> None:
        scratch = self.folder / f"worker-{len(self.processes)}"
        shape = ("--nthreads", "1", "--memory-limit", memory, "--local-directory", str(scratch), "--no-dashboard")
        self._start("worker", "--scheduler-file", str(self.file), *shape, *options)

    def _start(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command, *self.security],
            cwd=self.folder,
            env=environment(self.folder, self.env),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)

    def kill_scheduler(self) -> None:
        self.processes[0].kill()
        self.processes[0].wait()

    def stop(self) -> None:
        """End every process that was started here, and what those started."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 2, *options: str, memory: str = "1GB", **more: object) -> Iterator[Cluster]:
    """A running cluster; workers may still be on their way."""
    found = Cluster(folder, **more)  # type: ignore[arg-type]
    try:
        found.start_scheduler()
        for _ in range(workers):
            found.start_worker(*options, memory=memory)
        yield found
    finally:
        found.stop()


def start(
    folder: Path, *arguments: object, env: Mapping[str, str] = {}, module: str = "tests.distributed.command"
) -> subprocess.Popen[str]:
    """The real command line in its own process; by default with blocks so small that a small case has many."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=folder,
        env=environment(folder, env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {seconds} s: {err}") from None
    return process.returncode, out, err


def run(folder: Path, *arguments: object, env: Mapping[str, str] = {}) -> tuple[int, str, str]:
    """The command line to its end."""
    return finish(start(folder, *arguments, env=env))
