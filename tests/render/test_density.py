"""Maps: where things lie, what colour they have, and that sparse, dense, empty and many-clustered grids all show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageColor
from scipy.ndimage import gaussian_filter

from streamclust.errors import InputError
from streamclust.render import density
from streamclust.render.canvas import DARK, elide, font, nice_length
from tests.conftest import shared_data
from tests.render.sample import blobs, count_grid, png

SIZE = 400
EXTENT = (-1.0, 1.0, -1.0, 1.0)


def map_pixels(image, size=SIZE):
    """The map's part of a sheet, inside its frame, as (h, w, 3) integers, top row first."""
    unit = size / 2000
    left, top = round(64 * unit), round(190 * unit)
    return np.asarray(image)[top + 4 : top + size - 4, left + 4 : left + size - 4].astype(int)


def lit(image):
    return np.abs(map_pixels(image) - ImageColor.getrgb(DARK.map_background)).sum(axis=2) > 60


def one_cell(row, column, cells=100):
    grid = np.zeros((cells, cells), np.uint32)
    grid[row, column] = 5
    return grid


@pytest.mark.parametrize(("row", "column"), [(10, 10), (10, 90), (90, 10), (80, 50)])
def test_rows_of_the_grid_rise_and_columns_run_right(row, column):
    y, x = np.nonzero(lit(density.density_image(one_cell(row, column), EXTENT, "t", size=SIZE)))
    assert abs(x.mean() / SIZE - column / 100) < 0.03
    assert abs(y.mean() / SIZE - (1 - row / 100)) < 0.03


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), cells=st.sampled_from([64, 150, 400]), n=st.integers(0, 4000))
def test_every_row_shows_and_empty_places_stay_dark(seed, cells, n):
    points = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    grid = count_grid(points, cells, EXTENT)
    image = density.density_image(grid, EXTENT, "t", size=SIZE)
    assert lit(image).any() == (n > 0)
    assert lit(image).sum() >= 0.5 * min(np.count_nonzero(grid), SIZE * SIZE / 10)
    assert not lit(density.density_image(grid * 0, EXTENT, "t", size=SIZE)).any()


def test_same_grid_same_bytes_and_no_time_stamp(tmp_path):
    grid = count_grid(blobs()[0], 300, (-90, 90, -90, 90))
    for name in ("a.png", "b.png"):
        density.density_image(grid, EXTENT, "t", size=SIZE).save(tmp_path / name, format="PNG")
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert not any(chunk in content for chunk in (b"tIME", b"tEXt", b"iTXt"))


def test_denser_is_brighter():
    grid = np.zeros((100, 100), np.uint32)
    grid[20:40, 20:40], grid[60:80, 60:80] = 1, 900
    pixels = map_pixels(density.density_image(grid, EXTENT, "t", size=SIZE)).sum(axis=2)
    assert pixels[int(0.25 * SIZE) : int(0.35 * SIZE), int(0.65 * SIZE) : int(0.75 * SIZE)].min() > 1.5 * np.median(
        pixels[int(0.65 * SIZE) : int(0.75 * SIZE), int(0.25 * SIZE) : int(0.35 * SIZE)]
    )


def test_each_cluster_has_its_legend_colour():
    grids = np.zeros((90, 90, 3), np.uint32)
    for c in range(3):
        grids[30:60, 30 * c + 5 : 30 * c + 25, c] = 10 * (3 - c)
    image = density.cluster_image(grids, EXTENT, [7, 3, -1], ["vans", "", ""], "t", size=SIZE)
    pixels = map_pixels(image)
    for c, colour in enumerate((density.FIRST_COLOURS[7], density.FIRST_COLOURS[3], density.NOISE_COLOUR)):
        block = pixels[int(0.36 * SIZE) : int(0.42 * SIZE), int((c / 3 + 0.1) * SIZE) : int((c / 3 + 0.2) * SIZE)]
        want = np.array(ImageColor.getrgb(colour))
        seen = np.median(block.reshape(-1, 3), axis=0)
        assert np.allclose(seen / seen.sum(), want / want.sum(), atol=0.02)


