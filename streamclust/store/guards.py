"""When the store moved on under a writer: what was made from rows or models that are no more is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from streamclust.errors import ConflictError
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry, Snapshot

_SOURCES = (
    "batch",
    "projection",
    "reduced",
    "model",
    "labels",
)  # what others are made from, and nobody removes lightly


def refuse_stale(root: Path, known: Snapshot, base: Snapshot, drafts: Mapping[str, tuple[Draft, Entry]]) -> None:
    """Hold what a writer knew against the newest snapshot.

    Raises
    ------
    ConflictError : rows were forgotten meanwhile, or the store was rolled back or repaired.
    """
    if base.digest == known.digest or not drafts:
        return
    if base.of_kind("forgetting").keys() - known.of_kind("forgetting").keys():
        for draft, _ in drafts.values():
            draft.discard()  # it must not be adopted later either
        raise ConflictError(root, "rows were forgotten while this was made from them", hint="run it again")
    for name, entry in known.entries.items():
        if entry.kind in _SOURCES and (name not in base.entries or base.entries[name].kind != entry.kind):
            raise ConflictError(root, f"{name} was taken out while this was made beside it", hint="run it again")
