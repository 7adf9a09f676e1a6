"""Merged into packs a store says and holds what it did, in every snapshot; whatever else is done to it still works."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from streamclust import pipeline, planning
from streamclust.blocks import Dask, Serial
from streamclust.cli import app
from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.exporting import export
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.repair import repair
from streamclust.store import arrays, compaction, manifest
from streamclust.store.compaction import MERGED, compact
from streamclust.store.examine import PACK
from streamclust.store.forgetting import forget
from streamclust.store.history import history, rollback
from streamclust.store.pruning import prune
from streamclust.store.retention import restore, withdraw
from streamclust.store.store import create, open_store
from streamclust.store.traces import FORGOTTEN
from streamclust.store.verify import verify
from tests.cases import job_on, matrices, small, spoil, write_case
from tests.faults import chunk_bytes, contents, no_fsync
from tests.store.conftest import DAYS, ROWS, day_case
from tests.store.test_forgetting import GONE, PATHS, holding, needles
from tests.store.test_verify import spoil as damage

SETTINGS = small(algorithms__also=["mixture", "agglomerative"], algorithms__consensus=True)


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    """Several files to a pack and several chunks to a file, though everything is small."""
    monkeypatch.setattr(planning, "SHARD_BYTES", 2048)
    monkeypatch.setattr(planning, "INNER_BYTES", 256)


def said(store):
    """What a snapshot says and holds, but packs; and where batches begin."""
    arrays.forget_open_arrays()
    held = {name: about for name, about in contents(store).items() if about[0] != PACK}
    return held, [(batch.name, batch.base) for batch in store.numbered]


def exported(store, folder):
    export(store, folder / "table.csv")
    return (folder / "table.csv").read_bytes()


def packed(store):
    return {name: entry for name, entry in store.snapshot.entries.items() if entry.first}


def test_everything_reads_as_before_and_so_do_older_snapshots(copied, tmp_path):
    store = open_store(copied)
    last = store.snapshot.number
    before, table = said(store), exported(store, tmp_path)
    old = {k: said(open_store(copied, k)) for k in (1, 2, last // 2, last)}
    done = compact(store, Serial())
    assert (done.snapshot, store.snapshot.number) == (last + 1, last + 1)
    assert done.objects == len(packed(store)) == sum(e.kind in MERGED for e in store.snapshot.entries.values())
    assert {e.kind for e in packed(store).values()} == set(MERGED)
    assert said(store) == said(open_store(copied)) == before
    assert exported(store, tmp_path) == table
    assert {k: said(open_store(copied, k)) for k in old} == old
    assert verify(copied, Serial()).damage == ()
    assert history(store)[-1].operation == "compact"
    assert history(store)[-1].added == tuple(sorted(store.snapshot.of_kind(PACK)))
    assert history(store)[-1].rows == 2 * ROWS
    again = compact(store, Serial())
    assert (again.objects, again.packs, again.snapshot) == (0, 0, last + 1)


def test_another_program_sees_ordinary_arrays(copied):
    store = open_store(copied)
    compact(store, Serial())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(copied / "data", mode="r")
    for name, entry in packed(store).items():
        for array, about in entry.arrays.items():
            first = entry.first[array]
            theirs = np.asarray(group[f"{entry.path}/{array}"][first : first + about.shape[0]])
            np.testing.assert_array_equal(theirs, store.read(name, array))


@given(
    rows=st.lists(st.integers(3, 40), min_size=2, max_size=6),
    size=st.sampled_from([64, 200, 4096]),
    files=st.sampled_from([64, 500, 4096]),
    data=st.data(),
)
@settings(max_examples=8)
def test_any_batches_and_any_blocks(tmp_path_factory, rows, size, files, data):
    """What is read from any row to any other, and what is fitted then, is the same to the bit, by any executor."""
    root = tmp_path_factory.mktemp("any")
    plain, merged = root / "plain", root / "merged"
    with pytest.MonkeyPatch.context() as patch, chunk_bytes(size):
        patch.setattr(planning, "SHARD_BYTES", files)
        patch.setattr(planning, "INNER_BYTES", files // 4)
        for i, n in enumerate(rows):
            X = spoil(matrices(i, n, {"a": 3})["a"], data.draw(st.lists(st.integers(0, n - 1), max_size=2)))
            case = write_case(root / f"case-{i}", {"a": X}, {"camera": [f"c{j % 3}ä" * (j % 5) for j in range(n)]})
            ingest(job_on(plain), open_case(case))
        store = open_store(plain)
        shutil.copytree(plain, merged)
        other = open_store(merged)
        compact(other, data.draw(st.sampled_from([Serial(), Dask(2)])))
        assert said(other) == said(store)
        for batch in store.batches:
            for array in ("descriptors/a", "images/camera", "valid/a"):
                whole = store.read(batch.name, array)
                start = data.draw(st.integers(0, batch.n))
                stop = data.draw(st.integers(start, batch.n))
                np.testing.assert_array_equal(other.read(batch.name, array, start, stop), whole[start:stop])
        np.testing.assert_array_equal(other["a"].compute(), store["a"].compute())
        assert verify(merged, Serial()).damage == ()


@pytest.mark.slow
def test_fits_are_the_same_and_the_next_days_are_merged_too(tmp_path):
    tables = []
    for merges in (False, True):
        path = tmp_path / f"s-{merges}"
        job = job_on(path, executor=Dask(2) if merges else Serial())
        for seed, day in enumerate(DAYS):
            ingest(job, open_case(day_case(tmp_path / f"cases-{merges}", seed, day)))
        if merges:
            assert compact(job.store, Dask(2)).packs == 1
        pipeline.fit(job)
        pipeline.score(job)
        if merges:
            compact(job.store, Serial())
        ingest(job, open_case(day_case(tmp_path / f"cases-{merges}", 7, "2026-01-03")))
        pipeline.predict(job)
        if merges:
            count = len(job.store.snapshot.of_kind(PACK))
            assert compact(job.store, Serial()).packs == count == len(job.store.snapshot.of_kind(PACK))
            assert len(packed(job.store)) == sum(e.kind in MERGED for e in job.store.snapshot.entries.values())
            assert verify(path, Dask(2)).damage == ()
            assert compact(job.store, Serial()).packs == 0
            prune(job.store, 1)
            job.store.sweep()
            found = verify(path, Serial())
            assert (found.damage, found.orphans) == ((), ())
        tables.append(exported(job.store, tmp_path))
    assert tables[0] == tables[1]


def test_large_objects_stay_and_packs_have_an_end(copied, monkeypatch):
    store = open_store(copied)
    sizes = {n: compaction._bytes(e) for n, e in store.snapshot.entries.items() if e.kind in MERGED}
    monkeypatch.setattr(compaction, "SMALL", min(sizes[b.name] for b in store.batches))
    compact(store, Serial())
    assert packed(store).keys() == {n for n, size in sizes.items() if size < compaction.SMALL}
    monkeypatch.setattr(compaction, "SMALL", 2**25)
    monkeypatch.setattr(compaction, "LARGE", sum(sizes[b.name] for b in store.batches) - 1)
    assert compact(store, Serial()).packs == 0
    monkeypatch.setattr(compaction, "LARGE", compaction.LARGE + 1)
    assert compact(store, Serial()).packs == 1
    assert said(store)[1] == said(open_store(copied, 2))[1]


def test_withdrawn_restored_and_rolled_back_over_a_compaction(copied):
    store = open_store(copied)
    last, before = store.snapshot.number, said(store)
    withdraw(store, DAYS[0], "to and fro")
    compact(store, Serial())
    assert [batch.id for batch in store.batches] == [DAYS[1]]
    restore(store, DAYS[0])
    assert said(store) == before
    rollback(store, last)
    assert said(store) == before
    assert not packed(store)
    rollback(store, last + 2)
    assert [batch.id for batch in store.batches] == [DAYS[1]]
    assert packed(store)
    rollback(store, 1)
    assert [len(store.read(b.name, "images/path")) for b in store.numbered] == [ROWS, ROWS]
    assert verify(copied, Serial()).damage == ()
    prune(store, 1)
    assert [len(store.read(b.name, "images/path")) for b in store.numbered] == [ROWS, ROWS]
    assert verify(copied, Serial()).damage == ()


def test_a_prune_frees_the_room_of_what_was_merged(copied):
    store = open_store(copied)
    before, old = said(store), {e.path for e in store.snapshot.entries.values() if e.kind in MERGED}
    compact(store, Serial())
    files = sum(path.is_file() for path in (copied / "data").rglob("*"))
    done = prune(store, 1)
    assert not any((copied / "data" / path).exists() for path in old)
    assert sum(path.is_file() for path in (copied / "data").rglob("*")) < files
    assert done.objects >= len(old)
    assert said(open_store(copied)) == before
    found = verify(copied, Serial())
    assert (found.damage, found.orphans) == ((), ())
    assert compact(store, Serial()).packs == 0


def test_a_reader_of_an_older_snapshot_goes_on_and_a_writer_at_work_gets_in(copied, tmp_path):
    reader, store = open_store(copied), open_store(copied)
    late = job_on(copied)
    draft = late.store.draft("models/late", "model", "at work")
    draft.write("values", np.arange(3))
    before = said(reader)
    compact(store, Serial())
    assert said(reader) == before
    late.store.publish("late", {draft.name: (draft, draft.entry({}, {}))})
    assert packed(late.store)
    assert late.store.read("models/late", "values").tolist() == [0, 1, 2]


def test_what_was_taken_out_meanwhile_is_not_brought_back(copied, monkeypatch):
    store, other = open_store(copied), open_store(copied)
    name = next(iter(store.snapshot.of_kind("labels")))
    write = compaction._write

    def slow(*args):
        if name in other.snapshot.entries:
            other.publish("away", {}, remove=(name,))
        return write(*args)

    monkeypatch.setattr(compaction, "_write", slow)
    with pytest.raises(ConflictError, match="taken out"):
        compact(store, Serial())
    store.refresh()
    assert not packed(store)
    assert compact(store, Serial()).packs
    assert name not in store.snapshot.entries
    store.sweep()
    assert verify(copied, Serial()).orphans == ()


def test_what_is_fixed_or_being_forgotten_is_not_merged(copied):
    with pytest.raises(InputError, match="to be read only"):
        compact(open_store(copied, 2), Serial())
    store = open_store(copied)
    draft = store.draft("forgettings/000099", "forgetting", "x")
    store.publish("forget", {draft.name: (draft, draft.entry({"batches": {}}, {}))})
    with pytest.raises(ConflictError, match="is not finished"):
        compact(store, Serial())


@pytest.mark.slow
@pytest.mark.parametrize("pruned", [False, True])
def test_rows_are_forgotten_in_packs_as_well(copied, pruned):
    store = open_store(copied)
    wanted = needles(store, DAYS[0], GONE)
    plain = copied.parent / "plain"
    shutil.copytree(copied, plain)
    compact(store, Serial())
    if pruned:
        prune(store, 1)
    assert holding(copied, wanted) > 10
    done = forget(store, paths=PATHS, batches=[DAYS[0]])
    assert (done.rows, done.left) == ({DAYS[0]: len(GONE)}, ())
    assert holding(copied, wanted) == 0
    other = open_store(plain)
    forget(other, paths=PATHS, batches=[DAYS[0]])
    values, wanted_values = ({k: v[4] for k, v in said(s)[0].items() if v[0] in MERGED} for s in (store, other))
    assert values == wanted_values
    assert verify(copied, Serial()).damage == ()


@pytest.mark.slow
def test_a_whole_day_is_forgotten_in_packs_and_not_merged_again(copied):
    store = open_store(copied)
    compact(store, Serial())
    wanted = needles(store, DAYS[0], range(0, ROWS, 9))
    done = forget(store, paths=[f"pictures/{row:05d}.jpg" for row in range(ROWS)], batches=[DAYS[0]])
    assert (done.withdrawn, done.left, holding(copied, wanted)) == ((DAYS[0],), (), 0)
    first = store.every_batch[0].name
    assert set(store.read(first, "images/path")) == {FORGOTTEN}
    assert np.isnan(store.read(first, "descriptors/a")).all()
    assert np.isfinite(store.read(store.batches[0].name, "descriptors/a")).all()
    assert compact(store, Serial()).packs == 0


def test_a_copy_of_a_forgotten_row_in_another_batch_of_the_pack_is_no_trace(copied, tmp_path):
    store = open_store(copied)
    X = store.read(store.batches[0].name, "descriptors/a")
    of = matrices(9, 30, {"a": 9, "b": 6})
    of["a"][3] = X[5]
    columns = {"camera": [f"c{i}" for i in range(30)], "time": ["2026-01-05T00:00"] * 30}
    ingest(job_on(copied), open_case(write_case(tmp_path / "twins", of, columns)))
    store.refresh()
    compact(store, Serial())
    assert forget(store, paths=PATHS[:1], batches=[DAYS[0]]).left == ()
    assert (store.read(store.batches[2].name, "descriptors/a")[3] == X[5]).all()


@pytest.mark.parametrize("how", ["flip", "cut", "delete"])
@pytest.mark.parametrize("count", [3, pytest.param(40, marks=pytest.mark.long)])
def test_damage_in_a_pack_is_named_by_batch_and_rows(copied, how, count):
    store, rng = open_store(copied), random.Random(how)
    compact(store, Serial())
    prune(store, 1)
    assert len({e.path for e in packed(store).values()}) > 5
    folder = copied / "data" / "packs"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    for file in rng.sample(files, count):
        whole = file.read_bytes()
        damage(file, how, rng)
        arrays.forget_open_arrays()
        found = verify(copied, Serial())
        assert {d.file for d in found.damage} == {file.relative_to(copied).as_posix()}
        arrays.forget_open_arrays()
        for one in found.damage:
            entry = store.snapshot.entries.get(one.name)
            if file.name != "zarr.json" and entry is not None and entry.first:
                assert one.rows[1] <= entry.arrays[one.array].shape[0]
                with pytest.raises(DamageError):
                    store.read(one.name, one.array, *one.rows)
        file.write_bytes(whole)
    arrays.forget_open_arrays()
    assert verify(copied, Serial()).damage == ()


def test_the_rows_of_a_flipped_byte_and_the_batch_are_named(copied):
    store = open_store(copied)
    compact(store, Serial())
    prune(store, 1)
    second = store.batches[1]
    where = store.array(second.name, "descriptors/a")
    file = arrays.chunk_files(where, ROWS - 1, ROWS)[0]
    content = bytearray(file.read_bytes())
    row = store.read(second.name, "descriptors/a")[ROWS - 1].tobytes()
    content[content.index(row)] ^= 4
    file.write_bytes(content)
    (found,) = verify(copied, Dask(2)).damage
    assert (found.name, found.array, found.rows) == (second.name, "descriptors/a", (0, ROWS))
    assert f"withdraw STORE {DAYS[1]}" in str(found)
    with pytest.raises(DamageError, match="checksum"):
        store.read(second.name, "descriptors/a")


def test_rows_of_another_time_are_found_in_packs(copied):
    store = open_store(copied)
    compact(store, Serial())
    where = store.array(store.batches[1].name, "descriptors/a")
    X = arrays.read_rows(where.path)
    X[where.first] += 1
    step = arrays.rows_per_chunk(where.path)
    for start in range(0, len(X), step):
        arrays.write_rows(where.path, start, X[start : start + step])
    (found,) = verify(copied, Serial()).damage
    assert (found.name, found.found) == (store.batches[1].name, "its rows are not those that were published")


def test_a_pack_whose_metadata_is_altered_is_never_read_as_something_else(copied):
    store = open_store(copied)
    compact(store, Serial())
    batch = store.batches[1].name
    file = store.array(batch, "descriptors/a").path / "zarr.json"
    whole = json.loads(file.read_text())
    inner = whole["codecs"][0]["configuration"]
    for change in (
        {"shape": [ROWS, 9]},
        {"shape": [2 * ROWS]},
        {"data_type": "int32"},
        {"codecs": [{**whole["codecs"][0], "name": "x"}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {**inner, "chunk_shape": [1, 9]}}]},
    ):
        file.write_text(json.dumps(whole | change))
        arrays.forget_open_arrays()
        with pytest.raises(DamageError):
            store.read(batch, "descriptors/a")
        found = verify(copied, Serial(), quick=True).damage
        assert file.relative_to(copied).as_posix() in {one.file for one in found} or "chunk_shape" in str(change)
        assert found


def test_repair_makes_labels_in_packs_again_and_metadata_and_leaves_rows_alone(copied):
    store = open_store(copied)
    compact(store, Serial())
    prune(store, 1)
    model = store.snapshot.newest("model", "a/kmeans")
    name = next(n for n, e in store.snapshot.of_kind("labels").items() if e.attributes["model"] == model)
    before = contents(store)[name][4]
    labels = store.array(name, "label")
    paths = store.array(store.batches[0].name, "images/path")
    for where in (labels, paths):
        damage(arrays.chunk_files(where)[0], "flip", random.Random(1))
    rows = arrays.chunk_files(paths)[0].read_bytes()
    for meta in (
        labels.path.parent / "distance/zarr.json",
        paths.path.parents[1] / "moments/b/mean/zarr.json",
        copied / "data/packs/zarr.json",
    ):
        damage(meta, "cut", random.Random(2))
    found, done = repair(copied, SETTINGS)
    assert len([line for line in done if line.startswith("written again from the manifest")]) == 3
    assert {one.array for one in found.damage} == {"images/path"}
    assert {one.name for one in found.damage} <= {batch.name for batch in store.batches}
    assert all("backup" in one.hint for one in found.damage)
    assert arrays.chunk_files(paths)[0].read_bytes() == rows
    after = open_store(copied)
    assert contents_of(after, name) == before
    assert not after.snapshot.entries[name].first


@pytest.mark.parametrize("how", ["cut", *(pytest.param(how, marks=pytest.mark.slow) for how in ("flip", "delete"))])
def test_repair_makes_again_what_batches_in_packs_derive(copied, how):
    store, rng = open_store(copied), random.Random(how)
    compact(store, Serial())
    prune(store, 1)
    derived = [f"moments/a/{name}" for name in ("n", "mean", "m2", "min", "max", "scatter")]
    derived += ["valid/a", "sample/a", "moments/b/mean"]
    before = contents(store)
    for array in derived:
        for file in arrays.chunk_files(store.array(store.batches[1].name, array).path)[-2:]:
            damage(file, how, rng)
    arrays.forget_open_arrays()
    spoiled = verify(copied, Serial()).damage
    assert {one.array for one in spoiled} == set(derived)
    assert all("--repair" in one.hint for one in spoiled)
    found, done = repair(copied, SETTINGS)
    assert found.damage == ()
    assert {array for array in derived for line in done if array in line} == set(derived)
    assert contents(open_store(copied)) == before
    assert repair(copied, SETTINGS)[1] == []


@pytest.mark.slow
def test_repair_inside_and_outside_packs_at_once(copied, tmp_path):
    store = open_store(copied)
    compact(store, Serial())
    prune(store, 1)
    ingest(job_on(copied), open_case(day_case(tmp_path / "more", 7, "2026-01-03")))
    store.refresh()
    before = contents(store)
    for batch, array in ((0, "valid/a"), (1, "moments/b/max"), (2, "moments/a/min")):
        damage(arrays.chunk_files(store.array(store.batches[batch].name, array))[0], "delete", random.Random(batch))
    found, done = repair(copied, SETTINGS)
    assert found.damage == ()
    assert [line.split()[-1] for line in done] == ["moments/a/min", "moments/b/max", "valid/a"]
    assert contents(open_store(copied)) == before


@pytest.mark.slow
def test_repair_writes_the_index_behind_rows_again(copied):
    store = open_store(copied)
    compact(store, Serial())
    prune(store, 1)
    before, files = contents(store), arrays.chunk_files(store.array(store.batches[0].name, "descriptors/a"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    (found,) = verify(copied, Serial()).damage
    assert "index" in found.found
    found, done = repair(copied, SETTINGS)
    assert (found.damage, len(done)) == ((), 1)
    assert files[0].read_bytes() == whole
    assert contents(open_store(copied)) == before


def test_what_a_batch_in_a_pack_derives_of_damaged_rows_stays_named(copied):
    store = open_store(copied)
    compact(store, Serial())
    prune(store, 1)
    second = store.batches[1].name
    X, mean, other = (store.array(second, array) for array in ("descriptors/a", "moments/a/mean", "moments/b/mean"))
    damage(arrays.chunk_files(X, ROWS - 1, ROWS)[0], "delete", random.Random(1))
    for where in (mean, other):
        for file in arrays.chunk_files(where):
            damage(file, "flip", random.Random(2))
    found, done = repair(copied, SETTINGS)
    assert {one.array for one in found.damage} == {"descriptors/a", "moments/a/mean"}
    assert second in {one.name for one in found.damage}
    assert all("moments/b/mean" in line for line in done if line.startswith("made again from the rows"))
    assert any("moments/b/mean" in line for line in done)


def contents_of(store, name):
    return {array: arrays.digest(store.read(name, array)) for array in store.snapshot.entries[name].arrays}


def test_an_older_program_is_told_and_a_store_without_packs_stays_its_own(copied):
    store = open_store(copied)
    log = copied / "log"
    last = store.snapshot.number
    compact(store, Serial())
    withdraw(store, DAYS[0], "later")
    rollback(store, last)
    formats = [manifest.read(log, number)["format"] for number in range(last + 4)]
    assert formats == [1] * (last + 1) + [2, 2, 1]


def test_damage_stops_a_compaction_with_its_place(copied):
    store = open_store(copied)
    file = arrays.chunk_files(store.array(store.batches[0].name, "descriptors/b"))[0]
    damage(file, "flip", random.Random(0))
    with pytest.raises(DamageError, match="checksum"):
        compact(store, Serial())
    store.refresh()
    assert not packed(store)
    store.sweep()
    assert not (copied / "data" / "packs").exists() or not list((copied / "data" / "packs").glob("0*"))


def test_the_command(copied):
    done = CliRunner().invoke(app, ["compact", str(copied)])
    assert done.exit_code == 0, done.output
    assert "merged into" in done.output
    done = CliRunner().invoke(app, ["compact", str(copied), "--json"])
    assert json.loads(done.stdout)["packs"] == 0
    assert CliRunner().invoke(app, ["compact", str(copied)]).output.endswith("nothing to merge\n")
    assert CliRunner().invoke(app, ["compact", str(Path(copied) / "no")]).exit_code == 2


def test_create_and_compact_an_empty_store(tmp_path):
    assert compact(create(tmp_path / "s"), Serial()).packs == 0
