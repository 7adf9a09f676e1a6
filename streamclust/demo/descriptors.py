"""Three descriptors computed from the pictures alone: ``shape`` (gradients), ``colour`` (histograms) and ``texture`` (random convolutions).

No network, no labels, no knowledge of the camera: each row depends on its own picture only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WINDOW = (48, 64)  # rows and columns of the aligned window that `shape` looks at
ORIENTATIONS, CELL = 8, 8
LIGHTNESS_BINS, CHROMA_BINS = 5, 5
FILTERS, PATCH, STRIDE, GRID = 32, 7, 2, (3, 4)


def describe(pictures: NDArray[np.uint8]) -> dict[str, Floats]:
    """The descriptors of a block of pictures.

    Parameters
    ----------
    pictures : (n, 120, 160, 3) uint8, RGB.

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
    """How much each pixel stands out, (n, h, w) in 0..1: its distance from its row's colour at the picture's two edges, times a window."""
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
    """Grey pictures and weights, (n, 48, 64) each, cut so that what stands out fills the window."""
    n, h, w = weight.shape
    strong = weight**2
    total = strong.sum(axis=(1, 2)) + 1e-6
    over_rows, over_cols = strong.sum(axis=2) / total[:, None], strong.sum(axis=1) / total[:, None]
    (top, bottom), (left, right) = extent(over_rows), extent(over_cols)
    at_rows = top[:, None] + np.linspace(-0.08, 1.08, WINDOW[0]) * (bottom - top)[:, None]
    at_cols = left[:, None] + np.linspace(-0.08, 1.08, WINDOW[1]) * (right - left)[:, None]
    channels = np.concatenate([small, weight[..., None]], axis=3)
    cut = bilinear(channels, at_rows, at_cols)
    return cut[..., :3], cut[..., 3]


def extent(shares: Floats) -> tuple[Floats, Floats]:
    """Where 4 % and 96 % of (n, m) shares are reached, between the bins; at least 12 bins apart."""
    sums = np.cumsum(shares, axis=1)
    rows = np.arange(len(shares))
    ends = []
    for q in (0.04, 0.96):
        at = np.minimum((sums < q).sum(axis=1), shares.shape[1] - 1)
        ends.append(at + 1 - (sums[rows, at] - q) / (shares[rows, at] + 1e-6))
    low, high = ends
    short = np.maximum(12 - (high - low), 0) / 2
    return (low - short).astype(np.float32), (high + short).astype(np.float32)


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
    """Histograms of oriented gradients (Dalal and Triggs 2005) of the aligned window, unsigned, weighted by the foreground: (n, 384)."""
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
    fine = np.zeros((n, ORIENTATIONS, 2 * h // CELL, 2 * w // CELL), np.float32)
    for o in range(ORIENTATIONS):
        plane = size * ((low % ORIENTATIONS == o) * (1 - share) + ((low + 1) % ORIENTATIONS == o) * share)
        fine[:, o] = plane.reshape(n, 2 * h // CELL, CELL // 2, 2 * w // CELL, CELL // 2).sum(axis=(2, 4))
    padded = np.pad(fine, ((0, 0), (0, 0), (1, 1), (1, 1)))
    tall = padded[:, :, :-2:2] + 2 * padded[:, :, 1:-1:2] + 2 * padded[:, :, 2::2][:, :, : h // CELL] 
    tall = tall + 0
    planes = (tall[..., :-2:2] + 2 * tall[..., 1:-1:2] + 2 * tall[..., 2::2][..., : w // CELL]) / 4
    energy = (planes**2).sum(axis=1)
    padded = np.pad(energy, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = sum(padded[:, i : i + h // CELL, j : j + w // CELL] for i in range(3) for j in range(3))
    floor = energy.mean(axis=(1, 2))[:, None, None] + 0.05
    return np.sqrt(planes / np.sqrt(around + floor)[:, None]).reshape(n, -1).astype(np.float32)


def colour(small: Floats, weight: Floats) -> Floats:
    """A soft histogram over lightness and two opponent channels, weighted by the foreground: (n, 125), square roots of shares."""
    n = len(small)
    pixels = small[:, ::2, ::2].reshape(n, -1, 3)
    w = weight[:, ::2, ::2].reshape(n, -1) ** 2
    red, green, blue = np.moveaxis(pixels, 2, 0)
    bright = np.maximum(np.maximum(red, green), blue) + 0.08
    opponents = ((red - green) / bright, (0.5 * (red + green) - blue) / bright)
    axes = [membership(np.sqrt(bright), 0.25, 1.0, LIGHTNESS_BINS)]
    axes += [membership(o, -0.7, 0.7, CHROMA_BINS) for o in opponents]
    joint = np.einsum("np,npl,npa,npb->nlab", w, *axes, optimize=True).reshape(n, -1)
    return np.sqrt(joint / (joint.sum(axis=1, keepdims=True) + 1e-6)).astype(np.float32)


def membership(values: Floats, low: float, high: float, bins: int) -> Floats:
    """Shares of each value in overlapping bins between ``low`` and ``high``: (..., bins), summing to one."""
    centres = np.linspace(low, high, bins, dtype=np.float32)
    share = np.exp(-0.5 * ((np.clip(values, low, high)[..., None] - centres) / (0.6 * (high - low) / (bins - 1))) ** 2)
    result: Floats = share / share.sum(axis=-1, keepdims=True)
    return result


def texture(small: Floats) -> Floats:
    """Rectified answers to 32 fixed random 7 x 7 filters, pooled on a 3 x 4 grid of the whole picture, logarithmic: (n, 384)."""
    n = len(small)
    filters = np.random.default_rng(20260101).standard_normal((PATCH * PATCH * 3, FILTERS)).astype(np.float32)
    filters -= filters.mean(axis=0)
    filters /= np.sqrt((filters**2).sum(axis=0))
    patches = np.lib.stride_tricks.sliding_window_view(small, (PATCH, PATCH), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    rows, cols = patches.shape[1] // GRID[0], patches.shape[2] // GRID[1]
    patches = patches[:, : rows * GRID[0], : cols * GRID[1]]
    answers = np.maximum(patches.reshape(-1, PATCH * PATCH * 3) @ filters, 0)
    pooled = answers.reshape(n, GRID[0], rows, GRID[1], cols, FILTERS).mean(axis=(2, 4))
    return np.log(0.01 + pooled).reshape(n, -1).astype(np.float32)
