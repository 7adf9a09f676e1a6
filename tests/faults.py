"""Small cases, what a store holds, and child processes that are killed: what the tests of faults share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr

from streamclust import planning
from streamclust.blocks import Dask, Executor, Serial
from streamclust.config import Settings
from streamclust.ingest import ingest
from streamclust.job import Job
from streamclust.journal import Journal
from streamclust.readers.case import Case, open_case
from streamclust.readers.sources import ArraySource
from streamclust.stages.reduced import reduce
from streamclust.store import arrays
from streamclust.store.store import Store, create, open_store

ROOT = Path(__file__).parents[1]
CALLS = ("replace", "rename", "link", "fsync", "unlink")  # of the os module: every way in which a store changes


def write_case(
    folder: Path, matrices: Mapping[str, np.ndarray], columns: Mapping[str, list[Any]] | None = None
) -> Path:
    """A case folder with these descriptors as .npy."""
    (folder / "descriptors").mkdir(parents=True, exist_ok=True)
    for name, X in matrices.items():
        np.save(folder / "descriptors" / f"{name}.npy", X)
    n = len(next(iter(matrices.values())))
    columns = {"path": [f"a/{i:05d}.jpg" for i in range(n)]} | dict(columns or {})
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / "images_paths.csv").write_text("\n".join(lines) + "\n")
    return folder


def random_rows(seed: int, n: int, d: int, invalid: float = 0.0) -> np.ndarray:
    """Correlated float32 rows, some of them with a NaN or an infinity."""
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 10 * rng.normal(size=d)).astype(np.float32)
    bad = np.flatnonzero(rng.random(n) < invalid)
    X[bad, rng.integers(0, d, len(bad))] = rng.choice([np.nan, np.inf, -np.inf], len(bad))
    return X


@dataclass(frozen=True)
class Deadly:
    """A source whose first reader beyond row 40 is killed; ``killed`` says that it was."""

    source: ArraySource
    killed: Path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def read(self, start: int, stop: int) -> np.ndarray:
        if start >= 40:
            with contextlib.suppress(FileExistsError):
                self.killed.touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return self.source.read(start, stop)


@contextlib.contextmanager
def chunk_bytes(size: int) -> Iterator[None]:
    """Small chunks, so that small data has many blocks."""
    with mock.patch.object(planning, "CHUNK_BYTES", size):
        yield


@contextlib.contextmanager
def no_fsync() -> Iterator[None]:
    """Nothing waits for the disk."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


def job_on(store: Store | Path, executor: Executor | None = None, **settings: Any) -> Job:
    """A job on a store, which is made if need be."""
    store = store if isinstance(store, Store) else create(store)
    return Job(store, Settings(**settings), executor or Serial(), Journal())


def contents(store: Store) -> dict[str, Any]:
    """Everything a snapshot says and holds, but the nonces of its folders."""
    found = {}
    for name, entry in store.snapshot.entries.items():
        values = {array: arrays.digest(store.read(name, array)) for array in entry.arrays}
        found[name] = (entry.kind, entry.added, dict(entry.attributes), dict(entry.arrays), values)
    return found


def assert_tidy(store: Store) -> None:
    """A stranger with zarr sees no warning, and nothing lies around that no manifest ever named."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store.path / "data", mode="r")
        members = dict(group.members(max_depth=None))
        str(group.tree())
    named = store._named()
    for key, member in members.items():
        path = Path(key)
        inside = any(str(above) in named for above in (path, *path.parents))
        above = any(name.startswith(f"{key}/") for name in named)
        assert inside or above or (isinstance(member, zarr.Group) and not list(member.members())), key
    left = [path.name for path in (store.path / "drafts").iterdir()]
    assert all(name.endswith(".tmp") for name in left), left  # a record that was never one, of a few hundred bytes


def run_all(store: Path, case: Case, executor: Executor) -> Job:
    """What a child is killed in: make the store, ingest, reduce."""
    job = job_on(store, executor)
    ingest(job, case)
    for descriptor in case.descriptors:
        reduce(job, [descriptor])
    return job


def child(*args: str | Path) -> subprocess.Popen[str]:
    """Another process that runs this file."""
    command = [sys.executable, "-m", "tests.faults", *map(str, args)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | one_thread, stdin=pipe, stdout=pipe, text=True)


def finish(process: subprocess.Popen[str], said: str = "") -> tuple[int, str]:
    """Exit code and output of a child."""
    out, _ = process.communicate(said, timeout=120)
    return process.returncode, out


def _die_at(call: str, count: int, when: str, counts: dict[str, int]) -> None:
    """Count the calls of the os module and be killed at one of them; ``count`` -1 is never."""

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            here = name == call and counts[name] == count
            if here and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = None if name == "fsync" else real(*args, **kwargs)  # a kill keeps the page cache anyhow
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, counted)

    for name in CALLS:
        wrap(name)


def main(mode: str, store: Path, *rest: str) -> None:
    """What a child does."""
    if mode == "run":
        case, size, call, count, when = rest
        counts = dict.fromkeys(CALLS, 0)
        _die_at(call, int(count), when, counts)
        with chunk_bytes(int(size)):
            run_all(store, open_case(Path(case)), Dask(2))
        print(json.dumps(counts))
    elif mode == "draft":
        draft = open_store(store).draft("models/x", "model", "same inputs")
        draft.write("values", np.arange(5))
        print(draft.path, flush=True)
        sys.stdin.read()
    elif mode == "publish":
        tag, count = rest
        print("ready", flush=True)
        sys.stdin.readline()
        opened = open_store(store)
        for i in range(int(count)):
            draft = opened.draft(f"models/{tag}-{i}", "model", f"{tag}-{i}")
            draft.write("values", np.arange(i + 1))
            opened.publish(f"add {tag}-{i}", {draft.name: (draft, draft.entry({"tag": tag}, {}))})
    elif mode == "memory":
        from streamclust.journal import PeakMemory

        with PeakMemory(0.02) as memory:
            ingest(job_on(store, Dask(2)), open_case(Path(rest[0])))
        print(memory.peak)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
