"""Laws of labels by way of places amid the centres, and of the search that begins with them."""

from __future__ import annotations

from functools import reduce
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from streamclust.cluster import two_level
from streamclust.cluster.assign import assign, exact_sqdist
from streamclust.cluster.kmeans import lloyd
from streamclust.cluster.passes import lloyd_block, merge
from streamclust.cluster.seeding import Drawing
from streamclust.metrics import label_sums_block
from streamclust.streaming import kmeans as streaming
from streamclust.streaming.kmeans import StreamingKMeans
from streamclust.streaming.rows import rows_of
from tests.cluster.test_kmeans import cut, folding, laws, problems


@laws
@given(problems(), st.sampled_from([1, 8]))
def test_every_row_gets_a_centre_at_the_distance_that_is_said(problem, near):
    X, centers, _, _ = problem
    with patch.object(two_level, "_NEAR", near):
        labels, sqdist = two_level.assign(X, two_level.two_level(centers))
    best, least = assign(X, centers)
    np.testing.assert_allclose(sqdist, exact_sqdist(X, centers, labels), rtol=0.02)
    assert (sqdist >= 0.97 * least).all()
    assert (sqdist[least == 0] == 0).all()
    assert near == 1 or (labels == best).mean() >= 0.9  # 8 times the root of at most 40 is every centre or nearly


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
    assert sqdist.sum() < 1.003 * least.sum()


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
    on_two = [i for i, keys in enumerate(asked) if keys]
    assert on_two == list(range(len(on_two)))
    assert min(1, max(0, passes - 2)) <= len(on_two) <= max(0, passes - 2)
    assert set().union(*asked) <= {"many"}
    for result in found.values():
        labels, sqdist = assign(X, result.centers)
        np.testing.assert_array_equal(np.bincount(labels, minlength=len(result.centers)), result.counts)
        np.testing.assert_allclose(result.inertia, sqdist.sum(), rtol=1e-5)


def test_a_row_has_the_same_choice_from_pass_to_pass():
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(9000, 20)) + 2 * rng.normal(size=(300, 20))[rng.integers(0, 300, 9000)]).astype(np.float32)
    start = X[Drawing(X).draw(200, rng)]
    asked, ends = [], {}

    def fold(sets):
        asked.append(sets[0])
        states = folding([X])(sets)
        assert not states[0].empty
        return states

    for many in (100, 10_000):
        with patch.object(two_level, "MANY", many):
            ends[many] = lloyd(fold, {0: start}, 20)[0].inertia
    levels = [one for one in asked if isinstance(one, two_level.TwoLevel)]
    assert len(levels) > 5
    assert {(id(one.places), id(one.near)) for one in levels} == {(id(levels[0].places), id(levels[0].near))}
    assert ends[100] < 1.02 * ends[10_000]


@pytest.mark.parametrize("distinct", [1, 20])
def test_few_distinct_rows_end_a_search_at_once(distinct):
    X = np.random.default_rng(2).normal(size=(distinct, 3)).astype(np.float32)[np.arange(400) % distinct]
    with patch.object(two_level, "MANY", 30):
        found = lloyd(folding([X]), {0: X[:40]}, 100)[0]
    assert found.n_iter <= 4
    assert len(found.centers) == distinct
    assert found.inertia == 0


def test_threads_of_blas_do_not_change_a_search():
    X = (np.round(np.random.default_rng(3).normal(size=(9000, 40))) * 0.1).astype(np.float32)  # with many ties
    rows, found = rows_of(StreamingKMeans(), X, reset=True, dtype=np.float32), []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(streaming.lloyd(rows, [X[:3000]], 4).centers)
    np.testing.assert_array_equal(*found)
