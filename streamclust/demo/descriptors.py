"""Descriptors from pictures alone: ``shape`` (gradients), ``colour`` (histogram), ``texture`` (random filters).

No network, no labels, no knowledge of the camera: each row depends on its own picture only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WINDOW = (48, 64)  # rows and columns of the aligned window that `shape` looks at
REACH = 2.1  # half a window in standard deviations of the foreground; an even block ends at 1.73
ORIENTATIONS, CELL = 8, 8
LIGHTNESS_BINS, CHROMA_BINS = 5, 5
FILTERS, PATCH, STRIDE, GRID = 32, 7, 2, (3, 4)
SIZES = {
    "shape": ORIENTATIONS * (WINDOW[0] // CELL) * (WINDOW[1] // CELL),
    "colour": LIGHTNESS_BINS * CHROMA_BINS**2,
    "texture": FILTERS * GRID[0] * GRID[1],
}


def describe(pictures: NDArray[np.uint8]) -> dict[str, Floats]:
    """The descriptors of a block of pictures.

    Parameters
    ----------
    pictures : (n, 120, 160, 3) uint8
        RGB.

    Returns
    -------
    dict
        ``shape`` (n, 384), ``colour`` (n, 125) and ``texture`` (n, 384), all float32.
    """
    small = halved(pictures)
    weight = foreground(small)
    return {"shape": shape(small, weight), "colour": colour(small, weight), "texture": texture(small)}


def halved(pictures: NDArray[np.uint8]) -> Floats:
    """(n, h, w, 3) uint8 to (n, h/2, w/2, 3) float32 in 0..1, the mean of each 2 x 2 square."""
    x = pictures.astype(np.float32)
    result: Floats = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / np.float32(1020)
    return result


def foreground(small: Floats) -> Floats:
    """How much each pixel stands out, (n, h, w) in 0..1.

    Its distance from what its row shows at the picture's left and right edges, against the picture's median, times a
    window that favours the middle.
    """
    n, h, w, _ = small.shape
    left, right = small[:, :, :8].mean(axis=2), small[:, :, -8:].mean(axis=2)
    across = np.linspace(0, 1, w, dtype=np.float32)[None, None, :, None]
    backdrop = left[:, :, None] * (1 - across) + right[:, :, None] * across
    distance = np.abs(small - backdrop).max(axis=3)
    scale = 0.04 + np.median(distance.reshape(n, -1), axis=1)[:, None, None]
    rows, cols = np.linspace(-1, 1, h, dtype=np.float32), np.linspace(-1, 1, w, dtype=np.float32)
    window = np.exp(-((np.abs(rows - 0.2) / 0.75) ** 4))[:, None] * np.exp(-((np.abs(cols) / 0.85) ** 6))
    result: Floats = (distance**2 / (distance**2 + scale**2) * window).astype(np.float32)
    return result


def aligned(small: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Pictures (n, 48, 64, 3) and weights (n, 48, 64), cut so that what stands out fills the window.

    Half of its own aspect ratio is kept (in logarithm): a long low shape still uses most of the rows.
    """
    _, h, w = weight.shape
    strong = weight**2
    total = strong.sum(axis=(1, 2)) + 1e-6
    over_rows, over_cols = strong.sum(axis=2) / total[:, None], strong.sum(axis=1) / total[:, None]
    y, spread_y = centre_and_spread(over_rows)
    x, spread_x = centre_and_spread(over_cols)
    wide = np.maximum(spread_x, spread_y * WINDOW[1] / WINDOW[0])
    half_x = np.clip(REACH * np.sqrt(wide * spread_x), 8, 0.6 * w)
    half_y = np.clip(REACH * np.sqrt(wide * WINDOW[0] / WINDOW[1] * spread_y), 6, 0.6 * h)
    at_rows = y[:, None] + np.linspace(-1, 1, WINDOW[0]) * half_y[:, None]
    at_cols = x[:, None] + np.linspace(-1, 1, WINDOW[1]) * half_x[:, None]
    channels = np.concatenate([small, weight[..., None]], axis=3)
    cut = bilinear(channels, at_rows, at_cols)
    return cut[..., :3], cut[..., 3]


