"""What a manifest says of the state: objects by name, each with its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ArrayEntry:
    """What a manifest knows of an array, so that opening a store reads none."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    digest: str = ""


@dataclass(frozen=True)
class Entry:
    """One published object: a Zarr group at ``path`` below ``data``, never changed again.

    Where ``first`` is not empty the group is a pack of many objects, and it says of each array at which row this one's
    begin; their shapes and chunks still are those that they were written with.
    """

    path: str
    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, ArrayEntry] = field(default_factory=dict)
    added: int = 0
    first: Mapping[str, int] = field(default_factory=dict)


def key_of(name: str, entry: Entry) -> str:
    """What tells an object from every other that any manifest names: its path, in a pack with its name."""
    return _key(name, entry.path, bool(entry.first))


def written_key(name: str, written: Mapping[str, Any]) -> str:
    """The same of an entry as it was written."""
    return _key(name, written["path"], bool(written.get("first")))


def _key(name: str, path: str, packed: bool) -> str:
    return f"{path}:{name}" if packed else path


@dataclass(frozen=True)
class Snapshot:
    """One published state of the store: entries by logical name, in the order they were added.

    ``first`` is the oldest snapshot that was kept when this one was published.
    """

    number: int
    digest: str
    entries: Mapping[str, Entry]
    first: int = 0

    def of_kind(self, kind: str) -> dict[str, Entry]:
        """The entries of one kind, oldest first."""
        found = {name: entry for name, entry in self.entries.items() if entry.kind == kind}
        return dict(sorted(found.items(), key=lambda item: (item[1].added, item[0])))

    def newest(self, kind: str, role: str) -> str | None:
        """The newest entry of that kind and role."""
        return self._newest(kind, "role", role)

    def find(self, kind: str, fingerprint: str) -> str | None:
        """The newest entry of that kind that was made from the same inputs."""
        return self._newest(kind, "fingerprint", fingerprint)

    def _newest(self, kind: str, attribute: str, value: str) -> str | None:
        found = (n for n, e in self.entries.items() if e.kind == kind and e.attributes.get(attribute) == value)
        return max(found, key=lambda name: (self.entries[name].added, name), default=None)


def tree_of(entry: Entry) -> dict[str, Any]:
    """An entry as it is written; `dataclasses.asdict` copies every value and takes ten times as long."""
    written = vars(entry) | {"arrays": {name: vars(array) for name, array in entry.arrays.items()}}
    if not entry.first:
        del written["first"]
    return written


def entry_from(written: Mapping[str, Any]) -> Entry:
    """An entry as it was written."""
    arrays = {
        name: ArrayEntry(tuple(a["shape"]), a["dtype"], tuple(a["chunks"]), a["digest"])
        for name, a in written["arrays"].items()
    }
    first = written.get("first", {})
    return Entry(written["path"], written["kind"], written["attributes"], arrays, written["added"], first)
