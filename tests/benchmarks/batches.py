"""Many small batches: how long a store of them takes to open and to read, beside a bare loop over the same files.

With ``--compact`` also once they are merged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from streamclust.blocks import Serial
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store import arrays, manifest
from streamclust.store.compaction import compact
from streamclust.store.store import Store, open_store
from tests.faults import job_on, no_fsync, write_case

DESCRIPTOR = "osnet"


def make(path: Path, batches: int, rows: int, d: int) -> None:
    """A store of that many batches, each a manifest and files of its own; but for the first they are copies of it."""
    case, rng = path.with_name(f"{path.name}-case"), np.random.default_rng(0)
    job = job_on(path)
    store, data = job.store, path / "data"
    with no_fsync():
        write_case(case, {DESCRIPTOR: rng.normal(size=(rows, d)).astype(np.float32)})
        ingest(job, open_case(case), "day-00000")
        first = store.batches[0].entry
        for i in range(1, batches):
            about = {**first.attributes, "id": f"day-{i:05d}", "digest": f"{i:064x}"}
            name = f"batches/{i + 1:06d}-day-{i:05d}"
            entry = replace(first, path=f"{name}-{i:08x}", attributes=about)
            shutil.copytree(data / first.path, data / entry.path)
            arrays.create_group(data / entry.path, about)
            manifest.publish(store.path / "log", store.snapshot, f"ingest day-{i:05d}", {name: entry}, ())
            store.refresh()


def measure(path: Path) -> dict[str, float]:
    """Of this process, which must be a new one: seconds to open, and bytes a second of either way to read."""
    began = time.perf_counter()
    store = open_store(path)
    opened = time.perf_counter() - began
    array = f"descriptors/{DESCRIPTOR}"
    places = [store.array(b.name, array) for b in store.batches]
    files = list(dict.fromkeys(file for place in places for file in arrays.chunk_files(place)))
    arrays.forget_open_arrays()
    size = sum(file.stat().st_size for file in files)
    held = {*files, *(arrays.span(place, 0, 0)[0] / "zarr.json" for place in places)}
    ways: dict[str, Callable[[], None]] = {
        "bare_cold": lambda: _read_bare(files),
        "cold": lambda: _read(store, array),
        "bare": lambda: _read_bare(files),
        "ours": lambda: _read(store, array),
        "tasks": lambda: _read_places(places),
    }
    rates = dict.fromkeys(ways, 0.0)
    for how in [*["bare_cold", "cold"] * 3, *["bare", "ours", "tasks"] * 3]:
        for file in held if how.endswith("cold") else ():
            _let_go(file)
        began = time.perf_counter()
        ways[how]()
        rates[how] = max(rates[how], size / (time.perf_counter() - began))
    found = {"open_s": opened, "files": len(files), "bytes": size}
    return found | {f"{how}_MB_s": rate / 1e6 for how, rate in rates.items()}


def _read(store: Store, array: str) -> None:
    for batch in store.batches:
        store.read(batch.name, array)


def _read_places(places: Sequence[arrays.Where]) -> None:
    """As the tasks of a pass do, which were given addresses that the store has looked at."""
    for place in places:
        arrays.read_rows(place)


def _read_bare(files: list[Path]) -> None:
    for file in files:
        np.fromfile(file, np.uint8)


def _let_go(file: Path) -> None:
    """Have the system forget what it holds of a file in memory."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def fresh(path: Path) -> dict[str, float]:
    """The same in a process of its own, the fastest to open of three."""
    words = [sys.executable, "-m", "tests.benchmarks.batches", str(path), "--measure"]
    said = [subprocess.run(words, check=True, capture_output=True, env=os.environ).stdout for _ in range(3)]
    return min((json.loads(one) for one in said), key=lambda found: found["open_s"])


def main() -> None:
    """Make the store where there is none, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--compact", action="store_true", help="merge them, and measure again")
    parser.add_argument("--measure", action="store_true", help="do not make it, and measure in this process")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.store)))
        return
    if not given.store.exists():
        make(given.store, given.batches, given.rows, given.features)
    print(json.dumps(fresh(given.store)))
    if given.compact:
        began = time.perf_counter()
        done = compact(open_store(given.store), Serial())
        print(json.dumps({"compact_s": time.perf_counter() - began, **asdict(done)}))
        print(json.dumps(fresh(given.store)))


if __name__ == "__main__":
    main()
