"""Further algorithms beside k-means: rows labelled as scikit-learn would, under the ids of k-means, by any executor."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score
from sklearn.mixture import GaussianMixture

from streamclust import pipeline
from streamclust.blocks import Dask, Serial
from streamclust.cluster import stability
from streamclust.cluster.assign import assign
from streamclust.cluster.hierarchy import agglomerate, cut
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import hierarchies, mixtures
from streamclust.stages.algorithms import beside
from streamclust.stages.labels import labels_name
from streamclust.stages.names import cluster_ids
from streamclust.stages.sources import reduced_name
from tests.cases import clustered, job_on, small, spoil, work, write_case
from tests.faults import chunk_bytes, no_fsync

N, D = 900, 12
BOTH = ["mixture", "agglomerative"]
SETTINGS = small(algorithms__also=BOTH, cluster__k=4)


def rows_of(n=N):
    return spoil(clustered(3, n, D), range(0, n, 50))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("algorithms")
    with chunk_bytes(4096), no_fsync():
        job = job_on(folder / "s", SETTINGS)
        ingest(job, open_case(write_case(folder / "case", {"a": rows_of()})))
        pipeline.fit(job)
    return job


def found(job, algorithm, array="label"):
    """Valid reduced rows, k-means labels, the algorithm's values, and the algorithm's model."""
    store = job.store
    kmeans = store.snapshot.newest("model", "a/kmeans")
    model = beside(job.store, kmeans)[algorithm]
    projection = store.snapshot.entries[kmeans].attributes["parents"][0]
    parts = [
        (
            store.read(reduced_name(projection, batch), "Z"),
            store.read(labels_name(kmeans, batch.name), "label"),
            store.read(labels_name(model, batch.name), array),
        )
        for batch in store.batches
    ]
    Z, label, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    valid = label >= 0
    assert (values[~valid] == -2).all() if array == "label" else np.isnan(values[~valid]).all()
    return Z[valid].astype(float), label[valid], values[valid], model


def test_halves_are_fitted_as_all_rows_are():
    X = clustered(5, 600, 6)
    half, judges = stability.half_of(X, 3), stability.judges_of(X)
    ours = mixtures.label_judges(3, X, k=4, kind="full", passes=50)[0]
    theirs = GaussianMixture(4, means_init=stability.starts(half, [4], 3)[0], random_state=0).fit(half)
    assert adjusted_rand_score(theirs.predict(judges), ours) > 0.99
    ours = hierarchies.label_judges(3, X, k=4, linkage="ward")[0]
    tree = AgglomerativeClustering(4).fit(half)
    nearest = np.square(judges[:, None] - half).sum(axis=2).argmin(axis=1)
    assert adjusted_rand_score(tree.labels_[nearest], ours) == 1


@pytest.mark.parametrize("executor", [Serial(), Dask(2)], ids=["serial", "threads"])
def test_halves_of_the_sample_tell_what_is_in_the_data(tmp_path, executor):
    settings, found = small(algorithms__also=BOTH, cluster__k=4, cluster__halves=3), {}
    rng = np.random.default_rng(1)
    for name, X in {"clusters": clustered(3, 400, 5), "none": rng.random((400, 5), np.float32)}.items():
        job = job_on(tmp_path / name, settings, executor)
        ingest(job, open_case(write_case(tmp_path / f"case-{name}", {"a": X})))
        pipeline.fit(job)
        models = beside(job.store, job.store.snapshot.newest("model", "a/kmeans"))
        found[name] = {a: job.store.snapshot.entries[model].attributes["stability"] for a, model in models.items()}
    for algorithm in BOTH:
        mean, low, high = found["clusters"][algorithm]
        assert 0.95 < low <= mean <= high <= 1
        assert found["none"][algorithm] is None or found["none"][algorithm][0] < 0.8


def test_no_halves_are_asked_for_or_too_small(fitted):
    for algorithm in BOTH:
        assert fitted.store.snapshot.entries[found(fitted, algorithm)[3]].attributes["stability"] is None


def test_the_mixture_is_scikit_learn_s_from_the_same_start(fitted):
    Z, label, ours, model = found(fitted, "mixture")
    about = fitted.store.snapshot.entries[model].attributes
    assert about["covariance_type"] == "full"
    parts = [Z[label == i] for i in range(4)]
    theirs = GaussianMixture(
        4,
        weights_init=[len(part) / len(Z) for part in parts],
        means_init=[part.mean(axis=0) for part in parts],
        precisions_init=[np.linalg.inv(np.cov(part.T, bias=True) + 1e-6 * np.eye(Z.shape[1])) for part in parts],
    ).fit(Z)
    assert adjusted_rand_score(theirs.predict(Z), ours) > 0.99
    assert about["bic"] == pytest.approx(theirs.bic(Z), rel=1e-4)
    assert about["aic"] == pytest.approx(theirs.aic(Z), rel=1e-4)
    confidence = found(fitted, "mixture", "confidence")[2]
    np.testing.assert_allclose(np.sort(confidence), np.sort(theirs.predict_proba(Z).max(axis=1)), atol=0.02)


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
def test_of_few_rows_the_tree_is_scikit_learn_s(tmp_path, linkage):
    """Rows without clusters, of which any other way to merge would make others."""
    X = np.random.default_rng(4).normal(size=(1200, 6)).astype(np.float32)
    with no_fsync():
        more = {"ingest__sample_rows": 1200, "cluster__k": 7}
        job = job_on(tmp_path / "s", small(algorithms__also=BOTH[1:], algorithms__linkage=linkage, **more))
        ingest(job, open_case(write_case(tmp_path / "case", {"a": spoil(X, range(0, 1200, 50))})))
        pipeline.fit(job)
    Z, _, ours, model = found(job, "agglomerative")
    assert job.store.snapshot.entries[model].attributes["note"] == f"{linkage} linkage of 1,176 distinct rows"
    theirs = AgglomerativeClustering(7, linkage=linkage).fit_predict(Z)
    assert adjusted_rand_score(theirs, ours) == pytest.approx(1)


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
def test_micro_clusters_carry_their_rows_and_every_k_is_judged_over_all(tmp_path, linkage):
    with no_fsync():
        micro = {"algorithms__merged_rows": 800, "algorithms__micro_clusters": 40}
        settings = small(algorithms__also=BOTH[1:], algorithms__linkage=linkage, **micro)
        job = work(tmp_path / "s", write_case(tmp_path / "case", {"a": rows_of()}), settings)
    Z, label, ours, model = found(job, "agglomerative")
    centers = job.store.read(model, "micro/centers")
    assert len(centers) == 40
    micro = assign(Z.astype(np.float32), centers)[0]
    sizes = np.bincount(micro)
    means = np.stack([Z[micro == i].mean(axis=0) for i in range(40)])
    tree = agglomerate(means, sizes, linkage=linkage, neighbors=10 if linkage == "ward" else None)
    np.testing.assert_array_equal(ours, cut(tree, label.max() + 1)[micro])
    for k, (harabasz, bouldin) in zip(*(job.store.read(model, f"sweep/{x}") for x in ("ks", "scores")), strict=True):
        labels = cut(tree, int(k))[micro]
        assert harabasz == pytest.approx(calinski_harabasz_score(Z, labels), rel=1e-4)
        assert bouldin == pytest.approx(davies_bouldin_score(Z, labels), rel=1e-4)


@pytest.mark.parametrize("algorithm", BOTH)
def test_labels_are_judged_over_all_rows_and_bear_the_ids_of_k_means(fitted, algorithm):
    Z, label, ours, model = found(fitted, algorithm)
    about = fitted.store.snapshot.entries[model].attributes
    assert about["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(Z, ours), rel=1e-4)
    assert about["davies_bouldin"] == pytest.approx(davies_bouldin_score(Z, ours), rel=1e-4)
    assert about["adjusted_rand"] == pytest.approx(adjusted_rand_score(label, ours))
    np.testing.assert_array_equal(np.bincount(ours), fitted.store.read(model, "counts"))
    ids = np.array(cluster_ids(fitted.store, model))
    assert sorted(ids) == [0, 1, 2, 3]
    assert (ids[ours] == label).mean() > 0.95  # well separated: the same clusters, under the same ids
    table = fitted.store.labels().compute()
    np.testing.assert_array_equal(table[f"a_{algorithm}"].dropna().to_numpy(int), ids[ours])


def test_the_same_by_any_number_of_workers(fitted, tmp_path):
    with chunk_bytes(4096), no_fsync():
        job = job_on(tmp_path / "s", SETTINGS, Dask(2))
        ingest(job, open_case(write_case(tmp_path / "case", {"a": rows_of()})))
        pipeline.fit(job)
    for algorithm, arrays in (("mixture", ["label", "confidence"]), ("agglomerative", ["label"])):
        for array in arrays:
            ours, theirs = (found(each, algorithm, array)[2] for each in (fitted, job))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_day_is_labelled_by_the_frozen_models_and_a_refit_makes_new_ones(tmp_path):
    X = rows_of()
    with no_fsync():
        job = job_on(tmp_path / "s", SETTINGS)
        ingest(job, open_case(write_case(tmp_path / "mon", {"a": X[:600]})))
        kmeans = pipeline.fit(job)["a"]
        before = beside(job.store, kmeans)
        ingest(job, open_case(write_case(tmp_path / "tue", {"a": X[600:]})))
        said = pipeline.predict(job)
        assert said["a mixture"] == said["a agglomerative"] == "batches/000002-tue"
        assert beside(job.store, kmeans) == before
        for algorithm in BOTH:
            Z, label, ours, _ = found(job, algorithm)
            assert len(Z) == N - N // 50
            assert adjusted_rand_score(label, ours) > 0.9
        assert set(pipeline.predict(job).values()) == {"up to date"}
        again = pipeline.fit(job)["a"]
    assert again != kmeans
    assert set(beside(job.store, again)) == set(BOTH)
    assert not set(beside(job.store, again).values()) & set(before.values())


def test_asked_for_later_they_leave_k_means_as_it_is_and_the_same_again_does_nothing(tmp_path):
    with no_fsync():
        job = work(tmp_path / "s", write_case(tmp_path / "case", {"a": rows_of(300)}), small(cluster__k=3))
        kmeans = job.store.snapshot.newest("model", "a/kmeans")
        assert beside(job.store, kmeans) == {}
        later = job_on(tmp_path / "s", small(cluster__k=3, algorithms__also=["mixture"], algorithms__covariance="tied"))
        assert pipeline.fit(later) == {"a": kmeans}
        assert list(beside(later.store, kmeans)) == ["mixture"]
        number = later.store.snapshot.number
        pipeline.fit(later)
    assert later.store.snapshot.number == number


def test_few_rows_per_column_get_a_diagonal_covariance_and_few_micro_clusters_as_many_as_there_are(tmp_path):
    with no_fsync():
        micro = {"algorithms__merged_rows": 0, "algorithms__micro_clusters": 3}
        settings = small(algorithms__also=BOTH, **micro, cluster__k=4, reduce__components=8)
        job = work(tmp_path / "s", write_case(tmp_path / "case", {"a": rows_of(120)}), settings)
    entries = job.store.snapshot.entries
    mixture, tree = (found(job, algorithm)[3] for algorithm in BOTH)
    assert entries[mixture].attributes["covariance_type"] == "diag"
    assert entries[tree].attributes["clusters"] == 3


@pytest.mark.parametrize("also", [["kmeans"], "mixture", ["dbscan"]])
def test_other_algorithms_are_refused_in_one_line(also):
    with pytest.raises(InputError, match=r"algorithms\.also"):
        small(algorithms__also=also)


@pytest.mark.slow
def test_one_cluster_is_judged_by_nothing(tmp_path):
    with no_fsync():
        settings = small(algorithms__also=BOTH, algorithms__consensus=True, cluster__k=1)
        job = work(tmp_path / "s", write_case(tmp_path / "case", {"a": rows_of(150)}), settings)
        assert pipeline.report(job).is_file()
    for algorithm in BOTH:
        about = job.store.snapshot.entries[found(job, algorithm)[3]].attributes
        assert about["clusters"] == 1
        assert about["calinski_harabasz"] is None
