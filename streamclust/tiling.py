"""Additive counts of places on a map for every zoom level: sparse along the Morton curve, dense by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 256  # pixels
DEPTH = 8  # the finest level that is counted: 65,536 cells a side
STORED = (8, 5, 2)  # levels that are kept; the two above each are sums of it
UNIT = 1024  # pixels of a window: 4 x 4 tiles, and one tile two levels above
HALO = 32  # pixels around it, for what is smoothed
LAYER_BITS = np.uint64(16)
EVERY = 1024  # of how many keys one is kept as a sample
_LAYER = np.uint64(2**16 - 1)
_SPREAD = tuple(
    (np.uint64(s), np.uint64(m)) for s, m in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))
)

Codes = NDArray[np.uint64]
Floats = NDArray[np.floating[Any]]
Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """The square that the pyramid shows: its left and upper edge and its side, in the units of the map."""

    left: float
    top: float
    side: float


@dataclass(frozen=True)
class Sparse:
    """Counts of one level: ``keys`` (m,) uint64 ascending and distinct, ``code << 16 | layer``; ``counts`` (m,) int64.

    The code is the Morton (Z-order) code of a cell, so that a tile of any level is one range of keys and a coarser
    level is a shift. Source: Morton, "A computer oriented geodetic data base", IBM (1966).
    """

    keys: Codes
    counts: NDArray[np.int64]

    @property
    def codes(self) -> Codes:
        """The cells, (m,)."""
        return self.keys >> LAYER_BITS

    @property
    def layers(self) -> NDArray[np.intp]:
        """Which rows they count, (m,), as :func:`layer_of` says."""
        return (self.keys & _LAYER).astype(np.intp)


@dataclass(frozen=True)
class Window:
    """A square of pixels of a level: ``size`` from (x, y) on, and ``halo`` more on every side."""

    level: int
    x: int
    y: int
    size: int
    halo: int

    @property
    def side(self) -> int:
        """Pixels with the halo."""
        return self.size + 2 * self.halo


@dataclass(frozen=True)
class Entries:
    """What lies in a window: its pixel ``at`` (m,), the layer and the count of each entry."""

    side: int
    at: NDArray[np.intp]
    layers: NDArray[np.intp]
    counts: NDArray[np.int64]

    def plane(self, weights: NDArray[np.floating[Any]]) -> Plane:
        """Sums of count x ``weights[layer]`` by pixel, (side, side), top row first; exact for whole weights."""
        found = np.bincount(self.at, self.counts * weights[self.layers], minlength=self.side**2)
        return np.asarray(found.reshape(self.side, self.side), np.float64)


def square(extent: Sequence[float], margin: float = 0.03) -> Frame:
    """The frame around an extent (x_min, x_max, y_min, y_max), centred, with a margin in shares of its side."""
    x0, x1, y0, y1 = extent
    side = (max(x1 - x0, y1 - y0) or 1.0) * (1 + 2 * margin)
    return Frame((x0 + x1 - side) / 2, (y0 + y1 + side) / 2, side)


def layer_of(label: NDArray[np.integer[Any]], outlier: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The layer of rows: two for each cluster, the odd one for flagged rows; -1 is noise, -2 no value."""
    return (np.asarray(label, np.intp) + 2) * 2 + outlier


def morton(x: NDArray[Any], y: NDArray[Any]) -> Codes:
    """Z-order code of columns and rows below 65,536: the bits of y and x by turns."""
    return _spread(x) | _spread(y) << np.uint64(1)


