"""A store as it would be were a proposal accepted: what is published through it, nobody else reads yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from streamclust.errors import ConflictError
from streamclust.store import manifest
from streamclust.store.entries import Entry, Snapshot
from streamclust.store.publishing import Drafts
from streamclust.store.store import Batch, Store

PROPOSED = "proposed "  # before the kind of an entry that waits
_SHARED = ("projection", "reduced")  # nobody looks for the newest of these, so they are published as they are
_TRIES = 20


class Trial(Store):
    """The store with the entries of proposal ``key`` in force, maybe of some batches (by name) only."""

    def __init__(self, store: Store, key: str, batches: Sequence[str] | None = None) -> None:
        super().__init__(store.path, _in_force(store.snapshot, key))
        self.key, self._chosen = key, batches
        self._plain = Store(store.path, store.snapshot)  # manifests follow what is, not what would be

    def refresh(self) -> None:
        """Move to the newest snapshot."""
        self._plain.refresh()
        self._move(_in_force(self._plain.snapshot, self.key))

    @cached_property
    def batches(self) -> list[Batch]:
        """The chosen batches; row numbers are those of the whole store."""
        every = Store(self.path, self.snapshot).batches
        return [batch for batch in every if self._chosen is None or batch.name in self._chosen]

    def publish(
        self,
        operation: str,
        drafts: Drafts,
        check: Callable[[Snapshot], None] = lambda _: None,
        remove: tuple[str, ...] = (),
    ) -> None:
        """Make drafts part of the proposal."""
        proposed = {name: (draft, self._propose(entry)) for name, (draft, entry) in drafts.items()}
        self._plain.publish(operation, proposed, check, remove)
        self.refresh()

    def _propose(self, entry: Entry) -> Entry:
        if entry.kind in _SHARED:
            return entry
        return replace(entry, kind=PROPOSED + entry.kind, attributes={**entry.attributes, "proposal": self.key})

    def accept(
        self, operation: str, attributes: Mapping[str, Mapping[str, Any]], check: Callable[[Snapshot], None]
    ) -> None:
        """Put the proposal in force for everybody, in one manifest; the objects stay as they are on disk.

        ``attributes`` by name are added to what the manifest says of an entry. ``check`` sees the newest snapshot and
        raises where the proposal does not fit it any more.
        """
        for attempt in range(_TRIES):
            base = manifest.load(self.path / "log", since=self._plain.snapshot)
            check(base)
            found = _in_force(base, self.key).entries
            add = {
                name: replace(found[name], attributes={**found[name].attributes, **attributes.get(name, {})})
                for name, entry in proposed(base).items()
                if entry.attributes["proposal"] == self.key
            }
            try:
                manifest.publish(self.path / "log", base, operation, add, tuple(add))
                break
            except ConflictError:
                if attempt == _TRIES - 1:
                    raise
        self.refresh()


def proposed(snapshot: Snapshot) -> dict[str, Entry]:
    """Everything that waits, by name, under whatever key."""
    return {name: entry for name, entry in snapshot.entries.items() if entry.kind.startswith(PROPOSED)}


def _in_force(snapshot: Snapshot, key: str) -> Snapshot:
    mine = {name: e for name, e in proposed(snapshot).items() if e.attributes["proposal"] == key}
    seen = {name: replace(entry, kind=entry.kind.removeprefix(PROPOSED)) for name, entry in mine.items()}
    return replace(snapshot, entries={**snapshot.entries, **seen})
