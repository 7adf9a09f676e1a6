"""Drafts: a dead writer's work goes on, a living one's is left alone, and what was published is never removed."""

from __future__ import annotations

import gc
import json
import os
import signal

import numpy as np
import pytest

from streamclust.errors import ConflictError
from streamclust.store import arrays, files, manifest
from streamclust.store import draft as drafts
from streamclust.store.store import create, open_store
from tests.faults import assert_tidy, child, no_fsync


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


@pytest.fixture
def store(tmp_path):
    return create(tmp_path / "s")


def started(store, fingerprint="f", name="models/m"):
    draft = store.draft(name, "model", fingerprint)
    draft.write("values", np.arange(3))
    return draft


def test_a_killed_writers_draft_is_adopted_a_living_ones_is_not(store):
    writer = child("draft", store.path)
    path = writer.stdout.readline().strip()
    other = store.draft("models/x", "model", "same inputs")
    assert not other.adopted
    assert other.path != path
    assert store.sweep() == 0
    other.discard()
    assert (store.path / "data" / path / "values").is_dir()
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    adopted = store.draft("models/x", "model", "same inputs")
    assert adopted.adopted
    assert adopted.path == path
    assert store.sweep() == 0
    store.publish("add", {"models/x": (adopted, adopted.entry({}, {}))})
    assert store.read("models/x", "values").tolist() == [0, 1, 2, 3, 4]
    store.sweep()
    assert_tidy(store)


@pytest.mark.parametrize("change", [{"name": "models/n"}, {"fingerprint": "g"}])
def test_a_draft_of_other_inputs_is_not_adopted_but_swept(store, change):
    started(store).abandon()
    other = started(store, **change)
    assert not other.adopted
    assert store.sweep() == 1
    assert other.folder.is_dir()
    other.discard()
    store.sweep()
    assert_tidy(store)


def test_a_draft_of_another_version_is_not_adopted(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(drafts, "version", lambda _: "0.0.1")
        started(store).abandon()
    assert not started(store).adopted


@pytest.mark.parametrize("content", [b"", b"{", b"7", b"{}", b'{"name": "models/m", "path": "../log"}'])
def test_a_stale_or_broken_record_does_no_harm(store, content):
    draft = started(store)
    store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    (store.path / "drafts" / "0badf00d.json").write_bytes(content)
    fresh = started(store, "g", "models/n")
    assert not fresh.adopted
    fresh.discard()
    assert store.sweep() == 0
    assert_tidy(store)
    assert open_store(store.path).read("models/m", "values").tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["../../victim", "./models/m", "models//m"])
def test_a_forged_record_leads_to_no_other_folder(store, name):
    draft = started(store)
    store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    stem = draft.folder.name.rsplit("-", 1)[1]
    victim = store.path.parent / f"victim-{stem}"
    victim.mkdir()
    (store.path / "drafts" / f"{stem}.json").write_text(json.dumps({"name": name, "path": f"{name}-{stem}"}))
    store.sweep()
    assert victim.is_dir()
    assert open_store(store.path).read("models/m", "values").tolist() == [0, 1, 2]


def test_metadata_cut_short_by_a_power_failure_is_not_adopted(store):
    draft = started(store)
    (draft.folder / "values" / "zarr.json").write_bytes(b"")
    draft.abandon()
    other = started(store)
    assert not other.adopted
    assert store.sweep() == 1
    assert other.folder.is_dir()


def test_what_a_killed_writer_was_about_to_rename_is_removed(store):
    name = "labels/km-000001/b"
    draft = started(store, name=name)
    above = draft.folder.parent
    for folder in (draft.folder, draft.folder / "values", above):
        (folder / "zarr.json.0123.partial").write_text("{")
    (above / "zarr.json").unlink()
    draft.abandon()
    adopted = started(store, name=name)
    assert adopted.adopted
    store.publish("add", {name: (adopted, adopted.entry({}, {}))})
    assert_tidy(store)


