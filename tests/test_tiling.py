"""Tile counts: levels sum up, days add up in any order, and what a window or a change touches is just what it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d

from streamclust import counts, tiling
from streamclust.tiling import DEPTH, STORED, TILE, Frame, Sparse

FRAME = Frame(-1.0, 1.0, 2.0)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25)


def rows(seed: int, n: int, spread: float = 0.2) -> tuple[np.ndarray, ...]:
    """Places in clumps, some outside and some NaN, with labels from -2 on and flags."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-1, 1, (5, 2))[rng.integers(0, 5, n)] + spread * rng.normal(size=(n, 2)) * rng.integers(
        0, 2, (n, 1)
    )
    xy[rng.random(n) < 0.05] = np.nan
    xy = xy.astype(np.float32)
    return xy[:, 0], xy[:, 1], rng.integers(-2, 6, n).astype(np.int32), rng.random(n) < 0.2


def counted(*columns: np.ndarray) -> Sparse:
    return tiling.count_keys(tiling.block_keys(*columns, FRAME))


def same(a: Sparse, b: Sparse) -> bool:
    return np.array_equal(a.keys, b.keys) and np.array_equal(a.counts, b.counts)


def at_level(part: Sparse, level: int) -> Sparse:
    return tiling.coarser(part, DEPTH - level)


def tile(part: Sparse, level: int, code: int) -> np.ndarray:
    """The counts of one tile, from those of its level."""
    x, y = (int(v[0]) * TILE for v in tiling.cells(np.array([code], np.uint64)))
    return tiling.inside(part, level, tiling.Window(level, x, y, TILE, 0)).plane(np.ones(2**16))


@few
@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=50))
def test_a_code_holds_the_bits_of_row_and_column_by_turns(places):
    x, y = np.array(places, np.int64).reshape(-1, 2).T
    codes = tiling.morton(x, y)
    by_hand = [int("".join(b + a for a, b in zip(f"{i:016b}", f"{j:016b}", strict=True)), 2) for i, j in places]
    assert codes.tolist() == by_hand
    assert all(np.array_equal(a, b) for a, b in zip(tiling.cells(codes), (x, y), strict=True))


@few
@given(SEEDS, st.integers(0, 400))
def test_every_level_holds_every_row_inside_once(seed, n):
    x, y, label, outlier = rows(seed, n)
    inside = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    part = counted(x, y, label, outlier)
    for level in range(DEPTH + 1):
        found = at_level(part, level)
        assert found.counts.sum() == inside.sum()
        by_layer = np.bincount(found.layers, found.counts, minlength=20)
        assert np.array_equal(by_layer, np.bincount(tiling.layer_of(label, outlier)[inside], minlength=20))
        if level <= 3:
            codes = np.unique(found.codes >> np.uint64(16))
            assert sum(tile(found, level, int(code)).sum() for code in codes) == inside.sum()


@few
@given(SEEDS, st.integers(1, 400), st.integers(0, 4))
def test_a_tile_is_the_sum_of_its_four_children(seed, n, level):
    part = counted(*rows(seed, n))
    above, below = at_level(part, level), at_level(part, level + 1)
    for code in np.unique(above.codes >> np.uint64(16)).tolist():
        four = [tiling.halved(tile(below, level + 1, 4 * code + i)) for i in range(4)]
        together = np.block([[four[0], four[1]], [four[2], four[3]]])
        assert np.array_equal(tile(above, level, code), together)


@few
@given(SEEDS, st.integers(0, 300))
def test_cells_are_those_of_a_plain_grid(seed, n):
    x, y, label, outlier = rows(seed, n)
    grid = counts.grid_block(x, y, None, (-1, 1, -1, 1), (512, 512))
    part = at_level(counted(x, y, label, outlier), 1)
    found = tiling.inside(part, 1, tiling.Window(1, 0, 0, 512, 0)).plane(np.ones(2**16))
    # A place on the edge of two cells belongs to the lower one there and to the one above here.
    edge = np.isin((1 - y.astype(float)) * 256, range(513))
    assert np.abs(found - grid[::-1]).sum() <= 2 * edge.sum()


@few
@given(SEEDS, st.integers(0, 300), st.lists(st.integers(0, 300), max_size=5), st.randoms(use_true_random=False))
def test_days_add_up_in_any_split_and_order_and_come_off_again(seed, n, where, random):
    columns = rows(seed, n)
    edges = [0, *sorted(min(w, n) for w in where), n]
    parts = [counted(*(c[a:b] for c in columns)) for a, b in itertools.pairwise(edges)]
    whole = counted(*columns)
    random.shuffle(parts)
    before = [(p.keys.copy(), p.counts.copy()) for p in parts]
    assert same(tiling.add(parts), whole)
    assert same(tiling.add([tiling.add(parts[:2]), tiling.add(parts[2:])]), whole)
    assert all(same(p, Sparse(*b)) for p, b in zip(parts, before, strict=True))
    gone = parts[0]
    assert same(tiling.add([whole, Sparse(gone.keys, -gone.counts)]), tiling.add(parts[1:]))
    assert same(tiling.add([]), tiling.add([counted(*(c[:0] for c in columns))]))


