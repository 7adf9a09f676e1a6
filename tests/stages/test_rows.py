"""Rows that are no numbers, batches that lack a descriptor, rows that are not aligned, the smallest cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamclust import costs, pipeline
from streamclust.budget import shapes_of_case, shapes_of_store
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages.reduced import reduce
from streamclust.store.store import open_store
from tests.cases import clustered, job_on, matrices, small, spoil, work, write_case
from tests.faults import chunk_bytes, no_fsync

N, BAD = 500, [5, 77, 300, 499]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    of = matrices(21, N, {"a": 12, "b": 8})
    of["a"] = spoil(of["a"], BAD)
    with chunk_bytes(4096), no_fsync():
        job = work(folder / "s", write_case(folder / "case", of))
    return job, job.store.labels().compute()


def test_rows_that_are_no_numbers_are_kept_without_labels(spoiled):
    frame = spoiled[1]
    assert len(frame) == N
    bad = frame.iloc[BAD]
    mine = [c for c in frame.columns if c.startswith("a_")]
    assert bad[mine].isna().all().all()
    assert bad["b_kmeans"].notna().all()
    assert frame.drop(frame.index[BAD])[mine].notna().all().all()


def test_they_are_flagged_beside_the_budget(spoiled):
    job, frame = spoiled
    assert frame["outlier"].iloc[BAD].all()
    assert frame["outlier_score"].iloc[BAD].isna().all()
    assert (frame["outlier_reason"].iloc[BAD] == "a: contains NaN or infinite values").all()
    about = job.store.snapshot.entries[job.store.snapshot.newest("model", "outliers")].attributes
    assert (about["scored"], about["invalid"]) == (N - len(BAD), len(BAD))
    assert 0 < about["flagged"] <= math.floor(about["budget"] * about["scored"])
    assert int(frame["outlier"].sum()) == about["flagged"] + about["invalid"]
    above = frame["outlier_score"].to_numpy() >= np.float32(about["threshold"])
    assert int(above.sum()) == about["flagged"]


def test_a_descriptor_may_be_missing_or_new_in_a_later_batch(tmp_path):
    of = matrices(22, 300, {"a": 8, "b": 6, "c": 4})
    first = write_case(tmp_path / "first", {"a": of["a"][:200], "b": of["b"][:200]})
    second = write_case(tmp_path / "second", {"a": of["a"][200:], "c": of["c"][200:]})
    with no_fsync():
        work(tmp_path / "s", first)
        job = work(tmp_path / "s", second)
    frame, later = job.store.labels().compute(), slice(200, 300)
    assert frame["b_kmeans"].iloc[later].isna().all()
    assert frame["c_kmeans"].iloc[:200].isna().all()
    assert frame["a_kmeans"].notna().all()
    assert frame["outlier_score"].notna().all()
    missing = job.store["b"][later].compute()
    assert missing.shape == (100, 6)
    assert np.isnan(missing).all()
    np.testing.assert_array_equal(job.store["a"].compute(), of["a"])


def test_a_batch_that_was_not_scored_is_no_outlier(tmp_path):
    """After an ingest alone the scores are those of the batches before, and say so by nulls."""
    of = matrices(23, 300, {"a": 8})["a"]
    with no_fsync():
        job = work(tmp_path / "s", write_case(tmp_path / "first", {"a": of[:200]}))
        ingest(job, open_case(write_case(tmp_path / "second", {"a": of[200:]})))
        pipeline.score(job)
        assert job.store.labels().compute()["outlier"].iloc[200:].isna().all()
        assert collect_top(job) == 6
        pipeline.predict(job)
        assert pipeline.score(job)["scored"] == 300
    assert pipeline.describe(job.store)["flagged"] == 6
    assert job.store.labels().compute()["outlier"].notna().all()


def collect_top(job):
    from streamclust.stages.fused import invalid_rows, score_order

    model = job.store.snapshot.newest("model", "outliers")
    assert invalid_rows(job.store, model, 10) == []
    return len(score_order(job.store, model, 6))


def test_a_descriptor_without_a_valid_row_is_one_clear_line(tmp_path):
    of = matrices(24, 120, {"a": 8, "b": 6})
    of["b"] = spoil(of["b"], range(120))
    with no_fsync(), pytest.raises(InputError, match=r"b.*: no valid row") as error:
        work(tmp_path / "s", write_case(tmp_path / "case", of))
    assert "\n" not in str(error.value)
    assert open_store(tmp_path / "s").n == 0


def test_a_sample_without_a_valid_row_is_one_clear_line(tmp_path):
    X = spoil(clustered(25, 1000, 8), range(995))
    with no_fsync(), pytest.raises(InputError, match="none of the 100 sampled rows is valid"):
        work(tmp_path / "s", write_case(tmp_path / "case", {"a": X}), small(ingest__sample_rows=100))


@pytest.mark.parametrize("shift", [0, 1])
def test_rows_that_are_not_aligned_are_told(tmp_path, shift):
    of = matrices(26, 600, {"a": 12, "b": 8})
    of["b"] = np.roll(of["b"], shift, axis=0)
    with no_fsync():
        job = job_on(tmp_path / "s")
        ingest(job, open_case(write_case(tmp_path / "case", of)))
        pipeline.fit(job)
    assert len(job.journal.warnings) == shift
    assert not shift or "a and b: rows seem shifted by +1" in job.journal.warnings[0]


def duplicates():
    X = clustered(30, 300, 8)
    X[:285] = X[0]
    return X


SMALLEST = {
    "one row": (clustered(31, 1, 8), 1),
    "two rows": (clustered(31, 2, 8), 2),
    "three rows": (clustered(31, 3, 8), 3),
    "fewer rows than columns": (clustered(31, 20, 50), None),
    "constant": (np.ones((200, 6), np.float32), 1),
    "all zero": (np.zeros((200, 6), np.float32), 1),
    "duplicates": (duplicates(), None),
    "one column": (clustered(31, 200, 1), None),
    "half precision": (clustered(31, 200, 8).astype(np.float16), None),
    "integers": ((10 * clustered(31, 200, 8)).astype(np.int32), None),
    "wide": (np.random.default_rng(0).normal(size=(40, 5000)).astype(np.float32), None),
    "one valid row": (spoil(clustered(31, 50, 4), range(1, 50)), 1),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_and_oddest_cases_run(tmp_path, name):
    X, fine = SMALLEST[name]
    with no_fsync():
        job = work(tmp_path / "s", write_case(tmp_path / "case", {"a": X}))
    frame = job.store.labels().compute()
    valid = np.isfinite(X).all(axis=1)
    assert len(frame) == len(X)
    assert frame["a_kmeans"].notna().to_numpy().tolist() == valid.tolist()
    assert frame.loc[valid, ["a_x", "a_y", "outlier_score"]].notna().all().all()
    assert frame["outlier"].to_numpy()[~valid].all()
    if fine is not None:
        assert frame["a_fine"].nunique() == fine
    assert job.journal.warnings == []


def test_a_constant_descriptor_says_nothing_of_alignment(tmp_path):
    of = {"a": np.zeros((300, 6), np.float32), "b": clustered(32, 300, 8)}
    with no_fsync():
        job = work(tmp_path / "s", write_case(tmp_path / "case", of))
    assert job.journal.warnings == []


def test_more_clusters_than_valid_rows_are_refused(tmp_path):
    X = spoil(clustered(33, 60, 8), range(30))
    with no_fsync(), pytest.raises(InputError, match=r"cluster.k = 40: a has 30 valid rows"):
        work(tmp_path / "s", write_case(tmp_path / "case", {"a": X}), small(cluster__k=40))


@pytest.mark.slow
def test_batches_that_share_no_descriptor_run(tmp_path):
    of = matrices(34, 300, {"a": 8, "b": 6})
    with no_fsync():
        work(tmp_path / "s", write_case(tmp_path / "first", {"a": of["a"][:200]}))
        job = work(tmp_path / "s", write_case(tmp_path / "second", {"b": of["b"][200:]}))
    assert job.store.snapshot.newest("comparison", "comparison") is None
    assert job.store.labels().compute()["outlier_score"].notna().all()


def test_fewer_components_than_were_asked_for_are_told_and_planned(tmp_path):
    """One number serves descriptors of several widths: whichever has as many features gets it."""
    case = write_case(tmp_path / "case", matrices(3, 200, {"wide": 12, "narrow": 5}))
    asked = small(reduce__components=9)
    job = job_on(tmp_path / "s", asked)
    ingest(job, open_case(case))
    for descriptor in ("wide", "narrow"):
        reduce(job, [descriptor])
    assert job.journal.warnings == ["narrow: reduce.components = 9, but 5 have variance: 5 kept"]
    fitted = [entry.attributes for entry in job.store.snapshot.of_kind("projection").values()]
    kept = {about["descriptor"]: about["components"] for about in fitted}
    assert kept == {"wide": 9, "narrow": 5}
    mixed = small(reduce__components=9, mix__of=["wide", "narrow"])
    for shapes in (shapes_of_case(open_case(case)), shapes_of_store(job.store)):
        written = {s.name: s.bytes_written for s in costs.plan(shapes, mixed, 1).steps if s.name.endswith("reduce")}
        assert written == {f"{name}: reduce": 200 * (p + 2) * 4 for name, p in (kept | {"mix": 9}).items()}
