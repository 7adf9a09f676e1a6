"""Rolled back to a snapshot a store is what it was then, entry by entry; nothing is lost or comes back forgotten."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import pipeline
from streamclust.blocks import Serial
from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.exporting import export
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store.forgetting import forget
from streamclust.store.history import history, rollback
from streamclust.store.retention import restore, withdraw
from streamclust.store.store import FORMER, create, open_store
from streamclust.store.verify import verify
from tests.cases import work
from tests.faults import contents, job_on, no_fsync
from tests.store.conftest import DAYS, ROWS, day_case
from tests.store.test_forgetting import holding, needles, publish_rows


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def entries(store):
    """What is in force."""
    return {name: entry for name, entry in store.snapshot.entries.items() if entry.kind != FORMER}


def test_back_and_back_again(copied):
    store = open_store(copied)
    last = store.snapshot.number
    before = contents(store)
    for number in (last // 2, 1, 0):
        wanted = open_store(copied, number)
        rollback(store, number)
        assert entries(store) == wanted.snapshot.entries
        assert list(entries(store)) == list(wanted.snapshot.entries)
        assert {k: v for k, v in contents(store).items() if k in wanted.snapshot.entries} == contents(wanted)
        assert [(b.name, b.base) for b in store.batches] == [(b.name, b.base) for b in wanted.batches]
        assert entries(open_store(copied)) == entries(store)
    rollback(store, last)
    assert contents(store) == before
    changes = history(store)
    assert [c.number for c in changes] == list(range(last + 5))
    assert [c.rows for c in changes[-5:]] == [2 * ROWS, 2 * ROWS, ROWS, 0, 2 * ROWS]
    assert [c.operation for c in changes[-2:]] == ["roll back to 0", f"roll back to {last}"]
    assert set(changes[-1].added) == set(store.snapshot.entries)
    assert f"{2 * ROWS} rows  ingest {DAYS[1]}  + 1 batches" in str(changes[2])
    assert verify(copied, Serial()).damage == ()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["batch", "model", "remove", "withdraw", "restore", "back"]), st.integers(0, 30)),
    max_size=14,
)


@given(operations=OPERATIONS)
@settings(max_examples=25)
def test_any_operations_and_rollbacks(operations):
    """Every snapshot reads as it did; a rollback gives the state back; a batch's first row is its own for good."""
    with tempfile.TemporaryDirectory() as folder:
        store = create(Path(folder) / "s")
        known, bases = [entries(store)], {}
        for i, (operation, number) in enumerate(operations):
            apply(store, operation, number, i)
            if store.snapshot.number == len(known):
                known.append(entries(store))
                if operation == "back":
                    assert known[-1] == known[number % (len(known) - 1)]
            for batch in store.numbered:
                assert bases.setdefault(batch.name, batch.base) == batch.base
            assert sorted(bases.values()) == [b.base for b in store.numbered]
        for number, wanted in enumerate(known):
            assert entries(open_store(store.path, number)) == wanted
        assert [change.rows for change in history(store)] == [open_store(store.path, k).n for k in range(len(known))]


def apply(store, operation, number, i):
    """One operation, where it can be done."""
    try:
        if operation == "batch":
            publish_rows(store, len(store.numbered) + 1, 1 + number % 4)
        elif operation == "model":
            draft = store.draft(f"models/{i:06d}", "note", str(i))
            store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
        elif operation == "remove":
            gone = tuple(n for n, e in store.snapshot.entries.items() if e.kind == "note")[:1]
            store.publish("remove", {}, remove=gone)
        elif operation == "withdraw" and store.every_batch:
            withdraw(store, store.every_batch[number % len(store.every_batch)].id, "a test")
        elif operation == "restore" and store.every_batch:
            restore(store, store.every_batch[number % len(store.every_batch)].id)
        elif operation == "back":
            rollback(store, number % (store.snapshot.number + 1))
    except InputError:
        assert operation in {"restore", "back"}


