"""Bursts, crowds and hearts: found where they were put, in any order of rows, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from streamclust import bursts


def rows(seed, n, p=8):
    return np.random.default_rng(seed).normal(size=(n, p)).astype(np.float32)


def test_radii_are_quantiles_of_pairs():
    Z = rows(0, 700)
    pairs = cdist(Z, Z)[np.triu_indices(len(Z), 1)]
    np.testing.assert_allclose(bursts.radii(Z), np.quantile(pairs, [bursts.NEAR, bursts.AROUND]), rtol=1e-3)


def test_pairs_of_the_same_picture_do_not_count():
    Z = rows(0, 300)
    twice = np.vstack([Z, Z, Z])
    assert bursts.radii(twice)[0] > 0.5 * bursts.radii(Z)[0]
    assert bursts.radii(np.ones((50, 3), np.float32)) == (0.0, 0.0)
    assert bursts.radii(Z[:1]) == (0.0, 0.0)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(20, 60), min_size=0, max_size=2))
def test_bursts_are_found_whatever_the_order(seed, sizes):
    rng = np.random.default_rng(seed)
    Z, fitted = rows(seed, 200), rows(seed + 1, 1000)
    near = bursts.radii(fitted)[0]
    stuck = [5 * (i + 1) + 0.02 * rng.normal(size=(m, 8)).astype(np.float32) for i, m in enumerate(sizes)]
    Y = np.vstack([Z, *stuck]).astype(np.float32) / np.float32(near)
    which = np.repeat(np.arange(-1, len(sizes)), [200, *sizes])
    order = rng.permutation(len(Y))
    spaces = {"a": Y[order], "b": Y[order][:, ::-1].copy()}
    found = bursts.bursts(spaces, len(Y))
    assert sorted(which[order][found]) == list(range(len(sizes)))
    inside = bursts.near_any(spaces, {d: y[found] for d, y in spaces.items()}) if len(found) else np.zeros(len(Y), bool)
    np.testing.assert_array_equal(inside, which[order] >= 0)


def test_rows_without_values_belong_to_no_burst():
    Y = {"a": np.zeros((40, 4), np.float32)}
    centres = {"a": np.zeros((1, 4), np.float32)}
    Y["a"][7] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(~bursts.near_any(Y, centres)), [7])


def test_a_burst_is_one_in_every_descriptor():
    alike = np.zeros((60, 4), np.float32)
    assert len(bursts.bursts({"a": alike}, 60)) == 1
    assert len(bursts.bursts({"a": alike, "b": 9 * rows(0, 60)}, 60)) == 0


def test_crowds_are_new_places_and_ordinary_days_have_none():
    fitted = rows(1, 2000)
    _, around = bursts.radii(fitted)
    for seed in range(5):
        assert bursts.crowded(rows(10 + seed, 300), fitted, around).mean() < 0.02
    new = np.vstack([rows(2, 200), 4 + 0.5 * rows(3, 60)])
    flags = bursts.crowded(new, fitted, around)
    assert flags[200:].mean() > 0.9
    assert flags[:200].mean() < 0.02
    assert not bursts.crowded(new[-5:], fitted, around).any()


def test_the_heart_is_amid_the_densest():
    Z = np.vstack([8 * rows(0, 100), 3 + 0.5 * rows(1, 50)])
    found = bursts.heart(Z, usual=3.0, expected=40)
    assert found.medoid >= 100
    assert len(found.members) == 40
    assert (found.members >= 100).all()
    assert found.members[0] == found.medoid
    alone = bursts.heart(Z[:1], usual=1.0, expected=5)
    assert alone.members.tolist() == [0]


@given(seed=st.integers(0, 10**6), power=st.sampled_from([60, 100, 120]))
def test_distances_beyond_float32_are_those_of_the_same_rows_nearer(seed, power):
    """Times a power of two, whose square float32 does not hold."""
    Z, fitted, times = np.vstack([rows(seed, 60), 5 + rows(seed + 1, 30) / 9]), rows(seed + 2, 200), 2.0**power
    near, around = bursts.radii(fitted)
    np.testing.assert_allclose(bursts.radii(fitted * np.float32(times)), [near * times, around * times], rtol=1e-3)
    far, usual = Z * np.float32(times), 1.1 * around  # no pair lies at the edge
    flags = bursts.crowded(far, fitted * np.float32(times), usual * times)
    assert (flags == bursts.crowded(Z, fitted, usual)).mean() > 0.97
    assert flags[60:].all()
    assert bursts.heart(far, times, 20).medoid >= 60


def test_extreme_rows_are_near_only_what_they_equal():
    Y = rows(0, 60)
    Y[:20], Y[20:30], Y[30] = 1e30, -3e38, 3e30
    found = bursts.bursts({"a": Y}, len(Y))
    assert sorted(found) == [0, 20]
    np.testing.assert_array_equal(np.flatnonzero(bursts.near_any({"a": Y}, {"a": Y[found]})), np.arange(30))
