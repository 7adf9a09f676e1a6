"""Manifests: what is published is what is read, by whoever came first, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from streamclust.cli import app
from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.store import manifest
from streamclust.store.entries import ArrayEntry, Entry, Snapshot
from streamclust.store.store import create, open_store
from tests.faults import child, finish, no_fsync
from tests.readers.test_fuzz import mutate, mutations

NAMES = st.sampled_from("abcdef")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ARRAYS = st.dictionaries(NAMES, st.builds(ArrayEntry, st.tuples(st.integers(0, 9)), st.just("int8"), st.just((4,))))
ENTRIES = st.builds(
    Entry, st.text("xyz", min_size=1), st.sampled_from(["batch", "model"]), st.dictionaries(NAMES, JSON), ARRAYS
)
STEPS = st.lists(st.tuples(st.dictionaries(NAMES, ENTRIES, max_size=3), st.lists(NAMES, max_size=2)), max_size=12)


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def new_log(folder: str | Path) -> Path:
    log = Path(folder) / "log"
    manifest.create_log(log)
    return log


def filled(log: Path, count: int) -> Snapshot:
    snapshot = manifest.load(log)
    for i in range(count):
        snapshot = manifest.publish(log, snapshot, f"add {i}", {f"m{i}": Entry(f"models/m{i}", "model")}, ())
    return snapshot


@given(steps=STEPS, every=st.integers(1, 5))
@settings(max_examples=40)
def test_any_sequence_of_changes_reads_back_at_every_number(steps, every):
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(manifest, "CHECKPOINT_EVERY", every):
        log = new_log(folder)
        snapshot, model, history = manifest.load(log), {}, [{}]
        for add, remove in steps:
            snapshot = manifest.publish(log, snapshot, "change", add, tuple(remove))
            model = {name: entry for name, entry in model.items() if name not in remove}
            for name, entry in add.items():
                model[name] = Entry(entry.path, entry.kind, entry.attributes, entry.arrays, snapshot.number)
            history.append(dict(model))
            assert snapshot.entries == model
        for number, wanted in enumerate(history):
            read = manifest.load(log, number)
            assert read.entries == wanted
            assert list(read.entries) == list(wanted)
        assert manifest.load(log).digest == snapshot.digest


def test_number_keys_read_back(tmp_path):
    log = new_log(tmp_path)
    manifest.publish(log, manifest.load(log), "x", {"m": Entry("m", "model", {"names": {10: "a", 9: "b"}})}, ())
    assert manifest.load(log).entries["m"].attributes == {"names": {"10": "a", "9": "b"}}


@given(data=st.data())
@settings(max_examples=100)
def test_an_altered_manifest_is_refused_or_means_the_same(data):
    with tempfile.TemporaryDirectory() as folder:
        log = new_log(folder)
        before = filled(log, 3)
        file = log / f"{data.draw(st.integers(0, 3)):08d}.json"
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content)
        with contextlib.suppress(InputError):
            assert manifest.load(log) == before


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_bytes(b""), lambda f: f.write_text("7")])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_or_empty_manifest_is_damage(tmp_path, damage, number):
    log = new_log(tmp_path)
    filled(log, 3)
    damage(log / f"{number:08d}.json")
    with pytest.raises(DamageError, match=f"{number:08d}.json"):
        manifest.load(log)


def test_a_manifest_in_the_place_of_another_is_damage(tmp_path):
    with mock.patch.object(manifest, "CHECKPOINT_EVERY", 2):
        log = new_log(tmp_path)
        filled(log, 4)
    (log / "00000005.json").write_bytes((log / "00000004.json").read_bytes())
    with pytest.raises(DamageError, match="00000005"):
        manifest.load(log)


def test_before_a_checkpoint_nothing_is_read(tmp_path):
    with mock.patch.object(manifest, "CHECKPOINT_EVERY", 4):
        log = new_log(tmp_path)
        before = filled(log, 6)
    for number in range(4):
        (log / f"{number:08d}.json").unlink()
    assert manifest.load(log) == before


def test_a_newer_format_says_upgrade(tmp_path):
    log = new_log(tmp_path)
    document = json.loads((log / "00000000.json").read_text()) | {"format": manifest.FORMAT + 1}
    (log / "00000000.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="upgrade streamclust") as caught:
        manifest.load(log)
    assert not isinstance(caught.value, DamageError)


def signed(file: Path, **change: object) -> None:
    """A manifest with something else in it, whose digest is right."""
    document = {key: value for key, value in json.loads(file.read_text()).items() if key != "digest"} | change
    file.write_text(json.dumps(document | {"digest": manifest._digest(document)}))


@pytest.mark.parametrize("form", [0, -1, 1.5, 1.0, True, "1", None, [1], manifest.FORMAT + 1])
@pytest.mark.parametrize("number", [0, 1])
def test_a_store_of_another_format_is_refused_by_every_command(tmp_path, form, number):
    """Only the format is another one: all else, the digests too, is as it should be."""
    store, files = create(tmp_path / "s").path, [tmp_path / "s" / "log" / f"{i:08d}.json" for i in range(2)]
    filled(store / "log", 1)
    signed(files[number], format=form)
    signed(files[1], parent=json.loads(files[0].read_text())["digest"])
    said = f"{number:08d}.json: store format {json.dumps(form)}, "
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        open_store(store)
    assert not isinstance(caught.value, DamageError)
    words = ["info {s}", "verify {s}", "verify {s} --repair", "prune {s} --keep 1", "rollback {s} 0", "fit {s}"]
    for done in (CliRunner().invoke(app, command.format(s=store).split()) for command in words):
        assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.output
        assert f"expected format 1 to {manifest.FORMAT}; " in done.stderr
    assert len(list((store / "log").iterdir())) == 2


def test_a_manifest_that_the_next_one_does_not_name_is_damage(tmp_path):
    """It is sound by itself: only the digest that the next one has of its parent tells."""
    log = new_log(tmp_path)
    begun = manifest.load(log)
    filled(log, 3)
    signed(log / "00000002.json", add={}, operation="another")
    for since in (None, begun):
        with pytest.raises(DamageError, match=r"00000002\.json: its digest is not what the next manifest names"):
            manifest.load(log, since=since)
    with pytest.raises(DamageError, match=r"00000002\.json"):
        open_store(tmp_path)


def test_a_damaged_store_is_not_made_anew(tmp_path):
    create(tmp_path / "s")
    filled(tmp_path / "s" / "log", 2)
    (tmp_path / "s" / "log" / "00000000.json").unlink()
    with pytest.raises(DamageError):
        create(tmp_path / "s")


def test_a_store_that_lost_its_manifests_is_not_begun_anew(tmp_path):
    (create(tmp_path / "s").path / "data" / "batches" / "000001-a-12345678").mkdir()
    (tmp_path / "s" / "data" / "batches" / "000001-a-12345678" / "zarr.json").write_text("{}")
    for file in (tmp_path / "s" / "log").iterdir():
        file.unlink()
    with pytest.raises(DamageError, match="no manifest is left, though data holds objects; restore it"):
        create(tmp_path / "s")
    assert not list((tmp_path / "s" / "log").iterdir())


@pytest.mark.parametrize("name", ["data", "notes.txt"])
def test_a_folder_with_other_things_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="other things"):
        create(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == [name]


def test_a_file_system_without_links_is_refused(tmp_path):
    with mock.patch.object(os, "link", side_effect=OSError(95, "Operation not supported")):
        with pytest.raises(InputError, match=r"hard link \(Operation not supported\)"):
            create(tmp_path / "s")
        assert not list((tmp_path / "s" / "log").iterdir())


def test_the_second_of_two_publishers_is_told(tmp_path):
    log = new_log(tmp_path)
    base = manifest.load(log)
    manifest.publish(log, base, "first", {}, ())
    with pytest.raises(ConflictError, match="try again"):
        manifest.publish(log, base, "second", {}, ())
    assert [p.name for p in sorted(log.iterdir())] == ["00000000.json", "00000001.json"]


def publish_some(path: Path, tag: str, count: int) -> None:
    store = open_store(path)
    for i in range(count):
        draft = store.draft(f"models/{tag}-{i}", "model", f"{tag}-{i}")
        draft.write("values", np.arange(i + 1))
        store.publish("add", {draft.name: (draft, draft.entry({}, {}))})


def test_racing_threads_all_get_in(tmp_path):
    create(tmp_path / "s")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda tag: publish_some(tmp_path / "s", tag, 5), "abcd"))
    store = open_store(tmp_path / "s")
    assert sorted(store.snapshot.entries) == [f"models/{tag}-{i}" for tag in "abcd" for i in range(5)]
    assert store.snapshot.number == 20


def test_racing_processes_all_get_in_and_a_reader_keeps_its_snapshot(tmp_path):
    reader = create(tmp_path / "s")
    publish_some(tmp_path / "s", "old", 2)
    reader.refresh()
    seen = reader.snapshot
    racers = [child("publish", tmp_path / "s", tag, 8) for tag in "ab"]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [finish(racer)[0] for racer in racers] == [0, 0]
    assert reader.snapshot == seen == open_store(tmp_path / "s", seen.number).snapshot
    assert reader.read("models/old-1", "values").tolist() == [0, 1]
    reader.refresh()
    assert len(reader.snapshot.entries) == 18
    assert reader.sweep() == 0
    assert reader.read("models/a-7", "values").tolist() == list(range(8))


def test_the_same_name_twice_is_a_conflict(tmp_path):
    store, other = create(tmp_path / "s"), open_store(tmp_path / "s")
    drafts = [s.draft("models/m", "model", f"{i}") for i, s in enumerate((store, other))]
    store.publish("add", {"models/m": (drafts[0], drafts[0].entry({}, {}))})
    with pytest.raises(ConflictError, match="try again"):
        other.publish("add", {"models/m": (drafts[1], drafts[1].entry({}, {}))})
    drafts[1].discard()
    assert drafts[0].folder.is_dir()


class Recorder:
    """The order in which files come to be (replace, link) and reach the disk (fsync)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        fsync, replace, link = os.fsync, os.replace, os.link

        def note_fsync(fd: int) -> None:
            self.events.append(("fsync", str(Path(f"/proc/self/fd/{fd}").readlink())))
            fsync(fd)

        def note_replace(src: object, dst: object) -> None:
            replace(src, dst)
            self.events.append(("replace", str(dst)))

        def note_link(src: object, dst: object) -> None:
            self.events.append(("link", str(dst)))
            link(src, dst)

        for name, wrapped in (("fsync", note_fsync), ("replace", note_replace), ("link", note_link)):
            monkeypatch.setattr(os, name, wrapped)

    def synced_since_last_change(self, path: Path, until: int) -> bool:
        events = self.events[:until]
        changed = max((i for i, (call, p) in enumerate(events) if call == "replace" and p == str(path)), default=-1)
        return ("fsync", str(path)) in events[changed + 1 :]