@pytest.mark.parametrize("k", [1, 24, 120])
def test_any_number_of_clusters(k):
    points, labels = blobs(3000, k)
    extent = (-100.0, 100.0, -100.0, 100.0)
    grids = np.stack([count_grid(points[labels == c], 128, extent) for c in range(k)], axis=2)
    image = density.cluster_image(grids, extent, list(range(k)), [""] * k, "t", size=SIZE)
    assert lit(image).sum() > 500


def test_the_palette_is_distinct_while_it_lasts():
    colours = density.cluster_colours([*range(60), -1])
    assert len(set(colours)) == 61


def test_outliers_are_red_over_grey():
    grid = np.zeros((100, 100), np.uint32)
    grid[10:90, 10:90] = 3
    image = map_pixels(density.outlier_image(grid, one_cell(50, 50), EXTENT, "t", size=SIZE))
    red = (image[..., 0] - image[..., 2]) > 120
    y, x = np.nonzero(red)
    assert len(x)
    assert abs(x.mean() / SIZE - 0.5) < 0.03
    assert abs(y.mean() / SIZE - 0.5) < 0.03
    assert red.mean() < 0.01


def test_maps_that_are_not_square_keep_one_scale():
    image = density.density_image(one_cell(50, 50), (0.0, 3.0, 0.0, 2.0), "t", size=SIZE)
    square = density.density_image(one_cell(50, 50), EXTENT, "t", size=SIZE)
    assert image.width - square.width == SIZE // 2
    assert image.height == square.height


def test_default_size_is_for_print():
    image = density.density_image(one_cell(50, 50), EXTENT, "a title that is far too long for one line " * 9)
    assert min(image.size) >= 2000


@pytest.mark.parametrize("grid", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint32), np.zeros((0, 4), np.uint32)])
def test_what_is_no_count_grid_is_refused(grid):
    with pytest.raises(InputError, match="count grid"):
        density.density_image(grid, EXTENT, "t", size=SIZE)


def test_mismatches_are_refused():
    with pytest.raises(InputError, match="2 grids, 1 labels"):
        density.cluster_image(np.ones((4, 4, 2), np.uint32), EXTENT, [0], ["", ""], "t", size=SIZE)
    with pytest.raises(InputError, match="outlier grid"):
        density.outlier_image(one_cell(1, 1), one_cell(1, 1, 50), EXTENT, "t", size=SIZE)


@settings(max_examples=60)
@given(text=st.text(max_size=80), width=st.floats(40, 400))
def test_elided_text_fits(text, width):
    face = font(20)
    short = elide(text, face, width)
    assert face.getlength(short) <= width
    assert "\n" not in short


@given(value=st.floats(1e-6, 1e9))
def test_scale_bars_are_round_and_fit(value):
    length = nice_length(value)
    assert value / 2.5 * (1 - 1e-6) <= length <= value * (1 + 1e-6)
    assert f"{length:.0e}"[0] in "125"


def test_a_real_map_shows_its_islands():
    source = np.load(shared_data("maps") / "arxiv_ml.npz", allow_pickle=True)
    points = source["X"][::4]
    extent = (
        float(points[:, 0].min()),
        float(points[:, 0].max()),
        float(points[:, 1].min()),
        float(points[:, 1].max()),
    )
    image = density.density_image(count_grid(points, 500, extent), extent, "arxiv", size=500)
    assert len(png(image)) > 50_000


@pytest.mark.parametrize("n", [30, 1000, 30_000])
def test_the_kernel_is_that_of_a_search_on_the_cells_themselves(n):
    rng = np.random.default_rng(n)
    x, y = np.clip(rng.normal(200, 40, (2, n)), 0, 399).astype(int)
    counts = np.zeros((400, 400), np.uint32)
    np.add.at(counts, (y, x), 1)
    sigmas = [0.14 * 1.4**i for i in range(20) if 0.14 * 1.4**i < 400 / 60]
    seen = [np.median(gaussian_filter(counts.astype(float), s)[counts > 0]) * 4 * np.pi * s**2 for s in sigmas]
    enough = [s for s, rows in zip(sigmas, seen, strict=True) if rows >= density.ROWS_IN_KERNEL]
    assert density._kernel(counts) == pytest.approx(enough[0] if enough else sigmas[-1])
