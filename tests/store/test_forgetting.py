"""What is forgotten is in no byte of the store, in no snapshot, and nothing else moves."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import moments as mo
from streamclust import pipeline
from streamclust.errors import ConflictError, InputError
from streamclust.ingest import ingest
from streamclust.outliers import score_density
from streamclust.readers.case import open_case
from streamclust.stages.projections import load_moments
from streamclust.stages.reduced import reduce
from streamclust.stages.strangeness import load_measures
from streamclust.store import arrays, forgetting, proof
from streamclust.store.forgetting import forget, resume
from streamclust.store.retention import restore, withdraw
from streamclust.store.store import create, open_store
from streamclust.store.thumbs import load
from streamclust.store.traces import FAR, FORGOTTEN
from tests.cases import job_on, matrices, write_case
from tests.faults import no_fsync
from tests.store.conftest import DAYS, LONELY, ROWS, day_case

GONE = (5, LONELY, 40, 89)
PATHS = [f"pictures/{row:05d}.jpg" for row in GONE]


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


def everything(root):
    """Every file's bytes, and those of compressed chunks as they were before."""
    for file in root.rglob("*"):
        if file.is_file():
            yield file, file.read_bytes()
    for meta in root.rglob("zarr.json"):
        array = zarr.open(meta.parent, mode="r")
        if isinstance(array, zarr.Array) and "zstd" in meta.read_text():
            yield meta.parent, np.asarray(array[:]).tobytes()


def needles(store, day, rows):
    """Bytes that only these rows have: as they came, reduced, and what the table says of them."""
    batch = next(b for b in store.every_batch if b.id == day)
    found = [f"cam-{day}-{row:03d}".encode() for row in rows]
    for d in batch.entry.attributes["descriptors"]:
        found += [row.tobytes() for row in store.read(batch.name, f"descriptors/{d}")[list(rows)]]
    for name, entry in store.snapshot.of_kind("reduced").items():
        if entry.attributes["batch"] == batch.name:
            found += [row.tobytes() for row in store.read(name, "Z")[list(rows)]]
    return found


def holding(root, wanted):
    """How many files hold one of these bytes."""
    return sum(any(needle in data for needle in wanted) for _, data in everything(root))


def values(store):
    """Everything a snapshot holds, by object and array."""
    return {
        (name, array): store.read(name, array)
        for name, entry in store.snapshot.entries.items()
        for array in entry.arrays
    }


def test_no_byte_of_the_rows_is_left_in_any_snapshot(copied):
    store = open_store(copied)
    wanted = needles(store, DAYS[0], GONE)
    assert holding(copied, wanted) > 10
    shown = load(store, [(store.batches[0].name, row) for row in range(ROWS)])
    pictures = [shown[store.batches[0].name, row] for row in GONE if (store.batches[0].name, row) in shown]
    assert holding(thumbs_of(store), pictures) > 0
    before = {k: values(open_store(copied, k)) for k in (1, 2, 4, 9, store.snapshot.number)}
    done = forget(store, paths=PATHS, batches=[DAYS[0]])
    assert holding(copied, wanted) == 0
    assert holding(thumbs_of(store), pictures) == 0
    assert load(store, shown).keys() == {row for row in shown if row[1] not in GONE}
    centers = store.read(store.snapshot.newest("model", "a/kmeans"), "fine/centers")
    assert (centers == np.float32(FAR)).all(axis=1).any()
    assert store.n == 2 * ROWS - len(GONE)
    assert done.rows == {DAYS[0]: len(GONE)}
    assert (done.asked, done.missing, done.left, done.withdrawn) == (len(GONE), 0, (), ())
    assert done.files > 500
    assert done.snapshots == max(before)
    assert {name for name in store.snapshot.entries if name.startswith(("models/", "projections/"))} == set(done.models)
    assert not (copied / "report").exists()
    assert not (copied / "forgetting").exists()
    assert not list((copied / "drafts").iterdir())
    for k, was in before.items():
        assert_only_rows_are_gone(was, open_store(copied, k))


def thumbs_of(store):
    """Where the first day's thumbnails lie; the second day's pictures are the same."""
    (name,) = (n for n, e in store.snapshot.of_kind("thumbs").items() if e.attributes["batch"] == store.batches[0].name)
    return store.path / "data" / store.snapshot.entries[name].path


