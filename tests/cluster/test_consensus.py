"""Laws of the consensus: what all say it says, noise weighs little, tables come out of sums as rows were counted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from streamclust.cluster import kmeans, passes
from streamclust.cluster.assign import assign
from streamclust.cluster.consensus import LEAST, Ballot, choose, sharpness, weigh
from streamclust.cluster.restarts import restarts
from streamclust.counts import adjusted_mutual_info, contingency_block

SIZES = (4, 5, 3)


@pytest.fixture(params=range(5))
def rng(request):
    return np.random.default_rng(request.param)


def votes(rng, n=2000, wrong=0.1):
    """A truth of four kinds; two clusterings that see most of it, under ids of their own, and one of noise."""
    truth = rng.integers(0, 4, n)
    parts = []
    for size in SIZES[:2]:
        renamed = rng.permutation(size)[truth]
        parts.append(np.where(rng.random(n) < wrong, rng.integers(0, size, n), renamed))
    return truth, np.stack([*parts, rng.integers(0, SIZES[2], n)], axis=1)


def fit(ballot, labels, k):
    X = ballot.encode(labels)
    start = restarts(X, [k], n_init=8, keep=1)[k][0]
    return kmeans.lloyd(lambda centers: passes.lloyd_block(X, centers), {k: start}, 20)[k]


def tables_of(labels):
    pairs = combinations(range(len(SIZES)), 2)
    return {(str(a), str(b)): contingency_block(labels[:, a], labels[:, b], SIZES[a], SIZES[b]) for a, b in pairs}


def test_what_most_say_is_the_consensus_and_noise_weighs_little(rng):
    truth, labels = votes(rng)
    ballot = Ballot(SIZES, weigh(["0", "1", "2"], tables_of(labels)))
    assert sum(ballot.weights) == pytest.approx(1)
    assert ballot.weights[2] == pytest.approx(LEAST * max(ballot.weights), rel=0.5)
    found = fit(ballot, labels, 4)
    label = assign(ballot.encode(labels), found.centers)[0]
    assert adjusted_rand_score(truth, label) > 0.75
    sure = ballot.confidence(labels, label, ballot.favourites(found.centers))
    agreed = (labels[:, 0] == ballot.favourites(found.centers)[label, 0]) & (
        labels[:, 1] == ballot.favourites(found.centers)[label, 1]
    )
    assert sure[agreed].min() > sure[~agreed].max()
    assert 0 <= sure.min() <= sure.max() <= 1


def test_the_right_number_of_clusters_shares_most(rng):
    _, labels = votes(rng)
    ballot = Ballot(SIZES, weigh(["0", "1", "2"], tables_of(labels)))
    results = {k: fit(ballot, labels, k) for k in (2, 3, 4, 6, 8)}
    shared = {k: ballot.shared(result.sums.means, result.counts) for k, result in results.items()}
    assert choose(shared) == 4


def test_tables_are_the_counts_of_rows(rng):
    _, labels = votes(rng)
    labels[rng.random(len(labels)) < 0.1, 1] = -2
    ballot = Ballot(SIZES, (0.5, 0.3, 0.2))
    found = fit(ballot, labels, 5)
    label = assign(ballot.encode(labels), found.centers)[0]
    for column, table in enumerate(ballot.tables(found.sums.means, found.counts)):
        ours = contingency_block(label, labels[:, column], len(found.centers), SIZES[column])
        np.testing.assert_array_equal(table, ours)
    values = [adjusted_mutual_info(t) for t in ballot.tables(found.sums.means, found.counts)]
    assert ballot.shared(found.sums.means, found.counts) == pytest.approx(np.dot(ballot.weights, values))


def test_distances_are_twice_the_weight_of_those_who_tell_rows_apart(rng):
    labels = np.array([[0, 0, 0], [0, 1, 0], [3, 4, 2], [0, -2, 0]])
    X = Ballot(SIZES, (0.5, 0.3, 0.2)).encode(labels)
    apart = np.square(X[0] - X).sum(axis=1)
    np.testing.assert_allclose(apart, [0, 0.6, 2, 0.3], atol=1e-6)


def test_a_clustering_that_is_missing_does_not_vote_against():
    ballot = Ballot((2, 2), (0.5, 0.5))
    sure = ballot.confidence(np.array([[0, 0], [0, -2], [0, 1]]), np.zeros(3, int), np.array([[0, 0]]))
    np.testing.assert_allclose(sure, [1, 1, 0.5])


def test_clusterings_that_agree_with_nothing_weigh_the_same():
    assert weigh(["a", "b"], {("a", "b"): np.array([[5, 0]])}) == (0.5, 0.5)
    assert weigh(["a"], {}) == (1.0,)


def test_sharpness_is_the_f_measure_of_the_cluster_that_fits_best():
    table = np.array([[80, 20, 0], [0, 30, 70]])
    best, measure = sharpness(table)
    assert best.tolist() == [0, 2]
    np.testing.assert_allclose(measure, [2 * 80 / (100 + 80), 2 * 70 / (100 + 70)])
    assert sharpness(np.diag([5, 9]))[1].tolist() == [1, 1]
    assert sharpness(np.zeros((2, 3), int))[1].tolist() == [0, 0]
