"""From tile counts to PNG files: one task for each window, with all its layers and levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamclust.job import Job
from streamclust.render import pyramid
from streamclust.render.density import NOISE_COLOUR
from streamclust.render.pyramid import BINS, MOST_RADIUS, Scale
from streamclust.stages.tile_windows import Tiles, Unit, levels, read_unit, units
from streamclust.tiling import HALO, TILE, Codes, Plane, groups, morton, unit_level

Kind = Literal["density", "clusters", "outliers", "cluster", "difference"]


@dataclass(frozen=True)
class Layer:
    """What one folder of tiles shows; ``cluster`` is the cluster's position where it shows one alone."""

    id: str
    kind: Kind
    cluster: int = -1


@dataclass(frozen=True)
class Sheet:
    """How the tiles of one folder tree are drawn: all that a task needs beside the counts.

    Attributes
    ----------
    folder : where ``<layer>/<z>/<x>/<y>.png`` go. progress : where a task leaves word that it is done.
    layers : what is drawn. colours : of each cluster by position, as #rrggbb.
    scales : of densities by level. marks : radius of an outlier's disc by level, in pixels.
    rows : of the two sides of a difference.
    """

    folder: Path
    progress: Path
    layers: tuple[Layer, ...]
    colours: tuple[str, ...]
    scales: tuple[Scale, ...]
    marks: tuple[int, ...]
    rows: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Task:
    """A window, counted on one side or on both of a difference, and which of its tiles to draw (all if ``None``)."""

    sides: tuple[Unit, ...]
    wanted: Mapping[str, Mapping[int, frozenset[int]]] | None


def histograms(job: Job, addresses: Sequence[Unit], radii: Sequence[int]) -> NDArray[np.int64]:
    """Pixels by level and bin of density, (levels, BINS)."""
    if not addresses:
        return np.zeros((len(radii), BINS), np.int64)
    return job.executor.fold(add_histograms, addresses, np.add, tuple(radii))


def add_histograms(state: NDArray[np.int64] | None, unit: Unit, radii: Sequence[int]) -> NDArray[np.int64]:
    """Add one window's densities, in the state's own memory."""
    found = np.zeros((len(radii), BINS), np.int64) if state is None else state
    total = read_unit(unit).plane(np.ones(2**16))
    for i, plane in enumerate(levels(total, unit)):
        z = unit.window.level - i
        found[z] += pyramid.histogram(pyramid.smooth(plane, radii[z]), radii[z], HALO >> i)
    return found


def tasks(
    job: Job, sides: Sequence[Sequence[tuple[str, int]]], zoom: int, wanted: Mapping[int, Codes], only: Tiles | None
) -> list[Task]:
    """A task for each window; with ``only`` for those that hold a tile of it."""
    windows = zip(*(units(job.store, side, zoom, wanted) for side in sides), strict=True)
    if only is None:
        return [Task(pair, None) for pair in windows]
    return [task for pair in windows if (task := Task(pair, _tiles_of(pair[0], only))).wanted]


def units_of(only: Tiles, zoom: int) -> dict[int, Codes]:
    """By top level of a group, the windows that hold one of these tiles."""
    found = {}
    for _, top, low in groups(zoom):
        codes = [
            tiles[z] >> np.uint64(2 * (z - unit_level(top))) for tiles in only.values() for z in range(low, top + 1)
        ]
        found[top] = np.unique(np.concatenate([np.empty(0, np.uint64), *codes]))
    return found