def centre_and_spread(shares: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of (n, m) shares over 0 .. m - 1."""
    places = np.arange(shares.shape[1], dtype=np.float32)
    mean = shares @ places
    deviation: Floats = np.sqrt((shares * (places - mean[:, None]) ** 2).sum(axis=1))
    return mean, deviation


def bilinear(images: Floats, at_rows: NDArray[np.float64], at_cols: NDArray[np.float64]) -> Floats:
    """Sample (n, h, w, c) on one grid of rows and columns per image; beyond the edge the edge goes on."""
    n, h, w, _ = images.shape
    rows, cols = np.clip(at_rows, 0, h - 1.001), np.clip(at_cols, 0, w - 1.001)
    top, left = rows.astype(np.intp), cols.astype(np.intp)
    down, right = (rows - top).astype(np.float32)[:, :, None, None], (cols - left).astype(np.float32)[:, None, :, None]
    i = np.arange(n)[:, None]
    upper, lower = images[i, top], images[i, top + 1]
    lines = upper + down * (lower - upper)
    j, k = np.arange(n)[:, None, None], np.arange(lines.shape[1])[None, :, None]
    first, second = lines[j, k, left[:, None, :]], lines[j, k, left[:, None, :] + 1]
    result: Floats = first + right * (second - first)
    return result


def shape(small: Floats, weight: Floats) -> Floats:
    """Histograms of oriented gradients of the aligned window, unsigned, weighted by the foreground: (n, 384).

    Source: Dalal and Triggs (2005), Histograms of oriented gradients for human detection; one block norm per cell.
    """
    window, stands_out = aligned(small, weight)
    window = np.sqrt(window)
    dy, dx = np.gradient(window, axis=(1, 2))
    strength = dx**2 + dy**2
    best = strength.argmax(axis=3)[..., None]
    dx, dy = (np.take_along_axis(d, best, axis=3)[..., 0] for d in (dx, dy))
    size = np.sqrt(dx**2 + dy**2) * (0.1 + stands_out)
    turn = np.arctan2(dy, dx) % np.pi * (ORIENTATIONS / np.pi)
    low = np.floor(turn).astype(np.intp)
    share = turn - low
    n, h, w = size.shape
    cells = np.zeros((n, ORIENTATIONS, h // CELL, w // CELL), np.float32)
    for o in range(ORIENTATIONS):
        plane = size * ((low % ORIENTATIONS == o) * (1 - share) + ((low + 1) % ORIENTATIONS == o) * share)
        cells[:, o] = plane.reshape(n, h // CELL, CELL, w // CELL, CELL).sum(axis=(2, 4))
    energy = (cells**2).sum(axis=1)
    padded = np.pad(energy, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = sum(padded[:, i : i + h // CELL, j : j + w // CELL] for i in range(3) for j in range(3)) / 9
    floor = 0.5 * energy.mean(axis=(1, 2))[:, None, None] + 0.02
    result: Floats = (cells / np.sqrt(around + floor)[:, None]).reshape(n, -1).astype(np.float32)
    return result


def colour(small: Floats, weight: Floats) -> Floats:
    """Roots of a soft histogram over lightness and two opponent channels, weighted by the foreground: (n, 125)."""
    n = len(small)
    pixels = small[:, ::2, ::2].reshape(n, -1, 3)
    w = weight[:, ::2, ::2].reshape(n, -1) ** 2
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    bright = pixels.max(axis=2) + np.float32(0.08)
    opponents = ((red - green) / bright, (0.5 * (red + green) - blue) / bright)
    axes = [membership(np.sqrt(bright), 0.25, 1.0, LIGHTNESS_BINS)]
    axes += [membership(o, -0.7, 0.7, CHROMA_BINS) for o in opponents]
    joint = np.einsum("np,npl,npa,npb->nlab", w, *axes, optimize=True).reshape(n, -1)
    result: Floats = np.sqrt(joint / (joint.sum(axis=1, keepdims=True) + 1e-6)).astype(np.float32)
    return result


def membership(values: Floats, low: float, high: float, bins: int) -> Floats:
    """Shares of each value in overlapping bins between ``low`` and ``high``: (..., bins), summing to one."""
    centres = np.linspace(low, high, bins, dtype=np.float32)
    share = np.exp(-0.5 * ((np.clip(values, low, high)[..., None] - centres) / (0.6 * (high - low) / (bins - 1))) ** 2)
    result: Floats = share / share.sum(axis=-1, keepdims=True)
    return result


def texture(small: Floats) -> Floats:
    """Logarithms of the answers to 32 fixed random 7 x 7 filters, pooled on a 3 x 4 grid of the picture: (n, 384)."""
    n = len(small)
    filters = np.random.default_rng(20260101).standard_normal((PATCH * PATCH * 3, FILTERS)).astype(np.float32)
    filters -= filters.mean(axis=0)
    filters /= np.sqrt((filters**2).sum(axis=0))
    patches = np.lib.stride_tricks.sliding_window_view(small, (PATCH, PATCH), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    rows, cols = patches.shape[1] // GRID[0], patches.shape[2] // GRID[1]
    patches = patches[:, : rows * GRID[0], : cols * GRID[1]]
    answers = np.maximum(patches.reshape(-1, PATCH * PATCH * 3) @ filters, 0)
    pooled = answers.reshape(n, GRID[0], rows, GRID[1], cols, FILTERS).mean(axis=(2, 4))
    result: Floats = np.log(0.01 + pooled).reshape(n, -1).astype(np.float32)
    return result