@few
@given(
    SEEDS, st.lists(st.integers(0, 9000), max_size=4), st.sampled_from([1, 2048, 8192]), st.sampled_from([1e-4, 0.3])
)
def test_parts_hold_no_more_keys_than_was_said_and_split_no_stored_cell(seed, sizes, target, spread):
    runs = [counted(*rows(seed + i, n, spread)).keys for i, n in enumerate(sizes)]
    samples = [tiling.samples(run) for run in runs]
    assert [len(s) for s in samples] == [tiling.sampled(len(run)) for run in runs]
    firsts, most = tiling.cuts(samples, target)
    assert firsts[0] == 0
    assert not (firsts & np.uint64(4 ** (DEPTH - STORED[-1]) - 1)).any()
    keys = np.concatenate([np.empty(0, np.uint64), *runs])
    assert np.bincount(np.searchsorted(firsts, keys >> np.uint64(16), side="right"), minlength=1).max() <= max(most, 0)


@few
@given(st.lists(st.integers(0, 10**7), max_size=80))
def test_few_runs_hold_many_days(sizes):
    runs = tiling.carry(sizes)
    assert [i for run in runs for i in run] == list(range(len(sizes)))
    held = [sum(sizes[i] for i in run) for run in runs]
    assert all(a >= 2 * b for a, b in itertools.pairwise(held))
    assert len(runs) <= np.log2(max(sum(sizes), 1)) + 3


def test_a_day_is_merged_again_only_a_logarithm_of_times():
    """One day after the other, as it happens: entries moved in all against entries brought."""
    held: list[int] = [200_000]
    moved = 0
    for _ in range(1000):
        runs = tiling.carry([*held, 4000])
        moved += sum(sum([*held, 4000][i] for i in run) for run in runs if len(run) > 1)
        held = [sum([*held, 4000][i] for i in run) for run in runs]
        assert len(held) <= 11
    assert moved < 12 * 4_200_000


@few
@given(SEEDS, st.integers(0, 6), st.integers(0, 2), st.data())
def test_the_ranges_of_a_window_hold_just_its_pixels_and_halo(seed, top, above, data):
    level = top + above
    code = data.draw(st.integers(0, 4 ** tiling.unit_level(top) - 1))
    window = tiling.window_of(top, code)
    first, end = tiling.ranges(window, level)
    rng = np.random.default_rng(seed)
    near = rng.integers(-200, window.size + 200, (2, 500)) + np.array([[window.x], [window.y]])
    near = np.clip(near, 0, (TILE << top) - 1)
    codes = tiling.morton(*near) << np.uint64(2 * above)
    at = np.searchsorted(first, codes, side="right") - 1
    held = (at >= 0) & (codes < end[at])
    away = [
        (v < o - window.halo) | (v >= o + window.size + window.halo)
        for v, o in zip(near, (window.x, window.y), strict=True)
    ]
    assert np.array_equal(held, ~(away[0] | away[1]))
    some = Sparse(np.sort(codes) << np.uint64(16), np.ones(500, np.int64))
    assert tiling.inside(some, level, window).counts.sum() == held.sum()


@few
@given(SEEDS, st.integers(1, 30), st.integers(0, 2), st.integers(0, 6))
def test_a_change_touches_every_tile_that_it_changes(seed, n, level, radius):
    part = counted(*rows(seed, n))
    side = TILE << level
    plane = tiling.inside(at_level(part, level), level, tiling.Window(level, 0, 0, side, 0)).plane(np.ones(2**16))
    for axis in (0, 1):
        plane = correlate1d(plane, np.ones(2 * radius + 1), axis=axis, mode="constant")
    y, x = np.nonzero(plane)
    changed = np.unique(tiling.morton(x // TILE, y // TILE))
    assert np.array_equal(tiling.touched(part.codes, level, DEPTH, radius), changed)


@pytest.mark.parametrize(
    ("n", "zoom"), [(0, 2), (4_000, 2), (117_592, 3), (485_859, 4), (10**7, 6), (10**8, 8), (10**12, 8)]
)
def test_levels_are_as_many_as_the_rows_can_fill(n, zoom):
    assert tiling.zoom_for(n) == zoom


@pytest.mark.parametrize("zoom", range(DEPTH + 1))
def test_every_level_is_drawn_once(zoom):
    groups = list(tiling.groups(zoom))
    assert sorted(z for _, top, low in groups for z in range(low, top + 1)) == list(range(zoom + 1))
    assert all(stored >= top for stored, top, _ in groups)


def test_the_frame_is_a_square_around_the_map():
    frame = tiling.square((0.0, 4.0, -1.0, 1.0))
    assert (frame.left + frame.side / 2, frame.top - frame.side / 2) == pytest.approx((2.0, 0.0))
    assert frame.side == pytest.approx(4.24)
    assert tiling.square((3.0, 3.0, 3.0, 3.0)).side > 0
