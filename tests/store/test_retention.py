"""A withdrawn batch counts no more, as if it had never come; no row number moves; taken in again it is as before."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import pipeline
from streamclust.errors import ConflictError, InputError
from streamclust.exporting import export
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import grids
from streamclust.store.retention import models_that_saw, restore, withdraw, withdrawn
from streamclust.store.store import create, open_store
from tests.cases import job_on
from tests.faults import no_fsync
from tests.store.conftest import DAYS, ROWS, day_case

THREE = (*DAYS, "2026-01-03")


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def fitted(job):
    """All stages and the grids; the job."""
    for stage in (pipeline.fit, pipeline.score, pipeline.place):
        stage(job)
    newest = job.store.snapshot.newest
    for d in ("a", "b"):
        grids.grids(job, *(str(newest("model", role)) for role in (f"{d}/map", f"{d}/kmeans", "outliers")))
    return job


def exported(store, out):
    export(store, out)
    return out.read_bytes()


@pytest.mark.slow
def test_a_fit_after_a_withdrawal_is_that_of_a_store_without_the_batch(tmp_path):
    jobs = {name: job_on(tmp_path / name) for name in ("with", "without")}
    for seed, day in enumerate(THREE):
        case = open_case(day_case(tmp_path, seed, day))
        ingest(jobs["with"], case)
        if seed != 1:
            ingest(jobs["without"], case)
    job, other = jobs["with"], fitted(jobs["without"])
    assert withdraw(job.store, THREE[1], "foggy") == []
    assert withdrawn(job.store)[THREE[1]]["reason"] == "foggy"
    fitted(job)
    assert exported(job.store, tmp_path / "a.csv") == exported(other.store, tmp_path / "b.csv")
    mine, theirs = job.store.snapshot, other.store.snapshot
    for kind in ("projection", "grid"):
        for (a, entry), b in zip(mine.of_kind(kind).items(), theirs.of_kind(kind), strict=True):
            for array in set(entry.arrays) - {"sample/batch"}:
                np.testing.assert_array_equal(job.store.read(a, array), other.store.read(b, array))
    assert [batch.base for batch in job.store.batches] == [0, 2 * ROWS]
    assert job.store.n == other.store.n == 2 * ROWS


def test_grids_take_a_withdrawn_batch_off(copied):
    job = job_on(copied)
    newest = job.store.snapshot.newest
    place, clustering, outliers = (newest("model", role) for role in ("a/map", "a/kmeans", "outliers"))
    before = job.store.read(newest("grid", "a/grid"), "density")
    withdraw(job.store, DAYS[0], "foggy")
    after = job.store.read(grids.grids(job, place, clustering, outliers), "density")
    assert (before.sum(), after.sum()) == (2 * ROWS, ROWS)
    assert (after <= before).all()
    restore(job.store, DAYS[0])
    np.testing.assert_array_equal(job.store.read(grids.grids(job, place, clustering, outliers), "density"), before)


def test_models_that_saw_a_batch_are_told_from_those_that_only_labelled_it(copied, tmp_path):
    job = job_on(copied)
    ingest(job, open_case(day_case(tmp_path, 5, THREE[2])))
    pipeline.predict(job)
    store = job.store
    every = {name for name in store.snapshot.entries if name.startswith(("models/", "projections/"))}
    assert withdraw(store, THREE[2], "thin") == []
    assert set(models_that_saw(store, [store.every_batch[0].name])) == every
    assert set(withdraw(store, DAYS[1], "foggy")) == every
    assert withdraw(store, DAYS[1], "again") == withdraw(store, DAYS[1], "foggy")
    assert withdrawn(store)[DAYS[1]]["reason"] == "foggy"
    assert set(store.labels().compute()["batch"]) == {DAYS[0]}


def test_two_writers_and_what_is_not_clear(copied):
    one, two = open_store(copied), open_store(copied)
    withdraw(one, DAYS[0], "foggy")
    with pytest.raises(ConflictError, match="another writer"):
        withdraw(two, DAYS[0], "foggy as well")
    two.refresh()
    withdraw(two, DAYS[0], "foggy as well")
    for call in (lambda: withdraw(two, "x", "y"), lambda: restore(two, "x")):
        with pytest.raises(InputError, match="no batch 'x'"):
            call()
    for reason in ("", "  ", "two\nlines"):
        with pytest.raises(InputError, match="a line that says why"):
            withdraw(two, DAYS[1], reason)
    with pytest.raises(InputError, match="is not withdrawn"):
        restore(two, DAYS[1])
    restore(two, DAYS[0])
    assert [batch.id for batch in open_store(copied).batches] == list(DAYS)
    assert [batch.id for batch in open_store(copied, one.snapshot.number).batches] == [DAYS[1]]


OPERATIONS = st.lists(st.tuples(st.sampled_from(["add", "withdraw", "restore"]), st.integers(0, 4)), max_size=14)


@given(operations=OPERATIONS)
@settings(max_examples=15)
def test_row_numbers_never_move(operations):
    with tempfile.TemporaryDirectory() as folder:
        store, bases, active = create(Path(folder) / "s"), {}, {}
        for operation, i in operations:
            batch = f"day{i}"
            if operation == "add" and batch not in bases:
                bases[batch] = sum(range(1, len(bases) + 1))
                about = {"id": batch, "rows": len(bases), "digest": batch, "descriptors": {}}
                draft = store.draft(f"batches/{len(bases):06d}-{batch}", "batch", batch)
                store.publish("add", {draft.name: (draft, draft.entry(about, {}))})
                active[batch] = True
            elif operation == "withdraw" and batch in active:
                withdraw(store, batch, "why not")
                active[batch] = False
            elif operation == "restore" and active.get(batch) is False:
                restore(store, batch)
                active[batch] = True
            assert {b.id: b.base for b in store.every_batch} == bases
            assert [b.id for b in store.batches] == [b for b in bases if active[b]]
            assert all(b.base == bases[b.id] for b in store.batches)
