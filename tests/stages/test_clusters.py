"""Clusters of a store: as many as there can be, each row at its nearest centre, indices as scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from streamclust import pipeline
from streamclust.cluster.assign import assign
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages.labels import labels_name
from streamclust.stages.sources import reduced_name
from tests.cases import clustered, job_on, matrices, small, spoil, work, write_case
from tests.faults import chunk_bytes, no_fsync

N = 600


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    of = matrices(3, N, {"osnet": 16, "vdc": 8})
    of["osnet"] = spoil(of["osnet"], range(0, 60, 7))
    folder = tmp_path_factory.mktemp("clusters")
    with chunk_bytes(4096), no_fsync():
        return work(folder / "s", write_case(folder / "case", of))


def rows_and_labels(store, descriptor, array="label"):
    """Valid reduced rows and their labels over all batches, and the model."""
    model = store.snapshot.newest("model", f"{descriptor}/kmeans")
    projection = store.snapshot.entries[model].attributes["parents"][0]
    Z = np.concatenate([store.read(reduced_name(projection, batch), "Z") for batch in store.batches])
    labels = np.concatenate([store.read(labels_name(model, batch.name), array) for batch in store.batches])
    valid = np.isfinite(Z[:, 0])
    assert (labels[~valid] == -2).all()
    return Z[valid], labels[valid], model


@pytest.mark.parametrize("descriptor", ["osnet", "vdc"])
def test_labels_are_the_nearest_stored_centres(fitted, descriptor):
    store = fitted.store
    for array in ("label", "fine"):
        Z, labels, model = rows_and_labels(store, descriptor, array)
        room = "fine" if array == "fine" else f"sweep/{store.snapshot.entries[model].attributes['k']:05d}"
        centers = store.read(model, f"{room}/centers")
        np.testing.assert_array_equal(labels, assign(Z, centers)[0])
        np.testing.assert_array_equal(np.bincount(labels), store.read(model, f"{room}/counts"))
        assert np.bincount(labels).min() > 0


@pytest.mark.parametrize("descriptor", ["osnet", "vdc"])
def test_indices_equal_scikit_learn_s_on_all_rows(fitted, descriptor):
    store = fitted.store
    Z, labels, model = rows_and_labels(store, descriptor)
    for k in store.snapshot.entries[model].attributes["ks"]:
        centers = store.read(model, f"sweep/{k:05d}/centers")
        under = assign(Z, centers)[0]
        _, ch, db, silhouette = store.read(model, f"sweep/{k:05d}/scores")
        # float32 distances of well separated rows keep five digits
        assert ch == pytest.approx(calinski_harabasz_score(Z.astype(float), under), rel=1e-4)
        assert db == pytest.approx(davies_bouldin_score(Z.astype(float), under), rel=1e-4)
        near = np.sort(np.linalg.norm(Z[:, None].astype(float) - centers, axis=2), axis=1)
        assert silhouette == pytest.approx((1 - near[:, 0] / near[:, 1]).mean(), rel=1e-4)
    assert len(set(labels)) == store.snapshot.entries[model].attributes["clusters"]


def test_the_curve_is_in_the_order_of_k(tmp_path):
    """However the sweep is dealt out."""
    job = job_on(tmp_path / "s", small(cluster__k_max=9))
    ingest(job, open_case(write_case(tmp_path / "case", {"a": clustered(3, 200, 5)})))
    model = pipeline.fit(job)["a"]
    assert job.store.snapshot.entries[model].attributes["ks"] == list(range(2, 10))


def test_halves_of_the_sample_say_how_stable_each_k_is(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__halves=3, cluster__k_max=6))
        ingest(job, open_case(write_case(tmp_path / "case", {"a": clustered(3, 500, 5)})))
        model = pipeline.fit(job)["a"]
    about = job.store.snapshot.entries[model].attributes
    found = np.stack([job.store.read(model, f"sweep/{k:05d}/stability") for k in about["ks"]])
    assert found[about["ks"].index(4), 0] > 0.95
    assert found[about["ks"].index(6), 0] < 0.9
    assert "agree there at an adjusted Rand index of" in about["reason"]


@pytest.mark.parametrize(("distinct", "k"), [(10, 20), (20, 20), (7, 3)])
def test_exactly_as_many_clusters_as_there_can_be(tmp_path, distinct, k):
    X = np.tile(clustered(5, distinct, 6), (12, 1))
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k=k))
        ingest(job, open_case(write_case(tmp_path / "case", {"a": X})))
        pipeline.fit(job)
    labels = rows_and_labels(job.store, "a")[1]
    assert len(np.unique(labels)) == labels.max() + 1 == min(k, distinct)
    fine = rows_and_labels(job.store, "a", "fine")[1]
    assert len(np.unique(fine)) == min(small().cluster.fine_k, distinct)


def test_few_valid_sampled_rows_still_fill_k(tmp_path):
    """The sample has 100 rows of which ten are valid, the store has a hundred."""
    X = spoil(clustered(6, 1000, 8), range(900))
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k=60, ingest__sample_rows=100))
        ingest(job, open_case(write_case(tmp_path / "case", {"a": X})))
        pipeline.fit(job)
    assert len(np.unique(rows_and_labels(job.store, "a")[1])) == 60


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """One store with a second batch predicted and then fitted; another with all rows as one batch."""
    folder = tmp_path_factory.mktemp("halves")
    whole = matrices(7, N, {"osnet": 16})["osnet"]
    days = [write_case(folder / f"day{i}", {"osnet": part}) for i, part in enumerate(np.split(whole, [400]))]
    with no_fsync():
        job = job_on(folder / "s")
        ingest(job, open_case(days[0]))
        pipeline.fit(job)
        before = job.store.labels().compute()
        model = job.store.snapshot.newest("model", "osnet/kmeans")
        ingest(job, open_case(days[1]))
        said = pipeline.predict(job)
        predicted = job.store.labels().compute()
        frozen = job.store.snapshot.newest("model", "osnet/kmeans") == model
        labelled = rows_and_labels(job.store, "osnet", "fine"), job.store.read(model, "fine/centers")
        pipeline.fit(job)
        once = job_on(folder / "once")
        ingest(once, open_case(write_case(folder / "all", {"osnet": whole})))
        pipeline.fit(once)
    return before, said, predicted, frozen, labelled, job, once


def test_predict_uses_the_frozen_centres_and_leaves_the_rest(halves):
    before, said, predicted, frozen, ((Z, fine, _), centers), _, _ = halves
    assert frozen
    assert len(fine) == N
    np.testing.assert_array_equal(fine, assign(Z, centers)[0])
    assert said == {"osnet labels": "batches/000002-day1"}
    columns = ["osnet_kmeans", "osnet_fine", "osnet_distance"]
    assert predicted[columns][:400].equals(before[columns])
    assert predicted[columns].notna().all().all()
    assert len(predicted) == N


def test_predict_again_is_a_no_op(halves):
    job = halves[5]
    number = job.store.snapshot.number
    assert pipeline.predict(job) == {"osnet labels": "up to date"}
    assert job.store.snapshot.number == number


def test_two_batches_are_as_one(halves):
    """The same moments, so the same components; the sample differs, so k-means ends nearly but not bitwise as well."""
    job, once = halves[5], halves[6]
    found = []
    for store in (job.store, once.store):
        model = store.snapshot.newest("model", "osnet/kmeans")
        projection = store.snapshot.entries[model].attributes["parents"][0]
        variance = store.read(projection, "explained_variance")
        found.append((variance, store.read(model, "sweep/00004/scores")[0], store.read(model, "sweep/00004/counts")))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-3)
    np.testing.assert_array_equal(found[0][2], found[1][2])
