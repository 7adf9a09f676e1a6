"""Samples by hash: the same rows whatever the blocks, and a union's sample is the sample of the samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamclust.sampling import batch_key, row_hashes, sample_rows, smallest


@given(n=st.integers(1, 5000), cut=st.integers(0, 5000), key=st.integers(0, 2**64 - 1))
def test_hashes_do_not_depend_on_blocks(n, cut, key):
    cut = min(cut, n)
    parts = np.concatenate([row_hashes(key, 0, cut), row_hashes(key, cut, n)])
    np.testing.assert_array_equal(parts, row_hashes(key, 0, n))
    assert len(np.unique(parts)) == n


@given(n=st.integers(1, 3000), size=st.integers(1, 400), key=st.integers(0, 2**64 - 1))
def test_a_sample_is_the_rows_with_the_smallest_hashes(n, size, key):
    rows, hashes = sample_rows(n, size, key)
    assert len(rows) == min(n, size)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(hashes, row_hashes(key, 0, n)[rows])
    np.testing.assert_array_equal(np.sort(hashes), np.sort(row_hashes(key, 0, n))[:size])


@given(sizes=st.lists(st.integers(1, 600), min_size=2, max_size=4), size=st.integers(1, 200))
def test_the_sample_of_a_union_is_the_sample_of_the_samples(sizes, size):
    every = [row_hashes(batch_key(str(i), 0), 0, n) for i, n in enumerate(sizes)]
    kept = [sample_rows(n, size, batch_key(str(i), 0))[1] for i, n in enumerate(sizes)]
    union, parts = np.concatenate(every), np.concatenate(kept)
    found = smallest(np.arange(len(parts)), parts, size)[1]
    np.testing.assert_array_equal(np.sort(found), np.sort(union)[:size])


def test_large_samples_are_uniform():
    """Above a million rows the hashes come in parts; a tenth of the rows holds a tenth of the sample."""
    rows, _ = sample_rows(2**21 + 5, 20_000, batch_key("base", 0))
    counts = np.histogram(rows, 10, (0, 2**21 + 5))[0]
    assert np.abs(counts - 2000).max() < 5 * 2000**0.5


def test_keys_differ_by_batch_and_seed():
    assert len({batch_key(b, s) for b in ("base", "day") for s in (0, 1)}) == 4
