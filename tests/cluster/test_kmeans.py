"""Laws of assignment, Lloyd passes, the minibatch chain and restarts, over random data and random block boundaries."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from functools import reduce
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from streamclust.cluster import minibatch
from streamclust.cluster.assign import assign, origin_of, tiles
from streamclust.cluster.kmeans import lloyd, onward
from streamclust.cluster.passes import identity, lloyd_block, merge, settled, update
from streamclust.cluster.restarts import restarts
from streamclust.cluster.seeding import Drawing

laws = settings(max_examples=40)


@st.composite
def problems(draw):
    """Rows of every awkward kind: blobs, small integers with many ties, duplicates, a common offset, far outliers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, p, k = draw(st.integers(1, 300)), draw(st.integers(1, 8)), draw(st.integers(1, 40))
    X = rng.normal(size=(n, p)) + 6 * rng.normal(size=(5, p))[rng.integers(0, 5, n)]
    kind = draw(st.sampled_from(["blobs", "integers", "duplicates", "offset", "outlier", "tiny", "huge"]))
    if kind == "integers":
        X = np.round(X / 4)
    elif kind == "duplicates":
        X = X[rng.integers(0, max(1, n // 20), n)]
    elif kind == "offset":
        X[:, 0] += 1e6
    elif kind == "outlier":
        X[0] = 1e7
    elif kind == "tiny":
        X *= 1e-12
    elif kind == "huge":
        X *= 1e25
    X = X.astype(np.float32)
    return X, X[rng.choice(n, min(n, k), replace=False)], k, rng


def cut(X, rng):
    """X in up to five blocks, empty ones among them."""
    return np.split(X, np.sort(rng.integers(0, len(X) + 1, 4)))


def folding(blocks):
    """The fold that `lloyd` asks for, one block at a time, in a tree of its own making."""
    return lambda sets: {key: reduce(merge, [lloyd_block(X, {0: C})[0] for X in blocks]) for key, C in sets.items()}


def distinct(X):
    return len(np.unique(X + 0, axis=0))


def kmeans_plusplus(X, k, rng):
    return X[Drawing(X).draw(k, rng)]


def true_sqdist(X, centers):
    difference = X.astype(np.float64)[:, None] - centers.astype(np.float64)[None]
    return (difference**2).sum(axis=2)


@laws
@given(problems(), st.sampled_from([None, 16, 37]))
def test_assign_finds_the_nearest_centre(problem, tile_rows):
    X, centers, _, _ = problem
    labels, sqdist = assign(X, centers, tile_rows)
    true = true_sqdist(X, centers)
    rows = np.arange(len(X))
    # float32 GEMM about the median centre: eps (4 + sqrt(p)) of the squared norms, here with a factor for sums
    norms = true_sqdist(np.concatenate([X, centers]), np.median(centers, axis=0)[None]).max()
    slack = 1e-5 * np.minimum(norms, 1000 * true.min(axis=1))
    assert (true[rows, labels] <= true.min(axis=1) + slack).all()
    np.testing.assert_allclose(sqdist, true[rows, labels], rtol=0.02)
    exact = true.min(axis=1) == 0
    assert (sqdist[exact] == 0).all()
    assert (labels[exact] == true.argmin(axis=1)[exact]).all()


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 8), st.floats(0, 4), st.sampled_from([1, 1e-20, 1e18]))
def test_the_origin_is_the_median_where_the_centres_lie_far_from_zero(seed, k, p, offset, scale):
    rng = np.random.default_rng(seed)
    centers = (scale * (rng.standard_t(2, (k, p)) + offset * rng.normal(size=p))).astype(np.float32)
    about = centers.astype(np.float64)
    median = np.sort(about, axis=0)[(k - 1) // 2]
    far = (median**2).sum() > 4 * ((about - median) ** 2).sum(axis=1).mean()
    np.testing.assert_array_equal(origin_of(centers), median if far else np.zeros(p))


def test_assign_ties_go_to_the_lowest_id():
    X = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 5.0]], np.float32)
    centers = np.array([[2, 0], [0, 0], [2, 0]], np.float32)
    assert assign(X, centers)[0].tolist() == [1, 0, 0]


