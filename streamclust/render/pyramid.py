"""Counts of a window to PNG tiles: frozen colour scales for each level, densities, clusters, marks, differences."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from streamclust.render.density import DENSITY_STOPS

TILE = 256
MOST_RADIUS = 8
ROWS_IN_KERNEL = 10.0
"""A density estimate from fewer rows is mostly noise; the smoothing widens until the typical place sees as many."""
SEEN = 0.12
"""Of the height of a single row's hill: what is lower is not drawn."""
STEPS_IN_OCTAVE = 32
BINS = 56 * STEPS_IN_OCTAVE  # 2^-16 to 2^40 rows in a pixel
DEVIATIONS = 5.0
_FIRST_BIN = (127 - 16) * STEPS_IN_OCTAVE
OUTLIER_STOPS = ("#e0331f", "#ff8a2a", "#ffe066")
DIFFERENCE_STOPS = ("#3b8bff", "#7db4f5", "#dfe3e8", "#f5a582", "#f0482e")

Plane = NDArray[np.float64]
Index = NDArray[np.uint8]
Palette = NDArray[np.uint8]


@dataclass(frozen=True)
class Scale:
    """How densities of one level become colours 1 to 255: ``steps`` (254,) are the bins at which the next one starts.

    ``radius`` is that of the smoothing in pixels. A frozen scale makes the same picture of the same counts for ever.
    """

    radius: int
    steps: tuple[int, ...]

    def ticks(self, area: float) -> list[tuple[float, float]]:
        """Round densities, in rows in ``area`` pixels, and where they lie on the colour bar, 0 to 1."""
        low, high = (value_of(step) * area for step in (self.steps[0], self.steps[-1]))
        rounds = np.array([v for e in range(-6, 13) for m in (1, 2, 5) if low <= (v := m * 10.0**e) <= high])
        at = np.searchsorted(self.steps, _bins((rounds / area).astype(np.float32)), side="right") / 254
        return list(zip(rounds.tolist(), at.tolist(), strict=True))


