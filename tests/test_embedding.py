"""The map: exact neighbours, the same for any number of threads, each row placed by itself, any awkward sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from streamclust import embedding
from streamclust.embedding import fit_map, nearest, place

laws = settings(max_examples=30)


def islands(n, p=10, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 6, n)
    return (rng.normal(size=(n, p)) + 8 * rng.normal(size=(6, p))[label]).astype(np.float32), label


@laws
@given(st.integers(0, 2**32), st.integers(1, 600), st.integers(1, 40), st.sampled_from([0, 1e4]))
def test_nearest_equals_brute_force(seed, m, k, offset):
    rng = np.random.default_rng(seed)
    sample = (rng.normal(size=(m, 5)) + offset).astype(np.float32)
    X = (rng.normal(size=(80, 5)) + offset).astype(np.float32)
    k = min(k, m)
    indices, distances = nearest(X, sample, k)
    exact = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(sample.astype(np.float64) - offset)
    expected, _ = exact.kneighbors(X.astype(np.float64) - offset)
    # the 6 spare candidates absorb float32 ranking errors; the distances themselves are float64
    np.testing.assert_allclose(distances, expected, rtol=1e-6, atol=1e-9)
    chosen = np.linalg.norm(X[:, None].astype(np.float64) - sample[indices], axis=2)
    np.testing.assert_allclose(chosen, distances, rtol=1e-12)


def test_a_row_is_not_its_own_neighbour():
    X, _ = islands(700)
    X[:50] = X[0]
    indices, distances = nearest(X, X, 60, itself=True)
    assert (indices != np.arange(700)[:, None]).all()
    assert (distances[:50, :49] == 0).all()
    assert all(len(set(row)) == 60 for row in indices)


@pytest.mark.parametrize("many", [0, 1000])
def test_threads_do_not_change_the_map(monkeypatch, many):
    for name, value in (("_MANY", many), ("_EARLY", 20), ("_LATE", 20)):
        monkeypatch.setattr(embedding, name, value)
    X, _ = islands(300)
    np.testing.assert_array_equal(fit_map(X, seed=1, n_jobs=1), fit_map(X, seed=1, n_jobs=2))


def test_islands_stay_apart():
    X, label = islands(300)
    one = fit_map(X, seed=1)
    assert one.dtype == np.float32
    assert np.abs(one).max() == pytest.approx(1)
    neighbours, _ = nearest(one, one, 5, itself=True)
    assert (label[neighbours] == label[:, None]).mean() > 0.99


@pytest.mark.slow
def test_the_fft_makes_the_same_kind_of_map(monkeypatch):
    monkeypatch.setattr(embedding, "_MANY", 0)
    X, label = islands(400)
    xy = fit_map(X, seed=2)
    neighbours, _ = nearest(xy, xy, 5, itself=True)
    assert (label[neighbours] == label[:, None]).mean() > 0.98


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6, 12])
@pytest.mark.parametrize("p", [1, 2, 30])
def test_small_samples(m, p, capfd):
    xy = fit_map(np.random.default_rng(m).normal(size=(m, p)).astype(np.float32), seed=0)
    assert xy.shape == (m, 2)
    assert np.isfinite(xy).all()
    assert len(np.unique(xy, axis=0)) == m
    assert capfd.readouterr() == ("", "")


def test_duplicates_share_a_place():
    rng = np.random.default_rng(3)
    places, _ = islands(40)
    which = rng.integers(0, 40, 1000)
    xy = fit_map(places[which], seed=0)
    assert np.isfinite(xy).all()
    assert len(np.unique(xy, axis=0)) == len(set(which))
    np.testing.assert_array_equal(place(places[which][:100], places[which], xy), xy[:100])
    assert (fit_map(np.ones((30, 5), np.float32), seed=0) == 0).all()


@laws
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_each_row_is_placed_by_itself(seed, m):
    rng = np.random.default_rng(seed)
    sample, xy = rng.normal(size=(m, 6)).astype(np.float32), rng.normal(size=(m, 2)).astype(np.float32)
    X = np.concatenate([rng.normal(size=(60, 6)).astype(np.float32), sample[:20]])
    whole = place(X, sample, xy)
    cuts = np.sort(rng.integers(0, len(X) + 1, 3))
    parts = np.concatenate([place(part, sample, xy) for part in np.split(X, cuts)])
    # distances and weights are float64 and row by row; only which of two equal distances comes first could differ
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(place(sample, sample, xy), xy, atol=1e-7)
    assert whole.dtype == np.float32
    low, high = xy.min(axis=0) - 1e-6, xy.max(axis=0) + 1e-6
    assert ((whole >= low) & (whole <= high)).all()


def test_a_placed_row_lands_on_its_island_not_between():
    X, label = islands(600)
    xy = fit_map(X[:300], seed=0)
    found = place(X[300:], X[:300], xy)
    neighbours, _ = nearest(found, xy, 3)
    assert (label[:300][neighbours] == label[300:, None]).mean() > 0.98


@pytest.mark.parametrize("far", [1e18, 1e30, 3e38])
def test_rows_that_are_absurdly_far_have_a_place_as_all_have(far):
    X = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    X[7], X[9] = far, -far
    xy = fit_map(X, seed=0)
    assert np.abs(xy).max() == pytest.approx(1, abs=1e-3)
    assert len(np.unique(xy, axis=0)) == len(X)
