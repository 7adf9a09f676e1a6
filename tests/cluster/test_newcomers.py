"""Laws of newcomers: a new kind is found wherever it is, an old one that grows or repeats itself is none."""

from __future__ import annotations

import numpy as np
import pytest

from streamclust.cluster.newcomers import newcomers

P = 12


@pytest.fixture(params=range(5))
def rng(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def centers(rng):
    """Four kinds at least 20 apart, in deviations within one."""
    found = rng.normal(size=(4, P))
    return (found / np.linalg.norm(found, axis=1, keepdims=True) * [[15], [20], [25], [30]]).astype(np.float32)


def rows(rng, centers, sizes):
    """So many rows of each kind, in random order."""
    parts = [c + rng.normal(size=(size, P)) for c, size in zip(centers, sizes, strict=True)]
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


def test_finds_new_kinds_within_or_beside_old_clusters(rng, centers):
    fitted = rows(rng, centers, [300] * 4)
    new = centers[:2] + 8 * rng.permutation(np.eye(P, dtype=np.float32))[:2]
    window = rows(rng, [*centers, *new], [300] * 4 + [90, 150])
    found = newcomers([window], fitted, centers, 10)
    distances = np.linalg.norm(found[:, None] - new, axis=2)
    assert len(found) == 2
    assert sorted(distances.argmin(axis=1)) == [0, 1]
    assert distances.min(axis=1).max() < 2


def test_what_grows_shrinks_or_comes_back_is_none(rng, centers):
    fitted = rows(rng, centers, [500, 300, 200, 40])
    assert len(newcomers([rows(rng, centers, [10, 100, 300, 1000])], fitted, centers, 10)) == 0
    assert len(newcomers([rows(rng, centers, [0, 0, 0, 900]), fitted], fitted, centers, 10)) == 0


def test_a_burst_of_one_picture_is_none(rng, centers):
    fitted = rows(rng, centers, [300] * 4)
    picture = centers[0] + 10 * np.eye(P, dtype=np.float32)[0]
    burst = picture + rng.normal(0, 1e-4, (200, P))
    window = np.concatenate([rows(rng, centers, [200] * 4), burst]).astype(np.float32)
    assert len(newcomers([window], fitted, centers, 10)) == 0


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_finds_every_kind_as_another_network_sees_it(rng, centers, factor):
    """All rows that came since are turned, spread otherwise and moved away."""
    fitted = rows(rng, centers, [300] * 4)
    turn = np.linalg.qr(rng.normal(size=(P, P)))[0] * factor
    far = 200 * np.eye(P)[0]
    closer = centers / 3.5
    window = (rows(rng, closer, [300] * 4) @ turn + far).astype(np.float32)
    found = newcomers([window], fitted, centers, 10)
    nearest = np.linalg.norm(found[:, None] - (closer @ turn + far), axis=2).argmin(axis=1)
    assert sorted(nearest) == [0, 1, 2, 3]


def test_a_kind_that_two_windows_show_is_found_once_and_never_more_than_wanted(rng, centers):
    fitted = rows(rng, centers, [300] * 4)
    new = centers[:3] + 9 * np.eye(P, dtype=np.float32)[:3]
    every, last = rows(rng, [*centers, *new], [300] * 4 + [150] * 3), rows(rng, [centers[1], new[0]], [200, 60])
    assert len(newcomers([every, last], fitted, centers, 10)) == 3
    assert len(newcomers([every, last], fitted, centers, 2)) == 2
    assert len(newcomers([every, last], fitted, centers, 0)) == 0


def test_nothing_to_compare_with_finds_nothing(rng, centers):
    window = rows(rng, centers, [100] * 4)
    assert newcomers([window], window[:0], centers, 5).shape == (0, P)
    assert newcomers([window], window, centers[:0], 5).shape == (0, P)
    assert newcomers([window[:0]], window, centers, 5).shape == (0, P)
