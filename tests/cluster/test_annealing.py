"""Random steps that cool down: a lower end than the nearest optimum, at rest, whatever the rows are measured in."""

from __future__ import annotations

import numpy as np
import pytest

from streamclust.cluster.annealing import anneal
from streamclust.cluster.assign import assign
from streamclust.cluster.restarts import restarts
from streamclust.streaming.kmeans import StreamingKMeans, lloyd
from streamclust.streaming.rows import rows_of

SHAPELESS = np.random.default_rng(0).normal(size=(30_000, 12)).astype(np.float32)  # as many optima as starts


def end(X, centers):
    """The inertia that Lloyd's algorithm ends at from there."""
    return lloyd(rows_of(StreamingKMeans(), X, reset=True, dtype=np.float32), [centers]).inertia


def inertia(X, centers):
    return assign(X, centers)[1].sum()


def test_the_end_is_lower_than_without():
    plain, chains = [], []
    for seed in range(6):
        start = restarts(SHAPELESS, [20], keep=1, seed=seed)[20][0]
        plain.append(end(SHAPELESS, start))
        chains.append(end(SHAPELESS, anneal(SHAPELESS, start, [seed])))
    assert np.mean(chains) < 0.9995 * np.mean(plain)


def test_it_comes_to_rest():
    start = restarts(SHAPELESS, [8], keep=1)[8][0]
    centers = anneal(SHAPELESS, start, [0])
    assert inertia(SHAPELESS, centers) < (1 + 1e-3) * end(SHAPELESS, centers)


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("spread", [1e-43, 1e-30, 1e-20, 1, 1e15, 1e30])
def test_clusters_that_are_apart_are_kept(offset, spread):
    rng = np.random.default_rng(1)
    places = 40 * rng.normal(size=(15, 6)) + offset
    labels = np.sort(rng.choice(15, size=20_000, p=rng.dirichlet(np.full(15, 2.0))))
    X = (spread * (places[labels] + rng.normal(size=(20_000, 6)))).astype(np.float32)
    means = np.stack([X[labels == i].mean(axis=0, dtype=np.float64) for i in range(15)])
    found = anneal(X, means.astype(np.float32), [0])
    np.testing.assert_array_equal(assign(X, found)[0], labels)


@pytest.mark.parametrize("gap", [1e6, 1e25])
def test_clusters_on_two_scales_are_kept(gap):
    """The squares of the gap's halves round off, in float32, all that is between the clusters on either side of it."""
    rng = np.random.default_rng(3)
    places = 40 * rng.normal(size=(12, 4))
    labels = rng.integers(12, size=20_000)
    X = (places[labels] + rng.normal(size=(20_000, 4))).astype(np.float32)
    X[labels == 11] = gap
    means = np.stack([X[labels == i].mean(axis=0, dtype=np.float64) for i in range(12)])
    found = anneal(X, means.astype(np.float32), [0])
    np.testing.assert_array_equal(assign(X, found)[0], labels)


def test_a_seed_decides_and_a_centre_without_rows_stays():
    far = np.full((1, 12), 1e6, np.float32)
    start = np.concatenate([SHAPELESS[:5], far])
    one, same, other = (anneal(SHAPELESS, start, seed) for seed in ([3, 0], [3, 0], [3, 1]))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one[5], far[0])
    assert not np.array_equal(one, other)


def test_few_rows_are_one_step_each_epoch():
    X = np.random.default_rng(2).normal(size=(40, 2)).astype(np.float32)
    found = anneal(X, X[:3], [0])
    assert inertia(X, found) < inertia(X, X[:3])
