"""Laws of stability: clusters that are there are found again by other rows, ones that are not are not."""

from __future__ import annotations

import numpy as np
import pytest

from streamclust.cluster.stability import LEAST_ROWS, MOST, half_labels, judged, stability

KS = [2, 3, 4, 5, 7]


def blobs(seed, n=1200, apart=9.0):
    rng = np.random.default_rng(seed)
    centers = apart * np.linalg.qr(rng.normal(size=(6, 6)))[0][:4]
    return (centers[rng.integers(0, 4, n)] + rng.normal(size=(n, 6))).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_the_number_of_kinds_is_the_most_stable(seed):
    X = blobs(seed)
    found = stability([half_labels(half, X, KS) for half in range(5)])
    assert found.shape == (len(KS), 3)
    assert KS[int(found[:, 0].argmax())] == 4
    assert found[2, 0] > 0.98
    assert found[KS.index(7), 0] < 0.9
    assert (found[:, 1] <= found[:, 0]).all()
    assert (found[:, 0] <= found[:, 2]).all()


@pytest.mark.parametrize("seed", range(2))
def test_no_number_is_stable_where_there_are_no_kinds(seed):
    X = np.random.default_rng(seed).normal(size=(1200, 6)).astype(np.float32)
    assert stability([half_labels(half, X, KS) for half in range(5)])[:, 0].max() < 0.7


def test_nothing_is_said_of_numbers_that_halves_are_too_small_for():
    assert judged([1, 2, 5, 50, 51, 10_000], 20 * 50) == [2, 5, 50]
    assert judged([2], 2 * LEAST_ROWS) == []
    assert judged([MOST, MOST + 1], 10**6) == [MOST]


def test_one_labelling_has_no_pair():
    assert np.isnan(stability([np.zeros((2, 9), np.int32)])).all()
    assert len(stability([])) == 0
