"""Contingency tables add up, agree with scikit-learn's scores, and find rows that were shifted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from streamclust.cluster.assign import assign
from streamclust.cluster.restarts import restarts
from streamclust.counts import (
    SHIFTS,
    adjusted_mutual_info,
    adjusted_rand,
    alignment_verdict,
    contingency_block,
    grid_block,
    shift_block,
)
from tests.real import vehicles

laws = settings(max_examples=60)


@st.composite
def labelings(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, ka, kb = draw(st.integers(2, 300)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    a = rng.integers(0, ka, n)
    b = np.where(rng.random(n) < draw(st.floats(0, 1)), a % kb, rng.integers(0, kb, n))
    return a, b, ka, kb, rng


@laws
@given(labelings())
def test_scores_equal_scikit_learn(problem):
    a, b, ka, kb, _ = problem
    C = contingency_block(a, b, ka, kb)
    assert adjusted_rand(C) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    # where the entropies barely exceed the expectation, the quotient magnifies the rounding of log-gamma
    assert adjusted_mutual_info(C) == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-8)


def test_adjusted_mutual_info_of_many_rows():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, 30_000)
    b = np.where(rng.random(30_000) < 0.2, a, rng.integers(0, 5, 30_000))
    C = contingency_block(a, b, 9, 9)
    # log-gamma near 3e5 carries 1e-11 of rounding into the expectation
    assert adjusted_mutual_info(C) == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-9)
    assert adjusted_mutual_info(C * 100_000) == pytest.approx(adjusted_mutual_info(C), abs=1e-3)


@laws
@given(labelings())
def test_tables_add_up(problem):
    a, b, ka, kb, rng = problem
    a = np.where(rng.random(len(a)) < 0.1, -1, a)
    b = np.where(rng.random(len(a)) < 0.1, -2, b)
    cuts = np.sort(rng.integers(0, len(a) + 1, 3))
    parts = zip(np.split(a, cuts), np.split(b, cuts), strict=True)
    total = sum(contingency_block(x, y, ka, kb) for x, y in parts)
    np.testing.assert_array_equal(total, contingency_block(a, b, ka, kb))
    assert total.sum() == ((a >= 0) & (b >= 0)).sum()


@laws
@given(labelings(), st.lists(st.integers(-9, 9), min_size=1, unique=True))
def test_shifted_pairs(problem, shifts):
    a, b, ka, kb, _ = problem
    tables = shift_block(a, b, ka, kb, shifts)
    for s, table in zip(shifts, tables, strict=True):
        expected = np.zeros((ka, kb), int)
        for i in range(len(a)):
            if 0 <= i + s < len(b):
                expected[a[i], b[i + s]] += 1
        np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("shift", SHIFTS)
def test_verdict_finds_the_shift(shift):
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 10, 900), 2)  # neighbours are alike, as in a sequence of pictures
    other = np.where(rng.random(1800) < 0.6, truth, rng.integers(0, 10, 1800))
    verdict = alignment_verdict(shift_block(truth, np.roll(other, shift), 10, 10))
    assert verdict.shift == shift
    assert verdict.aligned == (shift == 0)
    assert f"{verdict.agreement[0]:z.3f}" in verdict.sentence
    assert ("shifted by" in verdict.sentence and f"{shift:+d}" in verdict.sentence) or shift == 0


@pytest.mark.parametrize(("shift", "words"), [(0, "aligned"), (1, "shifted by +1"), (50, "near-zero agreement")])
def test_verdict_on_real_descriptors(shift, words):
    _, rows = vehicles()
    osnet, vdc = (
        assign(rows[name], restarts(rows[name], [20], n_init=2, keep=1)[20][0])[0] for name in ("osnet", "vdc")
    )
    verdict = alignment_verdict(shift_block(osnet, np.roll(vdc, shift), 20, 20))
    assert verdict.aligned == (shift == 0)
    assert words in verdict.sentence


def test_verdict_on_unrelated_and_on_few_rows():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, (2, 3000))
    verdict = alignment_verdict(shift_block(a, b, 6, 6))
    assert not verdict.aligned
    assert "near-zero" in verdict.sentence
    few = alignment_verdict(shift_block(a[:20], b[:20], 6, 6))
    assert few.aligned
    assert "too few rows (20)" in few.sentence


@laws
@given(st.integers(0, 2**32), st.booleans())
def test_grids_count_every_point_inside(seed, categories):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 300))
    x, y = rng.normal(size=(2, n)).astype(np.float32)
    x[rng.random(n) < 0.05] = np.nan
    category = rng.integers(-1, 4, n) if categories else None
    extent, size = (-1.0, 1.5, -0.5, 2.0), (7, 5, 4) if categories else (7, 5)
    whole = grid_block(x, y, category, extent, size)
    half = n // 2
    some = category if category is None else category[:half], category if category is None else category[half:]
    parts = grid_block(x[:half], y[:half], some[0], extent, size) + grid_block(
        x[half:], y[half:], some[1], extent, size
    )
    np.testing.assert_array_equal(whole, parts)
    assert whole.dtype == np.uint32
    kept = np.ones(n, bool) if category is None else category >= 0
    ranges = [(extent[2], extent[3]), (extent[0], extent[1])]
    expected, _, _ = np.histogram2d(y[kept & ~np.isnan(x)], x[kept & ~np.isnan(x)], bins=(7, 5), range=ranges)
    np.testing.assert_array_equal(whole.sum(axis=2) if categories else whole, expected)


def test_a_map_without_width():
    grid = grid_block(np.zeros(4), np.zeros(4), None, (0.0, 0.0, 0.0, 0.0), (3, 3))
    assert grid[0, 0] == grid.sum() == 4


def test_weak_but_real_agreement_is_aligned_and_chance_is_not():
    """Descriptors of independent properties: an ARI of 0.005 that only unshifted rows have is no misalignment."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 40, 100_000)
    b = np.where(rng.random(len(a)) < 0.08, a, rng.integers(0, 40, len(a)))
    weak = alignment_verdict(shift_block(a, b, 40, 40))
    assert 0 < weak.agreement[0] < 0.01
    assert weak.aligned
    assert not alignment_verdict(shift_block(a, rng.permutation(b), 40, 40)).aligned
    assert alignment_verdict(shift_block(a, np.roll(b, 1), 40, 40)).shift == 1
