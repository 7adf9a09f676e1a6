"""A long history without its bytes: a stored day again and again, under other names, a manifest each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamclust.store import manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamclust.store.store import Store


def repeat(store: Store, batch: str, days: int) -> None:
    """Publish ``days`` more batches whose arrays are those of ``batch``, with all that was said of it."""
    entries = store.snapshot.entries
    old = batch.split("/")[1]
    of_batch = {name: entry for name, entry in entries.items() if name.split("/")[-1] == old}
    first = len(store.every_batch) + 1
    for i in range(days):
        added = {}
        other = f"{first + i:06d}-again-{i:05d}"
        for name, entry in of_batch.items():
            renamed = _renamed(entry.attributes, old, other)
            if "id" in renamed:
                renamed["id"] = other.split("-", 1)[1]
            if entry.kind == "batch":
                renamed["digest"] = f"{i:064x}"
            if entry.kind == "day":
                renamed["alarms"] = []
            added[name.replace(old, other)] = replace(entry, attributes=renamed)
        manifest.publish(store.path / "log", store.snapshot, f"repeat {batch}", added, ())
        store.refresh()


def _renamed(attributes: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Every reference to the old batch, wherever it stands among the attributes."""
    return {key: value.replace(old, new) if isinstance(value, str) else value for key, value in attributes.items()}
