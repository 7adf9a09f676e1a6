"""PCA from moments against a full SVD; scalers against scikit-learn's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import preprocessing as skp
from sklearn.decomposition import PCA

from streamclust import decomposition as pca
from streamclust import moments as mo
from streamclust.errors import InputError
from streamclust.preprocessing import SCALERS, Affine, fit_scaler, resolve

ORACLES = {
    "standard": skp.StandardScaler(),
    "min-max": skp.MinMaxScaler(),
    "max-abs": skp.MaxAbsScaler(),
    "robust": skp.RobustScaler(),
    "none": skp.FunctionTransformer(),
}


def data(seed: int, n: int, d: int, rank: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(n, rank)) @ (rng.normal(size=(rank, d)) * np.linspace(3, 1, rank)[:, None])
    return (low + 0.3 * rng.normal(size=(n, d)) + 5 * rng.normal(size=d)).astype(np.float32)


def fitted(X: np.ndarray, kind: str, keep: float) -> pca.Projection:
    moments = mo.from_block(X, scatter=True)
    return pca.fit_pca(moments, fit_scaler(kind, moments, X), keep)


@pytest.mark.parametrize("kind", SCALERS)
@given(seed=st.integers(0, 2**31), n=st.integers(30, 200), d=st.integers(2, 30))
@settings(max_examples=15)
def test_scaler_and_pca_equal_scikit_learn(kind, seed, n, d):
    X = data(seed, n, d)
    scaled = ORACLES[kind].fit_transform(X.astype(np.float64))
    oracle = PCA(svd_solver="full").fit(scaled)
    found = fitted(X, kind, 1.0)
    p = len(found.components)
    # float32 sums of n products: relative to the largest eigenvalue.
    scale = oracle.explained_variance_[0]
    np.testing.assert_allclose(found.explained_variance, oracle.explained_variance_[:p], atol=1e-5 * scale)
    assert found.total_variance == pytest.approx(oracle.explained_variance_.sum(), rel=1e-5)
    expected, rows = oracle.transform(scaled), pca.transform(found, X).rows
    gaps = np.diff(oracle.explained_variance_[:p], append=0)
    clear = np.abs(gaps) > 1e-2 * scale
    clear &= np.append(True, clear[:-1])
    assert np.abs(np.abs(rows[:, clear]) - np.abs(expected[:, :p][:, clear])).max(initial=0) < 2e-2 * np.sqrt(scale)


def test_keeps_the_asked_share_and_signs_are_fixed():
    X = data(1, 500, 40)
    found = fitted(X, "standard", 0.9)
    oracle = PCA(0.9, svd_solver="full").fit(skp.StandardScaler().fit_transform(X.astype(np.float64)))
    assert len(found.components) == oracle.n_components_
    largest = np.abs(found.components).argmax(axis=1)
    assert (found.components[np.arange(len(largest)), largest] > 0).all()
    assert len(fitted(X, "standard", 3).components) == 3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_rows_than_features(n):
    X = data(2, n, 20)
    found = fitted(X, "standard", 0.9)
    assert 1 <= len(found.components) <= max(1, n - 1)
    assert np.isfinite(pca.transform(found, X).rows).all()


def test_constant_columns_and_constant_rows_do_no_harm():
    X = data(3, 100, 10)
    X[:, 4] = 1e6
    found = fitted(X, "standard", 0.99)
    assert np.abs(found.components[:, 4]).max() < 1e-12
    flat = fitted(np.full((50, 4), 7, np.float32), "standard", 0.9)
    assert pca.transform(flat, np.full((3, 4), 7, np.float32)).rows.max() == 0


def test_a_common_offset_does_not_cancel():
    X = data(4, 300, 12)
    moved = X.astype(np.float64) + 1e4
    near = pca.transform(fitted(X, "standard", 0.9), X).rows
    far = pca.transform(fitted(moved.astype(np.float32), "standard", 0.9), moved.astype(np.float32)).rows
    # At 1e4 a float32 has a resolution of 1e-3.
    np.testing.assert_allclose(np.abs(far), np.abs(near), atol=0.02)


def test_norm_and_residual_are_the_distances_they_claim():
    X = data(5, 200, 15)
    found = fitted(X, "standard", 0.7)
    Z = pca.scaled(found, X).astype(np.float64)
    reduced = pca.transform(found, X)
    back = reduced.rows @ found.components
    np.testing.assert_allclose(reduced.norm, np.linalg.norm(Z, axis=1), rtol=1e-5)
    np.testing.assert_allclose(reduced.residual, np.linalg.norm(Z - back, axis=1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("keep", [0.9, 4])
def test_range_finder_agrees_with_the_exact_pca(keep):
    X = data(6, 800, 300)
    exact = fitted(X, "standard", keep)
    moments = mo.from_block(X, scatter=False)
    affine = fit_scaler("standard", moments, X)

    def multiply(frame: pca.Projection, basis: np.ndarray) -> np.ndarray:
        return sum(pca.range_block(frame, part, basis) for part in np.array_split(X, 3))

    found = pca.find_range(multiply, moments, affine, keep, seed=0)
    assert found.total_variance == pytest.approx(exact.total_variance, rel=1e-6)
    assert abs(len(found.components) - len(exact.components)) <= (1 if isinstance(keep, float) else 0)
    top = found.components[:4] @ exact.components[:4].T
    np.testing.assert_allclose(np.abs(np.diag(top)), 1, atol=1e-3)


def test_an_unknown_scaler_is_refused():
    moments = mo.from_block(np.ones((3, 2), np.float32), scatter=True)
    with pytest.raises(ValueError, match="not one of"):
        fit_scaler("log", moments, np.ones((3, 2)))
    assert Affine(np.zeros(2), np.ones(2)).scale.min() == 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e20])
def test_what_float32_does_not_hold_becomes_its_largest_size_and_leaves_other_rows_alone(scale):
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    projection = pca.fit_pca(mo.from_block(X, scatter=True), Affine(np.zeros(6), np.full(6, scale)), 3)
    far = X.copy()
    far[7], far[9, 2] = 3e38, -3e38
    found, usual = pca.transform(projection, far), pca.transform(projection, X)
    for values, wanted in zip(found, usual, strict=True):
        assert np.isfinite(values).all()
        others = np.delete(np.arange(200), [7, 9])
        np.testing.assert_allclose(values[others], wanted[others], rtol=1e-3, atol=1e-5 / scale)
    assert (found.norm[[7, 9]] > 1e17).all()


def test_a_covariance_that_is_not_finite_is_refused_in_a_line():
    """A scale far below the spread, and a scatter beyond float64: never an eigenvalue of NaN."""
    moments = mo.accumulate(mo.identity(3, scatter=True), data(0, 40, 3, 3))
    for scatter, scale in ((moments.scatter, 1e-200), (np.where(np.eye(3), np.inf, moments.scatter), 1.0)):
        broken = replace(moments, scatter=scatter)
        with np.errstate(over="ignore"), pytest.raises(InputError, match="covariance is not finite") as caught:
            pca.fit_pca(broken, Affine(np.zeros(3), np.full(3, scale)), 0.9)
        assert "\n" not in str(caught.value)


@given(seed=st.integers(0, 2**31), d=st.integers(2, 6), apart=st.floats(1.0, 1e3))
@settings(max_examples=30)
def test_auto_scales_where_columns_spread_over_ten_times_apart(seed, d, apart):
    assume(abs(apart - 10) > 1e-3)
    X = np.random.default_rng(seed).uniform(-1, 1, (400, d))
    X[:, 0] *= apart * X[:, 1].std() / X[:, 0].std()
    X[:, 2:] *= X[:, 1].std() / X[:, 2:].std(axis=0)
    found = resolve("auto", mo.from_block(np.column_stack([X, np.full(400, 7.0)]), scatter=False))
    assert found == ("standard" if apart > 10 else "none")


def test_auto_leaves_what_has_no_spread_and_other_scalers_are_themselves():
    still = mo.from_block(np.ones((5, 3)), scatter=False)
    assert resolve("auto", still) == "none"
    assert [resolve(kind, still) for kind in SCALERS] == list(SCALERS)
