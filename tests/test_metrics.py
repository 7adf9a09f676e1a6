"""Calinski-Harabasz and Davies-Bouldin of merged blocks against scikit-learn's of all rows."""

from __future__ import annotations

import copy
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from streamclust.cluster.passes import lloyd_block
from streamclust.metrics import (
    calinski_harabasz,
    choose_k,
    davies_bouldin,
    identity,
    label_sums_block,
    merge,
    plateau,
    spread_block,
    spread_identity,
    spread_merge,
)

laws = settings(max_examples=40)


@st.composite
def labelled(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, p, k = draw(st.integers(5, 400)), draw(st.integers(1, 6)), draw(st.integers(2, 8))
    X = rng.normal(size=(n, p)) + 3 * rng.normal(size=(k, p))[rng.integers(0, k, n)]
    X[:, 0] += draw(st.sampled_from([0, 0, 1e6]))
    if draw(st.booleans()):
        X = X[rng.integers(0, max(3, n // 20), n)]
    X = X.astype(np.float32)
    return X, rng.integers(-1, k, n), X[rng.integers(0, n, k)], rng


def parts(rng, n):
    return np.split(np.arange(n), np.sort(rng.integers(0, n + 1, 4)))


@laws
@given(labelled())
def test_equal_to_scikit_learn(problem):
    X, labels, centers, rng = problem
    blocks = parts(rng, len(X))
    states = [label_sums_block(X[rows], labels[rows], centers) for rows in blocks]
    before = copy.deepcopy(states)
    state = reduce(merge, states)
    spreads = [spread_block(X[rows], labels[rows], state.means) for rows in blocks]
    spread = reduce(spread_merge, spreads)
    kept = labels >= 0
    if 2 <= len(set(labels[kept])) < kept.sum():
        # float64 on both sides, scikit-learn's without the offset, which would cost it digits; the means that
        # Davies-Bouldin is given carry the offset: eps x 1e6 over a gap of 0.01 between two means
        shifted = X[kept].astype(np.float64) - X[0]
        assert calinski_harabasz(state) == pytest.approx(calinski_harabasz_score(shifted, labels[kept]), rel=1e-9)
        largest = (spread.distances / np.maximum(spread.counts, 1)).max()
        # scikit-learn takes a spread up to 1e-8 for none, and rounds otherwise, also two means at one place
        if largest == 0 or (largest > 1e-7 and pdist(state.means[state.counts > 0]).min() > 1e-7):
            assert davies_bouldin(spread, state.means) == pytest.approx(
                davies_bouldin_score(shifted, labels[kept]), rel=1e-7
            )
    for a, b in zip(states, before, strict=True):
        np.testing.assert_array_equal(a.sums, b.sums)
        np.testing.assert_array_equal(a.counts, b.counts)


@laws
@given(labelled())
def test_merge_laws(problem):
    X, labels, centers, rng = problem
    a, b, c = (label_sums_block(X[rows], labels[rows], centers) for rows in np.array_split(rng.permutation(len(X)), 3))
    nothing = identity(centers)
    for left, right in ((merge(merge(a, b), c), merge(a, merge(b, c))), (merge(nothing, a), a), (merge(a, nothing), a)):
        np.testing.assert_array_equal(left.counts, right.counts)
        np.testing.assert_allclose(left.sums, right.sums, rtol=1e-12, atol=1e-12 * np.abs(X - X[0]).sum())
        np.testing.assert_allclose(left.squares, right.squares, rtol=1e-12)
    empty = spread_identity(len(centers))
    full = spread_block(X, labels, centers)
    np.testing.assert_array_equal(spread_merge(empty, full).distances, full.distances)


@pytest.mark.parametrize("offset", [0, 1e6])
def test_a_lloyd_pass_has_what_calinski_harabasz_needs(offset):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 10)) + 2 * rng.normal(size=(5, 10))[rng.integers(0, 5, 4000)]
    X[:, 3] += offset
    X = X.astype(np.float32)
    centers = X[:5]
    state = lloyd_block(X, {0: centers})[0]
    labels = ((X[:, None].astype(np.float64) - centers) ** 2).sum(axis=2).argmin(axis=1)
    # squared distances are float32: their rounding averages out over rows to well below 1e-6
    expected = calinski_harabasz_score(X.astype(np.float64) - X[0], labels)
    assert calinski_harabasz(state.sums) == pytest.approx(expected, rel=1e-6)


def test_too_few_clusters_have_no_score():
    X = np.arange(4, dtype=np.float32)[:, None]
    one = label_sums_block(X, np.zeros(4, int), X[:1])
    assert np.isnan(calinski_harabasz(one))
    assert np.isnan(davies_bouldin(spread_block(X, np.zeros(4, int), one.means), one.means))
    alone = label_sums_block(X, np.arange(4), X)
    assert np.isnan(calinski_harabasz(alone))


def test_points_on_their_means():
    X, labels = np.array([[0], [0], [1], [1]], np.float32), np.array([0, 0, 1, 1])
    state = label_sums_block(X, labels, X[[0, 2]])
    assert calinski_harabasz(state) == calinski_harabasz_score(X, labels) == 1.0
    assert davies_bouldin(spread_block(X, labels, state.means), state.means) == 0.0


def test_labels_of_the_same_rows_are_not_compared_with_each_other():
    """Their means are one place, and how far rounding puts them apart would be all that the index says."""
    X = np.repeat(np.random.default_rng(0).normal(1e3, 1, (7, 3)).astype(np.float32), 3, axis=0)
    rows, twins = np.concatenate([X, X, X + 50]), np.repeat([0, 1, 2], len(X))
    state = label_sums_block(rows, twins, rows[[0, 5, -1]])
    apart = spread_block(rows, twins, state.means + np.array([[1e-13], [0], [0]]))
    assert davies_bouldin(apart, state.means + np.array([[1e-13], [0], [0]])) == pytest.approx(
        davies_bouldin(apart, state.means[[0, 0, 2]])
    )
    assert davies_bouldin(apart, state.means) < 1


def test_choose_k_says_what_each_index_would_have_chosen():
    k, reason = choose_k({2: (100.0, 1.5), 3: (90.0, 0.9), 4: (80.0, 0.5), 5: (95.0, 0.6)})
    assert k == 5  # ranks 1+4, 3+3, 4+1, 2+2
    assert "Calinski-Harabasz alone would choose k = 2" in reason
    assert "Davies-Bouldin alone k = 4" in reason
    assert reason.count(".") >= 1
    assert reason.endswith(".")


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ({3: (10.0, 0.5), 2: (20.0, 1.0)}, 2),  # equal mean ranks: the smaller k
        ({1: (float("nan"), float("nan")), 7: (5.0, 2.0)}, 7),  # one cluster has no index
        ({1: (float("nan"), float("nan"))}, 1),
    ],
)
def test_choose_k_ties_and_missing(curve, expected):
    k, reason = choose_k(curve)
    assert k == expected
    assert f"k = {expected}" in reason


@pytest.mark.parametrize(
    ("values", "high", "wanted"),
    [
        ([1, 5, 5.1, 4.9, 1, 5.1], True, (1, 3)),
        ([1, 5, 5.1, 4.9, 1, 5.1], False, (0, 0)),
        ([3, 1, 1.05, 1.5, 3], False, (1, 2)),
        ([np.nan, 2, np.nan], True, (1, 1)),
        ([np.nan, np.nan], True, None),
        ([7, 7, 7], False, (0, 2)),
    ],
)
def test_a_plateau_is_the_run_about_the_best_that_is_nearly_as_good(values, high, wanted):
    assert plateau(np.array(values, float), high=high) == wanted