def test_everything_is_on_disk_before_the_link(tmp_path, monkeypatch):
    """A kill keeps the page cache, so only the recorded calls can show this."""
    store = create(tmp_path / "s")
    record = Recorder(monkeypatch)
    draft = store.draft("labels/km-000001/b", "labels", "f")
    draft.write("k02/label", np.zeros(10, np.int32))
    draft.write("names", np.array(["a", "b"], np.dtypes.StringDType()))
    store.publish("add", {draft.name: (draft, draft.entry({"x": 1}, {}))})
    [(link, target)] = [(i, p) for i, (call, p) in enumerate(record.events) if call == "link"]
    assert target == str(store.path / "log" / "00000001.json")
    above = [store.path / "data", store.path / "data/labels", store.path / "data/labels/km-000001"]
    files = [draft.folder, *draft.folder.rglob("*"), *above, above[-1] / "zarr.json"]
    missing = [path for path in files if not record.synced_since_last_change(path, link)]
    assert not missing
    assert any(call == "fsync" and p.endswith(".tmp") for call, p in record.events[:link])
    assert ("fsync", str(store.path / "log")) in record.events[link:]


def test_a_new_store_is_on_disk_before_its_first_manifest(tmp_path, monkeypatch):
    record = Recorder(monkeypatch)
    store = create(tmp_path / "new" / "folders" / "s")
    link = next(i for i, (call, _) in enumerate(record.events) if call == "link")
    inside = [p for p in store.path.rglob("*") if p.suffix != ".json" or p.name == "zarr.json"]
    above = [store.path, store.path.parent, store.path.parent.parent, tmp_path]
    assert not [path for path in [*inside, *above] if not record.synced_since_last_change(path, link)]


