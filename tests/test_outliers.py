"""Laws of the subsampled density: a row's score is its own, LOF is the oracle, awkward data keeps its sense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

from streamclust import fusion, quantiles
from streamclust.errors import InputError
from streamclust.outliers import fit_density, score_density
from tests.real import reduced, vehicles


def clumps(seed: int, n: int, p: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, p)) + 6 * rng.integers(0, 3, size=(n, 1))).astype(np.float32)


def scored(X: np.ndarray, **settings_: object) -> np.ndarray:
    ids = np.arange(len(X))
    return score_density(fit_density(X, ids, seed=0, **settings_), X, ids)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(3, 400), st.integers(1, 12), st.data())
def test_a_score_does_not_depend_on_the_block_mates(seed, n, p, data):
    X, ids = clumps(seed, n, p), np.random.default_rng(seed).permutation(10 * n)[:n]
    model = fit_density(X, ids, n_subsamples=2, subsample_rows=60, seed=seed)
    whole = score_density(model, X, ids)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    parts = [score_density(model, block, i) for block, i in zip(np.split(X, cuts), np.split(ids, cuts), strict=True)]
    assert whole.dtype == np.float32
    apart = np.abs(np.concatenate(parts) - whole)
    # within the rounding of a float32 GEMM a tie at the k-th neighbour may fall either way, which takes chance
    assert np.count_nonzero(apart > 1e-4) <= 1 + 0.01 * n
    assert apart.max() < 0.5


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_one_subsample_of_all_rows_is_the_log_of_lof(offset):
    X = clumps(1, 20, 4) + np.float32(offset)
    ours = scored(X, n_subsamples=1, subsample_rows=20, neighbours=(0.25,))
    lof = LocalOutlierFactor(n_neighbors=5).fit(X.astype(np.float64) - offset).negative_outlier_factor_
    # at an offset of 1e4 the float32 input itself is rounded by 5e-4
    np.testing.assert_allclose(ours, np.log(-lof), atol=1e-4 if offset == 0 else 5e-3)


def test_scores_do_not_change_with_a_shift_or_a_scale():
    X = clumps(2, 300, 5)
    assert np.array_equal(scored(X * np.float32(2**60)), scored(X))
    assert np.array_equal(scored(X * np.float32(2**-60)), scored(X))
    # the shifted input itself is rounded by 4e-6
    np.testing.assert_allclose(scored(X + np.float32(100)), scored(X), atol=1e-2)


def test_a_sampled_row_is_never_its_own_neighbour():
    X = clumps(3, 40, 3)
    X[7] = 60
    ids = np.arange(40)
    model = fit_density(X, ids, n_subsamples=1, subsample_rows=40, neighbours=(0.1,), seed=1)
    model_all = fit_density(X, ids, n_subsamples=8, seed=1)
    sampled = np.flatnonzero((model_all.ids == 7).any(1))
    assert len(sampled)
    assert np.argmax(score_density(model_all, X, ids)) == 7
    as_stranger = score_density(model_all, X, ids + 1000)
    assert as_stranger[7] < score_density(model_all, X, ids)[7]
    assert score_density(model, X, ids).shape == (40,)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_rows_score_alike(n):
    X = clumps(0, 3, 2)
    model = fit_density(X[:n], np.arange(n), seed=0)
    assert np.array_equal(score_density(model, X, np.arange(3)), np.zeros(3, np.float32))


def test_duplicates_and_absurd_rows_stay_finite_and_in_order():
    X = clumps(4, 600, 4)
    X[:550] = X[0]  # more than 90 % duplicates
    X[-3:] = [[1e3] * 4, [1e10] * 4, [1e30] * 4]
    scores = scored(X)
    assert np.isfinite(scores).all()
    assert set(np.argsort(scores)[-3:]) == {597, 598, 599}
    assert np.isfinite(scored(np.ones((50, 2), np.float32))).all()


def test_the_seed_decides_and_the_settings_are_checked():
    X, ids = clumps(5, 100, 3), np.arange(100)
    a, b, c = (fit_density(X, ids, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.ids, b.ids)
    assert not np.array_equal(a.ids, c.ids)
    with pytest.raises(InputError, match="neighbours"):
        fit_density(X, ids, neighbours=(1.5,), seed=0)
    with pytest.raises(InputError, match="subsamples"):
        fit_density(X, ids, n_subsamples=0, seed=0)
    with pytest.raises(InputError, match="ids"):
        fit_density(X, ids[:5], seed=0)
    with pytest.raises(InputError, match="expected"):
        score_density(a, X[:, :2], ids)


def test_junk_among_real_vehicles_is_found_by_the_fused_score():
    junk, descriptors = vehicles()
    ids = np.arange(len(junk))
    tails = []
    for X in descriptors.values():
        scores = score_density(fit_density(X, ids, seed=0), X, ids)
        tails.append(quantiles.tail_of(quantiles.sketch_block(scores), scores))
    columns = np.column_stack(tails)
    weights = fusion.overlap_weights(fusion.overlap_block(columns))
    fitted = fusion.finish_fusion(weights, fusion.fused_block(columns, weights))
    fused = fusion.outlier_scores(fitted, columns)
    assert average_precision_score(junk, fused) >= 0.60
    assert roc_auc_score(junk, fused) >= 0.97
    threshold = quantiles.threshold_above(quantiles.sketch_block(fused), 0.01)
    flagged = fused >= threshold
    assert flagged.sum() == int(0.01 * len(junk))
    assert junk[flagged].mean() > 0.8


def test_labelled_anomalies_among_image_features_are_ranked_high():
    X, anomaly = reduced("adbench/Classical/25_musk.npz")
    assert roc_auc_score(anomaly, scored(X)) > 0.95