def test_assign_holds_no_n_by_k():
    import tracemalloc

    rng = np.random.default_rng(0)
    X, centers = rng.normal(size=(3000, 4)).astype(np.float32), rng.normal(size=(10_000, 4)).astype(np.float32)
    assign(X[:1], centers)  # loads numba
    tracemalloc.start()
    assign(X, centers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 2**20  # n x k would be 120 MB


def test_sets_of_rows_beyond_the_squares_of_float32_hold_no_n_by_k():
    import tracemalloc

    rng = np.random.default_rng(0)
    X = (1e20 * rng.normal(size=(12_000, 4))).astype(np.float32)
    sets = {i: (1e20 * rng.normal(size=(500, 4))).astype(np.float32) for i in range(4)}
    lloyd_block(X[:1], sets)  # loads numba
    tracemalloc.start()
    lloyd_block(X, sets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20  # n x k of all sets would be 192 MB


@laws
@given(problems())
def test_lloyd_state_merges(problem):
    X, centers, _, rng = problem
    states = [lloyd_block(part, {0: centers})[0] for part in cut(X, rng)]
    before = copy.deepcopy(states)
    left = reduce(merge, states)
    right = reduce(lambda a, b: merge(b, a), reversed(states))
    nothing = identity(centers)
    for a, b in [
        (left, right),
        (merge(nothing, left), left),
        (merge(left, nothing), left),
        *zip(states, before, strict=True),
    ]:
        np.testing.assert_array_equal(a.counts, b.counts)
        np.testing.assert_array_equal(a.far_rows, b.far_rows)
        np.testing.assert_array_equal(a.far_dist, b.far_dist)
        # float64 addition in another order
        np.testing.assert_allclose(a.sums.sums, b.sums.sums, rtol=0, atol=1e-12 * np.abs(X.astype(float)).sum())
        np.testing.assert_allclose(a.inertia, b.inertia, rtol=1e-12)


@laws
@given(problems())
def test_lloyd_state_of_other_blocks(problem):
    X, centers, _, rng = problem
    parts, whole = (
        reduce(merge, [lloyd_block(part, {0: centers})[0] for part in cut(X, rng)]),
        lloyd_block(X, {0: centers})[0],
    )
    # float32 GEMM rounds by shape: a near tie may fall otherwise, and a distance is good to eps times the ratio of the
    # norms to it, which stays below 1000 here or is compared in float64
    assert parts.counts.sum() == whole.counts.sum() == len(X)
    assert np.abs(parts.counts - whole.counts).sum() <= 2 + 0.01 * len(X)
    np.testing.assert_allclose(parts.inertia, whole.inertia, rtol=1e-4)
    np.testing.assert_allclose(parts.far_dist, whole.far_dist, rtol=1e-4)


def test_other_blocks_same_counts_on_blobs():
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(5000, 12)) + 8 * rng.normal(size=(10, 12))[rng.integers(0, 10, 5000)]).astype(np.float32)
    centers = kmeans_plusplus(X, 10, rng)
    whole = lloyd_block(X, {0: centers})[0]
    for _ in range(5):
        parts = reduce(merge, [lloyd_block(part, {0: centers})[0] for part in cut(X, rng)])
        np.testing.assert_array_equal(parts.counts, whole.counts)
        # sums are float64 of exact float32 differences; only their order changes
        np.testing.assert_allclose(parts.sums.sums, whole.sums.sums, atol=1e-9 * np.abs(X).sum())
        np.testing.assert_allclose(parts.inertia, whole.inertia, rtol=1e-6)


@laws
@given(problems())
def test_lloyd_ends_with_every_cluster_it_can_have(problem):
    X, start, k, rng = problem
    blocks = cut(X, rng)
    start = np.concatenate([start, np.repeat(start[:1], k - len(start), axis=0)])
    found = lloyd(folding(blocks), {"a": start, "b": start[::-1]}, max_iter=4)
    for result in found.values():
        assert len(result.centers) == min(k, distinct(X))
        assert (result.counts > 0).all()
        assert result.counts.sum() == len(X)
        labels = np.concatenate([assign(part, result.centers)[0] for part in blocks])
        np.testing.assert_array_equal(np.bincount(labels, minlength=len(result.centers)), result.counts)
        sqdist = np.concatenate([assign(part, result.centers)[1] for part in blocks])
        np.testing.assert_allclose(result.inertia, sqdist.sum(), rtol=1e-12)


def plainly(blocks, centers, steps):
    """The state at the centres that so many Lloyd steps without momentum lead to."""
    for _ in range(steps):
        centers = update(folding(blocks)({0: centers})[0])[0]
    return folding(blocks)({0: centers})[0]


def test_plain_steps_equal_scikit_learn():
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(3000, 10)) + 3 * rng.normal(size=(6, 10))[rng.integers(0, 6, 3000)]).astype(np.float32)
    ours = plainly(cut(X, rng), X[:6], 60)
    theirs = KMeans(6, init=X[:6], n_init=1, max_iter=300, tol=0).fit(X.astype(np.float64))
    # a strict float64 run and ours may part at near ties only
    assert settled(ours, 1e-9)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-5)
    order = np.argsort(-np.bincount(theirs.labels_), kind="stable")
    np.testing.assert_allclose(ours.sums.centers, theirs.cluster_centers_[order], atol=1e-2)


