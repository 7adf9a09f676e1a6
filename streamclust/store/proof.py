"""The proof that forgotten rows are gone: every file of the store looked through for their bytes and their paths."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.store import arrays, metadata
from streamclust.store.addresses import address
from streamclust.store.arrays import Where, grid
from streamclust.store.entries import Entry
from streamclust.store.erasure import Mask, Masks
from streamclust.store.files import read_file, sync, sync_tree
from streamclust.store.store import Batch

Hashes = NDArray[Any]
_AT_ONCE = 4_000_000  # 64 MB of digests; more are looked for in several passes
_BLOCK = 4096
_SHORTEST = 16  # bytes of a row; fewer cannot be told from chance
_COMPLETE = "complete"
_DELIMITERS = re.compile(r"[\s\"'<>,;=()\[\]{}|]+")


def path_digests(paths: Iterable[str]) -> Hashes:
    """128-bit BLAKE2b of each path : (n,) S16, so that equal digests are equal paths."""
    return np.array([blake2b(path.encode(), digest_size=16).digest() for path in paths], "S16")


def among(values: Hashes, wanted: Hashes) -> Mask:
    """Which values are among some sorted ones."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return np.asarray(wanted[at] == values)


def row_hashes(X: NDArray[Any]) -> Hashes:
    """A 64-bit hash of each row's bytes : (n,) uint64; 0 for rows whose numbers are all the same, which say nothing.

    Twice the upper half of a multilinear hash (Lemire and Kaser, "Strongly universal string hashing is fast", 2014).
    """
    found = np.zeros(len(X), np.uint64)
    for start in range(0, len(X), _BLOCK):
        block = np.ascontiguousarray(X[start : start + _BLOCK])
        words = block.view(np.uint16).astype(np.uint64)
        high, low = (words @ factors >> np.uint64(32) for factors in _factors(words.shape[1]))
        found[start : start + _BLOCK] = np.where((block == block[:, :1]).all(axis=1), 0, high << np.uint64(32) | low)
    return found


@cache
def _factors(width: int) -> NDArray[np.uint64]:
    return np.random.default_rng(2014).integers(0, 2**64, (2, width), np.uint64) | np.uint64(1)