def assert_only_rows_are_gone(was, store):
    batches = {batch.name: batch.id for batch in store.batches}
    kept = np.setdiff1d(np.arange(ROWS), GONE)
    for (name, array), before in was.items():
        now, about = store.read(name, array), store.snapshot.entries[name].attributes
        batch = name if name in batches else about.get("batch")
        if name.startswith("grids/"):
            assert not now.any()
        elif name.startswith(("batches/", "labels/", "reduced/")) and batches[batch] == DAYS[1]:
            np.testing.assert_array_equal(now, before)
        elif name.startswith(("labels/", "reduced/")) or array.startswith(("images/", "descriptors/", "valid/")):
            np.testing.assert_array_equal(now[kept], before[kept])
    for batch in store.batches:
        if batch.id == DAYS[0]:
            assert set(store.read(batch.name, "images/path")[list(GONE)]) == {FORGOTTEN}
            assert not store.read(batch.name, "valid/a")[list(GONE)].any()
            assert np.isnan(store.read(batch.name, "descriptors/a")[list(GONE)]).all()
            assert (store.read(batch.name, "images/picture_offset")[list(GONE)] == -1).all()


def test_moments_are_those_of_the_rows_that_are_left(copied):
    store = open_store(copied)
    forget(store, paths=PATHS, batches=[DAYS[0]])
    X = store.read(store.batches[0].name, "descriptors/a")
    found = load_moments(store, "a", store.batches[0])
    wanted = mo.from_block(np.delete(X, GONE, axis=0), scatter=True)
    assert found.n == ROWS - len(GONE)
    for name in ("mean", "m2", "min", "max"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12)
    np.testing.assert_allclose(found.scatter, np.tril(wanted.scatter), rtol=1e-12, atol=1e-9)


def test_a_frozen_model_goes_on_as_if_its_forgotten_points_were_never_drawn(copied, tmp_path):
    store = open_store(copied)
    model = store.snapshot.newest("model", "a/strangeness")
    before = load_measures(store, model).local
    forget(store, paths=[f"pictures/{row:05d}.jpg" for row in (LONELY, *range(0, ROWS, 7))])
    after = load_measures(store, model).local
    Z = store.read(store.snapshot.newest("model", "a/map"), "Z")[:50]
    gone = np.isin(before.ids % ROWS, [LONELY, *range(0, ROWS, 7)])
    assert gone.any(axis=1).all()
    for t in range(len(gone)):  # one subsample at a time, since they lose different numbers of points
        one = {"points": before.points[t : t + 1, ~gone[t]], "ids": before.ids[t : t + 1, ~gone[t]]}
        one |= {k: getattr(before, k)[t : t + 1, :, ~gone[t]] for k in ("k_distance", "density")}
        other = {k: getattr(after, k)[t : t + 1] for k in one}
        ids = np.full(len(Z), -1)
        shared = before.centre, before.scale, before.neighbours
        names = ("centre", "scale", "neighbours")
        kind = type(before)
        np.testing.assert_allclose(
            score_density(kind(**dict(zip(names, shared, strict=True)), **other), Z, ids),
            score_density(kind(**dict(zip(names, shared, strict=True)), **one), Z, ids),
            rtol=1e-5,
            atol=1e-6,
        )
    job = job_on(copied)
    ingest(job, open_case(day_case(tmp_path, 5, "2026-01-03")))
    pipeline.predict(job)
    found = job.store.labels().compute()
    new = found[found["batch"] == "2026-01-03"]
    assert np.isfinite(new[["outlier_score", "a_x", "a_y", "a_outlier_score"]].astype(float)).all().all()
    assert (new[["a_kmeans", "a_fine", "b_kmeans"]] >= 0).all().all()