@pytest.mark.slow
def test_the_day_again_after_a_rollback_is_as_it_was_the_first_time(tmp_path):
    job = work(tmp_path / "s", day_case(tmp_path, 0, DAYS[0]))
    number, cases = (
        job.store.snapshot.number,
        [day_case(tmp_path, 1, DAYS[1]), day_case(tmp_path / "other", 7, DAYS[1])],
    )
    found = []
    for case in (cases[0], cases[1], cases[0]):
        ingest(job, open_case(case))
        pipeline.predict(job)
        export(job.store, tmp_path / "out.csv")
        found.append((tmp_path / "out.csv").read_bytes())
        rollback(job.store, number)
        assert [batch.id for batch in job.store.every_batch] == [DAYS[0]]
    assert found[0] == found[2] != found[1]
    assert len({batch.name for batch in job.store.numbered}) == 4
    assert pipeline.fit(job) == {d: job.store.snapshot.newest("model", f"{d}/kmeans") for d in ("a", "b")}
    assert verify(job.store.path, Serial()).damage == ()


@pytest.mark.slow
def test_what_is_forgotten_goes_from_batches_that_were_rolled_back_too_and_does_not_come_back(tmp_path):
    job = work(tmp_path / "s", day_case(tmp_path, 0, DAYS[0]))
    number = job.store.snapshot.number
    ingest(job, open_case(day_case(tmp_path, 1, DAYS[1])))
    pipeline.predict(job)
    store, after = job.store, job.store.snapshot.number
    wanted = needles(store, DAYS[1], (5, 40))
    rollback(store, number)
    done = forget(store, paths=["pictures/00005.jpg", "pictures/00040.jpg"], batches=[DAYS[1]])
    assert (done.rows, done.left) == ({DAYS[1]: 2}, ())
    assert holding(store.path, wanted) == 0
    ended = store.snapshot.number
    for back in (after, number, ended - 1):
        with pytest.raises(InputError, match="rows were forgotten since, and do not come back"):
            rollback(store, back)
    assert store.snapshot.number == ended
    old = open_store(store.path, after)
    assert old.n == 2 * ROWS - 2
    assert "/forgotten" not in set(old.labels().compute()["path"])
    assert verify(store.path, Serial()).damage == ()
    withdraw(store, DAYS[0], "then back")
    rollback(store, ended)
    assert [batch.id for batch in store.batches] == [DAYS[0]]


def test_two_writers(copied):
    one, two = open_store(copied), open_store(copied)
    last = one.snapshot.number
    draft = two.draft("labels/late/x", "labels", "made beside a model")
    withdraw(one, DAYS[0], "meanwhile")
    with pytest.raises(ConflictError, match=r"published snapshot \d+ first"):
        rollback(two, 1)
    rollback(one, last)
    assert entries(one) == entries(open_store(copied, last))
    rollback(one, 2)
    with pytest.raises(ConflictError, match="was taken out"):
        two.publish("late", {draft.name: (draft, draft.entry({}, {}))})
    assert entries(open_store(copied)) == entries(open_store(copied, 2))


def test_what_cannot_come_back_is_refused(copied):
    store = open_store(copied)
    last = store.snapshot.number
    for number in (-1, last + 1):
        with pytest.raises(InputError, match=f"no snapshot {number}; expected 0 to {last}"):
            rollback(store, number)
        with pytest.raises(InputError, match=f"no snapshot {number}"):
            open_store(copied, number)
    with pytest.raises(InputError, match="is what the store is now"):
        rollback(store, last)
    model = store.snapshot.entries[store.snapshot.newest("model", "a/map")]
    rollback(store, 2)
    next((copied / "data" / model.path).glob("Z/c/*/*")).unlink()
    with pytest.raises(DamageError, match="the chunk is missing"):
        rollback(store, last)
    assert store.snapshot.number == last + 1


def test_a_store_opened_at_a_snapshot_is_only_read(copied):
    old = open_store(copied, 1)
    assert [batch.id for batch in old.batches] == [DAYS[0]]
    assert np.isfinite(old["a"].compute()).all()
    for call in (lambda: withdraw(old, DAYS[0], "no"), lambda: pipeline.fit(job_on(old))):
        with pytest.raises(InputError, match="to be read only"):
            call()
    old.refresh()
    assert old.snapshot.number == 1
