"""Discs about sparse counts are those of datashader."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.render import marks


def points(seed, height, width, share):
    return np.random.default_rng(seed).poisson(share, (height, width)).astype(np.uint32)


sizes = {"seed": st.integers(0, 2**32 - 1), "height": st.integers(30, 90), "width": st.integers(30, 90)}


@pytest.mark.slow
@settings(max_examples=20)
@given(**sizes, share=st.floats(1e-4, 0.3), px=st.sampled_from([1, 3]), layers=st.integers(0, 3))
def test_discs_are_those_of_datashader(seed, height, width, share, px, layers):
    import datashader.transfer_functions as tf
    import xarray as xr

    counts = points(seed, height, width, share)
    if layers:
        counts = np.stack([counts.astype(np.uint64) * (i + 1) for i in range(layers)], axis=-1)
    array = xr.DataArray(counts, dims=("y", "x", "c")[: counts.ndim])
    assert np.array_equal(marks.grown(counts, px), tf.spread(array, px=px).data)
    most = marks._until_they_touch(counts.reshape(height, width, -1)[..., -1] > 0, px)
    touching = tf.dynspread(array, threshold=marks.TOUCHING, max_px=px).data
    assert np.array_equal(marks._spread(counts, most), touching)


def test_a_map_without_rows_stays_empty():
    assert not marks.grown(np.zeros((40, 50), np.uint32)).any()


@pytest.mark.parametrize("side", [200, 1000])
def test_too_little_to_be_seen_grows_beyond_touching(side):
    counts = np.zeros((side, side), np.uint32)
    counts[:3, :3] = 1
    seen = np.count_nonzero(marks.grown(counts))
    assert seen > 9 if side >= 500 else seen == 9