@pytest.mark.slow
def test_what_stands_for_a_forgotten_row_on_the_map_goes_with_its_own(copied):
    store = open_store(copied)
    ids = store.read(store.snapshot.newest("model", "a/map"), "ids")[3:6]
    for i in (1, 0, 2):
        batch = store.batches[ids[i] // ROWS]
        wanted = needles(store, batch.id, [ids[i] % ROWS])
        assert forget(store, paths=[f"pictures/{ids[i] % ROWS:05d}.jpg"], batches=[batch.id]).left == ()
        assert holding(copied, wanted) == 0


@pytest.mark.slow
def test_a_whole_day_before_a_date_goes_and_frees_its_room(copied):
    store = open_store(copied)
    wanted = needles(store, DAYS[0], range(0, ROWS, 9))
    room = sum(f.stat().st_size for f in (copied / "data" / store.batches[0].entry.path).rglob("*"))
    done = forget(store, before=dt.date(2026, 1, 2))
    assert done.rows == {DAYS[0]: ROWS}
    assert done.withdrawn == (DAYS[0],)
    assert holding(copied, wanted) == 0
    assert [batch.id for batch in store.batches] == [DAYS[1]]
    assert store.batches[0].base == ROWS
    assert set(store.labels().compute()["batch"]) == {DAYS[1]}
    first = store.every_batch[0]
    assert load_moments(store, "a", first).n == 0
    with pytest.raises(InputError, match="all of its rows were forgotten"):
        restore(store, DAYS[0])
    assert sum(f.stat().st_size for f in (copied / "data" / first.entry.path).rglob("*")) < room
    with pytest.raises(InputError, match="no row has a date"):
        forget(created_undated(copied.parent), before=dt.date(2026, 1, 2))
    assert forget(store, before=dt.date(2026, 1, 2)).rows == {}
    reduce(job_on(copied), ["a"])
    assert open_store(copied).snapshot.of_kind("projection").popitem()[1].attributes["rows"] == ROWS


def created_undated(folder):
    job = job_on(folder / "undated")
    ingest(job, open_case(write_case(folder / "some", matrices(3, 20, {"a": 4}))))
    return job.store


def test_rows_are_chosen_by_their_time_else_by_their_batch(tmp_path):
    job = job_on(tmp_path / "s")
    times = ["2025-12-31T23:59", "2026-01-01", "20251230", "", "soon", "2026-01-02 00:00"] + ["2026-03-01"] * 14
    for day in ("2025-06-01", "later"):
        ingest(job, open_case(write_case(tmp_path / day, matrices(len(day), 20, {"a": 4}), {"Time": times})))
    done = forget(job.store, before=dt.date(2026, 1, 1))
    assert done.rows == {"2025-06-01": 4, "later": 2}
    assert done.undated == 2
    lost = [np.flatnonzero(job.store.read(b.name, "images/path") == FORGOTTEN).tolist() for b in job.store.batches]
    assert lost == [[0, 2, 3, 4], [0, 2]]


def test_the_same_path_or_row_elsewhere_is_no_trace_but_a_copy_of_it_is_told(copied, tmp_path):
    store = open_store(copied)
    X = store.read(store.batches[0].name, "descriptors/a")
    of = matrices(9, 30, {"a": 9})
    of["a"][3] = X[5]
    job = job_on(copied)
    ingest(job, open_case(write_case(tmp_path / "twins", of)))
    assert forget(job.store, paths=PATHS[:1], batches=[DAYS[0]]).left == ()
    draft = job.store.draft("days/x", "day", "x")
    draft.write("kept", X[[40]])
    job.store.publish("x", {"days/x": (draft, draft.entry({"said": 'see "pictures/00089.jpg", please'}, {}))})
    done = forget(job.store, paths=PATHS[2:])
    number = job.store.snapshot.entries["days/x"].added
    place = f"data/{job.store.snapshot.entries['days/x'].path}"
    assert done.left == (f"{place}/kept", f"{place}/zarr.json", f"log/{number:08d}.json")


@pytest.mark.slow
def test_a_list_longer_than_memory_and_what_was_not_found(copied, monkeypatch):
    monkeypatch.setattr(forgetting, "_AT_ONCE", 3)
    monkeypatch.setattr(proof, "_AT_ONCE", 4)
    store = open_store(copied)
    wanted = needles(store, DAYS[0], GONE)
    listed = copied.parent / "gone.csv"
    listed.write_text("path\n" + "\n".join([*PATHS, "no/such.jpg"]) + "\n")
    done = forget(store, paths=listed)
    assert done.rows == dict.fromkeys(DAYS, len(GONE))
    assert (done.asked, done.missing) == (len(GONE) + 1, 1)
    assert holding(copied, wanted) == 0
    assert forget(store, paths=PATHS).rows == {}


def test_nobody_publishes_what_was_made_from_forgotten_rows(copied):
    early, late = open_store(copied), open_store(copied)
    draft = early.draft("models/late", "model", "from rows")
    with pytest.raises(ConflictError, match="another run is writing"):
        forget(late, paths=PATHS)
    draft.discard()
    forget(late, paths=PATHS)
    draft = early.draft("models/late", "model", "from rows")
    draft.write("points", np.ones((3, 4)))
    with pytest.raises(ConflictError, match="rows were forgotten"):
        early.publish("late", {draft.name: (draft, draft.entry({}, {}))})
    assert not draft.folder.exists()
    early.refresh()
    withdraw(early, DAYS[1], "now it sees them")


def test_what_is_not_clear_is_refused(copied):
    store = open_store(copied)
    for chosen in ({}, {"paths": PATHS, "before": dt.date(2026, 1, 1)}):
        with pytest.raises(InputError, match="either paths or a date"):
            forget(store, **chosen)
    with pytest.raises(InputError, match="no batch 'x'"):
        forget(store, paths=PATHS, batches=["x"])
    assert resume(store) is None
    assert forget(store, paths=["no/such.jpg"]).missing == 1
    assert not list((copied / "drafts").iterdir())
    assert store.snapshot.number == open_store(copied).snapshot.number


def test_projections_are_fitted_anew_only_if_rows_went(copied):
    store = open_store(copied)
    digests = [batch.digest for batch in store.batches]
    forget(store, paths=PATHS, batches=[DAYS[0]])
    assert store.batches[0].digest not in digests
    assert store.batches[1].digest == digests[1]


@given(
    values=st.lists(
        st.lists(st.sampled_from([0.0, 1.0, -1.5, np.nan]), min_size=5, max_size=5), min_size=1, max_size=40
    )
)
@settings(max_examples=40)
def test_hashes_are_equal_where_rows_are(values):
    X = np.array(values, np.float32)
    hashes = proof.row_hashes(X)
    rows = [row.tobytes() for row in X]
    for i, row in enumerate(rows):
        assert hashes[i] == proof.row_hashes(X[i : i + 1])[0]
        for j in range(i):
            assert (hashes[i] == hashes[j]) == (row == rows[j] or hashes[i] == 0 == hashes[j])


@given(data=st.data(), sizes=st.lists(st.integers(1, 25), min_size=1, max_size=3))
@settings(max_examples=6)
def test_any_choice_of_rows_goes_and_no_other(data, sizes):
    with tempfile.TemporaryDirectory() as folder:
        store = create(Path(folder) / "s")
        for i, n in enumerate(sizes):
            publish_rows(store, i, n)
        for _ in range(2):
            wanted = data.draw(st.lists(st.sampled_from([f"{i}/{r}" for i, n in enumerate(sizes) for r in range(n)])))
            before = {b.name: store.read(b.name, "images/path") for b in store.every_batch}
            done = forget(store, paths=wanted)
            assert done.left == ()
            assert sum(done.rows.values()) == sum(int(np.isin(p, wanted).sum()) for p in before.values())
            for batch in store.every_batch:
                now, was = store.read(batch.name, "images/path"), before[batch.name]
                gone = np.isin(was, wanted) | (was == FORGOTTEN)
                assert (now[gone] == FORGOTTEN).all()
                assert (now[~gone] == was[~gone]).all()
                assert np.isnan(store.read(batch.name, "descriptors/a")[gone]).all()
                assert np.isfinite(store.read(batch.name, "descriptors/a")[~gone]).all()
                assert batch.forgotten == gone.sum()
        arrays.forget_open_arrays()


def publish_rows(store, i, n):
    """A batch as ingest writes it, of one descriptor."""
    X = np.random.default_rng(i).normal(size=(n, 6)).astype(np.float32)
    draft = store.draft(f"batches/{i:06d}-{i}", "batch", f"{i}")
    moments = mo.from_block(X, scatter=False)
    text = np.dtypes.StringDType()
    written = {
        "images/path": np.array([f"{i}/{r}" for r in range(n)], text),
        "descriptors/a": X,
        "valid/a": X[:, 0] > -9,
    }
    written |= {f"images/picture_{w}": np.zeros(n, np.int64) for w in ("offset", "size")}
    written |= {"sample/rows": np.arange(n), "sample/a": X, "moments/a/n": np.array([n])}
    written |= {f"moments/a/{w}": getattr(moments, w) for w in ("mean", "m2", "min", "max")}
    for name, value in written.items():
        draft.write(name, value)
    about = {"id": str(i), "rows": n, "digest": str(i), "descriptors": {"a": {}}, "columns": {}, "pictures": None}
    store.publish("add", {draft.name: (draft, draft.entry(about, {}))})


@pytest.mark.slow
def test_a_copy_is_left_alone(made, copied):
    """Chunks are replaced, never written into: a hard-linked backup keeps what it has."""
    linked = copied.parent / "linked"
    shutil.copytree(copied, linked, copy_function=lambda a, b: Path(b).hardlink_to(a))
    wanted = needles(open_store(made), DAYS[0], GONE)
    forget(open_store(copied), paths=PATHS)
    assert holding(linked, wanted) > 10
