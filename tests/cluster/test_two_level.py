"""Laws of labels by way of places amid the centres, and of the search that begins with them."""

from __future__ import annotations

from functools import reduce
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamclust.cluster import two_level
from streamclust.cluster.assign import assign, exact_sqdist
from streamclust.cluster.kmeans import lloyd, lloyd_block, merge
from streamclust.cluster.restarts import restarts
from streamclust.metrics import label_sums_block
from tests.cluster.test_kmeans import cut, folding, laws, problems


@laws
@given(problems())
def test_every_row_gets_a_centre_at_the_distance_that_is_said(problem):
    X, centers, _, _ = problem
    labels, sqdist = two_level.assign(X, two_level.two_level(centers))
    best, least = assign(X, centers)
    np.testing.assert_allclose(sqdist, exact_sqdist(X, centers, labels), rtol=0.02)
    assert (sqdist >= 0.97 * least).all()
    assert (sqdist[least == 0] == 0).all()
    assert (labels == best).mean() >= 0.9  # 8 times the root of at most 40 is every centre or nearly


def test_of_many_centres_nearly_every_row_gets_the_nearest():
    rng = np.random.default_rng(0)
    X = (
        rng.normal(size=(24_000, 60)) * rng.lognormal(0, 0.3, 60)
        + 0.8 * rng.normal(size=(40, 60))[rng.integers(0, 40, 24_000)]
    ).astype(np.float32)
    X[:50] *= 40  # centres far from all places
    centers = X[:1200].copy()
    levels = two_level.two_level(centers)
    labels, sqdist = two_level.assign(X, levels)
    assert max(len(near) for near in levels.near) < len(centers) / 2
    best, least = assign(X, centers)
    assert (labels == best).mean() > 0.97
    assert sqdist.sum() < 1.002 * least.sum()


@laws
@given(problems())
def test_a_block_adds_up_what_its_labels_say(problem):
    X, centers, _, rng = problem
    levels = two_level.two_level(centers)
    state = reduce(merge, [lloyd_block(part, {0: levels})[0] for part in cut(X, rng)])
    labels = two_level.assign(X, levels)[0]
    true = label_sums_block(X, labels, centers)
    np.testing.assert_array_equal(state.counts, true.counts)
    scale = np.abs(X - np.median(centers, axis=0)).max() + 1e-30
    np.testing.assert_allclose(state.sums.sums / scale, true.sums / scale, atol=1e-4 * len(X))


@laws
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_what_a_search_reports_compares_every_row_with_every_centre(seed, passes):
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(600, 5)) + 4 * rng.normal(size=(30, 5))[rng.integers(0, 30, 600)]).astype(np.float32)
    asked = []

    def fold(sets):
        asked.append({key for key, centers in sets.items() if isinstance(centers, two_level.TwoLevel)})
        return folding([X[:250], X[250:]])(sets)

    with patch.object(two_level, "MANY", 30):
        found = lloyd(fold, {"few": X[:5], "many": X[:30]}, passes)
    assert asked == [{"many"} if i < passes - 2 and asked[i] else set() for i in range(len(asked))]
    assert asked[0] == ({"many"} if passes > 2 else set())
    for result in found.values():
        labels, sqdist = assign(X, result.centers)
        np.testing.assert_array_equal(np.bincount(labels, minlength=len(result.centers)), result.counts)
        np.testing.assert_allclose(result.inertia, sqdist.sum(), rtol=1e-5)


def test_a_search_by_two_levels_ends_where_one_by_all_centres_does():
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(12_000, 20)) + 2 * rng.normal(size=(300, 20))[rng.integers(0, 300, 12_000)]).astype(
        np.float32
    )
    ends = {}
    for many in (100, 10_000):
        with patch.object(two_level, "MANY", many):
            start = restarts(X, [200], keep=1, seed=2)[200][0]
            ends[many] = lloyd(folding([X]), {0: start}, 20)[0].inertia
    assert ends[100] < 1.02 * ends[10_000]  # other optima, as near
