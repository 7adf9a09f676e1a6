"""Laws of the moments: any blocks, any order, one result; exact against float64 NumPy."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import moments as mo

# float32 rounding of a deviation is eps32 / 2 of its size; a sum of products carries at most that, twice.
RTOL = 4 * np.finfo(np.float32).eps


def data(seed: int, n: int, d: int, offset: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.1, 10, d)
    return (rng.normal(size=(n, d)) * scales + offset * rng.normal(size=d)).astype(np.float32)


def cut(n: int, seed: int) -> list[slice]:
    rng = np.random.default_rng(seed)
    edges = [0, *sorted(rng.integers(0, n + 1, rng.integers(0, 6))), n]
    return [slice(a, b) for a, b in pairwise(edges)]


def symmetric(moments: mo.Moments) -> np.ndarray:
    lower = np.tril(moments.scatter)
    return lower + np.tril(lower, -1).T


cases = given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 400),
    d=st.integers(1, 40),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
)


@cases
@settings(max_examples=60)
def test_any_blocks_give_the_moments_of_all_rows(seed, n, d, offset):
    X = data(seed, n, d, offset)
    state = mo.identity(d, scatter=True)
    for part in cut(n, seed):
        state = mo.accumulate(state, X[part])
    exact = X.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    products = centred.T @ centred
    size = np.sqrt(np.outer(np.diag(products), np.diag(products))) + 1e-30
    assert state.n == n
    np.testing.assert_array_equal(state.min, exact.min(axis=0))
    np.testing.assert_array_equal(state.max, exact.max(axis=0))
    np.testing.assert_allclose(state.mean, exact.mean(axis=0), rtol=1e-9, atol=1e-9)
    floor = n * (np.finfo(np.float32).eps * np.abs(exact).max()) ** 2
    np.testing.assert_allclose(state.m2, np.diag(products), rtol=n * RTOL, atol=floor)
    assert (np.abs(symmetric(state) - products) <= n * RTOL * size + 10 * floor).all()


@cases
@settings(max_examples=30)
def test_merge_is_associative_has_an_identity_and_leaves_its_arguments(seed, n, d, offset):
    X = data(seed, n, d, offset)
    parts = np.array_split(X, 3)
    a, b, c = (mo.from_block(part, scatter=True) for part in parts)
    before = [x.scatter.copy() for x in (a, b, c)]
    left, right = mo.merge(mo.merge(a, b), c), mo.merge(a, mo.merge(b, c))
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-12, atol=1e-12 * (1 + offset))
    scale = np.abs(symmetric(left)).max() + 1e-300
    np.testing.assert_allclose(symmetric(left), symmetric(right), atol=1e-11 * scale * (1 + offset))
    none = mo.identity(d, scatter=True)
    for joined in (mo.merge(a, none), mo.merge(none, a)):
        np.testing.assert_array_equal(joined.scatter, a.scatter)
        assert joined.n == a.n
    for x, copy in zip((a, b, c), before, strict=True):
        np.testing.assert_array_equal(x.scatter, copy)


@given(seed=st.integers(0, 2**31), d=st.integers(1, 60))
@settings(max_examples=20)
def test_packing_keeps_the_lower_triangle(seed, d):
    scatter = np.tril(np.random.default_rng(seed).normal(size=(d, d)))
    np.testing.assert_array_equal(mo.unpack(mo.pack(scatter), d), scatter)


def test_a_constant_column_has_no_variance_at_any_offset():
    for value in (0.0, 0.1, 3e4, 1e6 + 0.1):
        X = np.full((1000, 2), value, np.float32)
        X[:, 1] += np.arange(1000, dtype=np.float32)
        variance = mo.from_block(X, scatter=True).variance
        assert variance[0] == 0
        assert variance[1] > 1e4


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-20, 1e20, 1e30, 1e38])
@pytest.mark.parametrize("what", ["all", "a column", "a row", "a cell"])
def test_squares_beyond_float32_are_those_of_float64(scale, what):
    X = np.random.default_rng(0).normal(size=(300, 5))
    where = {"all": np.s_[:], "a column": np.s_[:, 2], "a row": np.s_[7], "a cell": np.s_[7, 2]}[what]
    X[where] *= scale
    X = X.clip(-3e38, 3e38).astype(np.float32)
    found = reduce(mo.merge, [mo.from_block(part, scatter=True) for part in np.split(X, [40, 41, 200])])
    true = np.cov(X.astype(np.float64), rowvar=False) * 299
    spread = np.sqrt(np.diag(true))
    np.testing.assert_allclose(
        np.tril(found.scatter) / np.outer(spread, spread), np.tril(true / np.outer(spread, spread)), atol=1e-4
    )
    np.testing.assert_allclose(found.m2, np.diag(true), rtol=1e-4)
