"""What is derived is made again as it was; what came in is never touched, nor is anything where manifests are lost."""

from __future__ import annotations

import random

import pytest

from streamclust import pipeline
from streamclust.blocks import Serial
from streamclust.errors import DamageError
from streamclust.repair import repair
from streamclust.stages.labels import labels_name
from streamclust.stages.sources import reduced_name
from streamclust.store.history import rollback
from streamclust.store.orphans import find_orphans
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.cases import job_on, small
from tests.faults import contents, no_fsync
from tests.store.conftest import DAYS, ROWS
from tests.store.test_verify import files_of, spoil

SETTINGS = small(algorithms__also=["mixture", "agglomerative"], algorithms__consensus=True)


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def chunks_of(store, name, arrays):
    """A chunk's file of each of some arrays."""
    folder = store.path / "data" / store.snapshot.entries[name].path
    return [next(file for file in (folder / array / "c").rglob("*") if file.is_file()) for array in arrays]


def test_metadata_and_what_a_batch_derives_come_back_in_their_place(copied):
    store, rng = open_store(copied), random.Random(0)
    before, bytes_before = contents(store), {f: f.read_bytes() for f in copied.rglob("*") if f.is_file()}
    derived = [f"moments/a/{name}" for name in ("n", "mean", "m2", "min", "max", "scatter")]
    derived += ["valid/a", "valid/b", "sample/a", "moments/b/mean"]
    spoiled = chunks_of(store, store.batches[0].name, derived)
    known = {file.parents[k] for file in spoiled for k in (1, 2)}
    metadata = [file for file in files_of(copied) if file.name == "zarr.json" and file.parent not in known]
    spoiled += [copied / "data" / "zarr.json", *rng.sample(metadata, 25)]
    for file in dict.fromkeys(spoiled):
        spoil(file, rng.choice(["flip", "cut", "delete"]), rng)
    assert len(verify(copied, Serial()).damage) == len(set(spoiled))
    found, done = repair(copied, SETTINGS)
    assert found.damage == ()
    assert len(done) == len(set(spoiled))
    assert open_store(copied).snapshot == store.snapshot
    assert contents(open_store(copied)) == before
    assert [f for f, data in bytes_before.items() if f.read_bytes() != data and f.name != "zarr.json"] == []


def test_labels_and_reduced_rows_are_made_again_by_the_models_as_they_are(copied):
    store = open_store(copied)
    first, second = store.batches
    model = store.snapshot.newest("model", "a/kmeans")
    projection = store.snapshot.entries[model].attributes["parents"][0]
    names = [reduced_name(projection, second), labels_name(model, first.name)]
    names += [labels_name(store.snapshot.newest("model", r), second.name) for r in ("b/mixture", "outliers", "a/map")]
    before = {name: contents(store)[name] for name in names}
    last = store.snapshot.number
    for name in names:
        spoil(chunks_of(store, name, [next(iter(store.snapshot.entries[name].arrays))])[0], "flip", random.Random(1))
    assert {one.name for one in verify(copied, Serial()).damage} == set(names)
    found, done = repair(copied, SETTINGS)
    assert (found.damage, len(found.taken_out)) == ((), len(names))
    assert f"made again by the models as they are: {', '.join(sorted(names))}" in done
    after = contents(open_store(copied))
    for name in names:
        assert after[name][4] == before[name][4]
    assert {n for n, e in after.items() if e[1] <= last} == set(store.snapshot.entries) - set(names)
    with pytest.raises(DamageError, match="is damaged"):
        rollback(open_store(copied), last)


@pytest.mark.slow
def test_a_model_goes_with_what_was_made_from_it_and_the_next_run_makes_it_again(copied):
    store = open_store(copied)
    model = store.snapshot.newest("model", "b/strangeness")
    spoil(chunks_of(store, model, [next(iter(store.snapshot.entries[model].arrays))])[0], "cut", random.Random(2))
    found, done = repair(copied, SETTINGS)
    assert found.damage == ()
    entries = open_store(copied).snapshot.entries
    gone = set(store.snapshot.entries) - set(entries)
    assert {model, store.snapshot.newest("model", "outliers"), labels_name(model, store.batches[0].name)} <= gone
    assert not any(name.startswith(("batches/", "reduced/", "models/b-kmeans", "models/a-s")) for name in gone)
    assert "the rest is made again" in done[-1]
    job = job_on(copied, SETTINGS)
    pipeline.score(job)
    assert job.store.snapshot.newest("model", "b/strangeness") not in {None, model}
    assert len(job.store.labels().compute().dropna(subset=["outlier_score"])) == 2 * ROWS
    assert verify(copied, Serial()).damage == ()


def test_rows_that_came_in_are_named_and_left_alone(copied):
    store = open_store(copied)
    chunk, path, moments = chunks_of(store, store.batches[0].name, ["descriptors/a", "images/path", "moments/a/mean"])
    for file in (chunk, path, moments):
        spoil(file, "flip", random.Random(3))
    content = chunk.read_bytes()
    found, done = repair(copied, SETTINGS)
    assert {(one.array, one.rows) for one in found.damage} >= {("descriptors/a", (0, ROWS)), ("images/path", (0, ROWS))}
    assert len(found.damage) == 3
    assert all(f"withdraw STORE {DAYS[0]}" in one.hint for one in found.damage if not one.array.startswith("moments"))
    assert chunk.read_bytes() == content
    assert done == []
    assert open_store(copied).snapshot == store.snapshot


def test_where_a_manifest_is_damaged_or_lost_nothing_is_changed(copied):
    store = open_store(copied)
    store.draft("models/x", "model", "x").abandon()
    last = copied / "log" / f"{store.snapshot.number:08d}.json"
    content = last.read_bytes()
    for how in ("delete", "flip"):
        spoil(last, how, random.Random(4))
        before = sorted(copied.rglob("*"))
        found, (said,) = repair(copied, SETTINGS)
        assert found.damage
        assert "nothing was changed" in said
        assert sorted(copied.rglob("*")) == before
        last.write_bytes(content)
    found, done = repair(copied, SETTINGS)
    assert (found.damage, done) == ((), ["1 orphans of dead writers were removed"])
    assert find_orphans(copied, [e.path for e in store.snapshot.entries.values()], list).dead == ()