def cells(codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Column and row of Z-order codes."""
    return _gather(codes), _gather(codes >> np.uint64(1))


def _spread(v: NDArray[Any]) -> Codes:
    v = np.asarray(v).astype(np.uint64)
    for shift, mask in _SPREAD:
        v = (v | v << shift) & mask
    return v


def _gather(v: Codes) -> NDArray[np.int64]:
    v = v & _SPREAD[-1][1]
    for (shift, _), (_, mask) in zip(_SPREAD[::-1], [*_SPREAD[-2::-1], (0, np.uint64(0xFFFF))], strict=True):
        v = (v | v >> shift) & mask
    return v.astype(np.int64)


def block_keys(
    x: Floats, y: Floats, label: NDArray[np.integer[Any]], outlier: NDArray[np.bool_], frame: Frame
) -> Codes:
    """Keys of the rows inside the frame at the finest level, (<= n,), unsorted; NaN and places outside are left out.

    The right and lower edges belong to the last cells.
    """
    right = (x.astype(np.float64) - frame.left) / frame.side
    down = (frame.top - y.astype(np.float64)) / frame.side
    inside = (right >= 0) & (right <= 1) & (down >= 0) & (down <= 1)
    most = TILE * 2**DEPTH
    column, row = (np.minimum((v[inside] * most).astype(np.int64), most - 1) for v in (right, down))
    layer = layer_of(label[inside], outlier[inside]).astype(np.uint64)
    return morton(column, row) << LAYER_BITS | layer


def count_keys(keys: Codes) -> Sparse:
    """Counts of keys in any order, which is lost: they are sorted in place."""
    keys.sort()
    starts = _starts(keys)
    return Sparse(keys[starts], np.diff(starts, append=len(keys)))


def add(parts: Sequence[Sparse]) -> Sparse:
    """Sums of several counts, some of which may be negative; what comes to nothing is left out."""
    keys = np.concatenate([np.empty(0, np.uint64), *(p.keys for p in parts)])
    counts = np.concatenate([np.empty(0, np.int64), *(p.counts for p in parts)])
    order = np.argsort(keys, kind="stable")
    return _reduced(keys[order], counts[order])


def coarser(part: Sparse, levels: int) -> Sparse:
    """The same counts that many levels above: each cell the sum of its four below, again and again."""
    shift = np.uint64(2 * levels)
    keys = part.codes >> shift << LAYER_BITS | part.keys & _LAYER
    return add([Sparse(keys, part.counts)])


def _starts(keys: Codes) -> NDArray[np.intp]:
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])


def _reduced(keys: Codes, counts: NDArray[np.int64]) -> Sparse:
    starts = _starts(keys)
    sums = np.add.reduceat(counts, starts) if len(starts) else counts
    left = sums != 0
    return Sparse(keys[starts][left], sums[left])


def samples(keys: Codes) -> Codes:
    """Every 1,024th of sorted keys, and the last."""
    return np.append(keys[::EVERY], keys[-1:])


def sampled(entries: int) -> int:
    """How many :func:`samples` there are of that many keys."""
    return -(-entries // EVERY) + (entries > 0)


def cuts(runs: Sequence[Codes], target: int) -> tuple[Codes, int]:
    """Where to cut sorted runs into parts of about ``target`` keys, each run given by its :func:`samples`.

    Returns the first code of each part and a bound on the keys in one. Cuts fall on cells of the coarsest stored
    level, so that no cell of a stored level lies in two parts. Source: Frazer and McKellar, "Samplesort", JACM 17
    (1970) 496-507.
    """
    below = np.uint64(2 * (DEPTH - STORED[-1]))
    codes = [run >> LAYER_BITS for run in runs if len(run)]
    together = np.sort(np.concatenate([np.empty(0, np.uint64), *codes]))
    chosen = together[:: max(1, target // EVERY)] >> below << below
    firsts = np.unique(np.concatenate([np.zeros(1, np.uint64), chosen]))
    most = np.zeros(len(firsts), np.int64)
    for run in codes:
        part = np.searchsorted(firsts, run, side="right") - 1
        most += EVERY * np.bincount(part, minlength=len(firsts))
        most[part[0] : part[-1] + 1] += EVERY
    return firsts, int(most.max())


def carry(sizes: Sequence[int]) -> list[range]:
    """Which neighbours to merge, so that each run has at least twice the entries of the next: few runs for many days.

    An entry is merged again only when its run at least doubles half: a logarithm of times. Source: the binary counter
    of Bentley and Saxe, "Decomposable searching problems I", J. Algorithms 1 (1980) 301-358.
    """
    runs: list[tuple[range, int]] = []
    for i, size in enumerate(sizes):
        runs.append((range(i, i + 1), size))
        while len(runs) > 1 and runs[-2][1] < 2 * runs[-1][1]:
            (a, m), (b, n) = runs[-2:]
            runs[-2:] = [(range(a.start, b.stop), m + n)]
    return [run for run, _ in runs]


def zoom_for(rows: int) -> int:
    """The deepest level worth drawing: 1,000 to 4,000 rows to a tile of a map that were full, at least level 2."""
    return int(np.clip(np.log2(max(rows, 1) / 1024) // 2, 2, DEPTH))


def groups(zoom: int) -> Iterator[tuple[int, int, int]]:
    """Stored level, top and lowest level of what is drawn from it, down to ``zoom``."""
    for stored in STORED:
        if zoom >= stored - 2:
            yield stored, min(zoom, stored), stored - 2


def unit_level(top: int) -> int:
    """The level whose tiles are the windows in which ``top`` is drawn."""
    return max(0, top - 2)


def window_of(top: int, unit: int) -> Window:
    """The window of a unit, by its code at :func:`unit_level`."""
    x, y = (int(v[0]) for v in cells(np.array([unit], np.uint64)))
    size = TILE << (top - unit_level(top))
    return Window(top, x * size, y * size, size, HALO)


def ranges(window: Window, level: int) -> tuple[Codes, Codes]:
    """The ranges of codes of a stored ``level`` that a window with its halo is made of: first codes and ends."""
    edge = np.arange(-HALO, window.size + HALO, HALO)
    x, y = (v.ravel() // HALO for v in np.meshgrid(window.x + edge, window.y + edge))
    most = (TILE << window.level) // HALO
    inside = (x >= 0) & (x < most) & (y >= 0) & (y < most)
    firsts = np.sort(morton(x[inside], y[inside]))
    shift = np.uint64(2 * (int(HALO).bit_length() - 1 + level - window.level))
    return firsts << shift, firsts + np.uint64(1) << shift


def inside(part: Sparse, level: int, window: Window) -> Entries:
    """What of some counts of ``level`` lies in a window of that level or one above, halo included."""
    x, y = cells(part.codes >> np.uint64(2 * (level - window.level)))
    x, y = x - (window.x - window.halo), y - (window.y - window.halo)
    here = (x >= 0) & (x < window.side) & (y >= 0) & (y < window.side)
    return Entries(window.side, (y * window.side + x)[here], part.layers[here], part.counts[here])


def halved(plane: Plane) -> Plane:
    """Sums of 2 x 2 pixels: the same plane one level above."""
    return plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]


def touched(codes: Codes, level: int, below: int, radius: int, tile: int = TILE) -> Codes:
    """Codes of the tiles of a level whose picture changes with these cells, of ``below``, smoothed over ``radius``.

    ``tile`` may be larger than 256 pixels: then they are codes of squares of as many.
    """
    x, y = cells(np.unique(codes >> np.uint64(2 * (below - level))))
    most = (TILE << level) - 1
    near = [np.clip(v + d, 0, most) // tile for v in (x, y) for d in (-radius, radius)]
    return np.unique(np.concatenate([morton(a, b) for a in near[:2] for b in near[2:]]))
