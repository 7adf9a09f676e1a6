"""Distances to the means of k-means clusters against plain differences, over awkward data and any blocks."""

from __future__ import annotations

from functools import reduce

import numpy as np
from hypothesis import given

from streamclust.cluster.assign import assign
from streamclust.cluster.passes import lloyd_block, merge
from streamclust.cluster.spread import merge as merge_spread
from streamclust.cluster.spread import spread_block
from streamclust.metrics import davies_bouldin, spread_merge
from streamclust.metrics import spread_block as by_differences
from tests.cluster.test_kmeans import cut, laws, problems


@laws
@given(problems())
def test_as_by_differences(problem):
    X, centers, k, rng = problem
    sets = {"some": centers, "one": centers[:1], "others": X[rng.choice(len(X), min(len(X), k), replace=False)]}
    blocks = cut(X, rng)
    states = [lloyd_block(block, sets) for block in blocks]
    means = {key: reduce(merge, [state[key] for state in states]).sums.means for key in sets}
    found = [spread_block(block, sets, means) for block in blocks]
    for key, c in sets.items():
        whole = reduce(merge_spread, [state[key] for state in found]).davies
        true = reduce(spread_merge, [by_differences(block, assign(block, c)[0], means[key]) for block in blocks])
        np.testing.assert_array_equal(whole.counts, true.counts)
        nothing = 1e-12 * np.abs(X).max()  # what float64 resolves
        np.testing.assert_allclose(whole.distances, true.distances, rtol=0.01, atol=nothing * len(X))
        if true.distances.max() > 1e6 * nothing:
            np.testing.assert_allclose(davies_bouldin(whole, means[key]), davies_bouldin(true, means[key]), rtol=0.01)


def test_no_worse_than_float32_on_ordinary_rows():
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(5000, 40)) + 3 * rng.normal(size=(8, 40))[rng.integers(0, 8, 5000)]).astype(np.float32)
    sets = {8: X[:8].copy()}
    means = {8: lloyd_block(X, sets)[8].sums.means}
    found, true = spread_block(X, sets, means)[8].davies, by_differences(X, assign(X, sets[8])[0], means[8])
    np.testing.assert_allclose(found.distances, true.distances, rtol=1e-5)


def test_rows_that_float32_hardly_tells_from_their_mean():
    """Centred between two far centres, float32 multiplies numbers of 3; the rows lie 1e-7 from their mean."""
    row, far = np.float32(3.9585216), np.float32(10.071382)
    X = np.array([[row]] + [[np.nextafter(row, far)]] * 5 + [[far]])
    centers, labels = X[[0, 6]], np.array([0] * 6 + [1], np.int32)
    means = np.array([X[:6].mean(axis=0, dtype=np.float64), X[6]])
    found, true = spread_block(X, {2: centers}, {2: means})[2].davies, by_differences(X, labels, means)
    np.testing.assert_allclose(found.distances, true.distances, rtol=1e-6)


def test_identical_rows_have_no_spread():
    X = np.repeat(np.array([[1.1, 7.3], [-4.2, 0.9]], np.float32), 5, axis=0)
    sets = {2: X[[0, 5]] + np.float32(0.3)}
    means = {2: lloyd_block(X, sets)[2].sums.means}
    assert spread_block(X, sets, means)[2].davies.distances.max() < 1e-6


@laws
@given(problems())
def test_silhouettes_are_one_minus_the_ratio_of_the_two_smallest_distances(problem):
    X, centers, _, rng = problem
    sets = {"some": centers, "one": centers[:1]}
    means = {key: lloyd_block(X, sets)[key].sums.means for key in sets}
    found = [spread_block(block, sets, means) for block in cut(X, rng)]
    whole = {key: reduce(merge_spread, [state[key] for state in found]) for key in sets}
    assert np.isnan(whole["one"].silhouette)
    if len(centers) < 2:
        return
    far = np.sort(np.linalg.norm(X.astype(float)[:, None] - centers.astype(float), axis=2), axis=1)
    a, b = far[:, 0], far[:, 1]
    scale = np.abs(X).max() * 1e-5  # below it float32 does not tell the two apart
    sure = b > scale
    wanted = np.where(b > 0, 1 - a / np.where(b > 0, b, 1), 0)
    spare = (~sure).mean() + 0.01
    assert abs(whole["some"].silhouette - wanted.mean()) <= spare


def test_the_silhouette_is_that_of_plain_differences_on_ordinary_rows():
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(5000, 40)) + 3 * rng.normal(size=(8, 40))[rng.integers(0, 8, 5000)]).astype(np.float32)
    sets = {8: X[:8].copy()}
    means = {8: lloyd_block(X, sets)[8].sums.means}
    far = np.sort(np.linalg.norm(X.astype(float)[:, None] - sets[8].astype(float), axis=2), axis=1)
    found = spread_block(X, sets, means)[8]
    np.testing.assert_allclose(found.silhouette, (1 - far[:, 0] / far[:, 1]).mean(), rtol=1e-5)
    assert found.silhouettes.shape == (8,)


def test_equal_centres_tell_nothing_apart():
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    sets = {2: np.repeat(X[:1], 2, axis=0)}
    assert spread_block(X, sets, {2: sets[2].astype(float)})[2].silhouette == 0
