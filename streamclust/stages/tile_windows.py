"""Windows of a map read out of tile counts: which there are, what lies in one, which tiles a change touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust import tiling
from streamclust.job import Job
from streamclust.stages.tile_chunks import Chunk, chunks
from streamclust.store.store import Store
from streamclust.tiling import HALO, STORED, Codes, Entries, Plane, Window

OVERVIEW = STORED[-1]
PEAKS, PEAK_SIDE = 256, 64  # clusters whose densest place is looked for, and its cells a side
Sources = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Unit:
    """One window and the addresses of what lies in it; ``low`` is the lowest level that is drawn from it."""

    window: Window
    low: int
    level: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Overview:
    """The whole map in little.

    Attributes
    ----------
    cells : (1024, 1024) int64, rows by cell, top row first.
    layers : (65536,) int64, rows by layer.
    clusters : (256, 64, 64) int64, rows of the first clusters by coarse cell.
    """

    cells: NDArray[np.int64]
    layers: NDArray[np.int64]
    clusters: NDArray[np.int64]

    @property
    def codes(self) -> Codes:
        """The cells with rows."""
        y, x = np.nonzero(self.cells)
        return tiling.morton(x, y)

    @property
    def rows(self) -> int:
        """Rows on the map."""
        return int(self.cells.sum())

    @property
    def fullest(self) -> int:
        """The most rows in a cell."""
        return int(self.cells.max())

    @property
    def share(self) -> float:
        """The part of the map that has rows, by coarse cells."""
        return float((_pooled(self.cells, PEAK_SIDE) > 0).mean())

    @property
    def density(self) -> float:
        """Rows in a cell around the typical place that has rows."""
        coarse = _pooled(self.cells, PEAK_SIDE)
        return float(np.median(coarse[coarse > 0])) / (len(self.cells) // PEAK_SIDE) ** 2 if coarse.any() else 0.0

    @property
    def heart(self) -> tuple[float, float, float, float]:
        """The box with all but two rows in a thousand along each axis: left, top, right, bottom as fractions."""
        found = []
        for axis in (0, 1):
            rank = np.cumsum(self.cells.sum(axis=axis)) / max(self.rows, 1)
            low, high = np.searchsorted(rank, [0.001, 0.999])
            found.append((float(low) / len(rank), float(high + 1) / len(rank)))
        (left, right), (top, bottom) = found
        return left, top, right, bottom

    def peak(self, cluster: int) -> tuple[float, float] | None:
        """The densest place of a cluster as fractions from the left and from the top; ``None`` if it has no rows."""
        if cluster >= PEAKS or not self.clusters[cluster].any():
            return None
        around = np.pad(self.clusters[cluster], 1)
        sums = sum(around[i : i + PEAK_SIDE, j : j + PEAK_SIDE] for i in range(3) for j in range(3))
        y, x = np.unravel_index(int(np.argmax(sums * 2**20 + self.clusters[cluster])), (PEAK_SIDE, PEAK_SIDE))
        return (float(x) + 0.5) / PEAK_SIDE, (float(y) + 0.5) / PEAK_SIDE


def overview(job: Job, sources: Sources) -> Overview:
    """The overview of all that some objects count."""
    addresses = chunks(job.store, sources, OVERVIEW)
    return job.executor.fold(add_overview, addresses, merge_overviews) if addresses else _nothing()


def _nothing() -> Overview:
    side = tiling.TILE << OVERVIEW
    return Overview(*(np.zeros(shape, np.int64) for shape in ((side, side), 2**16, (PEAKS, PEAK_SIDE, PEAK_SIDE))))


def _pooled(cells: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    step = len(cells) // side
    return np.asarray(cells.reshape(side, step, side, step).sum(axis=(1, 3)))


def add_overview(state: Overview | None, chunk: Chunk) -> Overview:
    """Add one chunk, in the state's own memory."""
    found = state or _nothing()
    part = chunk.read()
    x, y = tiling.cells(part.codes)
    np.add.at(found.cells, (y, x), part.counts)
    np.add.at(found.layers, part.layers, part.counts)
    cluster, step = part.layers // 2 - 2, len(found.cells) // PEAK_SIDE
    few = (cluster >= 0) & (cluster < PEAKS)
    np.add.at(found.clusters, (cluster[few], y[few] // step, x[few] // step), part.counts[few])
    return found


def merge_overviews(a: Overview, b: Overview) -> Overview:
    """Both."""
    return Overview(a.cells + b.cells, a.layers + b.layers, a.clusters + b.clusters)


def unit_codes(cells: Codes, zoom: int) -> dict[int, Codes]:
    """By top level of a group, the units that show anything of these cells of the overview."""
    found = {}
    for _, top, _ in tiling.groups(zoom):
        reach = max(1, (HALO << OVERVIEW) >> top)
        found[top] = tiling.touched(
            cells, OVERVIEW, OVERVIEW, reach, (tiling.TILE << OVERVIEW) >> tiling.unit_level(top)
        )
    return found


def units(store: Store, sources: Sources, zoom: int, wanted: Mapping[int, Codes]) -> Iterator[Unit]:
    """The addresses of windows, by top level of their group and their code, finest first."""
    for level, top, low in tiling.groups(zoom):
        if len(wanted[top]):
            found = chunks(store, sources, level)
            firsts, lasts = (np.array([getattr(c, end) for c in found], np.uint64) for end in ("first", "last"))
            for code in wanted[top].tolist():
                window = tiling.window_of(top, code)
                start, end = tiling.ranges(window, level)
                last = np.searchsorted(start, lasts, side="right") - 1
                near = np.flatnonzero((last >= 0) & (end[last] > firsts))
                yield Unit(window, low, level, tuple(found[i] for i in near))


def read_unit(unit: Unit) -> Entries:
    """Everything that lies in a window and around it."""
    start, end = tiling.ranges(unit.window, unit.level)
    parts = [tiling.inside(c.read(int(start[0]), int(end[-1])), unit.level, unit.window) for c in unit.chunks]
    columns = ((p.at for p in parts), (p.layers for p in parts), (p.counts for p in parts))
    joined = [np.concatenate([np.empty(0, np.int64), *column]) for column in columns]
    return Entries(unit.window.side, *joined)


def levels(plane: Plane, unit: Unit) -> list[Plane]:
    """A plane of a unit and its sums on the levels above it that are drawn from it."""
    found = [plane]
    for _ in range(unit.window.level - unit.low):
        found.append(tiling.halved(found[-1]))
    return found


@dataclass(frozen=True)
class Touch:
    """Which rows a layer shows, as a mask (65536,) over layers, and how far they reach on each level, in pixels."""

    mask: NDArray[np.bool_]
    reach: tuple[int, ...]


Tiles = dict[str, list[Codes]]


def touched(job: Job, sources: Sources, layers: Mapping[str, Touch]) -> Tiles:
    """By layer and level, the tiles whose picture is another one without what these objects count."""
    addresses = chunks(job.store, sources, tiling.DEPTH)
    if not addresses:
        return {name: [np.empty(0, np.uint64) for _ in layer.reach] for name, layer in layers.items()}
    return job.executor.fold(add_touched, addresses, merge_touched, layers)


def add_touched(state: Tiles | None, chunk: Chunk, layers: Mapping[str, Touch]) -> Tiles:
    """Add the tiles that one chunk touches."""
    part = chunk.read()
    found: Tiles = {}
    for name, layer in layers.items():
        codes = part.codes[layer.mask[part.layers]]
        found[name] = [tiling.touched(codes, z, tiling.DEPTH, reach) for z, reach in enumerate(layer.reach)]
    return found if state is None else merge_touched(state, found)


def merge_touched(a: Tiles, b: Tiles) -> Tiles:
    """Those of both."""
    return {name: [np.union1d(x, y) for x, y in zip(a[name], b[name], strict=True)] for name in a}
