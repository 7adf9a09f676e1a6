"""Mixtures and trees with a number of clusters of their own: every k is judged, the best is taken, all else holds."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from streamclust import metrics, pipeline, planning
from streamclust.blocks import Dask
from streamclust.cluster.assign import assign
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages.algorithms import beside
from streamclust.stages.labels import labels_name
from streamclust.stages.names import cluster_ids
from streamclust.stages.sources import reduced_name
from tests.cases import clustered, job_on, small, spoil, work, write_case
from tests.faults import chunk_bytes, contents, no_fsync

N, D = 700, 8
BOTH = ["mixture", "agglomerative"]


def rows_of(n=N):
    return spoil(clustered(3, n, D), range(0, n, 70))


def asked(**overrides):
    """k-means has two clusters of the four that there are, unless told otherwise."""
    also = {"cluster__k": 2, "cluster__k_max": 6, "algorithms__also": BOTH, "algorithms__k": "own"}
    return small(**also | overrides)


def fit(folder, settings, executor=None):
    with chunk_bytes(4096), no_fsync():
        job = job_on(folder / "s", settings, executor)
        ingest(job, open_case(write_case(folder / "case", {"a": rows_of()})))
        pipeline.fit(job)
    return job


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("own"), asked())


def models(job):
    """The k-means model, and the further ones by algorithm."""
    kmeans = job.store.snapshot.newest("model", "a/kmeans")
    return kmeans, beside(job.store, kmeans)


def about(job, model):
    return job.store.snapshot.entries[model].attributes


def labels(job, model):
    """Valid rows' labels by position."""
    found = np.concatenate([job.store.read(labels_name(model, b.name), "label") for b in job.store.batches])
    return found[found >= 0]


def reduced(job):
    projection = about(job, models(job)[0])["parents"][0]
    Z = np.concatenate([job.store.read(reduced_name(projection, batch), "Z") for batch in job.store.batches])
    return Z[np.isfinite(Z[:, 0])]


def test_bic_and_aic_of_every_k_are_scikit_learn_s_from_the_same_start(fitted):
    kmeans, found = models(fitted)
    Z = reduced(fitted)
    X, ks = Z.astype(float), fitted.store.read(found["mixture"], "sweep/ks").tolist()
    assert ks == about(fitted, kmeans)["ks"] == [2, 3, 4, 5, 6]
    assert about(fitted, found["mixture"])["covariance_type"] == "full"
    for k, (bic, aic) in zip(ks, fitted.store.read(found["mixture"], "sweep/scores"), strict=True):
        label = assign(Z, fitted.store.read(kmeans, f"sweep/{k:05d}/centers"))[0]
        parts = [X[label == i] for i in range(k)]
        theirs = GaussianMixture(
            k,
            max_iter=30,
            weights_init=[len(part) / len(X) for part in parts],
            means_init=[part.mean(axis=0) for part in parts],
            precisions_init=[np.linalg.inv(np.cov(part.T, bias=True) + 1e-6 * np.eye(X.shape[1])) for part in parts],
        ).fit(X)
        # sums of the rows about other origins, times what some thirty steps make of their rounding
        assert (bic, aic) == pytest.approx((theirs.bic(X), theirs.aic(X)), rel=1e-6)


def test_the_lowest_bic_and_the_indices_of_the_tree_choose(fitted):
    _, found = models(fitted)
    ks = fitted.store.read(found["mixture"], "sweep/ks")
    bic = fitted.store.read(found["mixture"], "sweep/scores")[:, 0]
    mixture, tree = (about(fitted, found[algorithm]) for algorithm in BOTH)
    assert mixture["k"] == mixture["clusters"] == ks[bic.argmin()] == 4
    assert mixture["bic"] == bic.min()
    assert mixture["reason"].startswith(f"k = 4 of 2 to 6 has the lowest BIC ({bic.min():,.0f}); at k-means's k = 2")
    curve = {
        int(k): tuple(scores)
        for k, scores in zip(
            *(fitted.store.read(found["agglomerative"], f"sweep/{name}") for name in ("ks", "scores")), strict=True
        )
    }
    k, reason = metrics.choose_k(curve)
    assert tree["k"] == tree["clusters"] == k
    assert tree["reason"].startswith(reason)


@pytest.mark.parametrize("algorithm", BOTH)
def test_more_clusters_than_k_means_has_get_numbers_above_its_own_largest_first(fitted, algorithm):
    kmeans, found = models(fitted)
    ids = np.array(cluster_ids(fitted.store, found[algorithm]))
    ours, theirs = labels(fitted, found[algorithm]), labels(fitted, kmeans)
    assert sorted(ids) == list(range(len(ids)))
    sizes = np.bincount(ours)
    further = np.flatnonzero(ids >= 2)
    assert len(further) == len(ids) - 2 > 0
    assert (np.diff(sizes[further[np.argsort(ids[further])]]) <= 0).all()
    for i in (0, 1):
        assert ((theirs == i) & (ids[ours] == i)).any()
    table = fitted.store.labels().compute()[f"a_{algorithm}"]
    np.testing.assert_array_equal(table.dropna().to_numpy(int), ids[ours])