def die_after_the_link(store):
    """What is left when a writer is killed between publishing and forgetting its draft."""
    draft = started(store)
    manifest.publish(store.path / "log", store.snapshot, "add", {draft.name: draft.entry({}, {})}, ())
    draft.abandon()
    return draft


def test_a_published_draft_whose_writer_died_is_neither_adopted_nor_swept(store):
    stale = open_store(store.path)
    published = die_after_the_link(store)
    again = started(stale)
    assert not again.adopted
    with pytest.raises(ConflictError):
        stale.publish("add", {again.name: (again, again.entry({}, {}))})
    again.discard()
    assert published.folder.is_dir()
    assert store.sweep() == 0
    store.refresh()
    assert store.read("models/m", "values").tolist() == [0, 1, 2]
    assert_tidy(store)


def test_a_sweep_sees_what_was_published_while_it_looked(store, monkeypatch):
    """The writer publishes and dies after the sweep began and before it has the writer's lock."""
    draft = started(store)
    real = drafts._abandoned

    def late(root):
        manifest.publish(store.path / "log", store.snapshot, "add", {draft.name: draft.entry({}, {})}, ())
        draft.abandon()
        yield from real(root)

    monkeypatch.setattr(drafts, "_abandoned", late)
    assert store.sweep() == 0
    assert draft.folder.is_dir()


def test_what_any_manifest_named_is_kept(store):
    """A rollback removes names, never data: the older snapshot stays readable."""
    die_after_the_link(store)
    store.refresh()
    at = store.snapshot.number
    store.publish("rollback", {}, remove=("models/m",))
    assert not started(store).adopted
    store.sweep()
    assert open_store(store.path, at).read("models/m", "values").tolist() == [0, 1, 2]


def test_discarding_after_publishing_removes_nothing(store):
    draft = started(store)
    store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    draft.discard()
    assert store.read("models/m", "values").tolist() == [0, 1, 2]


def test_a_dropped_draft_lets_go_of_its_lock(store):
    """A long-lived process in which a run failed can start it again."""
    path = started(store).path
    gc.collect()
    assert started(store).path == path


def test_records_are_whole_whenever_they_are_seen(store, monkeypatch):
    seen = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: (seen.append(list(drafts._abandoned(store.path))), rename(a, b)))
    draft = started(store)
    assert seen == [[]]
    assert json.loads(draft._record.read_text())["path"] == draft.path


def test_a_task_that_is_late_does_not_make_a_swept_draft_anew(store):
    """Its client is no more, and its worker only now writes what it was asked for."""
    draft = started(store)
    path = draft.create("rows", (8, 2), np.float32, 4)
    assert arrays.rows_per_chunk(path) == 4  # it has looked at the array before
    draft.abandon()
    assert store.sweep() == 1
    with pytest.raises(FileNotFoundError):
        arrays.write_rows(path, 0, np.ones((4, 2), np.float32))
    assert not draft.folder.exists()


def test_a_sweep_that_a_late_task_writes_into_is_followed_by_the_next(store, monkeypatch):
    draft = started(store)
    draft.abandon()
    with monkeypatch.context() as patch:
        patch.setattr(drafts.shutil, "rmtree", lambda *_, **__: None)
        store.sweep()
    assert draft.folder.exists()
    assert store.sweep() == 1
    assert not draft.folder.exists()
    assert not draft._record.exists()


def test_what_a_late_task_is_renaming_is_not_waited_for(store, monkeypatch):
    draft, sync = started(store), files.sync
    (partial := draft.folder / "values" / "c" / "0.0123.partial").write_text("")

    def meanwhile(path):
        partial.unlink(missing_ok=True)
        sync(path)

    monkeypatch.setattr(files, "sync", meanwhile)
    store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    assert store.read("models/m", "values").tolist() == [0, 1, 2]