def value_of(step: int) -> float:
    """The smallest density of a bin, in rows in a pixel."""
    return float(2.0 ** (step // STEPS_IN_OCTAVE - 16) * (1 + step % STEPS_IN_OCTAVE / STEPS_IN_OCTAVE))


def radius_for(density: float) -> int:
    """The smoothing radius at which a typical place with ``density`` rows in a pixel sees ten rows, at most 8."""
    reach = ROWS_IN_KERNEL / (2 * np.pi * max(density, 1e-12))  # a binomial of radius r spreads over 2 pi r pixels
    return 0 if density >= ROWS_IN_KERNEL else int(np.clip(np.ceil(reach), 1, MOST_RADIUS - 2))


def smooth(plane: Plane, radius: int) -> Plane:
    """Binomial smoothing, whose sum is the plane's; exact in binary fractions, hence the same in any window."""
    return _blurred(plane, _binomial(radius)) if radius else plane


def _blurred(plane: Plane, kernel: NDArray[np.float64]) -> Plane:
    """Only where counts reach: much of a map is empty."""
    from scipy.ndimage import correlate1d

    found, box, radius = np.zeros(plane.shape), [], len(kernel) // 2
    for axis in (1, 0):
        used = np.flatnonzero(plane.any(axis=axis))
        box.append(slice(max(0, used[0] - radius), used[-1] + radius + 1) if len(used) else slice(0, 0))
    inner = plane[box[0], box[1]]
    if inner.size:
        found[box[0], box[1]] = correlate1d(
            correlate1d(inner, kernel, axis=0, mode="constant"), kernel, axis=1, mode="constant"
        )
    return found


def _binomial(radius: int) -> NDArray[np.float64]:
    row = np.ones(1)
    for _ in range(2 * radius):
        row = np.convolve(row, [0.5, 0.5])
    return row


def _bins(v: NDArray[np.float32]) -> NDArray[np.intp]:
    """Logarithmic bins from the bit pattern: the same on every machine."""
    return np.clip((v.view(np.uint32) >> np.uint32(18)).astype(np.intp) - _FIRST_BIN, 0, BINS - 1)


def _seen(smoothed: Plane, radius: int) -> NDArray[np.bool_]:
    return np.asarray(smoothed >= SEEN * _binomial(radius)[radius] ** 2)


def histogram(smoothed: Plane, radius: int, halo: int) -> NDArray[np.int64]:
    """Pixels by bin of density, (BINS,), of a smoothed window without its halo; additive."""
    inner = smoothed[halo : len(smoothed) - halo, halo : len(smoothed) - halo]
    return np.bincount(_bins(inner[_seen(inner, radius)].astype(np.float32)), minlength=BINS)


def scale_of(counts: NDArray[np.int64], radius: int) -> Scale:
    """The scale between histogram equalisation and a logarithmic one: what is rare is not lost, and steps stay even."""
    used = np.flatnonzero(counts)
    if not len(used):
        return Scale(radius, tuple(range(254)))
    rank = (np.cumsum(counts) - counts / 2) / counts.sum()
    even = np.clip((np.arange(BINS) - used[0]) / max(int(used[-1] - used[0]), 1), 0, 1)
    share = (rank + even) / 2
    share = (share - share[used[0]]) / max(share[used[-1]] - share[used[0]], 1e-9)
    return Scale(radius, tuple(int(v) for v in np.searchsorted(share, np.arange(1, 255) / 255)))


def shade(smoothed: Plane, scale: Scale) -> Index:
    """Colour numbers of densities that were smoothed over the scale's radius, 0 where nothing is to be seen."""
    table = (1 + np.searchsorted(scale.steps, np.arange(BINS), side="right")).astype(np.uint8)
    return table[_bins(smoothed.astype(np.float32))] * _seen(smoothed, scale.radius)


def mix(sums: Sequence[Plane], smoothed: Plane, light: Index, scale: Scale) -> NDArray[np.uint8]:
    """Mean colour of the rows around each pixel, brighter where they are denser: RGBA from three sums of colours.

    ``smoothed`` and ``light`` are the densities and their colour numbers.
    """
    found = np.zeros((*smoothed.shape, 4), np.uint8)
    bright = np.divide(0.42 + 0.58 / 255 * light, smoothed, out=np.zeros(smoothed.shape), where=light > 0)
    for channel, plane in enumerate(sums):
        found[..., channel] = smooth(plane, scale.radius) * bright + 0.5
    found[..., 3] = np.where(light > 0, 255, 0)
    return found * (light > 0)[..., None]


def marks(plane: Plane, radius: int) -> Index:
    """Discs of a radius in pixels around every place with rows, redder for several, up to four."""
    found = np.zeros(plane.shape)
    y, x = np.nonzero(plane)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx * dx + dy * dy <= (radius + 0.5) ** 2:
                row, column = y + dy, x + dx
                near = (row >= 0) & (row < len(plane)) & (column >= 0) & (column < len(plane))
                np.add.at(found, (row[near], column[near]), plane[y[near], x[near]])
    heat = np.log(np.clip(found, 1, 4)) / np.log(4)
    return np.where(found > 0, 1 + np.rint(254 * heat), 0).astype(np.uint8)


def difference(a: Plane, b: Plane, rows: tuple[int, int], radius: int) -> Index:
    """Colour numbers of share(a) - share(b) in standard deviations, -5 to 5, as if rows came independently.

    The variance counts one more row in the middle of the kernel, so that few rows never look like much.
    """
    kernel, left, spread = _binomial(radius), [], np.zeros(a.shape)
    for plane, n in zip((a, b), rows, strict=True):
        left.append(smooth(plane, radius) / max(n, 1))
        spread += (_blurred(plane, kernel**2) + kernel[radius] ** 4 / 2) / max(n, 1) ** 2
    z = (left[0] - left[1]) / np.sqrt(spread)
    seen = left[0] + left[1] > 0
    return np.where(seen, 128 + np.rint(127 * np.clip(z / DEVIATIONS, -1, 1)), 0).astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def palette(stops: Sequence[str]) -> Palette:
    """Colours between stops, (256, 4); number 0 is transparent."""
    given = np.array([rgb(stop) for stop in stops], np.float64)
    at = np.linspace(0, len(given) - 1, 255)
    found = np.zeros((256, 4), np.uint8)
    for channel in range(3):
        found[1:, channel] = np.rint(np.interp(at, np.arange(len(given)), given[:, channel]))
    found[1:, 3] = 255
    return found


def density_palette() -> Palette:
    """Dark violet to pale yellow."""
    return palette(DENSITY_STOPS)


def outlier_palette() -> Palette:
    """Red to yellow, which stand out from grey on black."""
    return palette(OUTLIER_STOPS)


def cluster_palette(colour: str) -> Palette:
    """A cluster's colour, dimmed where its rows are few."""
    dim = "#" + "".join(f"{round(0.42 * v):02x}" for v in rgb(colour))
    pale = "#" + "".join(f"{round(v + 0.3 * (255 - v)):02x}" for v in rgb(colour))
    return palette((dim, colour, pale))


def difference_palette() -> Palette:
    """Blue for less, red for more, and clear where there is no difference to speak of."""
    found = palette(DIFFERENCE_STOPS)
    found[1:, 3] = np.rint(255 * np.clip(np.abs(np.linspace(-1, 1, 255)) * 2 - 0.2, 0, 1))
    return found


def cut(pixels: NDArray[np.uint8], halo: int) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """The tiles of a window without its halo: column, row and pixels of each."""
    side = (len(pixels) - 2 * halo) // TILE
    for row in range(side):
        for column in range(side):
            top, left = halo + row * TILE, halo + column * TILE
            yield column, row, pixels[top : top + TILE, left : left + TILE]


def png(tile: NDArray[np.uint8], colours: Palette | None) -> bytes:
    """One tile as PNG, without a time stamp: colour numbers with a palette, or RGBA. Nothing where it is all clear.

    Packed by run lengths only, which takes half the time and an eighth more bytes.
    """
    from PIL import Image

    if not (tile if colours is not None else tile[..., 3]).any():
        return b""
    out = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(tile))
    if colours is None:
        image.save(out, "PNG", compress_type=zlib.Z_RLE)
    else:
        image = Image.fromarray(np.ascontiguousarray(tile), "P")
        image.putpalette(colours[:, :3].tobytes())
        image.save(out, "PNG", compress_type=zlib.Z_RLE, transparency=colours[:, 3].tobytes())
    return out.getvalue()
