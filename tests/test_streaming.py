"""Streaming estimators keep scikit-learn's conventions and agree with it, in memory and on dask arrays."""

from __future__ import annotations

import tracemalloc
from functools import cache

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import parametrize_with_checks

from streamclust import StreamingGaussianMixture, StreamingKMeans, StreamingPCA
from streamclust.cluster.assign import assign
from streamclust.cluster.restarts import restarts, rows_at_hand
from streamclust.streaming.kmeans import lloyd
from streamclust.streaming.rows import rows_of

BLOBS, GROUPS = make_blobs(600, 5, centers=4, cluster_std=1.0, random_state=3)
SINGLE = BLOBS.astype(np.float32)
OVERLAPPING = make_blobs([400, 300, 200, 100], 3, cluster_std=[1.0, 1.5, 2.0, 1.0], random_state=5)[0]
ESTIMATORS = [StreamingPCA(), StreamingKMeans(), StreamingGaussianMixture()]
few = settings(max_examples=8)
seeds = given(seed=st.integers(0, 2**31))


def mixed(n=400, d=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 10 * rng.normal(size=d)


def chunked(X, seed):
    """X as a dask array with random chunk boundaries along both axes, also with empty chunks of rows."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(0, len(X) + 1, rng.integers(0, 7)))
    rows = tuple(np.diff([0, *edges, len(X)]).tolist())
    cut = int(rng.integers(1, X.shape[1]))
    return da.from_array(X).rechunk((rows, (cut, X.shape[1] - cut)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # checks cut max_iter, repeat rows
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize("keep", [3, 0.8, None])
def test_pca_without_scaler_is_the_full_svd_up_to_sign(keep):
    X = mixed()
    ours, theirs = StreamingPCA(keep, scaler="none").fit(X), PCA(keep, svd_solver="full").fit(X)
    assert ours.n_components_ == theirs.n_components_
    signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))
    for name in ("explained_variance_", "explained_variance_ratio_", "mean_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10)
    np.testing.assert_allclose(ours.components_, signs[:, None] * theirs.components_, atol=1e-10)
    np.testing.assert_allclose(ours.transform(X), signs * theirs.transform(X), atol=1e-9)
    Z = theirs.transform(X)
    np.testing.assert_allclose(ours.inverse_transform(signs * Z), theirs.inverse_transform(Z), atol=1e-9)


def test_pca_of_float64_resolves_what_float32_cannot():
    X = mixed() + 1e8
    ours, theirs = StreamingPCA(scaler="none", n_components=None).fit(X), PCA(svd_solver="full").fit(X)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-6)


def test_pca_of_more_features_than_rows_of_sums_reads_again():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(60, 3)) @ rng.normal(size=(3, 4200))).astype(np.float32)
    ours = StreamingPCA(3, scaler="none").fit(da.from_array(X, chunks=(25, 2000)))
    np.testing.assert_allclose(ours.explained_variance_, PCA(3).fit(X).explained_variance_, rtol=1e-4)
    with pytest.raises(ValueError, match="cannot be continued"):
        ours.partial_fit(X)


@few
@seeds
@pytest.mark.parametrize("scaler", ["standard", "min-max", "max-abs", "none"])
def test_pca_in_pieces_is_one_fit(scaler, seed):
    X = mixed(seed=seed).astype(np.float32)
    whole, pieces = StreamingPCA(scaler=scaler).fit(X), StreamingPCA(scaler=scaler)
    for part in np.split(X, np.unique(np.random.default_rng(seed).integers(1, len(X), 5))):
        pieces.partial_fit(part)
    assert pieces.n_samples_seen_ == len(X)
    np.testing.assert_allclose(pieces.explained_variance_, whole.explained_variance_, rtol=1e-5)
    # components turn by about the rounding of float32 times the largest variance over the gap between two
    np.testing.assert_allclose(pieces.transform(X), whole.transform(X), atol=1e-3)


def test_pca_asks_for_rows_only_when_components_are_wanted():
    X = mixed()
    pieces = StreamingPCA(5).partial_fit(X[:3])
    with pytest.raises(ValueError, match="must be between 1 and"):
        pieces.transform(X)
    assert pieces.partial_fit(X[3:]).transform(X).shape == (400, 5)
    with pytest.raises(ValueError, match="must be between 1 and"):
        StreamingPCA(8).fit(X)


def test_kmeans_finds_scikit_learns_clusters():
    ours = StreamingKMeans(4, random_state=0, tol=0).fit(SINGLE)
    theirs = KMeans(4, n_init=5, random_state=0, tol=0).fit(SINGLE)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-5)
    assert ours.score(SINGLE) == pytest.approx(-ours.inertia_)
    assert (np.diff(np.bincount(ours.labels_)) <= 0).all()
    np.testing.assert_array_equal(ours.labels_, ours.predict(SINGLE))
    np.testing.assert_array_equal(ours.labels_, ours.transform(SINGLE).argmin(axis=1))
    direct = np.linalg.norm(SINGLE[:, None] - ours.cluster_centers_, axis=2)
    np.testing.assert_allclose(ours.transform(SINGLE), direct, rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
def test_of_several_finalists_the_best_counts(lazy):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(9000, 12)).astype(np.float32)  # as many optima as starts
    data = da.from_array(X, chunks=(2500, 12)) if lazy else X
    ends = [StreamingKMeans(20, n_finalists=n, random_state=seed).fit(data) for seed in range(3) for n in (1, 4)]
    inertia = np.array([end.inertia_ for end in ends]).reshape(3, 2)
    assert (inertia[:, 1] <= (1 + 1e-6) * inertia[:, 0]).all()
    assert (inertia[:, 1] < (1 - 1e-6) * inertia[:, 0]).any()
    for end in ends:
        labels = np.asarray(end.labels_)
        direct = ((X - end.cluster_centers_[labels].astype(float)) ** 2).sum()
        assert end.inertia_ == pytest.approx(direct, rel=1e-5)


def test_chains_over_the_rows_at_hand_are_those_of_any_chunks():
    X = np.random.default_rng(4).normal(size=(24_000, 6)).astype(np.float32)
    lazy = da.from_array(X, chunks=(7000, 6))
    ends = [
        StreamingKMeans(9, random_state=0, sample_rows=size).fit(data).cluster_centers_
        for size, data in ((24_000, X), (24_000, lazy), (21_000, X), (21_000, lazy))
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ends[2], ends[3], rtol=1e-6, atol=1e-6)


def test_a_fit_in_memory_ends_lower_than_restarts_alone():
    X = np.random.default_rng(0).normal(size=(30_000, 12)).astype(np.float32)  # as many optima as starts
    rows = rows_of(StreamingKMeans(), X, reset=True, dtype=np.float32)
    fits = [StreamingKMeans(20, random_state=seed).fit(X).inertia_ for seed in range(5)]
    alone = [lloyd(rows, restarts(X, [20], keep=1, seed=seed)[20]).inertia for seed in range(5)]
    assert np.mean(fits) < 0.999 * np.mean(alone)


@pytest.mark.parametrize("seed", [0, 29, 44])
def test_a_fit_never_ends_above_where_its_chains_began(seed):
    """Blobs of very unequal size, which both chains of the last two seeds leave."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(20, size=30_000, p=rng.dirichlet(np.full(20, 0.2)))
    X = (30 * rng.normal(size=(20, 6))[labels] + rng.normal(size=(30_000, 6))).astype(np.float32)
    rows = rows_of(StreamingKMeans(), X, reset=True, dtype=np.float32)
    found = StreamingKMeans(20, random_state=seed).fit(X)
    drawn = int(np.random.RandomState(seed).randint(2**31 - 1))
    sample = rows.sample(rows_at_hand(20), drawn)
    start = restarts(sample, [20], keep=1, seed=drawn, polish_iter=0)[20][0]
    assert found.inertia_ <= assign(X, start)[1].sum()


def test_rows_of_a_sample_are_read_as_asked_for():
    rows = rows_of(StreamingKMeans(), np.ones((9, 2)), reset=True)
    assert rows.sample(9, 0).dtype == np.float64
    assert rows.read_as(np.float32).sample(9, 0).dtype == rows.read_as(np.float32).sample(5, 0).dtype == np.float32


def test_kmeans_of_few_distinct_rows_has_as_many_clusters_and_says_so():
    X = np.repeat(np.arange(6.0).reshape(3, 2), 5, axis=0)
    with pytest.warns(
        ConvergenceWarning, match=r"Number of distinct clusters \(3\) found smaller than n_clusters \(5\)"
    ):
        model = StreamingKMeans(5, random_state=0).fit(X)
    assert len(model.cluster_centers_) == 3
    assert model.inertia_ == 0
    with pytest.raises(ValueError, match="n_samples=15 should be >= n_clusters=16"):
        StreamingKMeans(16).fit(X)


def test_kmeans_in_pieces_comes_near_the_fit():
    pieces = StreamingKMeans(4, random_state=0)
    for part in np.array_split(SINGLE, 5):
        pieces.partial_fit(part)
        np.testing.assert_array_equal(pieces.labels_, pieces.predict(part))
    assert adjusted_rand_score(pieces.predict(SINGLE), GROUPS) > 0.99
    again = StreamingKMeans(4, random_state=0).fit(SINGLE)
    before = again.cluster_centers_
    assert np.linalg.norm(again.partial_fit(SINGLE).cluster_centers_ - before, axis=1).max() < 0.5
    with pytest.raises(ValueError, match="n_samples=3 should be >= n_clusters=4"):
        StreamingKMeans(4).partial_fit(SINGLE[:3])


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_is_scikit_learns(kind):
    X, same = OVERLAPPING, {"covariance_type": kind, "tol": 1e-10, "max_iter": 1000, "n_init": 5, "random_state": 0}
    ours, theirs = StreamingGaussianMixture(4, **same).fit(X), GaussianMixture(4, **same).fit(X)
    order = np.argsort(-theirs.weights_)
    np.testing.assert_allclose(ours.weights_, theirs.weights_[order], rtol=1e-5)
    np.testing.assert_allclose(ours.means_, theirs.means_[order], rtol=1e-4, atol=1e-4)
    near = {"rtol": 1e-3, "atol": 1e-4}
    expected = theirs.covariances_ if kind == "tied" else theirs.covariances_[order]
    np.testing.assert_allclose(ours.covariances_, expected, **near)
    theirs.weights_, theirs.means_, theirs.covariances_ = ours.weights_, ours.means_, ours.covariances_
    theirs.precisions_cholesky_ = ours.precisions_cholesky_
    for method in ("score_samples", "predict_proba", "predict", "score", "bic", "aic"):
        np.testing.assert_allclose(getattr(ours, method)(X), getattr(theirs, method)(X), rtol=1e-9, atol=1e-12)
    assert ours.lower_bound_ == pytest.approx(ours.score(X), rel=1e-12)


def test_mixture_that_cannot_be_is_a_value_error():
    X = np.repeat(BLOBS[:2], 5, axis=0)
    with pytest.raises(ValueError, match="not positive definite"):
        StreamingGaussianMixture(2, reg_covar=0, random_state=0).fit(X)
    with pytest.raises(
        ValueError, match="Expected n_samples >= n_components but got n_components = 11, n_samples = 10"
    ):
        StreamingGaussianMixture(11).fit(X)
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        StreamingGaussianMixture(4, max_iter=1, random_state=0).fit(BLOBS)
    kept = StreamingGaussianMixture(3, random_state=0).fit(X)  # more components than distinct rows
    assert kept.weights_[2] == pytest.approx(0, abs=1e-12)


MODELS = [
    StreamingPCA(3),
    StreamingKMeans(4, random_state=0, sample_rows=300),
    StreamingGaussianMixture(4, n_init=2, random_state=0),
]
METHODS = ("transform", "predict", "predict_proba", "score_samples")
SCORES = ("score", "bic", "aic")


@cache
def fitted(model):
    """The same fitted on one array."""
    return clone(model).fit(SINGLE)


@few
@seeds
@pytest.mark.parametrize(
    "model", [*MODELS[:2], pytest.param(MODELS[2], marks=pytest.mark.slow)], ids=lambda model: type(model).__name__
)
@pytest.mark.parametrize("scheduler", [pytest.param("synchronous", marks=pytest.mark.slow), "threads"])
def test_a_dask_array_in_any_chunks_gives_what_an_array_gives(model, scheduler, seed):
    lazy, whole = chunked(SINGLE, seed), fitted(model)
    with dask.config.set(scheduler=scheduler):
        found, again = clone(model).fit(lazy), clone(model).fit(lazy)
        for method in filter(found.__class__.__dict__.__contains__, METHODS):
            result, expected = getattr(found, method)(lazy), getattr(whole, method)(SINGLE)
            assert isinstance(result, da.Array)
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
            assert result.chunks[0] == lazy.chunks[0]
            if expected.dtype.kind == "i":
                np.testing.assert_array_equal(result, expected)
            np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)
        for score in filter(found.__class__.__dict__.__contains__, SCORES):
            assert getattr(found, score)(lazy) == pytest.approx(getattr(whole, score)(SINGLE), rel=1e-7)
        if hasattr(found, "labels_"):
            np.testing.assert_array_equal(found.labels_, whole.labels_)
    for name, value in learned(found).items():
        np.testing.assert_array_equal(value, learned(again)[name], err_msg=f"{name} is not the same twice")
        rtol = {StreamingGaussianMixture: 1e-8, StreamingPCA: 1e-5}.get(type(model), 1e-6)  # products are of float32
        np.testing.assert_allclose(value, learned(whole)[name], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_an_array_of_several_blocks_gives_what_one_block_gives(model, monkeypatch):
    whole = fitted(model)
    monkeypatch.setattr("streamclust.streaming.rows._MOST_ROWS", 128)
    found = clone(model).fit(SINGLE)
    for name, value in learned(found).items():
        np.testing.assert_allclose(value, learned(whole)[name], rtol=1e-6, atol=1e-6, err_msg=name)
    for method in filter(found.__class__.__dict__.__contains__, METHODS):
        result, expected = getattr(found, method)(SINGLE), getattr(whole, method)(SINGLE)
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)