def remember(masks: Masks, objects: Sequence[tuple[str, Entry]], folder: Path) -> None:
    """Hashes of everything that goes, taken while it is there: of rows by their bytes, of paths.

    They lie in ``folder`` until the proof is made. Once complete they are not taken again.
    """
    if (folder / _COMPLETE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for i, (entry, array, batch) in enumerate(_own_places(objects, masks.batches.values())):
        path = address(masks.store.path / "data", entry, array)
        kind = "paths" if array == "images/path" else f"rows{_row_bytes(path)}"
        with (folder / f"{kind}-{i:06d}").open("wb") as file:
            for start, stop in grid(path):
                mask = masks.block(batch, start, stop)
                if mask.any():
                    values = arrays.read_rows(path, start, stop)[mask]
                    file.write((path_digests(values.tolist()) if kind == "paths" else row_hashes(values)).tobytes())
    sync_tree(folder)
    (folder / _COMPLETE).touch()
    for place in (folder, *folder.parents):
        sync(place)
        if place == masks.store.path:
            break


def _own_places(objects: Sequence[tuple[str, Entry]], batches: Iterable[Batch]) -> Iterator[tuple[Entry, str, str]]:
    """(object, array, batch) wherever rows of these batches stand under their own numbers, as they came or reduced."""
    names = {batch.name for batch in batches}
    for name, entry in objects:
        if name in names:
            yield entry, "images/path", name
            yield from ((entry, f"descriptors/{d}", name) for d in entry.attributes["descriptors"])
        elif name.startswith("reduced/") and entry.attributes["batch"] in names:
            yield entry, "Z", entry.attributes["batch"]


@dataclass(frozen=True)
class Held:
    """Rows of a batch under their own numbers in an array: from ``first`` on, so many."""

    batch: str
    first: int
    rows: int


@dataclass
class Search:
    """What is looked for, and what was found: ``kept`` is also a row that stays, ``found`` where there is none."""

    paths: Hashes
    rows: Mapping[int, Hashes]
    kept: set[bytes | int] = field(default_factory=set)
    found: dict[bytes | int, set[str]] = field(default_factory=dict)

    def look(self, values: Hashes, wanted: Hashes, where: str, stays: Mask | None) -> None:
        """``stays`` says which of the values stand where an image's own do, and that the image stays."""
        hit = among(values, wanted)
        if hit.any():
            stays = np.zeros(len(values), bool) if stays is None else stays
            self.kept.update(values[hit & stays].tolist())
            for value in values[hit & ~stays].tolist():
                self.found.setdefault(value, set()).add(where)

    @property
    def left(self) -> set[str]:
        """Files that still hold something of a forgotten row."""
        return {where for value, places in self.found.items() if value not in self.kept for where in places}


def prove(masks: Masks, objects: Sequence[tuple[str, Entry]], folder: Path) -> tuple[int, list[str]]:
    """Look through every file below the store; returns how many there are, and which still hold a path or a row.

    A row or a path that an image which stays has as well is no trace; where such images stand is read only if
    something was found elsewhere. Rows of less than 16 bytes, and rows that hold one number throughout, are found by
    their place alone. Needs what `remember` left in ``folder``.
    """
    needles = [path for path in sorted(folder.iterdir()) if path.name != _COMPLETE]
    widths = {int(path.name.split("-")[0][4:]) for path in needles if path.name.startswith("rows")}
    parts = max(1, -(-sum(path.stat().st_size for path in needles) // (16 * _AT_ONCE)))
    places: dict[str, list[Held]] = {}
    for entry, array, batch in _own_places(objects, masks.store.numbered):
        held = Held(batch, entry.first.get(array, 0), entry.arrays[array].shape[0])
        places.setdefault(f"{entry.path}/{array}", []).append(held)
    files, left = 0, set[str]()
    for part in range(parts):
        rows = {w: _load(needles, f"rows{w}-", np.uint64, part, parts) for w in widths if w >= _SHORTEST}
        search = Search(_load(needles, "paths-", "S16", part, parts), rows)
        files = _walk(masks, places, search, folder)
        if search.left:
            for place, of in places.items():
                if not _concerned(masks, of):
                    _look_into(masks, place, of, search)
        left |= search.left
    return files, sorted(left)


def _load(needles: Iterable[Path], kind: str, dtype: Any, part: int, parts: int) -> Hashes:
    """The sorted part of the hashes of one kind."""
    found = [np.empty(0, dtype)]
    for path in needles:
        if path.name.startswith(kind) and path.stat().st_size:
            every = np.memmap(path, dtype, "r")
            of = every.view(np.uint64)[:: every.dtype.itemsize // 8] % np.uint64(parts)
            found.append(np.unique(every[of == part]))
    together = np.unique(np.concatenate(found))
    return together if kind == "paths-" else together[together != 0]


def _concerned(masks: Masks, held: Sequence[Held]) -> bool:
    return any(each.batch in masks.counts for each in held)


def _walk(masks: Masks, places: Mapping[str, Sequence[Held]], search: Search, skip: Path) -> int:
    """All files but those of rows of their own that all stay; returns how many files there are."""
    root, data, files = masks.store.path, masks.store.path / "data", 0
    for where, folders, names in os.walk(root):
        folder = Path(where)
        folders[:] = [name for name in folders if folder / name != skip]
        files += len(names)
        for file in (folder / name for name in names):
            place = str(folder.relative_to(data)) if folder.is_relative_to(data) else ""
            held = places.get(place, ())
            concerned = not held or _concerned(masks, held)
            if file.name == "zarr.json" and concerned and metadata.describe(folder) is not None:
                _look_into(masks, place, held, search)
            if (file.name == "zarr.json" or "c" not in place.split("/")) and file.is_file():  # a pipe holds nothing
                search.look(path_digests(_texts(file)), search.paths, str(file.relative_to(root)), None)
    return files


def _look_into(masks: Masks, place: str, held: Sequence[Held], search: Search) -> None:
    """All rows or texts of one array; ``held`` says whose rows it holds under their own numbers, if any."""
    path = masks.store.path / "data" / place
    text = arrays.read_rows(path, 0, 0).dtype.kind == "T"
    wanted = search.paths if text else search.rows.get(_row_bytes(path))
    if wanted is None or not len(wanted):
        return
    for start, stop in grid(path):
        values = arrays.read_rows(path, start, stop)
        stays = _staying(masks, held, start, stop) if held else None
        found = path_digests(values.ravel().tolist()) if text else row_hashes(values.reshape(-1, values.shape[-1]))
        search.look(found, wanted, f"data/{place}", stays)


def _staying(masks: Masks, held: Sequence[Held], start: int, stop: int) -> Mask:
    """Which rows of an array, from ``start`` on, are those of images that stay."""
    found = np.zeros(stop - start, bool)
    for each in held:
        first, last = max(start, each.first), min(stop, each.first + each.rows)
        if first < last:
            kept = each.batch not in masks.counts
            mine = slice(first - start, last - start)
            found[mine] = kept or ~masks.block(each.batch, first - each.first, last - each.first)
    return found


def _texts(file: Path) -> Iterator[str]:
    """Every text of a JSON file; of another one, what stands between blanks, quotes and the like."""
    content = read_file(file).decode("utf-8", errors="replace")
    if file.suffix == ".json":
        yield from _strings(json.loads(content))
    else:
        yield from _DELIMITERS.split(content)


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
        yield from _DELIMITERS.split(tree)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _strings(key)
            yield from _strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value)


def _row_bytes(path: Where) -> int:
    row = arrays.read_rows(path, 0, 0)
    return int(row.dtype.itemsize * (row.shape[-1] if row.ndim > 1 else 1))