ODD = st.sampled_from([None, 0, -1, 1e308, True, "", [], {}, [1], {"a": 1}, 2**70, "../../etc", "\ud800", float("nan")])


def changed(data: st.DataObject, node: object) -> object:
    """A tree with another value, or none, in one place."""
    if not isinstance(node, dict | list) or not node or data.draw(st.integers(0, 9)) == 0:
        return data.draw(ODD)
    keys = list(node) if isinstance(node, dict) else range(len(node))
    key = data.draw(st.sampled_from(keys))
    rest = {k: node[k] for k in keys if k != key}
    if data.draw(st.integers(0, 3)):
        rest[key] = changed(data, node[key])
    return rest if isinstance(node, dict) else list(rest.values())


@given(changes=mutations(), number=st.integers(0, 4), data=st.data())
@settings(max_examples=300)
def test_a_mutated_manifest_is_refused_in_one_line(changes, number, data):
    """Other bytes; and another tree of which the digest is right."""
    arrays = {"X": ArrayEntry((9, 2), "float32", (4, 2))}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(manifest, "CHECKPOINT_EVERY", 3):
        log = new_log(folder)
        snapshot = filled(log, 3)
        manifest.publish(log, snapshot, "more", {"b": Entry("batches/b", "batch", {"rows": 9}, arrays)}, ("m1",))
        path = log / f"{number:08d}.json"
        document = json.loads(path.read_bytes())
        del document["digest"]
        other = changed(data, document)
        signed = other | {"digest": manifest._digest(other)} if isinstance(other, dict) else other
        for content in (mutate(path.read_bytes(), changes), json.dumps(signed).encode(), b"[" * 100_000):
            path.write_bytes(content)
            for look in (lambda: open_store(Path(folder)), lambda: manifest.read(log, number)):
                try:
                    look()
                except (InputError, DamageError) as error:
                    assert "\n" not in str(error)  # noqa: PT017 - it may as well be read
