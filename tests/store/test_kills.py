"""A run killed anywhere and started again ends as the uninterrupted run does, to the byte."""

from __future__ import annotations

import json
import signal

import pytest

from streamclust.blocks import Dask, Serial
from streamclust.readers.case import open_case
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.faults import assert_tidy, child, chunk_bytes, contents, finish, no_fsync, random_rows, run_all, write_case

SIZE = 400  # bytes of a chunk
# A call of the os module, how far through the whole run, and on which side of it. Zarr replaces, drafts rename,
# manifests link: for the new store, for the batch, for each descriptor's projection and for its reduced rows.
POINTS = [
    *[("replace", share, "before") for share in (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)],
    *[("replace", share, "after") for share in (0.15, 0.6)],
    *[("fsync", share, "after") for share in (0.0, 0.3)],
    *[("link", share, "before") for share in (0.0, 0.2, 1.0)],
    *[("link", share, "after") for share in (0.0, 0.2, 0.6)],
    ("rename", 0.0, "before"),
    ("rename", 0.5, "after"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    matrices = {"osnet": random_rows(1, 90, 8, 0.05), "vdc": random_rows(2, 90, 3)}
    return write_case(tmp_path_factory.mktemp("source") / "case", matrices)


@pytest.fixture(scope="module")
def uninterrupted(case, tmp_path_factory):
    """What the run ends as, and how often it makes each call."""
    store = tmp_path_factory.mktemp("whole") / "s"
    code, said = finish(child("run", store, case, str(SIZE), "none", "-1", "before"))
    assert code == 0
    return contents(open_store(store)), json.loads(said)


@pytest.mark.parametrize(("call", "share", "when"), POINTS)
def test_killed_and_started_again(case, uninterrupted, tmp_path, call, share, when):
    wanted, counts = uninterrupted
    count = 1 + round(share * (counts[call] - 1))
    store = tmp_path / "s"
    code, _ = finish(child("run", store, case, str(SIZE), call, str(count), when))
    assert code == -signal.SIGKILL
    published = len(list((store / "log").glob("*.json")))
    if published:
        assert verify(store, Serial()).damage == ()
    finished = [p for p in store.glob("data/batches/*/valid/*/c/*") if p.name.isdigit()]
    with chunk_bytes(SIZE), no_fsync():
        job = run_all(store, open_case(case), Dask(2))
        if published == 1 and finished:
            assert job.journal.notes == [f"resumed: {len(finished)} blocks of batch case were written already"]
        assert contents(job.store) == wanted
        assert contents(open_store(store)) == wanted
        job.store.sweep()
        assert_tidy(job.store)
        assert contents(open_store(store)) == wanted
        found = verify(store, Serial())
        assert (found.damage, found.orphans, found.writers) == ((), (), 0)
