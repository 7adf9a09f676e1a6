"""Maps of all rows from additive count grids: density, clusters with a legend, outliers over grey density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamclust.errors import InputError
from streamclust.render.canvas import DARK, LIGHT, Canvas, Key, colour_bar, legend
from streamclust.render.marks import grown, mark_px

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

Extent = tuple[float, float, float, float]
"""x_min, x_max, y_min, y_max of a grid; row 0 of the grid is the lowest y."""

LEGEND_ROWS = 30
NOISE_COLOUR = "#7c818b"
FIRST_COLOURS = (
    *("#56b4e9", "#ffa62b", "#35d49a", "#ff6b57", "#b79cff", "#f4e04d", "#ff8ed4", "#9fe870", "#2fd9e7", "#d8a47f"),
    *("#7d8cff", "#ffd0b0", "#d15cff", "#00b37a", "#ff4f8b", "#c9ccd6"),
)
"""Bright on black and apart from each other for the usual kinds of colour blindness; the rest come from Glasbey."""
DENSITY_STOPS = ("#4a1a78", "#7a2282", "#b0325e", "#dd513a", "#f8850f", "#fbb61a", "#f6e05e", "#fdffdd")
GREY_STOPS = ("#cfd3d9", "#b3b8c0", "#8d949e", "#646b76", "#434954")
OUTLIER_STOPS = ("#f0620c", "#d92f1c", "#9c0f12")
SLAB_ROWS = 64
ROWS_IN_KERNEL = 10
"""A density estimate from fewer rows is mostly noise; the smoothing widens until half of the cells see as many."""


def density_image(
    grid: NDArray[np.unsignedinteger[Any]],
    extent: Extent,
    title: str,
    *,
    subtitle: str = "",
    size: int = 2000,
    smooth: NDArray[np.float32] | None = None,
) -> Image.Image:
    """All rows as a density map: brighter is denser, by histogram equalisation of the smoothed counts.

    ``grid`` is (H, W) unsigned counts within ``extent``, row 0 the lowest y. ``title`` and ``subtitle`` are printed
    above; the subtitle defaults to the number of rows. ``size`` is the map's shorter side in pixels. ``smooth`` is the
    grid :func:`smoothed`, where that is at hand.
    """
    counts = _checked(grid, 2)
    canvas = Canvas(extent, size, DARK, title, subtitle or _rows_text(counts), panel=400)
    density = smoothed(counts) if smooth is None else smooth
    canvas.paste(_shade(density, DENSITY_STOPS))
    colour_bar(canvas, "Density", DENSITY_STOPS, _ticks(density))
    return canvas.finish()


def cluster_image(
    grids: NDArray[np.unsignedinteger[Any]],
    extent: Extent,
    labels: Sequence[int],
    names: Sequence[str],
    title: str,
    *,
    subtitle: str = "",
    size: int = 2000,
) -> Image.Image:
    """All rows coloured by cluster, with a legend of the clusters (id, name, share), largest first.

    ``grids`` is (H, W, C) unsigned counts within ``extent``, one layer per cluster, row 0 the lowest y; ``labels`` are
    the C cluster ids (-1 is noise, grey) and ``names`` their human names, empty where there is none. Beyond 30 clusters
    the legend lists the 30 largest. A place has the mean colour of its rows and is brighter where it is denser.
    """
    counts = _checked(grids, 3)
    if not counts.shape[2] == len(labels) == len(names):
        raise InputError(
            "cluster_image", f"{counts.shape[2]} grids, {len(labels)} labels, {len(names)} names", "as many"
        )
    sizes = counts.sum(axis=(0, 1), dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    colours = cluster_colours(labels)
    total = counts.sum(axis=2, dtype=np.uint64)
    canvas = Canvas(extent, size, DARK, title, subtitle or _rows_text(total), panel=620)
    canvas.paste(_mix(counts, colours, total))
    shown = order[:LEGEND_ROWS]
    coarse = _coarse(counts)
    for c in shown:
        if labels[c] >= 0 and sizes[c]:
            canvas.label(str(labels[c]), *_peak(coarse[:, :, c]), colour=colours[c])
    keys = [_key(int(labels[c]), names[c], int(sizes[c]), int(sizes.sum()), colours[c]) for c in shown]
    legend(canvas, f"{len(labels)} cluster{'s' * (len(labels) != 1)}", keys, rest=len(order) - len(shown))
    return canvas.finish()


def outlier_image(
    grid: NDArray[np.unsignedinteger[Any]],
    outliers: NDArray[np.unsignedinteger[Any]],
    extent: Extent,
    title: str,
    *,
    subtitle: str = "",
    size: int = 2000,
    smooth: NDArray[np.float32] | None = None,
) -> Image.Image:
    """The flagged rows in orange and red over the grey density of all rows, with a legend.

    ``grid`` and ``outliers`` are (H, W) unsigned counts of all rows and of the flagged ones, row 0 the lowest y; for
    ``smooth`` see :func:`density_image`.
    """
    counts, flagged = _checked(grid, 2), _checked(outliers, 2)
    if counts.shape != flagged.shape:
        raise InputError("outlier_image", f"outlier grid {flagged.shape}", f"the density grid's shape {counts.shape}")
    canvas = Canvas(extent, size, LIGHT, title, subtitle or _rows_text(counts), panel=560)
    density = smoothed(counts) if smooth is None else smooth
    canvas.paste(_shade(density, GREY_STOPS))
    px = mark_px(flagged, int(np.count_nonzero(density > 0)))
    canvas.paste(_shade(grown(flagged, px + max(1, px // 3)), ("#ffffff", "#ffffff"), most=4))
    canvas.paste(_shade(grown(flagged, px), OUTLIER_STOPS, most=4))
    n, m = int(counts.sum()), int(flagged.sum())
    keys = [
        Key(
            colour=OUTLIER_STOPS[0],
            label="flagged as outliers",
            value=_share(m, n),
            note=f"{m:,} rows; redder: several",
        ),
        Key(colour=GREY_STOPS[2], label="all rows", value="", note=f"{n:,} rows; darker: denser"),
    ]
    legend(canvas, "Outliers", keys)
    return canvas.finish()


def cluster_colours(labels: Sequence[int]) -> list[str]:
    """One colour per cluster id, the same on every map and every day: noise grey, the others light enough for black."""
    import colorcet

    palette = list(FIRST_COLOURS)
    for colour in colorcet.glasbey_light:
        if _luminance(colour) > 0.2 and all(np.abs(_rgb(colour) - _rgb(other)).sum() > 60 for other in palette):
            palette.append(colour)
    return [NOISE_COLOUR if label < 0 else palette[label % len(palette)] for label in labels]


def _checked(grid: NDArray[Any], ndim: int) -> NDArray[Any]:
    if grid.ndim != ndim or not np.issubdtype(grid.dtype, np.unsignedinteger) or 0 in grid.shape:
        raise InputError("count grid", f"{grid.shape} {grid.dtype}", f"unsigned counts with {ndim} axes")
    return grid


def _rows_text(counts: NDArray[Any]) -> str:
    return f"{int(counts.sum()):,} rows"


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.1f}%" if share >= 0.1 or part == 0 else "< 0.1%"


def _key(label: int, name: str, size: int, total: int, colour: str) -> Key:
    text = name or ("noise" if label < 0 else f"cluster {label}")
    return Key(colour=colour, label=text, value=_share(size, total), badge="" if label < 0 else str(label))


def _luminance(colour: str) -> float:
    """Relative luminance (0..1) of an sRGB colour, by ITU-R BT.709 weights."""
    linear = (_rgb(colour) / 255) ** 2.2
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def smoothed(counts: NDArray[Any], seen: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Rows per 1 % x 1 % of the map around each place of (H, W) counts, NaN where no row's disc reaches.

    ``seen`` (H, W) bool says where, if that is known.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(counts.astype(np.float32), _kernel(counts), mode="constant") if counts.any() else counts
    seen = grown(counts) > 0 if seen is None else seen
    area = counts.shape[0] * counts.shape[1] / 1e4
    return np.where(seen, np.maximum(smooth, 1e-6) * area, np.nan).astype(np.float32)


def _kernel(counts: NDArray[Any]) -> float:
    """The standard deviation in cells of the smallest kernel under which the median place has ROWS_IN_KERNEL rows.

    Tried on cells that are hardly wider than it, which it cannot tell apart.
    """
    from scipy.ndimage import gaussian_filter

    y, x = np.nonzero(counts)
    width, rows = int(counts.shape[1]), counts[y, x]
    sigma: float = 0.7 * width / 2000
    while sigma * 1.4 < width / 60:
        side = max(1, int(sigma / 0.7))
        shape = -(-counts.shape[0] // side), -(-width // side)
        cell = (y // side) * shape[1] + x // side
        coarse = np.bincount(cell, rows, shape[0] * shape[1]).reshape(shape).astype(np.float32)
        smooth = gaussian_filter(coarse, sigma / side, mode="constant").ravel()[cell]
        if np.median(smooth) * 4 * np.pi * (sigma / side) ** 2 >= ROWS_IN_KERNEL:
            break
        sigma *= 1.4
    return sigma


def _shade(values: NDArray[Any], stops: Sequence[str], most: int = 0) -> Image.Image:
    """Colours as RGBA, top row first: equalised, or from 1 to ``most`` on a log scale. NaN and 0 are transparent."""
    import datashader.transfer_functions as tf
    import xarray as xr

    # Equalisation ignores monotone maps, and logarithms spread a long tail over the histogram's bins.
    logs = np.log(values, out=np.full(values.shape, np.nan), where=values > 0)
    scale = {"how": "linear", "span": (0.0, np.log(most))} if most else {"how": "eq_hist"}
    shaded = tf.shade(xr.DataArray(logs, dims=("y", "x")), cmap=list(stops), min_alpha=255, **scale)
    image: Image.Image = shaded.to_pil()
    return image


def _mix(grids: NDArray[Any], colours: Sequence[str], total: NDArray[Any]) -> Image.Image:
    """Mean colour of the rows at each place, dimmed where rows are few."""
    from PIL import Image

    height, width, _ = grids.shape
    table = np.stack([_rgb(colour) for colour in colours])
    sums = np.empty((height, width, 4), dtype=np.uint64)
    sums[..., 3] = total
    for top in range(0, height, SLAB_ROWS):
        slab = slice(top, top + SLAB_ROWS)
        sums[slab, :, :3] = np.rint(grids[slab].astype(np.float64) @ table).astype(np.uint64)
    sums = grown(sums)
    count = sums[..., 3]
    light = np.asarray(_shade(smoothed(total, seen=count > 0), ("#7a7a7a", "#ffffff")))[::-1]
    rgba = np.array(light)
    rgba[..., :3] = sums[..., :3] / np.maximum(count, 1)[..., None] * (light[..., :3] / 255)
    return Image.fromarray(rgba[::-1].copy(), "RGBA")


def _coarse(grids: NDArray[Any]) -> NDArray[Any]:
    """Sums of square cells, some 128 of them along the shorter side."""
    step = max(1, min(grids.shape[:2]) // 128)
    for axis in (0, 1):
        grids = np.add.reduceat(grids, range(0, grids.shape[axis], step), axis=axis)
    return grids


def _peak(coarse: NDArray[Any]) -> tuple[float, float]:
    """The densest place of a cluster as fractions (x, y from the bottom) of the map."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(coarse.astype(np.float32), sigma=max(coarse.shape) / 40, mode="constant")
    y, x = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    return (float(x) + 0.5) / smooth.shape[1], (float(y) + 0.5) / smooth.shape[0]


def _ticks(density: NDArray[Any]) -> list[tuple[float, str]]:
    """Where densities lie on the equalised colour bar: (position 0..1, text)."""
    values = np.sort(density[np.isfinite(density)])
    if not len(values):
        return []
    steps = [m * 10.0**e for e in range(-3, 13) for m in (1, 2, 5)]
    ticks: list[tuple[float, str]] = []
    for value in [v for v in steps if values[0] <= v <= values[-1]] or [float(values[-1])]:
        where = float(np.searchsorted(values, value, side="right")) / len(values)
        if all(abs(where - other) > 0.045 for other, _ in ticks):
            ticks.append((where, f"{value:,.3g}" if value < 1 else f"{value:,.0f}"))
    return ticks
