"""A run killed in any stage or beside any publish, and started again, ends as if it never was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamclust.blocks import Dask
from streamclust.store.store import open_store
from tests.cases import matrices, small, spoil, work, write_case
from tests.faults import ROOT, chunk_bytes, contents, no_fsync
from tests.stages.test_laws import exports

BLOCKS = 1024
# Where a child is killed: a function, its how-manieth call, and on which side of it. The publishes are of the batch, a
# projection, reduced rows and clusters for each descriptor, two further algorithms for each, the comparison, that
# of every k, the consensus, two of measures, the fusion, two maps.
PUBLISH, PUBLISHES = "streamclust.store.manifest:publish", 19
SETTINGS = small(algorithms__also=["mixture", "agglomerative"], algorithms__k="own", algorithms__consensus=True)
QUICK = [("streamclust.stages.fused:flag_block", 1, "after")]
PUBLISHED = [  # either side of each; of every other one a side in turn where time is short
    pytest.param(PUBLISH, k, when, marks=pytest.mark.slow if k % 4 == 2 * side + 1 else pytest.mark.long)
    for k in range(1, PUBLISHES + 1)
    for side, when in enumerate(("before", "after"))
]
WRITTEN = [
    ("streamclust.stages.reduced:reduce_block", 2, "after"),
    ("streamclust.stages.clusters:add_labels", 3, "after"),
    ("streamclust.stages.algorithms:add_judged", 2, "after"),
    ("streamclust.stages.consensus:add_labels", 1, "after"),
    ("streamclust.stages.sweep:add_lloyd", 4, "before"),
    ("streamclust.stages.mixtures:add_expectation", 3, "before"),
    ("streamclust.stages.hierarchies:add_spread", 1, "after"),
    ("streamclust.stages.compare:add_counts", 1, "before"),
    ("streamclust.stages.every_k:add_joint", 2, "after"),
    ("streamclust.stages.consensus:add_votes", 1, "after"),
    ("streamclust.stages.sight:look_block", 2, "after"),
    ("streamclust.stages.strangeness:add_measures", 2, "after"),
    ("streamclust.stages.fused:add_judged", 1, "after"),
    ("streamclust.stages.maps:place_block", 2, "after"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    of = matrices(11, 200, {"a": 8, "b": 5})
    of["a"] = spoil(of["a"], [3, 90])
    return write_case(tmp_path_factory.mktemp("resume") / "case", of)


@pytest.fixture(scope="module")
def uninterrupted(case, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "s"
    with chunk_bytes(BLOCKS), no_fsync():
        job = work(store, case, SETTINGS, Dask(2))
    assert job.store.snapshot.number == PUBLISHES
    return contents(job.store), exports(store)


def killed_and_again(case, uninterrupted, store, where, count, when):
    code = [sys.executable, "-m", "tests.stages.test_resume", str(store), str(case), where, str(count), when]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert subprocess.run(code, cwd=ROOT, env=os.environ | threads, check=False).returncode == -signal.SIGKILL
    published = open_store(store).snapshot
    with chunk_bytes(BLOCKS), no_fsync():
        job = work(store, case, SETTINGS, Dask(2))
    done = [e.attributes["role"] for e in published.entries.values() if e.kind in {"model", "comparison"}]
    assert {f"{role}: up to date" for role in done} <= set(job.journal.notes)
    assert contents(job.store) == uninterrupted[0]
    assert exports(store) == uninterrupted[1]


@pytest.mark.parametrize(("where", "count", "when"), QUICK)
def test_killed_and_started_again(case, uninterrupted, tmp_path, where, count, when):
    killed_and_again(case, uninterrupted, tmp_path / "s", where, count, when)


@pytest.mark.parametrize(("where", "count", "when"), PUBLISHED)
def test_killed_at_a_publish_and_started_again(case, uninterrupted, tmp_path, where, count, when):
    killed_and_again(case, uninterrupted, tmp_path / "s", where, count, when)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "count", "when"), WRITTEN)
def test_killed_anywhere_and_started_again(case, uninterrupted, tmp_path, where, count, when):
    killed_and_again(case, uninterrupted, tmp_path / "s", where, count, when)


def main(store: str, case: str, where: str, count: str, when: str) -> None:
    """A run that is killed at the ``count``-th call of a function."""
    from importlib import import_module
    from itertools import count as counter

    module, name = where.split(":")
    home, calls = import_module(module), counter(1)
    real = getattr(home, name)

    def fatal(*args, **kwargs):
        mine = next(calls) == int(count)  # threads call it side by side
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(home, name, fatal)
    with chunk_bytes(BLOCKS), no_fsync():
        work(Path(store), Path(case), SETTINGS, Dask(2))


if __name__ == "__main__":
    main(*sys.argv[1:])
