"""What is stored of a row, room by room, and what stands there once it is forgotten: the most derived first.

A row leaves traces of its own in its batch, in what was reduced and labelled from it, in samples, among the points that
models keep, as a thumbnail, and as one count in a grid. Sums over many rows (a projection, the centre of a cluster, the
quantiles of a score) keep no row; models that saw one are listed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import moments as mo
from streamclust.evidence import MISSING
from streamclust.store import arrays
from streamclust.store.entries import Entry
from streamclust.store.erasure import Eraser, Masks, put

FORGOTTEN = "/forgotten"  # instead of a path: no image can be called so, since absolute paths are refused
FAR = 1e15  # its square is finite in float32, and nothing is near it
NO_VALUE = -2
_CLOSE = 1e-5  # relative; a centre is summed in float64 about an origin, so it is a row but for rounding
_BLOCK = 4096
Objects = Sequence[tuple[str, Entry]]  # with their names


def erase(eraser: Eraser, objects: Objects) -> None:
    """Take the rows out of every object that any manifest names."""
    for room, of in _ROOMS.items():
        for name, entry in objects:
            if name.split("/", 1)[0] == room:
                of(eraser, name, entry, objects)


def _grids(eraser: Eraser, name: str, entry: Entry, objects: Objects) -> None:
    """Grids that counted a row are emptied, to be counted again."""
    if counted(entry, eraser.masks.counts):
        for array in entry.arrays:
            eraser.change(entry, array, np.zeros_like)


def counted(entry: Entry, batches: Mapping[str, int]) -> bool:
    """Whether a grid counts rows of any of these batches."""
    return not set(entry.attributes.get("batches", batches)).isdisjoint(batches)


def _thumbs(eraser: Eraser, name: str, entry: Entry, objects: Objects) -> None:
    """Bytes of zero, which are no JPEG."""
    rows, offsets = (arrays.read_rows(eraser.path(entry, name)) for name in ("rows", "offsets"))
    gone = eraser.masks.of_rows(entry.attributes["batch"], rows)
    eraser.put(entry, "data", np.repeat(gone, np.diff(offsets)), 0)


def _models(eraser: Eraser, name: str, entry: Entry, objects: Objects) -> None:
    """Points that a model keeps are moved away from everything; so is a centre that none but forgotten rows made."""
    for array in entry.arrays:
        room = str(PurePosixPath(array).parent)
        beside = {PurePosixPath(a).name: a for a in entry.arrays if str(PurePosixPath(a).parent) == room}
        if array == beside.get("ids"):
            _points(eraser, entry, beside)
        elif array == beside.get("centers") and "counts" in beside:
            _centers(eraser, entry, array, beside["counts"], objects)


def _points(eraser: Eraser, entry: Entry, beside: Mapping[str, str]) -> None:
    """Rows of a model by number, ``ids``, and what is kept of each in the arrays beside."""
    ids = arrays.read_rows(eraser.path(entry, beside["ids"]))
    gone = eraser.masks.of_ids(ids)
    if not gone.any():
        return
    for name, value in (("points", FAR), ("anchor", False), ("label", -1), ("core_distance", 0)):
        if name in beside:
            eraser.change(entry, beside[name], partial(put, where=gone, value=value))
    for name in ("Z", "xy"):  # of a map, whose neighbours are sought about the mean: nothing may lie far away
        if name in beside:
            eraser.change(entry, beside[name], partial(_twin, gone=_ever(eraser, ids)))
    for name in ("k_distance", "density"):  # (T, K, m) beside ids (T, m)
        if name in beside:
            eraser.change(entry, beside[name], partial(_ones, gone=gone))


def _ever(eraser: Eraser, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these rows this or an earlier forgetting takes: a copy that stands for one of them must go as well."""
    store = eraser.masks.store
    taken = [Masks(store, name).of_ids(ids) for name in store.snapshot.of_kind("forgetting")]
    return np.asarray(np.any(taken, axis=0))


