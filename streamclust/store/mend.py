"""What a store can make again by itself: metadata from the manifest, and what a batch derived from its own rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import moments as mo
from streamclust.blocks import Executor
from streamclust.store import arrays, metadata
from streamclust.store.addresses import part
from streamclust.store.arrays import Part, Where, grid
from streamclust.store.entries import ArrayEntry, Entry
from streamclust.store.examine import DERIVED, PACK, Damage, kind_of, made_of_rows
from streamclust.store.files import sync, sync_tree
from streamclust.store.rows import Rows, leaves


def write_metadata(root: Path, damage: Damage, entry: Entry | None, trial: Path) -> bool:
    """Write a group's or an array's metadata again, of an object by its entry as first published, or of a room.

    ``trial`` is a folder of the caller's, where an array's metadata is tried. Returns whether it was written: that of
    an array is not where no chunk is sound under it, and none is in place of a folder.
    """
    file = root / damage.file
    if file.is_dir():
        return False
    if entry is not None and damage.array:
        inner = entry.attributes["inner"][damage.array] if entry.kind == PACK else 0
        return _describe_again(file, entry.arrays[damage.array], inner, trial)
    own = entry is not None and file.parent == root / "data" / entry.path
    said = {k: v for k, v in entry.attributes.items() if k != "proposal"} if own and entry else {}
    shutil.rmtree(trial, ignore_errors=True)
    arrays.create_group(trial, said)
    _put_metadata(trial, file)
    return True


def _describe_again(file: Path, about: ArrayEntry, inner: int, trial: Path) -> bool:
    """The metadata of a new array of the same shape; a chunk tells whether they are compressed."""
    for compress in (False, True):
        shutil.rmtree(trial, ignore_errors=True)
        arrays.forget_open_arrays()
        dtype = metadata.type_of(about.dtype)
        arrays.create_array(trial, about.shape, dtype, about.chunks[0], compress=compress, inner=inner)
        if _fits(file.parent, trial, about):
            _put_metadata(trial, file)
            return True
    return False


def _put_metadata(trial: Path, file: Path) -> None:
    sync(trial / "zarr.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    os.replace(trial / "zarr.json", file)  # noqa: PTH105 - watched by name where crashes are tried
    sync(file.parent)
    sync(file.parent.parent)


def _fits(path: Path, other: Path, about: ArrayEntry) -> bool:
    """Whether some chunk of an array is sound under the metadata of another one, or it has none."""
    for start, stop in grid(other):
        files = metadata.chunk_paths(path, about.shape, about.chunks, start, stop)
        if all(file.is_file() for file in files):
            for file in files:
                copy = other / file.relative_to(path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            if arrays.has_rows(other, start, stop):
                return True
    return about.shape[0] == 0


def make_again(executor: Executor, folder: Path, entry: Entry, damaged: Collection[str]) -> Iterator[str]:
    """Moments, validity and sample of a batch, where they are damaged and its rows are not; yields what was made."""
    for array in sorted(filter(made_of_rows, damaged)):
        if not _sources(array).isdisjoint(damaged):
            continue
        room, descriptor = array.split("/")[:2]
        X = folder / f"descriptors/{descriptor}"
        if room == "valid":
            executor.map(_write_valid, _chunks(X, folder / array))
        elif room == "sample":
            _write_sample(X, folder)
        else:
            _write_moments(executor, X, folder / room / descriptor)
        sync_tree(folder / room / descriptor)
        yield array


def make_again_in_pack(
    executor: Executor, data: Path, members: Mapping[str, Entry], damaged: Collection[tuple[str, str]]
) -> Iterator[str]:
    """The same of the batches in one pack, whose files hold rows of several; yields arrays of which a file was made.

    ``members`` are all batches in the pack, by what the log knows them by, and ``damaged`` are which of them and which
    array.
    """
    for array in sorted({array for key, array in damaged if key in members and made_of_rows(array)}):
        spoiled = {key for key in members if (key, array) in damaged}
        lost = {key for key in spoiled if any((key, source) in damaged for source in _sources(array))}
        places = {key: part(data, entry, array) for key, entry in members.items()}
        pack = places[min(spoiled)].path
        for start, stop in grid(pack):
            here = {k: place for k, place in places.items() if place.first < stop and place.first + place.rows > start}
            wanted = spoiled.intersection(here)
            if wanted and lost.isdisjoint(wanted):
                made = {key: _derived(executor, data, members[key], array) for key in sorted(wanted)}
                _write_file(pack, start, stop, here, made)
                sync_tree(pack)
                yield array


def write_index(root: Path, damage: Damage) -> bool:
    """Write a file of a pack again as it is, for the index behind its rows; not where rows of it are damaged too."""
    path, rows = root / "data" / damage.path / damage.array, damage.rows or (0, 0)
    if sound := arrays.has_rows(path, *rows):
        arrays.write_rows(path, rows[0], arrays.read_rows(path, *rows), durable=True)
        sync_tree(path)
    return sound


def _sources(array: str) -> set[str]:
    """What an array of a batch is derived from."""
    room, descriptor = array.split("/")[:2]
    return {f"descriptors/{descriptor}"} | ({"sample/rows"} if room == "sample" else set())


def _derived(executor: Executor, data: Path, entry: Entry, array: str) -> NDArray[Any]:
    """All rows of an array that a batch in a pack derives: such a batch is small."""
    room, descriptor = array.split("/")[:2]
    X = part(data, entry, f"descriptors/{descriptor}")
    if room == "valid":
        return np.asarray(np.isfinite(arrays.read_rows(X)).all(axis=1))
    if room == "sample":
        return np.asarray(arrays.read_rows(X)[arrays.read_rows(part(data, entry, "sample/rows"))])
    scatter = f"moments/{descriptor}/scatter" in entry.arrays
    return _moments(executor, X, scatter=scatter)[array.rsplit("/", 1)[1]]


def _write_file(
    pack: Path, start: int, stop: int, places: Mapping[str, Part], made: Mapping[str, NDArray[Any]]
) -> None:
    """One file of a pack, rows ``start .. stop``: what was made, and what the others have there as it is."""
    rows = np.zeros((stop - start, *arrays.shape_of(pack)[1:]), arrays.read_rows(pack, 0, 0).dtype)
    for key, place in places.items():
        low, high = max(start, place.first), min(stop, place.first + place.rows)
        mine = slice(low - place.first, high - place.first)
        values = made[key][mine] if key in made else arrays.read_rows(place, mine.start, mine.stop)
        rows[low - start : high - start] = values
    arrays.write_rows(pack, start, rows, durable=True)


def _chunks(X: Where, out: Path | None = None) -> list[Rows]:
    """The fixed grid of a descriptor, and what is written of it."""
    n, step = arrays.shape_of(X)[0], arrays.rows_per_chunk(X)
    return list(leaves("", 0, n, step, {"X": X} | ({"valid": out} if out else {})))


def _write_valid(rows: Rows) -> None:
    arrays.write_rows(rows.arrays["valid"], rows.start, np.isfinite(rows.read("X")).all(axis=1), durable=True)


def _write_sample(X: Path, folder: Path) -> None:
    picked, out = arrays.read_rows(folder / "sample" / "rows"), folder / "sample" / X.name
    for first, last in grid(out):
        block = np.empty((last - first, *arrays.shape_of(X)[1:]), arrays.read_rows(X, 0, 0).dtype)
        for start, stop in grid(X):
            here = (picked[first:last] >= start) & (picked[first:last] < stop)
            if here.any():
                block[here] = arrays.read_rows(X, start, stop)[picked[first:last][here] - start]
        arrays.write_rows(out, first, block, durable=True)


def _write_moments(executor: Executor, X: Path, room: Path) -> None:
    for name, value in _moments(executor, X, scatter=(room / "scatter").is_dir()).items():
        for start, stop in grid(room / name):
            arrays.write_rows(room / name, start, value[start:stop], durable=True)


def _moments(executor: Executor, X: Where, *, scatter: bool) -> dict[str, NDArray[Any]]:
    """In the runs that ingest adds up in, so that they are the same to the bit."""
    d = arrays.shape_of(X)[1]
    found = executor.fold(_add, _chunks(X), mo.merge, d, scatter, run=8 if d > 1024 else 1)
    values: dict[str, NDArray[Any]] = {name: np.asarray(getattr(found, name)) for name in ("mean", "m2", "min", "max")}
    values["n"] = np.array([found.n])
    return values | ({"scatter": mo.pack(found.scatter)} if found.scatter is not None else {})


def _add(state: mo.Moments | None, rows: Rows, d: int, scatter: bool) -> mo.Moments:
    X = rows.read("X")
    valid = np.isfinite(X).all(axis=1)
    return mo.accumulate(state or mo.identity(d, scatter=scatter), X if valid.all() else X[valid])


def with_dependents(entries: Mapping[str, Entry], names: Collection[str]) -> set[str]:
    """Those derived objects, and every one that was made from one of them: its attributes name it."""
    gone = {name for name in names if kind_of(entries[name]) in DERIVED}
    said = {name: set(_texts(e.attributes)) for name, e in entries.items() if kind_of(e) in DERIVED}
    while more := {name for name, texts in said.items() if name not in gone and not gone.isdisjoint(texts)}:
        gone |= more
    return gone


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for part in [*tree, *tree.values()] if isinstance(tree, dict) else tree:
            yield from _texts(part)
