"""Frozen models: what they say of a batch again, of a new batch, and of one that lacks a descriptor."""

from __future__ import annotations

import shutil
from dataclasses import fields
from itertools import count
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from streamclust import pipeline
from streamclust.embedding import place
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import grids, maps, strangeness
from streamclust.stages.labels import labels_name
from streamclust.stages.reduced import extend, read_valid, reduced_rows
from streamclust.store.entries import Entry
from streamclust.store.store import Store
from tests.cases import job_on, matrices, small, spoil, work, write_case

N, M = 300, 70


@pytest.fixture
def fitted(tmp_path):
    of = matrices(5, N + M, {"a": 8, "b": 5})
    of["a"] = spoil(of["a"], [3, N + 4])
    case = write_case(tmp_path / "base", {d: X[:N] for d, X in of.items()})
    day = write_case(tmp_path / "day", {d: X[N:] for d, X in of.items()})
    return work(tmp_path / "s", case), day


def labels(store: Store) -> dict[str, Entry]:
    return store.snapshot.of_kind("labels")


def values(store: Store, name: str) -> dict[str, bytes]:
    return {array: store.read(name, array).tobytes() for array in store.snapshot.entries[name].arrays}


def _projection(store: Store) -> str:
    return next(n for n, e in store.snapshot.of_kind("projection").items() if e.attributes["descriptor"] == "a")


def test_the_same_again(fitted):
    """Labels taken away and made again by the frozen models are the same bytes."""
    job, _ = fitted
    store = job.store
    before = {name: values(store, name) for name in labels(store)}
    store.publish("take labels away", {}, remove=tuple(before))
    assert not labels(store)
    pipeline.predict(job)
    assert set(labels(store)) == set(before)
    for name, arrays in before.items():
        assert values(store, name) == arrays, name


def test_a_model_comes_back_as_it_was_fitted(fitted):
    job, _ = fitted
    store, seen = job.store, []
    real = strangeness._fit
    projection = _projection(store)
    clustering = store.snapshot.newest("model", "a/kmeans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strangeness, "_fit", lambda *args: seen.append(real(*args)) or seen[-1])
        job.settings = small(outliers__noise_votes=1)
        name = strangeness.measure(job, projection, clustering)
    loaded = strangeness.load_measures(store, name)
    made, parts = seen[0][0], attrgetter("local", "noise.voters", "noise.hdbscan", "noise.optics")
    assert made.noise.radius == loaded.noise.radius
    for fresh, stored in zip(parts(made), parts(loaded), strict=True):
        for field in fields(fresh):
            a, b = getattr(fresh, field.name), getattr(stored, field.name)
            np.testing.assert_array_equal(a, b)
            assert np.asarray(a).dtype == np.asarray(b).dtype
            assert np.shape(a) == np.shape(b)


def test_rows_are_placed_by_the_components_the_map_was_fitted_on(fitted, monkeypatch):
    """A map of a few leading components places the rows of any day by these, whatever more the projection has."""
    job, day = fitted
    monkeypatch.setattr(maps, "LEADING", 2)
    projection = _projection(job.store)
    job.settings = small(map__perplexity=7)
    (name,) = maps.maps(job, [projection])
    monkeypatch.undo()
    sample, xy = job.store.read(name, "Z"), job.store.read(name, "xy")
    assert sample.shape[1] == 2
    ingest(job, open_case(day))
    extend(job, [projection])
    maps.predict(job, name)
    batch = job.store.batches[-1]
    Z, valid = read_valid(reduced_rows(job.store, projection, [batch])[0])
    assert Z.shape[1] > 2
    placed = np.column_stack([job.store.read(labels_name(name, batch.name), axis) for axis in ("x", "y")])
    np.testing.assert_array_equal(placed[valid], place(Z[:, :2], sample, xy))
    assert np.isnan(placed[~valid]).all()


def test_a_new_batch(fitted):
    job, day = fitted
    before = {name: values(job.store, name) for name in labels(job.store)}
    ingest(job, open_case(day))
    said = pipeline.predict(job)
    assert set(said.values()) == {"batches/000002-day"}
    assert set(pipeline.predict(job).values()) == {"up to date"}
    for name, arrays in before.items():
        assert values(job.store, name) == arrays
    table = job.store.labels().compute()
    new = table[table["batch"] == "day"]
    assert len(new) == M
    assert new["outlier_score"].isna().sum() == 1  # the row with a NaN
    assert new["outlier"].notna().all()
    assert new["b_x"].notna().all()
    threshold = job.store.snapshot.entries[job.store.snapshot.newest("model", "outliers")].attributes["threshold"]
    scored = new["outlier_score"].notna()
    assert ((new["outlier_score"] >= np.float32(threshold)) == new["outlier"])[scored].all()


@pytest.mark.parametrize("k", [2, 5, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 3, 4, 6))])
def test_a_batch_that_another_writer_brings_in_meanwhile(fitted, tmp_path, monkeypatch, k):
    """Whenever it comes, it is left alone or judged by all of its descriptors, and the next run does what is left."""
    job, day = fitted
    other = write_case(tmp_path / "other", matrices(6, 20, {"a": 8, "b": 5}))
    alone = job_on(Path(shutil.copytree(job.store.path, tmp_path / "alone")))
    for case in (day, other):
        ingest(alone, open_case(case))
        pipeline.predict(alone)
    publish, so_far = job.store.publish, count()

    def interrupted(*args, **more):
        publish(*args, **more)
        if next(so_far) == k:
            ingest(job_on(job.store.path), open_case(other))
            extend(job_on(job.store.path), [_projection(job.store)])

    monkeypatch.setattr(job.store, "publish", interrupted)
    ingest(job, open_case(day))
    pipeline.predict(job)
    pipeline.predict(job_on(job.store.path))
    found, wanted = (of.store.labels().compute() for of in (job_on(job.store.path), alone))
    assert next(so_far) > k + 1
    pd.testing.assert_frame_equal(*(t.set_index(["batch", "path"]).sort_index() for t in (found, wanted)))