def test_lloyd_rests_where_scikit_learn_does():
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(3000, 10)) + 3 * rng.normal(size=(6, 10))[rng.integers(0, 6, 3000)]).astype(np.float32)
    ours = lloyd(folding(cut(X, rng)), {6: X[:6]}, max_iter=300, tol=1e-9)[6]
    theirs = KMeans(6, init=ours.centers, n_init=1, max_iter=300, tol=0).fit(X.astype(np.float64))
    assert ours.converged
    # near ties may fall otherwise in float64, and tol leaves the last digits of the centres open
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-5)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-2)
    assert (np.diff(ours.counts) <= 0).all()


def test_momentum_is_ahead_of_plain_steps_and_comes_to_rest():
    rng = np.random.default_rng(8)
    X = (rng.normal(size=(4000, 8)) + rng.normal(size=(30, 8))[rng.integers(0, 30, 4000)]).astype(np.float32)
    start = kmeans_plusplus(X, 20, rng)
    fast = lloyd(folding([X]), {0: start}, max_iter=16, tol=0)[0]
    assert fast.inertia < plainly([X], start, 15).inertia
    rested = lloyd(folding([X]), {0: start}, max_iter=300, tol=1e-12)[0]
    assert rested.converged
    np.testing.assert_allclose(rested.sums.means, rested.centers, atol=1e-5)


@laws
@given(problems())
def test_a_step_goes_to_the_means_where_the_inertia_grew(problem):
    X, centers, _, _ = problem
    state = lloyd_block(X, {0: centers})[0]
    if not state.empty:
        _, trail = onward(state, None)
        fallen = dataclasses.replace(trail, inertia=np.nextafter(state.inertia, -np.inf))
        back, after = onward(state, fallen)
        np.testing.assert_array_equal(back, state.sums.means.astype(np.float32))
        assert after.centers is None


def test_many_sets_share_every_read():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(500, 3)).astype(np.float32)
    reads = []

    def fold(sets):
        reads.append(set(sets))
        return folding([X])(sets)

    found = lloyd(fold, {k: X[:k] for k in (1, 2, 5)}, max_iter=6)
    alone = {k: lloyd(folding([X]), {k: X[:k]}, max_iter=6)[k] for k in found}
    assert len(reads) == max(result.n_iter for result in found.values()) <= 7
    for k, result in found.items():
        np.testing.assert_array_equal(result.centers, alone[k].centers)


def test_after_one_pass_only_the_lowest_go_on():
    X = np.random.default_rng(3).normal(size=(500, 3)).astype(np.float32)
    starts = {seed: kmeans_plusplus(X, 4, np.random.default_rng(seed)) for seed in range(5)}
    reads = []

    def fold(sets):
        reads.append(set(sets))
        return folding([X])(sets)

    found = lloyd(fold, starts, keep=2)
    cost = {seed: true_sqdist(X, centers).min(axis=1).sum() for seed, centers in starts.items()}
    assert reads[0] == set(starts)
    assert reads[1] == set(found) == set(sorted(cost, key=cost.get)[:2])


def test_update_uses_each_far_row_once():
    X = np.array([[0, 0], [0, 0], [9, 0], [9, 0], [0, 5]], np.float32)
    state = lloyd_block(X, {0: np.zeros((4, 2), np.float32)})[0]
    centers, still_empty = update(state)
    assert still_empty == 1  # two distinct rows have a distance, three clusters are empty
    np.testing.assert_array_equal(centers[1:3], [[9, 0], [0, 5]])
    assert not settled(state)


def test_no_rows_no_clusters():
    result = lloyd(folding([np.empty((0, 3), np.float32)]), {2: np.zeros((2, 3), np.float32)})[2]
    assert result.centers.shape == (0, 3)


def test_minibatch_chain_copies_and_repeats():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(9000, 5)).astype(np.float32)
    models = minibatch.start({"a": X[:7], "many": X[:300]}, X[:200])  # more centres than rows: most stay
    np.testing.assert_array_equal(minibatch.centers(models)["many"][200:], X[200:300])
    before = minibatch.centers(models)["a"].copy()
    once, again = minibatch.step(models, X), minibatch.step(models, X)
    np.testing.assert_array_equal(minibatch.centers(models)["a"], before)
    np.testing.assert_array_equal(minibatch.centers(once)["a"], minibatch.centers(again)["a"])
    assert not np.array_equal(minibatch.centers(once)["a"], before)
    assert len(pickle.dumps(once)) < 100_000
    few = minibatch.step(minibatch.step(once, X[:0]), X[:3])  # an empty block, and fewer rows than clusters
    assert np.isfinite(minibatch.centers(few)["a"]).all()
    assert minibatch.centers(few)["a"].dtype == np.float32


