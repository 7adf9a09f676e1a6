"""Whatever is altered, cut short or deleted in a store is named, with its rows, and is never read as something else."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from streamclust.blocks import Dask, Serial
from streamclust.errors import DamageError
from streamclust.store import arrays, manifest
from streamclust.store.store import create, open_store
from streamclust.store.verify import verify
from tests.faults import child, no_fsync
from tests.store.conftest import DAYS, ROWS


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def files_of(root):
    """One file of every kind of place in a store: by room, array (names of descriptors and k apart) and role."""
    data, found = root / "data", {}
    for file in sorted(data.rglob("*")):
        if file.is_file():
            room, *inside = file.relative_to(data).parts
            place = "/".join(part for part in inside if not any(c.isdigit() for c in part))
            found.setdefault((room, place, file.name == "zarr.json"), file)
    return sorted(found.values())


def spoil(file: Path, how: str, rng: random.Random) -> None:
    """Damage one file."""
    if how == "delete":
        file.unlink()
        return
    content = bytearray(file.read_bytes())
    if how == "cut":
        del content[rng.randrange(len(content)) :]
    elif file.name == "zarr.json" or file.parent.name == "log":
        at = content.index(b'"zarr_format"') if file.name == "zarr.json" else rng.randrange(8, len(content) - 8)
        content[at + 2] ^= 1
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def object_of(store, file):
    """Name and entry of the object that a file is in, if it is in one."""
    path = file.relative_to(store.path / "data").as_posix()
    found = [(n, e) for n, e in store.snapshot.entries.items() if path.startswith(f"{e.path}/")]
    return found[0] if found else (None, None)


def array_in(entry, file, root):
    """The array that a file is of, if it is of one."""
    inside = file.relative_to(root / "data" / entry.path).as_posix()
    return next((a for a in entry.arrays if inside.startswith((f"{a}/c/", f"{a}/zarr.json"))), "")


def rows_of(entry, array, file):
    about = entry.arrays[array]
    if file.name == "zarr.json":
        return 0, about.shape[0]
    index = int(file.as_posix().split("/c/")[1].split("/")[0]) if len(about.shape) > 1 else int(file.name)
    return index * about.chunks[0], min(about.shape[0], (index + 1) * about.chunks[0])


@pytest.mark.parametrize("how", ["flip", "cut", "delete"])
@pytest.mark.parametrize("share", [0.1, pytest.param(1, marks=pytest.mark.long)])
def test_every_kind_of_file_is_named_with_its_rows(copied, how, share):
    store, rng = open_store(copied), random.Random(how)
    files = files_of(copied)
    assert len(files) > 100
    for file in rng.sample(files, round(share * len(files))):
        name, entry = object_of(store, file)
        array = array_in(entry, file, copied) if entry else ""
        whole = file.read_bytes()
        spoil(file, how, rng)
        only = {entry.path} if entry else set()
        found = verify(copied, Serial(), only=only)
        assert [d.file for d in found.damage] == [file.relative_to(copied).as_posix()], (file, found.damage)
        (damage,) = found.damage
        assert (damage.name, damage.array) == (name or "", array)
        if array:
            assert damage.rows == rows_of(entry, array, file)
            arrays.forget_open_arrays()
            with pytest.raises(DamageError):
                store.read(name, array)
        file.write_bytes(whole)
    arrays.forget_open_arrays()
    assert verify(copied, Serial()).damage == ()


@pytest.mark.parametrize("how", ["flip", "cut", "delete"])
def test_a_damaged_manifest_is_named(copied, how):
    last = open_store(copied).snapshot.number
    for number in range(last + 1):
        file = copied / "log" / f"{number:08d}.json"
        whole = file.read_bytes()
        spoil(file, how, random.Random(number))
        found = verify(copied, Serial(), quick=True, only=())
        if (number, how) == (last, "delete"):  # nothing names it: what it named is there without any name
            assert found.damage
            assert all("newest manifests may be lost" in d.found for d in found.damage)
        else:
            assert [d.file for d in found.damage] == [f"log/{number:08d}.json"]
        file.write_bytes(whole)


def test_without_its_newest_manifest_a_store_is_the_one_before_once_what_that_named_is_removed(tmp_path):
    """Nothing else tells that there was one: that the folders of its objects have no record, as a killed run's have."""
    store = create(tmp_path / "s")
    for i in range(2):
        draft = store.draft(f"models/m{i}", "model", str(i))
        draft.write("values", np.arange(i + 1))
        store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    (store.path / "log" / "00000002.json").unlink()
    assert list(open_store(store.path).snapshot.entries) == ["models/m0"]
    (lost,) = verify(store.path, Serial()).damage
    assert lost.file == f"data/{draft.path}"
    shutil.rmtree(store.path / lost.file)
    assert verify(store.path, Serial()).damage == ()


