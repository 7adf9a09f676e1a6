"""A store on disk: snapshots to read from, drafts to write, one way to publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.store import arrays, manifest
from streamclust.store.addresses import address
from streamclust.store.arrays import Where
from streamclust.store.draft import Draft, sweep
from streamclust.store.entries import Entry, Snapshot
from streamclust.store.founding import make_empty
from streamclust.store.publishing import Drafts, Step, publish_drafts, refuse_stale
from streamclust.store.rows import Rows, leaves

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd

FORMER = "former batch"  # the kind of one that came after the snapshot which the store was rolled back to
ENDING = ("forgotten", "withdrawal", "trial")  # what may be drafted while rows are being forgotten


@dataclass(frozen=True)
class Batch:
    """A published batch: its name in the manifest, its rows, its first row in the snapshot, and how many rows of it
    were forgotten: those stay as rows without any values, so that row numbers never move.
    """

    name: str
    entry: Entry
    base: int
    forgotten: int = 0

    @property
    def id(self) -> str:
        """What the user calls it."""
        return str(self.entry.attributes["id"])

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.entry.attributes["rows"])

    @property
    def digest(self) -> str:
        """What results made from its rows depend on: another one once rows were forgotten."""
        return str(self.entry.attributes["digest"]) + (f"-{self.forgotten}" if self.forgotten else "")

    def has(self, descriptor: str) -> bool:
        """Whether it holds that descriptor."""
        return descriptor in self.entry.attributes["descriptors"]


class Store:
    """A store, read at one snapshot until :meth:`refresh`; one that is ``fixed`` stays there and is only read."""

    def __init__(self, path: Path, snapshot: Snapshot, *, fixed: bool = False) -> None:
        self.path, self.snapshot, self.fixed = path, snapshot, fixed

    @cached_property
    def _data(self) -> Path:
        return self.path / "data"

    def __repr__(self) -> str:
        names = ", ".join(self.descriptors) or "empty"
        rows = f"{self.n:,} images in {len(self.batches)} batch{'es' * (len(self.batches) != 1)}"
        return f"<Store {self.path} snapshot {self.snapshot.number}: {rows}, {names}>"

    def refresh(self) -> None:
        """Move to the newest snapshot."""
        if self.fixed:
            return
        self._move(manifest.load(self.path / "log", since=self.snapshot))

    def _move(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        for cached in ("numbered", "every_batch", "batches"):
            self.__dict__.pop(cached, None)

    @cached_property
    def numbered(self) -> list[Batch]:
        """Every batch that there ever was, in the order they were published, so that row numbers never move."""
        found, base, forgotten = [], 0, Counter[str]()
        for entry in self.snapshot.of_kind("forgetting").values():
            forgotten.update(entry.attributes["batches"])
        every = self.snapshot.of_kind("batch") | self.snapshot.of_kind(FORMER)
        for name, entry in sorted(every.items(), key=lambda item: (item[1].added, item[0])):
            found.append(Batch(name, entry, base, forgotten[name]))
            base += found[-1].n
        return found

    @cached_property
    def every_batch(self) -> list[Batch]:
        """Batches in the order they were published, withdrawn ones too."""
        return [batch for batch in self.numbered if batch.entry.kind == "batch"]

    @cached_property
    def batches(self) -> list[Batch]:
        """Batches in the order they were published, those left out that were withdrawn."""
        withdrawn = {entry.attributes["role"] for entry in self.snapshot.of_kind("withdrawal").values()}
        return [batch for batch in self.every_batch if batch.name not in withdrawn]

    @property
    def n(self) -> int:
        """Images in the snapshot, without forgotten ones."""
        return sum(batch.n - batch.forgotten for batch in self.batches)

    @property
    def descriptors(self) -> dict[str, int]:
        """Descriptor names and their number of features."""
        return {
            name: about["features"] for b in self.batches for name, about in b.entry.attributes["descriptors"].items()
        }

    def array(self, name: str, array: str) -> Where:
        """Where an array of a published object lies.

        Raises
        ------
        DamageError : its metadata is not what the manifest says; no checksum guards metadata.
        """
        entry = self.snapshot.entries[name]
        where, known = address(self._data, entry, array), entry.arrays[array]
        if not arrays.is_as_said(where, known.shape, known.dtype, known.chunks):
            file = self._data / entry.path / array / "zarr.json"
            raise DamageError(file, "is not what the manifest says of it", hint="restore it")
        return where

    def read(self, name: str, array: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array of a published object."""
        return arrays.read_rows(self.array(name, array), start, stop)

    def rows(self, batch: Batch, step: int, paths: Mapping[str, Where]) -> Iterator[Rows]:
        """Addresses over a batch, ``step`` rows each."""
        return leaves(batch.name, batch.base, batch.n, step, paths)

    def draft(self, name: str, kind: str, fingerprint: str) -> Draft:
        """Start an object, or go on with what a killed run left of the same.

        Raises
        ------
        ConflictError : rows are being forgotten, so that nothing may be made from what is stored. InputError : the
        store was opened at a given snapshot.
        """
        self.refuse_fixed()
        if kind not in ENDING and (pending := unfinished(self.snapshot)):
            hint = "finish it first: streamclust forget STORE --resume"
            raise ConflictError(self.path, f"{pending[0]} is not finished", "a store whose forgetting ended", hint)
        return Draft.open(self.path, name, kind, fingerprint, self._named)

    def _named(self) -> set[str]:
        """Every path that any manifest names, and kept ones of those that were pruned."""
        log = self.path / "log"
        added = (entry["path"] for document in manifest.kept(log) for entry in document["add"].values())
        return {*(entry.path for _, entry in manifest.said_before(log)), *added}

    def publish(
        self,
        operation: str,
        drafts: Drafts,
        check: Callable[[Snapshot], None] = lambda _: None,
        remove: tuple[str, ...] = (),
    ) -> None:
        """Make drafts part of the store, all or none, after everything in them is on disk.

        ``check`` looks at the newest snapshot before each try and raises where the drafts do not fit it any more.

        Raises
        ------
        ConflictError : another writer published the same, or what the drafts may be made from was forgotten or taken
        out. InputError : the store was opened at a given snapshot.
        """
        self.refuse_fixed()

        def step(base: Snapshot) -> Step:
            check(base)
            refuse_stale(self.path, self.snapshot, base, drafts)
            if taken := sorted(set(drafts) & set(base.entries)):
                raise ConflictError(self.path, f"{taken[0]} was published by another writer", hint="try again")
            return operation, {name: entry for name, (_, entry) in drafts.items()}, remove, None

        publish_drafts(self.path, self.snapshot, drafts, step)
        self.refresh()

    def refuse_fixed(self) -> None:
        """Refuse to write to a store that was opened at a given snapshot."""
        if self.fixed:
            found, hint = f"opened at snapshot {self.snapshot.number}, to be read only", "open it without a snapshot"
            raise InputError(self.path, found, hint=hint)

    def sweep(self) -> int:
        """Remove what dead writers left and no manifest ever named; returns how many objects."""
        return sweep(self.path, self._named)

    def __getitem__(self, descriptor: str) -> da.Array:
        """A descriptor over all batches as a dask array, (n, d); rows of a batch that lacks it are NaN."""
        from streamclust.store.stacked import stacked

        return stacked(self, descriptor)

    def labels(self) -> dd.DataFrame:
        """One row per image with everything the newest models say, as a dask dataframe."""
        from streamclust.store.table import frame

        return frame(self)


def unfinished(snapshot: Snapshot) -> list[str]:
    """Forgettings that were begun and did not end."""
    ended = {entry.attributes["role"] for entry in snapshot.of_kind("forgotten").values()}
    return [name for name in snapshot.of_kind("forgetting") if name not in ended]


def create(path: Path) -> Store:
    """Open a store, making it first where there is none."""
    path = Path(path)
    make_empty(path)
    return open_store(path)


def open_store(path: Path | str, at: int | None = None) -> Store:
    """Open a store at its newest snapshot, or to be read only at snapshot ``at``, without rows forgotten since.

    Raises
    ------
    InputError : there is no store, or no such snapshot. DamageError : its manifests are damaged.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        raise InputError(path, "no such store", "the folder of a store", "make one with: streamclust run STORE CASE")
    snapshot = manifest.load(path / "log", at)
    if at is None:
        return Store(path, snapshot)
    later = manifest.load(path / "log").of_kind("forgetting")
    return Store(path, replace(snapshot, entries={**snapshot.entries, **later}), fixed=True)
