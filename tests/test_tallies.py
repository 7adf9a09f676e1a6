"""A day's tally: the same in any blocks, and what a plain count over all rows says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import quantiles, tallies
from streamclust.streams import Stream
from streamclust.tallies import Yardstick

K = 3


def fitted(seed=0, n=4000):
    rng = np.random.default_rng(seed)
    values = {"centre_distance": rng.gamma(9, 1, n), "reconstruction_error": rng.gamma(4, 1, n)}
    values |= {"norm": rng.gamma(20, 1, n), "density": rng.normal(size=n)}
    label = rng.integers(0, K, n).astype(np.int32)
    sketches = {name: quantiles.sketch_block(v) for name, v in values.items()}
    distance = (values["centre_distance"] * (1 + label)).astype(np.float32)
    limits = tallies.limits(quantiles.sketch_block(distance), tallies.cluster_sketches(label, distance, K))
    np.testing.assert_allclose(limits, [np.quantile(distance[label == c], 0.99) for c in range(K)], rtol=0.02)
    return Yardstick(sketches, limits, (4, 0, 7))


def rows(seed, n):
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, K, n).astype(np.int32)
    label[label < 0] = -2
    found = {name: rng.gamma(9, 1, n).astype(np.float32) for name in ("distance", "error", "norm")}
    found |= {"score": rng.normal(size=n).astype(np.float32), "near_duplicates": (rng.random(n) < 0.1).astype("f4")}
    for values in found.values():
        values[label < 0] = np.nan
    camera = np.array([f"cam {i}" for i in rng.integers(0, 3, n)], object)
    return found | {"label": label}, rng.random(n) < 0.05, camera, rng.random(n) < 0.1


def tally(by, of, start, stop, camera=True):
    values, outlier, names, burst = of
    part = slice(start, stop)
    cut = {name: v[part] for name, v in values.items()}
    return tallies.tally_block(
        {"osnet": cut}, {"osnet": by}, outlier[part], names[part] if camera else None, burst[part]
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 299), max_size=5, unique=True))
def test_the_same_in_any_blocks(seed, cuts):
    by, of = fitted(), rows(seed, 300)
    edges = [0, *sorted(cuts), 300]
    parts = [tally(by, of, a, b) for a, b in pairwise(edges)]
    merged = parts[0]
    for part in parts[1:]:
        merged = tallies.merge(merged, part)
    whole = tally(by, of, 0, 300)
    assert merged.keys() == whole.keys()
    for stream, sums in whole.items():
        np.testing.assert_array_equal(merged[stream], sums)


def test_figures_are_what_counting_gives():
    by, of = fitted(), rows(1, 2000)
    values, outlier, camera, burst = of
    found, kept = tallies.figures(tally(by, of, 0, 2000)), ~burst
    valid = kept & (values["label"] >= 0)
    assert found[Stream("burst")].value == burst.mean()
    assert found[Stream("outlier")].value == outlier[kept].mean()
    assert found[Stream("invalid", "osnet")].value == (~valid[kept]).mean()
    for position, cluster in enumerate(by.ids):
        mine = valid & (values["label"] == position)
        assert found[Stream("share", "osnet", cluster)].value == mine.sum() / valid.sum()
        rank = quantiles.quantile_of(by.sketches["centre_distance"], values["distance"][mine]).mean()
        assert abs(found[Stream("distance", "osnet", cluster)].value - rank) < 1e-4
    share = found[Stream("share", camera="cam 1")]
    assert (share.value, share.rows) == ((camera[kept] == "cam 1").mean(), kept.sum())
    assert 0 < found[Stream("unheld", "osnet")].value < 1


def test_raw_means_keep_their_unit():
    by, of = fitted(), rows(1, 500)
    values, _, camera, burst = of
    found, valid = tally(by, of, 0, 500), ~burst & (values["label"] >= 0)
    assert abs(tallies.raw_mean(found, Stream("norm", "osnet")) - values["norm"][valid].mean()) < 1e-3
    assert tallies.raw_mean(found, Stream("share", camera="cam 0")) == (camera[~burst] == "cam 0").mean()


def test_without_cameras_there_are_no_camera_streams():
    assert not any(s.camera for s in tally(fitted(), rows(0, 50), 0, 50, camera=False))


def test_all_rows_in_one_burst_leave_nothing_else_to_say():
    values, outlier, camera, _ = rows(0, 50)
    found = tallies.figures(tally(fitted(), (values, outlier, camera, np.ones(50, bool)), 0, 50))
    assert found[Stream("burst")].value == 1
    assert all(f.rows == 0 for s, f in found.items() if s.figure != "burst")
