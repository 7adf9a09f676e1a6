"""Compiled loops over distances say what NumPy says by sorting everything."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamclust.cluster import products, scans
from streamclust.cluster.nearest import compare, nearest

shapes = {"n": st.integers(1, 9), "m": st.integers(1, 400), "seed": st.integers(0, 2**32 - 1)}


def table(n, m, seed):
    """Distances with many ties, some zero and some beyond all others."""
    rng = np.random.default_rng(seed)
    kinds = [rng.random((n, m)), rng.integers(0, 4, (n, m)), np.where(rng.random((n, m)) < 0.2, np.inf, 1.0)]
    return kinds[seed % 3].astype(np.float32)


@given(**shapes, count=st.integers(1, 60))
def test_the_smallest_of_each_row_and_the_first_of_equal_ones(n, m, seed, count):
    squares, count = table(n, m, seed) - np.float32(seed % 2), min(count, m)
    values, columns = nearest(squares, count)
    order = np.argsort(squares, axis=1, kind="stable")[:, :count]
    assert np.array_equal(values, np.take_along_axis(squares, order, 1))
    sound = np.isfinite(values)
    assert np.array_equal(columns[sound], order[sound])


@given(**shapes)
def test_the_closest_of_each_row_beyond_what_its_column_allows(n, m, seed):
    squares, least = table(n, m, seed), table(1, m, seed + 1)[0]
    _, (value, column) = compare(squares, 0, least)
    mutual = np.maximum(squares, least)
    assert np.array_equal(value, mutual.min(axis=1))
    assert np.array_equal(column, mutual.argmin(axis=1))


@given(**shapes, k=st.integers(1, 12), cut=st.floats(0, 1))
def test_the_smallest_of_each_column_tile_by_tile(n, m, seed, k, cut):
    squares = table(n, m, seed)
    start = np.sort(table(m, k, seed + 1), axis=1)
    state = start.copy()
    for tile in np.split(squares, [round(cut * n)]):
        compare(tile, 3, np.zeros(m, np.float32), state)
    assert np.array_equal(state, np.sort(np.concatenate([start, squares.T], axis=1), axis=1)[:, :k])


@given(**shapes)
def test_what_rounding_made_negative_counts_as_zero(n, m, seed):
    squares, least = table(n, m, seed) - np.float32(0.5), table(1, m, seed + 1)[0]
    states = np.ones((2, m, 4), np.float32)
    found = compare(squares, 5, least, states[0])
    expected = compare(np.maximum(squares, 0), 5, least, states[1])
    for one, other in zip((*found[0], *found[1], states[0]), (*expected[0], *expected[1], states[1]), strict=True):
        assert np.array_equal(one, other)


@given(**shapes, sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4), both=st.booleans(), cut=st.floats(0, 1))
def test_the_lowest_and_the_next_of_every_set(n, m, seed, sizes, both, cut):
    ends = np.cumsum([0, *sizes])
    scores, half = table(n, ends[-1], seed) - np.float32(0.5), table(1, ends[-1], seed + 2)[0]
    norms, rounding = np.random.default_rng(seed).random(n, np.float32), 0.25
    labels, sqdist = np.full((len(sizes), n), -1, np.int32), np.full((len(sizes), 2, n), -9.0)
    doubtful, suspected = np.zeros(n, bool), np.zeros(n, bool)
    for start, stop in pairwise([0, round(cut * n), n]):
        turned = np.ascontiguousarray(scores[start:stop].T)
        products.lowest(turned, half, ends, norms, rounding, start, both, labels, sqdist, doubtful)
    for s, (start, stop) in enumerate(pairwise(ends)):
        total = (scores + half)[:, start:stop]
        order = np.argsort(total, axis=1, kind="stable")
        for rank in range(2):
            if rank < 1 + both and stop - start > rank:
                at = order[:, rank]
                expected = np.maximum(norms + 2 * total[np.arange(n), at], 0)
                assert np.array_equal(sqdist[s, rank], expected)
                assert rank or np.array_equal(labels[s], at)
                suspected |= np.isfinite(expected) & (expected <= rounding * (norms + 2 * half[start:stop][at]))
            else:
                assert (sqdist[s, rank] == -9).all()
    assert (doubtful >= suspected).all()
    assert np.array_equal(doubtful, suspected) or np.isinf(half).any()


@given(**shapes, fractions=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_sums_over_what_lies_within_each_radius(n, m, seed, fractions):
    distance = table(n, m, seed)
    places = sorted(round(f * (m - 1)) for f in fractions)
    radius = np.ascontiguousarray(np.sort(distance, axis=1)[:, places])
    least, weight = table(len(places), m, seed + 1), table(len(places), m, seed + 2)
    sums = np.empty((n, len(places), 3))
    scans.around(distance, radius, least, weight, sums)
    for q in range(len(places)):
        inside = distance <= radius[:, q : q + 1]
        reach = np.where(inside, np.maximum(distance, least[q]), 0).sum(axis=1, dtype=np.float64)
        weights = np.where(inside, weight[q], 0).sum(axis=1, dtype=np.float64)
        assert np.allclose(sums[:, q], np.column_stack([reach, weights, inside.sum(axis=1)]), rtol=1e-12)


@pytest.mark.parametrize("module", ["streamclust.pipeline", "streamclust.outliers", "streamclust.stages.sweep"])
def test_numba_is_not_loaded_before_it_is_needed(module):
    code = f"import sys, {module}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
