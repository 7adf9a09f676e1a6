"""Pruned to its newest snapshots a store holds what they name and no more; they read as before, also after a kill."""

from __future__ import annotations

import json
import re
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from streamclust.blocks import Serial
from streamclust.cli import app
from streamclust.errors import DamageError, InputError
from streamclust.store import arrays, floor
from streamclust.store.compaction import compact
from streamclust.store.forgetting import forget
from streamclust.store.history import history, rollback
from streamclust.store.pruning import prune
from streamclust.store.retention import withdraw
from streamclust.store.store import create, open_store
from streamclust.store.verify import verify
from tests.faults import contents, no_fsync
from tests.store.conftest import DAYS, ROWS
from tests.store.doomed import run, work
from tests.store.test_forgetting import holding, needles
from tests.store.test_history import OPERATIONS, apply

POINTS = [
    *[("link", 0.0, when) for when in ("before", "after")],
    *[("replace", 0.0, when) for when in ("before", "after")],
    *[("rename", share, when) for share in (0.0, 0.5, 1.0) for when in ("before", "after")],
    *[("unlink", share, "after") for share in (0.0, 0.3, 0.6, 1.0)],
]


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def reads(path, number=None):
    """What a snapshot says and holds, and its labels."""
    arrays.forget_open_arrays()
    store = open_store(path, number)
    return contents(store), [(batch.name, batch.base) for batch in store.numbered]


def objects(path):
    """Folders of objects on disk, by the nonce in their names' ends."""
    named = {entry.path for k in kept(path) for entry in open_store(path, k).snapshot.entries.values()}
    return named, {p.relative_to(path / "data").as_posix() for p in (path / "data").rglob("*") if is_object(p)}


def is_object(folder):
    return bool(re.search(r"-[0-9a-f]{8}$", folder.name)) and (folder / "zarr.json").is_file()


def kept(path):
    return [change.number for change in history(open_store(path))]


@pytest.mark.parametrize("keep", [1, 3])
def test_what_stays_reads_as_before_and_the_rest_is_gone(copied, keep):
    store = open_store(copied)
    last = store.snapshot.number
    withdraw(store, DAYS[0], "to and fro")
    rollback(store, 2)
    before = {k: reads(copied, k) for k in range(last + 3)}
    changes, labels = history(store), store.labels().compute()
    done = prune(store, keep)
    newest = last + 2
    assert (done.first, done.snapshots) == (newest - keep + 1, newest - keep + 1)
    assert kept(copied) == list(range(done.first, newest + 2))
    assert history(store)[:-1] == changes[-keep:]
    assert all(reads(copied, k) == before[k] for k in range(done.first, newest + 1))
    assert reads(copied) == (before[newest])
    assert open_store(copied).labels().compute().equals(labels)
    named, there = objects(copied)
    assert named == there
    assert (done.objects > 0) == (keep == 1)
    for number in (0, done.first - 1):
        with pytest.raises(InputError, match=f"no snapshot {number}; expected {done.first} to {newest + 1}"):
            open_store(copied, number)
        with pytest.raises(InputError, match="no snapshot"):
            rollback(store, number)
    assert verify(copied, Serial()).damage == ()
    again = prune(open_store(copied), keep)
    assert (again.snapshots, again.objects, again.bytes, kept(copied)) == (0, 0, 0, kept(copied))


@given(operations=OPERATIONS, keeps=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 8)), min_size=1, max_size=3))
@settings(max_examples=25)
def test_any_operations_prunes_and_rollbacks(operations, keeps):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        store, known = create(path), {}
        at = dict(keeps)
        for i, (operation, number) in enumerate(operations):
            apply(store, operation, number, i)
            known[store.snapshot.number] = reads(path)
            if i in at:
                prune(store, at[i])
                known[store.snapshot.number] = reads(path)
        prune(store, keeps[0][1])
        known[store.snapshot.number] = reads(path)
        for number in kept(path):
            assert number not in known or reads(path, number) == known[number]
        named, there = objects(path)
        assert named == there
        found = verify(path, Serial())
        assert (found.damage, found.orphans, found.snapshots) == ((), (), len(kept(path)))