def _tiles_of(unit: Unit, only: Tiles) -> dict[str, dict[int, frozenset[int]]]:
    found: dict[str, dict[int, frozenset[int]]] = {}
    top = unit.window.level
    corner = morton(np.array([unit.window.x // TILE]), np.array([unit.window.y // TILE]))[0]
    for name, tiles in only.items():
        for z in range(unit.low, top + 1):
            first = int(corner) >> 2 * (top - z)
            end = first + 4 ** max(0, z - unit_level(top))
            low, high = np.searchsorted(tiles[z], np.array([first, end], np.uint64))
            if high > low:
                found.setdefault(name, {})[z] = frozenset(tiles[z][low:high].tolist())
    return found


def draw(job: Job, addresses: Sequence[Task], sheet: Sheet) -> tuple[int, int]:
    """Draw all windows; returns how many tiles were written and how many removed as nothing is left in them."""
    sheet.progress.mkdir(parents=True, exist_ok=True)
    done = job.executor.map(draw_window, addresses, sheet)
    return sum(written for written, _ in done), sum(removed for _, removed in done)


def draw_window(task: Task, sheet: Sheet) -> tuple[int, int]:
    """Draw the tiles of one window on all its levels, unless an earlier run did."""
    unit = task.sides[0]
    mark = sheet.progress / f"{unit.window.level}-{unit.window.x}-{unit.window.y}"
    if mark.exists():
        written, removed = (int(word) for word in mark.read_text().split())
        return written, removed
    written = removed = 0
    for layer, z, (pixels, colours) in _Scene(task, sheet).pictures():
        wanted = None if task.wanted is None else task.wanted[layer.id].get(z, frozenset())
        left, top = (v >> unit.window.level - z for v in (unit.window.x, unit.window.y))
        for column, row, tile in pyramid.cut(pixels, HALO >> unit.window.level - z):
            x, y = left // TILE + column, top // TILE + row
            if wanted is None or int(morton(np.array([x]), np.array([y]))[0]) in wanted:
                path = sheet.folder / layer.id / str(z) / str(x) / f"{y}.png"
                drawn = pyramid.png(tile, colours)
                removed += not drawn and path.exists()
                written += bool(drawn)
                put(path, drawn)
    put(mark, f"{written} {removed}".encode())
    return written, removed


def put(path: Path, content: bytes) -> None:
    """A file with this content, at once or not at all; none where there is no content."""
    if not content:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(content)
    temporary.replace(path)


Picture = tuple[NDArray[np.uint8], pyramid.Palette | None]  # with its halo, and the colours of its numbers
_LAYERS = np.arange(2**16)
_CLUSTER_OF = _LAYERS // 2 - 2


class _Scene:
    """What a task shows: one layer at a time on all its levels, from the finest up."""

    def __init__(self, task: Task, sheet: Sheet) -> None:
        self.task, self.sheet, self.unit = task, sheet, task.sides[0]
        self.levels = range(self.unit.window.level, self.unit.low - 1, -1)
        self.sides = [read_unit(unit) for unit in task.sides]

    def pictures(self) -> Iterator[tuple[Layer, int, Picture]]:
        """Everything asked for; nothing of clusters that are not here, unless they may just have left."""
        here = set(np.unique(_CLUSTER_OF[self.sides[0].layers]).tolist())
        wanted = self.task.wanted
        for layer in self.sheet.layers:
            if layer.kind != "cluster" or layer.cluster in here if wanted is None else layer.id in wanted:
                yield from zip(repeat(layer), self.levels, self._drawn(layer), strict=False)

    def _drawn(self, layer: Layer) -> Iterator[Picture]:
        if layer.kind == "cluster":
            return self._cluster(layer.cluster)
        how = {
            "density": self._density,
            "clusters": self._clusters,
            "outliers": self._outliers,
            "difference": self._difference,
        }
        return how[layer.kind]()

    def _planes(self, weights: NDArray[np.float64], side: int = 0) -> list[Plane]:
        return levels(self.sides[side].plane(weights), self.unit)

    def _smooth(self, planes: Sequence[Plane]) -> list[Plane]:
        return [
            pyramid.smooth(plane, self.sheet.scales[z].radius) for plane, z in zip(planes, self.levels, strict=True)
        ]

    def _shaded(self, smoothed: Sequence[Plane]) -> list[NDArray[np.uint8]]:
        return [pyramid.shade(plane, self.sheet.scales[z]) for plane, z in zip(smoothed, self.levels, strict=True)]

    @cached_property
    def _smoothed(self) -> list[Plane]:
        return self._smooth(self._planes(np.ones(2**16)))

    @cached_property
    def _lights(self) -> list[NDArray[np.uint8]]:
        return self._shaded(self._smoothed)

    def _density(self) -> Iterator[Picture]:
        return zip(self._lights, repeat(pyramid.density_palette()), strict=False)

    def _clusters(self) -> Iterator[Picture]:
        table = np.array([pyramid.rgb(colour) for colour in (*self.sheet.colours, NOISE_COLOUR)], np.float64)
        weights = table[np.where(np.isin(_CLUSTER_OF, range(len(self.sheet.colours))), _CLUSTER_OF, -1)]
        sums = zip(*(self._planes(weights[:, channel]) for channel in range(3)), strict=True)
        for z, rgb, smoothed, light in zip(self.levels, sums, self._smoothed, self._lights, strict=True):
            yield pyramid.mix(rgb, smoothed, light, self.sheet.scales[z]), None

    def _outliers(self) -> Iterator[Picture]:
        for z, plane in zip(self.levels, self._planes((_LAYERS % 2).astype(float)), strict=True):
            yield pyramid.marks(plane, self.sheet.marks[z]), pyramid.outlier_palette()

    def _cluster(self, cluster: int) -> Iterator[Picture]:
        colours = pyramid.cluster_palette(self.sheet.colours[cluster])
        planes = self._planes(np.equal(_CLUSTER_OF, cluster).astype(float))
        return zip(self._shaded(self._smooth(planes)), repeat(colours), strict=False)

    def _difference(self) -> Iterator[Picture]:
        for z, a, b in zip(self.levels, *(self._planes(np.ones(2**16), side) for side in (0, 1)), strict=True):
            radius = min(MOST_RADIUS, 2 * self.sheet.scales[z].radius + 2)
            found = pyramid.difference(a, b, self.sheet.rows, radius)
            yield found, pyramid.difference_palette()