def test_outliers_of_rows_that_nobody_labelled_yet(fitted):
    """A run killed after it reduced a day: the day is left to the next one that labels it."""
    job, day = fitted
    ingest(job, open_case(day))
    extend(job, [_projection(job.store)])
    assert pipeline.score(job)["scored"] == N - 1  # one row is not valid
    pipeline.predict(job)
    assert job.store.labels().compute()["outlier_score"].notna().sum() == N + M - 2


def test_a_batch_that_lacks_a_descriptor(fitted, tmp_path):
    job, _ = fitted
    other = write_case(
        tmp_path / "lacks", {"b": matrices(9, 20, {"b": 5})["b"], "new": matrices(8, 20, {"new": 4})["new"]}
    )
    ingest(job, open_case(other))
    said = pipeline.predict(job)
    assert said["a labels"] == "up to date"
    assert said["b labels"] == said["outliers"] == "batches/000002-lacks"
    new = job.store.labels().compute().query("batch == 'lacks'")
    assert new["a_kmeans"].isna().all()
    assert new["b_kmeans"].notna().all()
    assert new["outlier_score"].notna().all()


def test_grids_add_up(fitted, tmp_path):
    """Grids that a batch was added to, or taken from, are those counted anew."""
    job, day = fitted
    store = job.store

    def count() -> dict[str, np.ndarray]:
        newest = store.snapshot.newest
        name = grids.grids(job, newest("model", "b/map"), newest("model", "b/kmeans"), newest("model", "outliers"))
        return {key: store.read(name, key) for key in grids.KEYS}

    base = count()
    ingest(job, open_case(day))
    pipeline.predict(job)
    both = count()
    assert both["density"].sum() == base["density"].sum() + M
    store.publish("forget the grids", {}, remove=tuple(store.snapshot.of_kind("grid")))
    anew = count()
    for key in grids.KEYS:
        np.testing.assert_array_equal(both[key], anew[key])
    draft = store.draft("withdrawals/day", "withdrawal", "day")
    store.publish("withdraw day", {draft.name: (draft, draft.entry({"role": "batches/000002-day"}, {}))})
    for key, counts in count().items():
        np.testing.assert_array_equal(counts, base[key])
