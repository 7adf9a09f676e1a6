"""Batches left out and taken back in, and which models saw which batches."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from streamclust.errors import InputError
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry
from streamclust.store.store import Batch, Store


def withdraw(store: Store, batch_id: str, reason: str) -> list[str]:
    """Leave a batch out from the next snapshot on; returns the models that saw it, which a new fit replaces.

    Nothing is removed and no row number moves: moments, labels and grids follow by adding up the others. A batch that
    is withdrawn already stays so, with its first reason.

    Raises
    ------
    InputError : there is no such batch, or no reason is given.
    """
    batch = find_batch(store, batch_id)
    if not reason.strip() or not reason.isprintable():
        raise InputError("the reason", f"{reason!r}", "a line that says why")
    if withdrawal_name(batch.name) not in store.snapshot.entries:
        drafts = withdrawal(store, batch.name, reason.strip())
        store.publish(f"withdraw {batch.id}", drafts)
    return models_that_saw(store, [batch.name])


def restore(store: Store, batch_id: str) -> None:
    """Take a withdrawn batch in again.

    Raises
    ------
    InputError : it is not withdrawn, or its rows were forgotten since.
    """
    batch = find_batch(store, batch_id)
    name = withdrawal_name(batch.name)
    if name not in store.snapshot.entries:
        raise InputError(f"batch {batch_id!r}", "is not withdrawn", "a withdrawn batch")
    if batch.forgotten == batch.n:
        raise InputError(f"batch {batch_id!r}", "all of its rows were forgotten", "a batch with rows")
    store.publish(f"restore {batch.id}", {}, remove=(name,))


def withdrawn(store: Store) -> dict[str, Mapping[str, Any]]:
    """Reason and time of every withdrawal, by the batch's id."""
    found = {entry.attributes["role"]: entry.attributes for entry in store.snapshot.of_kind("withdrawal").values()}
    return {batch.id: found[batch.name] for batch in store.every_batch if batch.name in found}


def withdrawal(store: Store, batch: str, reason: str) -> dict[str, tuple[Draft, Entry]]:
    """What to publish so that a batch, by its name in the manifest, is left out."""
    return record(store, withdrawal_name(batch), "withdrawal", {"role": batch, "reason": reason, "time": now()})


def withdrawal_name(batch: str) -> str:
    """The manifest's name of a batch's withdrawal: two writers cannot both publish it."""
    return f"withdrawals/{batch.split('/', 1)[1]}"


def record(store: Store, name: str, kind: str, attributes: Mapping[str, Any]) -> dict[str, tuple[Draft, Entry]]:
    """An object without arrays, ready to publish."""
    facts = json.dumps([name, kind, attributes], sort_keys=True)
    draft = store.draft(name, kind, hashlib.sha256(facts.encode()).hexdigest())
    return {name: (draft, draft.entry(attributes, {}))}


def now() -> str:
    """The time, as records keep it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def find_batch(store: Store, batch_id: str) -> Batch:
    """A batch by its id, withdrawn or not.

    Raises
    ------
    InputError : there is none.
    """
    for batch in store.every_batch:
        if batch.id == batch_id:
            return batch
    raise InputError(store.path, f"no batch {batch_id!r}", "one that streamclust info STORE lists")


def models_that_saw(store: Store, batches: Collection[str]) -> list[str]:
    """Projections and models fitted on any of these batches, by name in the manifest, or on such a model's results.

    A projection names its batches; a model saw those whose labels were published with it, and only labelled the others.
    """
    entries = store.snapshot.entries
    fitted = {name: e for name, e in entries.items() if name.startswith(("projections/", "models/"))}
    seen = {name for name, e in fitted.items() if not set(e.attributes.get("batches", ())).isdisjoint(batches)}
    for name, entry in entries.items():
        about = entry.attributes
        if name.startswith("labels/") and about["batch"] in batches:
            model = fitted.get(about["model"])
            if model is not None and model.added == entry.added:
                seen.add(about["model"])
    growing = True
    while growing:
        more = {name for name, e in fitted.items() if not seen.isdisjoint(e.attributes.get("parents", ()))} - seen
        growing = bool(more)
        seen |= more
    return sorted(seen)
