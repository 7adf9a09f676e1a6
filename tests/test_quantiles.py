"""Laws of the quantile sketch: merging in any order, exact tail, monotone quantiles, thresholds that keep a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamclust import quantiles as qs
from streamclust.errors import InputError

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TIED = st.sampled_from([-2.5, -1.0, 0.0, -0.0, 1.0, 1.0000001, 3.0, 1e30])
VALUES = hnp.arrays(np.float32, st.integers(0, 60), elements=FINITE | TIED)


def same(a: qs.QuantileSketch, b: qs.QuantileSketch) -> bool:
    left, right = qs.to_arrays(a), qs.to_arrays(b)
    return all(np.array_equal(left[name], right[name]) for name in left)


def exact_tail(values: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((values > v[:, None]).sum(1) + (values == v[:, None]).sum(1) / 2) / len(values)


@settings(max_examples=60)
@given(VALUES, VALUES, VALUES, st.integers(1, 30))
def test_merging_is_associative_has_an_identity_and_equals_one_block(a, b, c, exact):
    parts = [qs.sketch_block(x, exact) for x in (a, b, c)]
    before = [qs.to_arrays(part)["top"].copy() for part in parts]
    left = qs.merge(qs.merge(parts[0], parts[1]), parts[2])
    right = qs.merge(parts[0], qs.merge(parts[2], parts[1]))
    assert same(left, right)
    assert same(left, qs.sketch_block(np.concatenate([a, b, c]), exact))
    assert same(qs.merge(parts[0], qs.identity(exact)), parts[0])
    assert all(np.array_equal(x, part.top) for x, part in zip(before, parts, strict=True))


@settings(max_examples=60)
@given(VALUES.filter(len), VALUES, st.integers(1, 30))
def test_tail_is_exact_from_the_floor_up_and_within_a_bin_below(values, others, exact):
    sketch = qs.sketch_block(values, exact)
    v = np.concatenate([values, others, values.astype(np.float64) * 1.5]).clip(-3.4e38, 3.4e38).astype(np.float32)
    tail, truth = qs.tail_of(sketch, v), exact_tail(values, v)
    known = (v >= sketch.floor) & (v <= values.max())
    assert np.array_equal(tail[known], truth[known])
    width = np.array([np.count_nonzero(qs._bin_of(qs._float32(values)) == b) for b in qs._bin_of(qs._float32(v))])
    inside = v <= values.max()
    assert (np.abs(tail - truth)[inside] <= (width[inside] + 1e-9) / len(values)).all()
    assert ((tail > 0) & (tail <= 1)).all()
    order = np.argsort(v)
    assert (np.diff(tail[order]) <= 0).all()
    q = qs.quantile_of(sketch, v)
    assert ((q >= 0) & (q < 1)).all()


@settings(max_examples=60)
@given(VALUES.filter(len), st.integers(1, 30), st.floats(0, 1))
def test_threshold_never_exceeds_the_budget_and_value_at_is_an_order_statistic(values, exact, share):
    sketch = qs.sketch_block(values, exact)
    t = qs.threshold_above(sketch, share)
    allowed = np.floor(share * len(values) + 1e-9)
    assert np.count_nonzero(values >= t) <= allowed
    if exact >= len(values):  # nothing smaller would do
        lower = values[values < t]
        assert not len(lower) or np.count_nonzero(values >= lower.max()) > allowed
        assert qs.value_at(sketch, share) == np.sort(values)[max(1, int(np.ceil(share * len(values) - 1e-9))) - 1]
    at = qs.value_at(sketch, share)
    nearest = np.sort(values)[max(1, int(np.ceil(share * len(values) - 1e-9))) - 1]
    assert abs(at - nearest) <= 0.008 * abs(nearest) + 1e-38


def test_beyond_the_largest_value_the_order_is_that_of_the_raw_score():
    sketch = qs.sketch_block(np.random.default_rng(0).normal(size=1000))
    tail = qs.tail_of(sketch, [5.0, 6.0, 100.0, 1e6, 1e30])
    assert (np.diff(tail) < 0).all()
    assert (tail > 0).all()
    assert (tail < 0.5 / 1000).all()


def test_an_empty_sketch_and_values_that_are_not_finite():
    empty = qs.sketch_block([np.nan, np.inf])
    assert empty.count == 0
    assert qs.quantile_of(empty, [1.0])[0] == 0
    assert np.isnan(qs.value_at(empty, 0.5))
    assert qs.threshold_above(empty, 0.01) == np.inf
    assert np.isnan(qs.quantile_of(qs.sketch_block([1.0, 2.0]), [np.nan])[0])


def test_a_compacted_sketch_keeps_the_exact_tail_and_its_arrays_come_back():
    values = np.random.default_rng(1).lognormal(size=200_000).astype(np.float32)
    small = qs.compact(qs.sketch_block(values), 0.01)
    assert len(small.top) == 2000
    assert same(qs.from_arrays(qs.to_arrays(small)), small)
    highest = np.sort(values)[-2001:]
    assert np.array_equal(qs.tail_of(small, highest), qs.tail_of(qs.sketch_block(values), highest))
    middle = np.sort(values)[[100, 50_000, 150_000]]
    np.testing.assert_allclose(qs.quantile_of(small, middle), [100.5 / 2e5, 0.25, 0.75], atol=2e-3)
    assert qs.threshold_above(small, 0.05) == pytest.approx(np.quantile(values, 0.95), rel=0.01)


def test_settings_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="exact"):
        qs.merge(qs.identity(5), qs.identity(6))
    with pytest.raises(InputError, match="quantile"):
        qs.value_at(qs.identity(), 1.5)
    with pytest.raises(InputError, match="budget"):
        qs.threshold_above(qs.identity(), -1)
    with pytest.raises(InputError, match="exact"):
        qs.identity(0)