def learned(model):
    names = [*vars(model), "components_", "explained_variance_", "mean_", "scale_"]
    return {n: np.asarray(getattr(model, n)) for n in names if n.endswith("_") and hasattr(model, n)}


def test_either_scheduler_gives_the_same_bits():
    lazy = chunked(SINGLE, 7)
    for model in MODELS:
        found = []
        for scheduler in ("synchronous", "threads"):
            with dask.config.set(scheduler=scheduler):
                found.append(learned(clone(model).fit(lazy)))
        for name, value in found[0].items():
            np.testing.assert_array_equal(value, found[1][name], err_msg=name)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "model",
    [
        StreamingPCA(4),
        StreamingKMeans(6, max_iter=2, random_state=0),
        pytest.param(StreamingGaussianMixture(2, max_iter=2), marks=pytest.mark.slow),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_dask_array_is_never_held(model):
    rows, blocks, d = 5_000, 60, 40  # 48 MB in blocks of 0.8 MB; the sample, its copies and scratch are the rest

    def block(block_info=None):
        rng = np.random.default_rng(block_info[None]["chunk-location"][0])
        return (rng.normal(size=(rows, d)) + 9 * rng.integers(0, 3, (rows, 1))).astype(np.float32)

    X = da.map_blocks(block, chunks=((rows,) * blocks, (d,)), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    with dask.config.set(scheduler="threads", num_workers=2):
        clone(model).fit(X[: 4 * rows])  # imports
        tracemalloc.start()
        try:
            clone(model).fit(X)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < X.nbytes / 3


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_dask_array_that_cannot_be_used_is_refused(model):
    lazy = da.from_array(SINGLE, chunks=(100, 5))
    with pytest.raises(ValueError, match=r"unknown size.*compute_chunk_sizes"):
        clone(model).fit(lazy[lazy[:, 0] > 0])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        clone(model).fit(lazy[:, 0])
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        clone(model).fit(lazy[:0])
    with pytest.raises(TypeError, match="to_dask_array"):
        clone(model).fit(lazy.to_dask_dataframe())
    with pytest.raises(ValueError, match="Input X contains NaN"):
        clone(model).fit(da.where(lazy > 5, np.nan, lazy))
    found = clone(model).fit(lazy)
    with pytest.raises(ValueError, match=r"X has 4 features, but .* is expecting 5"):
        getattr(found, "transform" if hasattr(found, "transform") else "predict")(lazy[:, :4])


def test_set_output_names_columns():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(SINGLE, columns=list("abcde"))
    found = StreamingPCA(2).set_output(transform="pandas").fit(X)
    assert list(found.feature_names_in_) == list("abcde")
    assert list(found.transform(X)) == ["streamingpca0", "streamingpca1"]
    assert list(StreamingKMeans(3, random_state=0).fit(X).get_feature_names_out()) == [
        f"streamingkmeans{i}" for i in range(3)
    ]


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (StreamingPCA(), {"n_components": 0}),
        (StreamingPCA(), {"n_components": 1.5}),
        (StreamingPCA(), {"scaler": "robust"}),
        (StreamingKMeans(), {"n_clusters": 0}),
        (StreamingKMeans(), {"tol": -1}),
        (StreamingGaussianMixture(), {"covariance_type": "round"}),
        (StreamingGaussianMixture(), {"reg_covar": -1}),
    ],
)
def test_wrong_parameters_are_refused_in_scikit_learns_words(model, wrong):
    with pytest.raises(ValueError, match=f"The '{next(iter(wrong))}' parameter of {type(model).__name__} must be"):
        clone(model).set_params(**wrong).fit(SINGLE)
