"""Rows taken out of published objects where they lie: the one exception to their never being changed.

Names, shapes and row numbers stay as they are. So no manifest changes, every retained snapshot loses the rows at once,
a reader elsewhere is never left without its files, and a few rows cost a few chunks. A chunk is replaced at once and
only after it is on disk, and doing it again changes nothing: whoever is killed starts from the beginning.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.planning import LABEL_ROWS
from streamclust.store import arrays, metadata
from streamclust.store.addresses import address
from streamclust.store.arrays import Where, grid
from streamclust.store.entries import Entry
from streamclust.store.files import sync, sync_tree
from streamclust.store.store import Batch, Store

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """Which rows a forgetting takes: published as (n,) bool for each batch it concerns, read a block at a time."""

    store: Store
    name: str

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows by batch."""
        found: Mapping[str, int] = self.store.snapshot.entries[self.name].attributes["batches"]
        return found

    @cached_property
    def batches(self) -> dict[str, Batch]:
        """The batches concerned."""
        return {batch.name: batch for batch in self.store.numbered if batch.name in self.counts}

    def block(self, batch: str, start: int, stop: int) -> Mask:
        """Of rows ``start .. stop`` of a batch."""
        return np.asarray(self.store.read(self.name, mask_name(batch), start, stop))

    def of_rows(self, batch: str, rows: NDArray[np.integer[Any]]) -> Mask:
        """Of any rows of a batch : (m,)."""
        found = np.zeros(len(rows), bool)
        if batch not in self.counts:
            return found
        order = np.argsort(rows, kind="stable")
        block = rows[order] // LABEL_ROWS
        for part in np.split(order, np.flatnonzero(np.diff(block)) + 1):
            if len(part):
                start = int(rows[part[0]]) // LABEL_ROWS * LABEL_ROWS
                stop = min(start + LABEL_ROWS, self.batches[batch].n)
                found[part] = self.block(batch, start, stop)[rows[part] - start]
        return found

    def of_ids(self, ids: NDArray[np.int64]) -> Mask:
        """Of row numbers in the snapshot, any shape."""
        flat, found = ids.ravel(), np.zeros(ids.size, bool)
        bases = np.array([batch.base for batch in self.store.numbered])
        of = np.searchsorted(bases, flat, "right") - 1
        for i in np.unique(of[flat >= 0]):
            batch, here = self.store.numbered[i], np.flatnonzero((of == i) & (flat >= 0))
            found[here] = self.of_rows(batch.name, flat[here] - batch.base)
        return found.reshape(ids.shape)


def mask_name(batch: str) -> str:
    """The array of a forgetting that holds a batch's mask."""
    return f"rows/{batch.split('/', 1)[1]}"


@dataclass
class Eraser:
    """Edits published arrays; ``touched`` are the objects that held what had to go."""

    masks: Masks
    scratch: Path
    touched: set[str] = field(default_factory=set)

    def path(self, entry: Entry, array: str) -> Where:
        """Where an array of an object lies."""
        return address(self.masks.store.path / "data", entry, array)

    def clear(self, entry: Entry, array: str, batch: str, value: Any) -> None:
        """Give the forgotten rows of an array with one row per image of ``batch`` that value instead."""
        about = self.masks.batches[batch]
        if about.forgotten == about.n and not entry.first:
            self._hollow(entry, array, value)
            return
        path = self.path(entry, array)
        for start, stop in grid(path):
            mask = self.masks.block(batch, start, stop)
            if mask.any():
                before = arrays.read_rows(path, start, stop)
                self._replace(entry, array, start, before, put(before.copy(), mask, value))

    def put(self, entry: Entry, array: str, gone: Mask, value: Any) -> None:
        """Give those rows of any array that value instead."""
        for start, stop in grid(self.path(entry, array)):
            if gone[start:stop].any():
                before = arrays.read_rows(self.path(entry, array), start, stop)
                self._replace(entry, array, start, before, put(before.copy(), gone[start:stop], value))

    def change(self, entry: Entry, array: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Replace an array that is small by ``change`` of it, which may change what it is given."""
        before = arrays.read_rows(self.path(entry, array))
        after = change(before.copy())
        for start, stop in grid(self.path(entry, array)):
            self._replace(entry, array, start, before[start:stop], after[start:stop])

    def _replace(self, entry: Entry, array: str, start: int, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Put whole chunks in the place of published ones, unless they are the same.

        A pack's files hold other objects' rows as well, which are written again as they are.
        """
        if np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            return
        path, start, stop = arrays.span(self.path(entry, array), start, start + len(after))
        first, last = arrays.whole_files(path, start, stop)
        if (first, last) != (start, stop):
            whole = arrays.read_rows(path, first, last)
            whole[start - first : stop - first] = after
            start, stop, after = first, last, whole
        other = self._new_folder()
        shutil.copyfile(path / "zarr.json", other / "zarr.json")
        arrays.write_rows(other, start, after)
        for new, old in zip(arrays.chunk_files(other, start, stop), arrays.chunk_files(path, start, stop), strict=True):
            sync(new)
            os.replace(new, old)  # noqa: PTH105 - watched by name where crashes are tried
            sync(old.parent)
        shutil.rmtree(other)
        self.touched.add(entry.path)

    def _hollow(self, entry: Entry, array: str, value: Any) -> None:
        """The same array with nothing but ``value``, compressed, so that its disk space is free again.

        Between the two renames there is no such array; who comes back after a kill makes it from the manifest.
        """
        about, other = entry.arrays[array], self._new_folder()
        path = self.masks.store.path / "data" / entry.path / array
        arrays.create_array(other, about.shape, metadata.type_of(about.dtype), about.chunks[0], compress=True)
        for start, stop in grid(other):
            arrays.write_rows(
                other, start, np.full((stop - start, *about.shape[1:]), value, metadata.type_of(about.dtype))
            )
        sync_tree(other)
        if path.exists():
            path.rename(self.scratch / secrets.token_hex(8))
        other.rename(path)
        sync(path.parent)
        arrays.forget_open_arrays()
        for left in self.scratch.iterdir():
            shutil.rmtree(left)
        self.touched.add(entry.path)

    def _new_folder(self) -> Path:
        folder = self.scratch / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder


def put(block: NDArray[Any], where: NDArray[Any], value: Any) -> NDArray[Any]:
    """``block[where] = value`` as an expression."""
    block[where] = value
    return block