def test_a_damaged_checkpoint_is_named_and_its_objects_are_still_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "CHECKPOINT_EVERY", 3)
    store = create(tmp_path / "s")
    for i in range(7):
        draft = store.draft(f"models/m{i}", "model", str(i))
        draft.write("values", np.arange(i + 1))
        store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    for number in (3, 6):
        file = store.path / "log" / f"{number:08d}.json"
        whole = file.read_bytes()
        for how in ("flip", "cut", "delete"):
            spoil(file, how, random.Random(how))
            found = verify(store.path, Serial())
            assert [d.file for d in found.damage] == [f"log/{number:08d}.json"]
            assert found.objects == 7 - (number == 6)  # the next checkpoint says what an earlier one said
            file.write_bytes(whole)


def test_quick_finds_what_is_missing_or_of_another_size_and_reads_nothing(copied):
    store = open_store(copied)
    batch = store.batches[0]
    chunk = arrays.chunk_files(store.array(batch.name, "descriptors/a"))[0]
    whole = chunk.read_bytes()
    for content, said in ((whole[:-1], "bytes instead of"), (whole + b"x", "bytes instead of"), (None, "missing")):
        chunk.unlink() if content is None else chunk.write_bytes(content)
        (damage,) = verify(copied, Serial(), quick=True).damage
        assert said in damage.found
        assert (damage.name, damage.array, damage.rows) == (batch.name, "descriptors/a", (0, ROWS))
        assert f"withdraw STORE {DAYS[0]}" in str(damage)
    chunk.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert verify(copied, Serial(), quick=True).damage == ()
    assert len(verify(copied, Serial()).damage) == 1


def test_rows_of_another_time_are_found_though_each_chunk_is_sound(copied):
    store = open_store(copied)
    batch = store.batches[0]
    X = store.read(batch.name, "descriptors/a")
    arrays.write_rows(store.array(batch.name, "descriptors/a"), 0, X[::-1].copy())
    (damage,) = verify(copied, Dask(2)).damage
    assert (damage.array, damage.rows, damage.found) == (
        "descriptors/a",
        (0, ROWS),
        "its rows are not those that were published",
    )


def test_damage_that_only_an_old_snapshot_has_is_named(tmp_path):
    store = create(tmp_path / "s")
    draft = store.draft("models/m", "model", "f")
    draft.write("values", np.arange(5))
    store.publish("add", {draft.name: (draft, draft.entry({}, {}))})
    store.publish("away", {}, remove=("models/m",))
    (draft.folder / "values" / "c" / "0").unlink()
    (damage,) = verify(store.path, Serial()).damage
    assert (damage.name, damage.array, damage.rows) == ("models/m", "values", (0, 5))


def test_orphans_are_told_apart_from_damage_and_from_work(tmp_path):
    store = create(tmp_path / "s")
    writer = child("draft", store.path)
    writer.stdout.readline()
    found = verify(store.path, Serial())
    assert (found.damage, found.orphans, found.writers) == ((), (), 1)
    assert store.sweep() == 0
    writer.kill()
    writer.communicate()
    found = verify(store.path, Serial())
    assert (found.damage, len(found.orphans), found.writers) == ((), 1, 0)
    store.sweep()
    assert verify(store.path, Serial()).orphans == ()
    (tmp_path / "s" / "drafts" / "0badf00d.json").write_text("{")
    found = verify(store.path, Serial())
    assert (found.damage, found.orphans) == ((), ("drafts/0badf00d.json",))


def test_any_number_of_workers_finds_the_same(copied):
    store, rng = open_store(copied), random.Random(1)
    for file in rng.sample([f for f in files_of(copied) if f.name != "zarr.json"], 9):
        spoil(file, "flip", rng)
    one, other = verify(store.path, Serial()), verify(store.path, Dask(3))
    assert len(one.damage) == 9
    assert one == other


@pytest.mark.slow
def test_objects_that_waited_as_a_proposal_are_sound(tmp_path):
    from streamclust.ingest import ingest
    from streamclust.readers.case import open_case
    from streamclust.stages import refit
    from tests.cases import work
    from tests.store.conftest import day_case

    job = work(tmp_path / "s", day_case(tmp_path, 0, DAYS[0]))
    ingest(job, open_case(day_case(tmp_path, 1, DAYS[1])))
    refit.propose(job)
    assert verify(job.store.path, Serial()).damage == ()
    refit.accept(job)
    assert verify(job.store.path, Serial()).damage == ()


def test_a_copy_is_as_sound(copied, tmp_path):
    shutil.copytree(copied, tmp_path / "copy")
    assert json.dumps(vars(verify(tmp_path / "copy", Serial())), default=str) == json.dumps(
        vars(verify(copied, Serial())), default=str
    )