def _ones(block: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(gone[:, None], block.dtype.type(1), block)


def _twin(block: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[Any]:
    """The row kept before each forgotten one, or the first one kept, once more; zeros where none is."""
    kept = np.flatnonzero(~gone)
    if not len(kept):
        return np.zeros_like(block)
    before = kept[np.maximum(np.searchsorted(kept, np.flatnonzero(gone)) - 1, 0)]
    block[gone] = block[before]
    return block


def _centers(eraser: Eraser, entry: Entry, array: str, counts: str, objects: Objects) -> None:
    """A centre about which no more rows were than lie on it and are forgotten is such a row itself."""
    centers, size = (arrays.read_rows(eraser.path(entry, name)) for name in (array, counts))
    few = np.flatnonzero(size <= sum(eraser.masks.counts.values()))
    made = np.zeros(len(few), np.int64)
    for name, reduced in objects:
        if name.startswith("reduced/") and reduced.attributes["projection"] in entry.attributes["parents"]:
            for Z in _forgotten_rows(eraser, reduced):
                made += _upon(Z, centers[few])
    lone = few[(made > 0) & (made >= size[few])]
    if len(lone):
        eraser.change(entry, array, partial(put, where=lone, value=FAR))


def _forgotten_rows(eraser: Eraser, reduced: Entry) -> Any:
    """The rows that go and still have values, a block at a time."""
    batch = reduced.attributes["batch"]
    if batch not in eraser.masks.counts or not arrays.span(path := eraser.path(reduced, "Z"), 0, 0)[0].exists():
        return
    n, step = arrays.shape_of(path)[0], arrays.rows_per_chunk(path)
    for start in range(0, n, step):
        mask = eraser.masks.block(batch, start, min(n, start + step))
        if mask.any():
            Z = arrays.read_rows(path, start, min(n, start + step))[mask]
            yield Z[np.isfinite(Z[:, 0])]


def _upon(Z: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many rows lie on each centre : (k,)."""
    found = np.zeros(len(centers), np.int64)
    slack = _CLOSE * np.abs(centers).max(axis=1)
    for start in range(0, len(Z), _BLOCK):
        block = Z[start : start + _BLOCK]
        row, center = np.nonzero(np.abs(block[:, None, 0] - centers[:, 0]) <= slack)
        upon = np.abs(block[row] - centers[center]).max(axis=1) <= slack[center]
        found += np.bincount(center[upon], minlength=len(centers))
    return found


def _projections(eraser: Eraser, name: str, entry: Entry, objects: Objects) -> None:
    """Rows of the resident sample become NaN."""
    of, rows = (arrays.read_rows(eraser.path(entry, f"sample/{name}")) for name in ("batch", "row"))
    gone = np.zeros(len(rows), bool)
    for i, batch in enumerate(entry.attributes["batches"]):
        here = np.flatnonzero(of == i)
        gone[here] = eraser.masks.of_rows(batch, rows[here])
    eraser.put(entry, "sample/reduced", gone, np.nan)


def _rows(eraser: Eraser, name: str, entry: Entry, objects: Objects) -> None:
    """Labels, and what was reduced: one value per row of a batch."""
    batch = entry.attributes["batch"]
    if batch in eraser.masks.counts:
        for array, about in entry.arrays.items():
            value = {"f": np.nan, "b": False, "u": MISSING if array == "reason_code" else 0}.get(
                about.dtype[0], NO_VALUE
            )
            eraser.clear(entry, array, batch, value)


def _batches(eraser: Eraser, name: str, entry: Entry, objects: Objects) -> None:
    """Path, metadata, place of the picture, every descriptor, the stored sample; moments are taken again."""
    if name not in eraser.masks.counts:
        return
    sampled = arrays.read_rows(eraser.path(entry, "sample/rows"))
    gone = eraser.masks.of_rows(name, sampled)
    for descriptor in entry.attributes["descriptors"]:
        eraser.put(entry, f"sample/{descriptor}", gone, np.nan)
        eraser.clear(entry, f"descriptors/{descriptor}", name, np.nan)
        eraser.clear(entry, f"valid/{descriptor}", name, False)
        _moments(eraser, entry, descriptor)
    for array, about in entry.arrays.items():
        room, _, column = array.partition("/")
        if room == "images" and column != "path":
            nothing = {"f": np.nan, "s": "", "b": False}.get(about.dtype[0], 0)
            eraser.clear(entry, array, name, -1 if column.startswith("picture_") else nothing)
    eraser.clear(entry, "images/path", name, FORGOTTEN)


def _moments(eraser: Eraser, entry: Entry, descriptor: str) -> None:
    """The moments of the rows that are left."""
    path, room = eraser.path(entry, f"descriptors/{descriptor}"), f"moments/{descriptor}"
    (n, d), step = arrays.shape_of(path), arrays.rows_per_chunk(path)
    found = mo.identity(d, scatter=f"{room}/scatter" in entry.arrays)
    for start in range(0, n, step):
        X = arrays.read_rows(path, start, min(n, start + step))
        found = mo.accumulate(found, X[np.isfinite(X).all(axis=1)])
    values = {name: getattr(found, name) for name in ("mean", "m2", "min", "max")} | {"n": np.array([found.n])}
    if found.scatter is not None:
        values["scatter"] = mo.pack(found.scatter)
    for name, value in values.items():
        eraser.change(entry, f"{room}/{name}", partial(_instead, value=value))


def _instead(block: NDArray[Any], value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(block.dtype)


_Room = Callable[[Eraser, str, Entry, Objects], None]
_ROOMS: dict[str, _Room] = {
    "grids": _grids,
    "thumbs": _thumbs,
    "models": _models,
    "projections": _projections,
    "labels": _rows,
    "reduced": _rows,
    "batches": _batches,
}
