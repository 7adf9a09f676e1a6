"""Tiles: the same picture in any window, colours in order, PNGs that hold what was drawn, a page without a network."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streamclust.render import pyramid, pyramid_page
from streamclust.render.pyramid import TILE

few = settings(max_examples=15)
SEEDS = st.integers(0, 2**32 - 1)


def plane(seed: int, side: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = np.clip(rng.normal(side / 2, side / 5, (2, n)), 0, side - 1).astype(int)
    return np.histogram2d(*at, bins=side, range=[[0, side]] * 2)[0]


def scale_for(p: np.ndarray, radius: int) -> pyramid.Scale:
    return pyramid.scale_of(pyramid.histogram(pyramid.smooth(p, radius), radius, 0), radius)


def shaded(p: np.ndarray, scale: pyramid.Scale) -> np.ndarray:
    return pyramid.shade(pyramid.smooth(p, scale.radius), scale)


@few
@given(SEEDS, st.integers(0, 3000), st.integers(0, 6))
def test_a_pixel_is_the_same_in_any_window(seed, n, radius):
    whole = plane(seed, 300, n)
    scale = scale_for(whole, radius)
    found, halo = shaded(whole, scale), 8
    part = shaded(whole[40 : 140 + 2 * halo, 70 : 170 + 2 * halo], scale)
    assert np.array_equal(part[halo:-halo, halo:-halo], found[40 + halo : 140 + halo, 70 + halo : 170 + halo])


@few
@given(SEEDS, st.integers(1, 3000), st.integers(0, 6))
def test_smoothing_moves_rows_and_loses_none(seed, n, radius):
    p = np.pad(plane(seed, 100, n), 8)
    assert pyramid.smooth(p, radius).sum() == n
    assert (shaded(p, scale_for(p, radius))[p > 0] > 0).all()


@few
@given(SEEDS, st.integers(1, 5000), st.integers(0, 6))
def test_denser_is_never_darker_and_all_colours_are_used(seed, n, radius):
    p = plane(seed, 120, n)
    scale = scale_for(p, radius)
    index, smoothed = shaded(p, scale), pyramid.smooth(p, radius)
    order = np.argsort(smoothed[index > 0])
    assert (np.diff(index[index > 0][order].astype(int)) >= 0).all()
    assert list(scale.steps) == sorted(scale.steps)
    if len(np.unique(smoothed[index > 0])) > 1:
        assert (index[index > 0].min(), index.max()) == (1, 255)


def test_bins_begin_at_their_value():
    steps = np.arange(1, pyramid.BINS)
    values = np.array([pyramid.value_of(int(step)) for step in steps], np.float32)
    assert np.array_equal(pyramid._bins(values), steps)
    assert np.array_equal(pyramid._bins(np.nextafter(values, np.float32(0))), steps - 1)


def test_ticks_are_round_and_in_order():
    scale = scale_for(plane(0, 300, 20_000), 2)
    ticks = scale.ticks(6.5)
    assert len(ticks) >= 3
    assert [at for _, at in ticks] == sorted(at for _, at in ticks)
    assert all(0 <= at <= 1 for _, at in ticks)
    for value, at in ticks:  # a place of that density has the colour of that place on the bar
        index = np.searchsorted(scale.steps, pyramid._bins(np.array([value / 6.5], np.float32)), side="right")
        assert abs(index[0] / 254 - at) < 0.01


def test_fewer_rows_are_smoothed_more():
    radii = [pyramid.radius_for(d) for d in (0.0, 1e-6, 0.1, 0.3, 1.0, 5.0, 10.0, 1e6)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == 0
    assert 1 <= radii[-3] <= 2
    assert radii[0] <= pyramid.MOST_RADIUS


def test_a_single_row_is_a_round_dot():
    p = np.zeros((41, 41))
    p[20, 20] = 1
    for radius in range(7):
        dot = shaded(p, scale_for(p, radius)) > 0
        assert np.array_equal(dot, dot.T)
        assert dot[20, 20]
        y, x = np.nonzero(dot)
        assert np.hypot(y - 20, x - 20).max() <= 1.5 * max(y - 20) + 0.01


def test_clusters_have_the_mean_colour_of_their_rows():
    a, b = np.zeros((2, 50, 50))
    a[10:20, 10:20], b[30:40, 30:40] = 40, 40
    a[25, 25], b[25, 25] = 30, 10
    sums = [255 * a, 0 * a, 255 * b]
    scale = scale_for(a + b, 0)
    found = pyramid.mix(sums, a + b, shaded(a + b, scale), scale)
    assert (found[15, 15, 1:3] == 0).all()
    assert found[15, 15, 0] > 100
    assert found[35, 35, 2] > 100
    assert found[25, 25, 0] == pytest.approx(3 * found[25, 25, 2], abs=2)
    assert not found[0, 0].any()


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_marks_are_discs_and_never_lost(radius):
    p = np.zeros((60, 60))
    p[0, 0] = p[30, 30] = 1
    p[50, 10] = 9
    found = pyramid.marks(p, radius)
    assert found[30, 30] == 1
    assert found[50, 10] == 255
    assert (found[20:41, 20:41] > 0).sum() == {0: 1, 1: 9, 3: 37}[radius]


@few
@given(SEEDS, st.integers(0, 2000), st.integers(0, 8))
def test_a_difference_turned_round_has_the_other_colour(seed, n, radius):
    a, b = plane(seed, 80, n), plane(seed + 1, 80, 2 * n)
    one, other = (
        pyramid.difference(*pair, rows, radius).astype(int)
        for pair, rows in (((a, b), (n, 2 * n)), ((b, a), (2 * n, n)))
    )
    assert np.array_equal(one[one > 0], 256 - other[one > 0])
    assert np.array_equal(one > 0, other > 0)
    assert (pyramid.difference(a, 2 * a, (n, 2 * n), radius)[a > 0] == 128).all()


def test_a_difference_of_chance_stays_within_chance():
    a, b = plane(1, 80, 40_000), plane(2, 80, 60_000)
    found = pyramid.difference(a, b, (40_000, 60_000), 4).astype(float)
    z = (found[found > 0] - 128) / 127 * pyramid.DEVIATIONS
    assert np.abs(z.mean()) < 0.2
    assert 0.5 < z.std() < 1.1
    a[40:44, 40:44] += 50
    assert pyramid.difference(a, b, (40_800, 60_000), 4)[42, 42] > 250


@few
@given(SEEDS)
def test_png_holds_the_pixels_it_was_given(seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 256, (TILE, TILE)).astype(np.uint8)
    colours = pyramid.difference_palette()
    content = pyramid.png(index, colours)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image.convert("RGBA")), colours[index])
    pixels = rng.integers(0, 256, (TILE, TILE, 4)).astype(np.uint8)
    with Image.open(io.BytesIO(pyramid.png(pixels, None))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert content == pyramid.png(index.copy(), colours)
    assert b"tIME" not in content
    assert pyramid.png(0 * index, colours) == pyramid.png(0 * pixels, None) == b""


def test_tiles_are_cut_in_their_order():
    pixels = np.add.outer(np.arange(2 * TILE + 8) // (TILE + 4) * 2, np.arange(2 * TILE + 8) // (TILE + 4)).astype(
        np.uint8
    )
    found = {(c, r): t for c, r, t in pyramid.cut(pixels, 4)}
    assert {at: int(tile[100, 100]) for at, tile in found.items()} == {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3}
    assert all(tile.shape == (TILE, TILE) for tile in found.values())


def test_large_images_are_written_strip_by_strip(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    pyramid_page.write_image(tmp_path / "a.png", 300, (pixels[i : i + 70] for i in range(0, 300, 70)))
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_layers_lie_over_grey():
    tile = np.array([[[200, 100, 0, 255], [200, 100, 0, 0]]], np.uint8)
    below = np.full((1, 2, 3), 50, np.uint8)
    assert pyramid_page.over(below, tile).tolist() == [[[200, 100, 0], [50, 50, 50]]]
    grey = pyramid_page.grey(tile)
    assert grey[0, 0, 0] == grey[0, 0, 1] == grey[0, 0, 2] < 100
    assert grey[0, 0, 3] == 255


def test_the_page_needs_no_network_and_no_name_ends_its_script():
    view = {"title": "a <b>", "layers": [{"name": "</script><script>alert(1)</script>"}]}
    page = pyramid_page.page(view)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", page)
    assert page.count("</script>") == 2
    assert "<title>a &lt;b&gt;</title>" in page
    inside = re.search(r'id="view">(.*?)</script>', page, re.DOTALL)
    assert inside
    assert json.loads(inside[1]) == view