@pytest.mark.parametrize("second", [False, True])
def test_of_a_centre_that_comes_twice_the_first_gets_all_rows(second):
    """A product may round the scores of equal centres differently, by where they stand in it."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        X = (6 * rng.normal(size=(rng.integers(1, 300), rng.integers(1, 9)))).astype(np.float32)
        centers = rng.choice(X, rng.integers(1, 40))
        sets = [np.concatenate([centers, rng.choice(centers, 9)]), centers[::-1]]
        for tile in tiles(X, sets, second=second):
            for i, found in zip(tile.sets, tile.labels, strict=True):
                same = (sets[i][found][:, None] == sets[i]).all(axis=2)
                np.testing.assert_array_equal(found, same.argmax(axis=1))


@laws
@given(problems())
def test_restarts_give_a_start_for_every_k(problem):
    X, _, k, _ = problem
    found = restarts(X, [k, 1], n_init=1, keep=2, seed=5)
    again = restarts(X, [k, 1], n_init=1, keep=2, seed=5)
    for size in {k, 1}:
        assert 1 <= len(found[size]) <= 2
        for centers, repeated in zip(found[size], again[size], strict=True):
            assert centers.shape == (size, X.shape[1])
            assert np.isfinite(centers).all()
            np.testing.assert_array_equal(centers, repeated)


@pytest.mark.parametrize("offset", [0, 1e6])
def test_kmeans_plusplus_draws_distinct_rows(offset):
    rng = np.random.default_rng(6)
    places = 10 * rng.normal(size=(20, 4))
    places[:, 1] += offset
    X = np.repeat(places, 50, axis=0).astype(np.float32)
    assert distinct(kmeans_plusplus(X, 15, rng)) == 15
    assert len(kmeans_plusplus(X, 30, rng)) == 20


def test_rows_drawn_at_once_are_distributed_as_if_drawn_one_by_one(monkeypatch):
    monkeypatch.setattr("streamclust.cluster.seeding.GREEDY", 0)
    places, draws = np.array([0.0, 1.0, 3.0, 7.0]), 4000
    rng = np.random.default_rng(8)
    X = places[:, None].astype(np.float32)
    drawn = [tuple(kmeans_plusplus(X, 3, rng)[:, 0].tolist()) for _ in range(draws)]
    for order in permutations(places, 3):
        share = 1 / len(places)
        for i in (1, 2):
            closest = np.min([(places - other) ** 2 for other in order[:i]], axis=0)
            share *= closest[places == order[i]][0] / closest.sum()
        assert abs(drawn.count(order) - draws * share) < 4 * (draws * share) ** 0.5 + 1


@pytest.mark.parametrize("seed", range(5))
def test_of_the_rows_drawn_the_one_is_taken_that_leaves_the_smallest_sum(seed):
    X = np.random.default_rng(10).normal(size=(300, 4)).astype(np.float32)
    drawing, rng = Drawing(X), np.random.default_rng(seed)
    true, chosen = true_sqdist(drawing.Z, drawing.Z), [int(rng.integers(300))]
    while len(chosen) < 8:
        closest = true[:, chosen].min(axis=1)
        reach = np.cumsum(closest)
        drawn = np.searchsorted(reach, rng.random(2 + int(np.log(8))) * reach[-1], side="right")
        sums = np.minimum(closest[:, None], true[:, drawn]).sum(axis=0)
        chosen.append(int(drawn[sums.argmin()]))
    assert drawing.draw(8, np.random.default_rng(seed)) == chosen


def test_threads_do_not_change_the_starts():
    X = np.random.default_rng(9).normal(size=(20_000, 5)).astype(np.float32)
    one, two = (restarts(X, [8, 60, 120], n_init=4, seed=1, n_jobs=n_jobs) for n_jobs in (1, 2))
    for k in one:
        np.testing.assert_array_equal(one[k], two[k])


def test_restarts_and_six_passes_match_scikit_learn():
    rng = np.random.default_rng(7)
    n, p, k = 10_000, 50, 12
    X = rng.normal(size=(n, p)) + 0.7 * rng.normal(size=(k, p))[rng.integers(0, k, n)]
    X[: n // 50] = rng.uniform(-4, 4, size=(n // 50, p))
    X = X[rng.permutation(n)].astype(np.float32)
    blocks = np.array_split(X, 5)
    models = minibatch.start({(k, i): c for i, c in enumerate(restarts(X[:6000], [k])[k])}, X[:4096])
    for part in blocks:
        models = minibatch.step(models, part)
    ours = min(result.inertia for result in lloyd(folding(blocks), minibatch.centers(models)).values())
    assert ours <= 1.005 * KMeans(k, n_init=10, random_state=0).fit(X).inertia_