def test_writers_at_work_are_left_alone_and_a_late_rollback_is_refused(copied):
    one, two = open_store(copied), open_store(copied)
    draft = two.draft("models/late", "model", "at work")
    draft.write("values", [1, 2, 3])
    prune(one, 1)
    assert draft.folder.is_dir()
    with pytest.raises(InputError, match="no snapshot 1"):
        rollback(two, 1)
    two.publish("late", {draft.name: (draft, draft.entry({}, {}))})
    assert two.read("models/late", "values").tolist() == [1, 2, 3]
    assert verify(copied, Serial()).damage == ()


def test_rows_are_forgotten_after_a_prune_as_before_it(copied):
    store = open_store(copied)
    wanted = needles(store, DAYS[0], (5, 40))
    prune(store, 2)
    done = forget(store, paths=["pictures/00005.jpg", "pictures/00040.jpg"], batches=[DAYS[0]])
    assert (done.rows, done.left, holding(copied, wanted)) == ({DAYS[0]: 2}, (), 0)
    assert open_store(copied).n == 2 * ROWS - 2
    assert verify(copied, Serial()).damage == ()


def test_a_damaged_beginning_is_damage(copied):
    prune(open_store(copied), 1)
    file = copied / "log" / floor.NAME
    whole = file.read_text()
    file.write_text(whole.replace(DAYS[0], DAYS[1], 1))
    assert [one.file for one in verify(copied, Serial(), quick=True).damage] == [f"log/{floor.NAME}"]
    with pytest.raises(DamageError, match="does not match its digest"):
        open_store(copied)
    file.unlink()
    assert verify(copied, Serial(), quick=True).damage
    file.write_text(whole)
    assert verify(copied, Serial()).damage == ()


def test_the_command(copied):
    for text, code in (("0", 2), ("-1", 2), ("2", 0)):
        done = CliRunner().invoke(app, ["prune", str(copied), "--keep", text])
        assert done.exit_code == code
    assert "history begins with snapshot" in done.output
    done = CliRunner().invoke(app, ["prune", str(copied), "--keep", "1", "--json"])
    assert json.loads(done.stdout)["snapshots"] == 1


@pytest.fixture(scope="module", params=["plain", pytest.param("packed", marks=pytest.mark.slow)])
def doomed(request, made, tmp_path_factory):
    """A store to prune, what it reads as once pruned, and how often a prune makes each call."""
    whole = tmp_path_factory.mktemp("whole") / "s"
    shutil.copytree(made, whole)
    with no_fsync():
        rollback(open_store(whole), 2)
        if request.param == "packed":
            assert compact(open_store(whole), Serial()).packs
    start = tmp_path_factory.mktemp("start") / "s"
    shutil.copytree(whole, start)
    said = tmp_path_factory.mktemp("said") / "counts.json"
    assert run(whole, "prune", said) == 0
    return start, reads(whole), json.loads(said.read_text())


@pytest.mark.parametrize(("call", "share", "when"), POINTS)
def test_killed_and_asked_again(doomed, tmp_path, call, share, when):
    start, wanted, counts = doomed
    store = tmp_path / "s"
    shutil.copytree(start, store)
    count = 1 + round(share * (counts[call] - 1))
    assert run(store, "prune", tmp_path / "counts.json", call, count, when) == -signal.SIGKILL
    assert reads(store) == wanted
    assert all(open_store(store, k).snapshot.number == k for k in kept(store))
    assert verify(store, Serial()).damage == ()
    work(store, "prune")
    assert reads(store) == wanted
    named, there = objects(store)
    assert named == there
    assert verify(store, Serial()).damage == ()
    assert not (store / "pruned").exists()
