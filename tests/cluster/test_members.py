"""Laws of a cluster's members: they depend on the rows, not on the blocks they came in or on their order."""

from __future__ import annotations

import copy
from dataclasses import astuple
from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.cluster.members import identity, members_block, merge

laws = settings(max_examples=50)
seeds = st.integers(0, 2**32)


def labelled(seed):
    """Row ids in no order, labels with -1 among them, distances with many ties."""
    rng = np.random.default_rng(seed)
    n, k, m = rng.integers(0, 400), int(rng.integers(1, 12)), int(rng.integers(1, 9))
    ids = rng.choice(10**12, n, replace=False)
    return ids, rng.integers(-1, k, n), rng.integers(0, 20, n).astype(np.float32), k, m, rng


def same(a, b):
    for left, right in zip(astuple(a), astuple(b), strict=True):
        np.testing.assert_array_equal(left, right)


@laws
@given(seeds)
def test_blocks_and_order_do_not_matter(seed):
    ids, labels, distance, k, m, rng = labelled(seed)
    whole = members_block(ids, labels, distance, k, m, seed=3)
    order = rng.permutation(len(ids))
    parts = np.split(order, np.sort(rng.integers(0, len(ids) + 1, 4)))
    states = [members_block(ids[part], labels[part], distance[part], k, m, seed=3) for part in parts]
    before = copy.deepcopy(states)
    same(reduce(merge, states), whole)
    same(reduce(lambda a, b: merge(b, a), reversed(states)), whole)
    same(merge(identity(k, m), whole), whole)
    same(merge(whole, identity(k, m)), whole)
    for state, kept in zip(states, before, strict=True):
        same(state, kept)


@laws
@given(seeds)
def test_nearest_and_farthest_are_what_sorting_says(seed):
    ids, labels, distance, k, m, _ = labelled(seed)
    state = members_block(ids, labels, distance, k, m)
    for cluster in range(k):
        mine = np.flatnonzero(labels == cluster)
        near = mine[np.lexsort((ids[mine], distance[mine]))][:m]
        far = mine[np.lexsort((ids[mine], -distance[mine]))][:m]
        for found, measured, expected in (
            (state.nearest, state.nearest_distance, near),
            (state.farthest, state.farthest_distance, far),
        ):
            np.testing.assert_array_equal(found[cluster], np.pad(ids[expected], (0, m - len(near)), constant_values=-1))
            np.testing.assert_array_equal(measured[cluster, : len(near)], distance[expected])
            assert np.isnan(measured[cluster, len(near) :]).all()
        drawn = state.random[cluster][state.random[cluster] >= 0]
        assert len(set(drawn)) == len(near)
        assert set(drawn) <= set(ids[mine])


def test_more_rows_than_are_sorted():
    rng = np.random.default_rng(0)
    n = 20_000
    ids, labels, distance = np.arange(n), np.sort(rng.integers(0, 3, n)), rng.random(n)
    state = members_block(ids, labels, distance, 4, 5)
    for cluster in range(3):
        mine = np.flatnonzero(labels == cluster)
        np.testing.assert_array_equal(state.nearest[cluster], mine[np.argsort(distance[mine])[:5]])
    assert (state.nearest[3] == -1).all()


def test_the_draw_is_uniform_and_seeded():
    ids, n = np.arange(2000), 2000
    draws = [members_block(ids, np.zeros(n, int), np.zeros(n), 1, 200, seed=s).random[0] for s in range(60)]
    assert set(draws[0]) != set(draws[1])
    counts = np.bincount(np.concatenate(draws) // 200, minlength=10)
    # 1200 expected in each tenth, deviation below sqrt(1200) = 35
    assert np.abs(counts - 1200).max() < 5 * 35
