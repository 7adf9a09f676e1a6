"""A matrix many times larger than a worker's memory passes through, and the client holds next to nothing of it."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress

import numpy as np
import psutil
import pytest

from streamclust.store.store import open_store
from tests.distributed.cluster import cluster, finish, start, until
from tests.faults import write_case

ROWS, FEATURES, RANK, BLOCK = 600_000, 1024, 48, 25_000  # 2.5 GB of float32
LIMIT = 600_000_000  # libraries take most of it: with 500 MB a worker is paused in the pass with compiled loops
COMMANDS = ("ingest", "fit", "outliers", "map")  # every pass; what draws pictures after them is the client


@pytest.fixture
def large(tmp_path):
    """A case whose matrix was never in memory."""
    folder = write_case(tmp_path / "case", {"wide": np.empty((ROWS, 0), np.float32)})
    path = folder / "descriptors/wide.npy"
    X = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, FEATURES))
    rng = np.random.default_rng(0)
    few = rng.normal(size=(BLOCK, RANK)) @ rng.normal(size=(RANK, FEATURES)) + rng.normal(size=(BLOCK, FEATURES)) / 20
    few = few.astype(np.float32)
    for i in range(0, ROWS, BLOCK):
        X[i : i + BLOCK] = few + np.float32(i / ROWS)
    del X
    assert path.stat().st_size > 4 * LIMIT
    yield folder
    shutil.rmtree(tmp_path)  # pytest would keep a few of them


class Peaks(threading.Thread):
    """The most memory that each of some processes held while it is entered, counted as nannies count it."""

    def __init__(self, processes):
        super().__init__(daemon=True)
        self.peaks, self._done = dict.fromkeys(processes, 0), threading.Event()

    def run(self):
        while not self._done.wait(0.05):
            for process in self.peaks:
                with suppress(psutil.NoSuchProcess):
                    self.peaks[process] = max(self.peaks[process], process.memory_info().rss)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self.join()


@pytest.mark.slow
def test_workers_and_client_stay_small(large, toml, tmp_path):
    with cluster(tmp_path / "c", 2, memory=str(LIMIT)) as small:
        until(lambda: len(small.workers) == 2, "both workers")
        workers = small.workers
        for command in COMMANDS:
            words = (command, "s", *([large] if command == "ingest" else []), *toml, "--scheduler", small.address)
            process = start(tmp_path, *words, "--quiet", module="streamclust")
            with Peaks([*workers, psutil.Process(process.pid)]) as seen:
                code, _, err = finish(process, 300)
            assert (code, err) == (0, ""), command
            for held in seen.peaks.values():
                assert 0 < held < LIMIT, f"{command}: {held:,} bytes"
        assert small.workers == workers, "a worker was restarted"
    store = open_store(tmp_path / "s")
    assert store.n == ROWS
    assert store.snapshot.of_kind("reduced")
