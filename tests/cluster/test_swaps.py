"""Laws of centres that go where they are missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamclust.cluster.assign import assign
from streamclust.cluster.kmeans import lloyd
from streamclust.cluster.seeding import Drawing
from streamclust.cluster.swaps import swapped
from tests.cluster.test_kmeans import folding, laws, problems


def inertia(X, centers):
    return float(assign(X, centers)[1].sum())


@laws
@given(problems(), st.integers(1, 3))
def test_centres_stay_finite_and_at_least_half_are_means(problem, n_jobs):
    X, centers, _, _ = problem
    found = swapped(X, centers, n_jobs)
    np.testing.assert_array_equal(found, swapped(X, centers))
    assert found.shape == centers.shape
    assert np.isfinite(found).all()
    labels = assign(X, centers)[0]
    means = [X[labels == i].mean(axis=0, dtype=float) if (labels == i).any() else c for i, c in enumerate(centers)]
    scale = np.abs(X - centers[0]).max() + 1e-30
    moved = (np.abs(found - np.array(means)) > 1e-5 * scale + 1e-6 * np.abs(means)).any(axis=1).sum()
    assert moved <= 2 * (len(centers) // 2)  # each that goes, and the one it comes to


@pytest.mark.parametrize("seed", range(5))
def test_every_blob_gets_a_centre(seed):
    """Of ten, seven have three centres each, two have one between them, and one has none."""
    rng = np.random.default_rng(seed)
    places = 30 * rng.normal(size=(10, 6))
    X = (np.repeat(places, 100, axis=0) + rng.normal(size=(1000, 6))).astype(np.float32)
    spare = np.repeat(places[:7], 3, axis=0) + 0.3 * rng.normal(size=(21, 6))
    poor = np.concatenate([spare, [places[7:9].mean(axis=0)]]).astype(np.float32)
    better = swapped(X, swapped(X, poor))  # what is far from all belongs to one cluster at first
    blob, labels = np.repeat(np.arange(10), 100), assign(X, better)[0]
    assert len(np.unique(np.stack([blob, labels]), axis=1).T) == len(np.unique(labels))
    assert inertia(X, better) < 0.5 * inertia(X, poor)


@pytest.mark.parametrize("poor", [[[-0.5], [0.5], [49.5], [50.5], [-50]], [[0], [0], [50], [-50]]])
def test_of_two_centres_that_share_a_far_blob_one_stays(poor):
    """Each costs little while the other is there."""
    rng = np.random.default_rng(0)
    blobs = [rng.normal(size=(100, 4)), 50 + rng.normal(size=(2000, 4)), -50 + 3 * rng.normal(size=(2000, 4))]
    X, centers = np.concatenate(blobs).astype(np.float32), np.repeat(poor, 4, axis=1).astype(np.float32)
    assert inertia(X, swapped(X, centers)) < inertia(X, centers)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [150, 300])
def test_blobs_of_unequal_size_and_spread_keep_a_centre(seed, k):
    rng = np.random.default_rng(seed)
    weights, spread = rng.lognormal(0, 1, 140), rng.lognormal(0, 0.7, 140)
    blob = rng.choice(140, 6000, p=weights / weights.sum())
    X = (30 * rng.normal(size=(140, 10))[blob] + spread[blob, None] * rng.normal(size=(6000, 10))).astype(np.float32)
    start = X[Drawing(X).draw(k, rng)]
    near = lloyd(folding([X]), {0: start}, 2)[0].centers
    ends = lloyd(folding([X]), {0: near, 1: swapped(X, near)}, 30)
    assert ends[1].inertia < 1.005 * ends[0].inertia


def test_a_cluster_is_cut_across_its_longest_axis():
    rng = np.random.default_rng(0)
    axis = rng.normal(size=9)
    axis /= np.linalg.norm(axis)
    long = rng.normal(size=(4000, 1)) * 5 * axis + 0.5 * rng.normal(size=(4000, 9))
    X = np.concatenate([long, 60 + 0.1 * rng.normal(size=(400, 9))]).astype(np.float32)
    centers = np.stack([np.zeros(9), np.full(9, 59.9), np.full(9, 60.1)]).astype(np.float32)
    found = swapped(X, centers)
    near = found[np.linalg.norm(found, axis=1) < 20]
    assert len(near) == 2
    apart = near[0] - near[1]
    assert abs(apart @ axis) > 0.99 * np.linalg.norm(apart)
    halves = [long[(long @ axis > long.mean(axis=0) @ axis) == side].mean(axis=0) for side in (True, False)]
    np.testing.assert_allclose(np.linalg.norm(apart), np.linalg.norm(halves[0] - halves[1]), rtol=0.03)


def test_centres_that_are_needed_stay():
    rng = np.random.default_rng(1)
    places = 40 * rng.normal(size=(12, 5))
    X = (np.repeat(places, 50, axis=0) + rng.normal(size=(600, 5))).astype(np.float32)
    labels = np.repeat(np.arange(12), 50)
    means = np.stack([X[labels == i].mean(axis=0) for i in range(12)])
    np.testing.assert_allclose(swapped(X, places.astype(np.float32)), means, atol=1e-4)


def test_a_search_with_swaps_ends_lower():
    rng = np.random.default_rng(2)
    X = (
        rng.normal(size=(12_000, 15))
        + 3 * rng.lognormal(0, 0.5, (90, 15))[rng.integers(0, 90, 12_000) ** 2 // 100 % 90]
    )
    X = X.astype(np.float32)
    ends = []
    for seed in range(4):
        start = X[Drawing(X).draw(150, np.random.default_rng(seed))]
        near = lloyd(folding([X]), {0: start}, 2)[0].centers
        found = lloyd(folding([X]), {0: near, 1: swapped(X, near)}, 8)
        ends.append(found[1].inertia / found[0].inertia)
    assert max(ends) < 1
    assert np.mean(ends) < 0.995