@pytest.mark.parametrize(("executor", "most"), [(Dask(3), planning.EM_BYTES), (None, 1)], ids=["threads", "one by one"])
def test_the_same_bytes_by_any_executor_and_in_any_groups(fitted, tmp_path, executor, most):
    with mock.patch.object(planning, "EM_BYTES", most):
        job = fit(tmp_path, asked(), executor)
    ours, theirs = (
        {name: entry for name, entry in contents(each.store).items() if entry[0] != "batch"} for each in (job, fitted)
    )
    assert ours == theirs


@pytest.mark.slow
def test_a_day_a_refit_a_consensus_and_the_page(tmp_path):
    X = rows_of()
    with no_fsync():
        job = job_on(tmp_path / "s", asked(algorithms__consensus=True))
        ingest(job, open_case(write_case(tmp_path / "mon", {"a": X[:500]})))
        pipeline.fit(job)
        kmeans, before = models(job)
        ingest(job, open_case(write_case(tmp_path / "tue", {"a": X[500:]})))
        said = pipeline.predict(job)
        assert said["a mixture"] == said["a agglomerative"] == said["consensus"] == "batches/000002-tue"
        truth = np.random.default_rng(3)
        truth.normal(size=(4, D))
        which = truth.integers(0, 4, N)[np.isfinite(X).all(axis=1)]  # as `clustered` draws it
        assert adjusted_rand_score(which, labels(job, before["mixture"])) > 0.95
        assert adjusted_rand_score(labels(job, before["mixture"]), labels(job, before["agglomerative"])) > 0.95
        again = pipeline.fit(job)["a"]
        assert again != kmeans
        assert about(job, beside(job.store, again)["mixture"])["clusters"] == 4
        assert pipeline.describe(job.store)["algorithms"] == {"a mixture": 4, "a agglomerative": 4}
        page = pipeline.report(job).read_text()
    assert "has the lowest BIC" in page
    assert "choice of k by mixture" in page
    assert "choice of k by agglomerative" in page
    consensus = about(job, job.store.snapshot.newest("model", "consensus"))
    assert consensus["sizes"] == [2, 4, 4]


@pytest.mark.parametrize(("k", "kmeans"), [(2, 4), (1, 3), (1, 1), (5, 3)])
def test_a_number_by_hand(tmp_path, k, kmeans):
    job = fit(tmp_path, asked(algorithms__k=k, cluster__k=kmeans, cluster__k_min=1))
    theirs = cluster_ids(job.store, models(job)[0])
    for model in models(job)[1].values():
        assert about(job, model)["reason"] == f"k = {k} was set by hand."
        assert len(np.unique(labels(job, model))) == about(job, model)["clusters"] == k
        ids = cluster_ids(job.store, model)
        assert set(ids) == set(range(k)) if k > kmeans else set(ids) <= set(theirs)
    assert set(job.store.labels().compute()["a_mixture"].dropna()) == set(
        cluster_ids(job.store, models(job)[1]["mixture"])
    )


def test_more_than_there_are_rows_is_one_line_and_few_micro_clusters_are_all_there_are(tmp_path):
    X = rows_of()
    with no_fsync():
        few = write_case(tmp_path / "few", {"a": X[1:6]})
        with pytest.raises(InputError, match=r"setting algorithms.k = 6: a has too few rows .* one of 2 to 5") as error:
            work(tmp_path / "s", few, asked(algorithms__k=6, cluster__fine_k=2))
        assert "\n" not in str(error.value)
        settings = asked(
            algorithms__k=5, algorithms__merged_rows=0, algorithms__micro_clusters=3, algorithms__also=BOTH[1:]
        )
        job = job_on(tmp_path / "t", settings)
        ingest(job, open_case(write_case(tmp_path / "case", {"a": X})))
        pipeline.fit(job)
    assert about(job, models(job)[1]["agglomerative"])["reason"] == "k = 3: there are no more micro-clusters."


def test_another_choice_fits_anew_and_leaves_k_means_as_it_is(fitted, tmp_path):
    job = fit(tmp_path, asked(algorithms__k="kmeans"))
    kmeans, before = models(job)
    assert about(job, before["mixture"])["reason"] == "k = 2, as many as k-means has."
    assert about(job, before["mixture"])["clusters"] == 2
    np.testing.assert_array_equal(
        job.store.read(before["agglomerative"], "sweep/scores"),
        fitted.store.read(models(fitted)[1]["agglomerative"], "sweep/scores"),
    )
    with no_fsync():
        later = job_on(tmp_path / "s", asked())
        assert pipeline.fit(later) == {"a": kmeans}
    after = models(later)[1]
    assert not set(after.values()) & set(before.values())
    assert about(later, after["mixture"])["clusters"] == 4
