"""Drafts into the newest state, where the store may have moved on under their writer.

Where somebody else published first it is tried again; what was made from rows or models that are no more is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from streamclust.errors import ConflictError
from streamclust.store import manifest
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry, Snapshot

_TRIES = 20
# what others are made from, and nobody removes lightly
_SOURCES = ("batch", "projection", "reduced", "model", "labels")

Drafts = Mapping[str, tuple[Draft, Entry]]
Step = tuple[str, Mapping[str, Entry], tuple[str, ...], Mapping[str, Entry] | None]
"""From a snapshot to the next, as `manifest.publish` takes it: operation, add, remove and state."""


def publish_drafts(root: Path, known: Snapshot, drafts: Drafts, step: Callable[[Snapshot], Step]) -> None:
    """Publish the step from the newest snapshot, after everything in the drafts is on disk.

    ``step`` is asked before each try, and raises where the drafts do not fit the newest snapshot any more.

    Raises
    ------
    ConflictError : others were first in every try.
    """
    for draft, _ in drafts.values():
        draft.sync()
    for attempt in range(_TRIES):
        base = manifest.load(root / "log", since=known)
        taken = step(base)
        try:
            manifest.publish(root / "log", base, *taken)
            break
        except ConflictError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.01 * 2 ** min(attempt, 6))
    for draft, _ in drafts.values():
        draft.release()


def refuse_stale(root: Path, known: Snapshot, base: Snapshot, drafts: Drafts) -> None:
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
