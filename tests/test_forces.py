"""The exact gradient of t-SNE is that of the formulas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openTSNE.tsne import kl_divergence_bh
from scipy.sparse import csr_matrix

from streamclust.forces import gradient


def drawn(seed, n, scale):
    """Places that float32 can tell, as what pushes is rounded to it, and affinities of which a few pairs have any."""
    rng = np.random.default_rng(seed)
    P = rng.random((n, n)) * (rng.random((n, n)) < 0.3)
    P = P + P.T + 1e-9 * np.eye(n, k=1) + 1e-9 * np.eye(n, k=-1)
    np.fill_diagonal(P, 0)
    return (scale * rng.normal(size=(n, 2))).astype(np.float32).astype(np.float64), csr_matrix(P / P.sum())


@given(st.integers(0, 2**32), st.integers(2, 700), st.sampled_from([1e-4, 1.0, 50.0, 1e4]))
@settings(max_examples=40)
def test_the_gradient_and_the_divergence_are_those_of_the_formulas(seed, n, scale):
    Y, P = drawn(seed, n, scale)
    apart = Y[:, None] - Y
    near = 1 / (1 + (apart**2).sum(axis=2)) - np.eye(n)
    p, q = P.toarray(), near / near.sum()
    with ThreadPoolExecutor(1) as pool:
        divergence, found = gradient(Y, P, pool=pool, parts=1, should_eval_error=True)
    wanted = np.einsum("ij,ij,ijc->ic", p - q, near, apart)
    both = np.einsum("ij,ij,ijc->ic", p + q, near, np.abs(apart))  # what pulls and what pushes, which may cancel
    np.testing.assert_allclose(found, wanted, atol=1e-5 * both.max())
    assert divergence == pytest.approx((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum(), rel=1e-5, abs=1e-6)
    assert found.flags.c_contiguous


def test_it_is_what_the_tree_of_opentsne_gives_when_it_joins_nothing():
    Y, P = drawn(0, 500, 3.0)
    error, wanted = kl_divergence_bh(Y, P, 1, {"theta": 0.0}, should_eval_error=True)
    with ThreadPoolExecutor(1) as pool:
        divergence, found = gradient(Y, P, pool=pool, parts=1, should_eval_error=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert divergence == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 600])
def test_parts_do_not_change_it(n):
    Y, P = drawn(n, n, 3.0) if n > 1 else (np.zeros((1, 2)), csr_matrix((1, 1)))
    with ThreadPoolExecutor(2) as pool:
        one, many = (gradient(Y, P, pool=pool, parts=parts, should_eval_error=False)[1] for parts in (1, 7))
    np.testing.assert_array_equal(one, many)
    assert np.isfinite(one).all()


def test_points_in_one_place_do_not_push_each_other():
    Y = np.repeat([[0.0, 0.0], [3.0, 4.0]], 5, axis=0)
    with ThreadPoolExecutor(1) as pool:
        _, found = gradient(Y, csr_matrix((10, 10)), pool=pool, parts=1, should_eval_error=False)
    q = 1 / 26
    total = 2 * (20 + 25 * q)  # pairs at distance 0, each way, and those between the places
    np.testing.assert_allclose(found[:5], np.tile([5 * q * q * 3 / total, 5 * q * q * 4 / total], (5, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[5:], -found[:5], rtol=1e-6)
