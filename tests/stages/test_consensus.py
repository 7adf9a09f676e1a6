"""The consensus of a store: over descriptors and algorithms, the same by any executor, kept by days and refits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from streamclust import pipeline
from streamclust.blocks import Dask
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages.consensus import in_force
from streamclust.stages.labels import labels_name
from tests.cases import job_on, matrices, small, spoil, work, write_case
from tests.faults import chunk_bytes, no_fsync

N = 700
SETTINGS = small(algorithms__also=["mixture", "agglomerative"], algorithms__consensus=True, cluster__fine_k=30)


def case_of(folder, part=slice(None)):
    of = matrices(4, N, {"osnet": 12, "vdc": 8})
    of["osnet"] = spoil(of["osnet"], range(0, N, 70))
    return write_case(folder, {name: X[part] for name, X in of.items()})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consensus")
    with chunk_bytes(4096), no_fsync():
        job = job_on(folder / "s", SETTINGS)
        ingest(job, open_case(case_of(folder / "case")))
        pipeline.fit(job)
    return job


def read(job, array="label"):
    store = job.store
    model = store.snapshot.newest("model", "consensus")
    return np.concatenate([store.read(labels_name(model, batch.name), array) for batch in store.batches])


def test_every_row_gets_the_kind_that_both_descriptors_see_and_how_sure_that_is(fitted):
    truth = np.random.default_rng(4).integers(0, 4, N)  # as `matrices` draws it
    label, sure = read(fitted), read(fitted, "confidence")
    assert (label >= 0).all()  # one descriptor's invalid rows have the other's vote
    assert adjusted_rand_score(truth, label) > 0.9
    assert 0 <= sure.min() <= sure.max() <= 1
    assert sure.mean() > 0.9
    about = fitted.store.snapshot.entries[fitted.store.snapshot.newest("model", "consensus")].attributes
    assert about["clusterings"] == [
        f"{d}/{a}" for d in ("osnet", "vdc") for a in ("kmeans", "mixture", "agglomerative")
    ]
    model = fitted.store.snapshot.newest("model", "consensus")
    np.testing.assert_array_equal(fitted.store.read(model, "doubted"), np.bincount(label[sure < 0.8], minlength=4))
    table = fitted.store.labels().compute()
    np.testing.assert_array_equal(table["consensus"].to_numpy(int), label)
    np.testing.assert_allclose(table["confidence"].to_numpy(float), sure)


def test_the_same_by_any_number_of_workers_and_again_nothing(fitted, tmp_path):
    with chunk_bytes(4096), no_fsync():
        job = job_on(tmp_path / "s", SETTINGS, Dask(2))
        ingest(job, open_case(case_of(tmp_path / "case")))
        pipeline.fit(job)
        number = job.store.snapshot.number
        pipeline.fit(job)
    assert job.store.snapshot.number == number
    for array in ("label", "confidence"):
        np.testing.assert_array_equal(read(job, array), read(fitted, array))


@pytest.mark.slow
def test_a_day_is_labelled_as_it_stands_and_ids_stay_over_a_refit(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s", SETTINGS)
        ingest(job, open_case(case_of(tmp_path / "mon", slice(500))))
        models = pipeline.fit(job)
        before = in_force(job, models)
        ingest(job, open_case(case_of(tmp_path / "tue", slice(500, None))))
        assert pipeline.predict(job)["consensus"] == "batches/000002-tue"
        assert in_force(job, models) == before
        assert pipeline.predict(job)["consensus"] == "up to date"
        old = job.store.labels().compute()["consensus"].to_numpy(int)
        models = pipeline.fit(job)
        assert in_force(job, models) not in {None, before}
        new = job.store.labels().compute()["consensus"].to_numpy(int)
    assert (old == new).mean() > 0.95


@pytest.mark.slow
def test_it_is_in_force_only_beside_the_clusterings_that_it_is_of(tmp_path):
    with no_fsync():
        job = work(tmp_path / "s", case_of(tmp_path / "case"), small(algorithms__consensus=True))
        models = {d: job.store.snapshot.newest("model", f"{d}/kmeans") for d in ("osnet", "vdc")}
        assert in_force(job, models)
        pipeline.fit(job_on(tmp_path / "s", small(algorithms__also=["agglomerative"])))
        job.store.refresh()
        assert in_force(job, models) is None


@pytest.mark.slow
def test_one_clustering_alone_agrees_with_nothing(tmp_path):
    with no_fsync():
        one = write_case(tmp_path / "case", matrices(4, 200, {"vdc": 8}))
        job = work(tmp_path / "s", one, small(algorithms__consensus=True))
    assert job.store.snapshot.newest("model", "consensus") is None
