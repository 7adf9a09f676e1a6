"""Small objects merged into packs, as a new snapshot: what is stored of many batches in a few large files.

A pack is a Zarr group with the arrays of many objects back to back. Entries of the new snapshot say in which pack an
object lies and at which row of each array it begins; names, attributes, shapes, digests and the order of batches stay.
Older snapshots name the objects where they were, until they are pruned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from streamclust.blocks import Executor
from streamclust.errors import ConflictError
from streamclust.planning import shard_rows
from streamclust.store import arrays, manifest, metadata
from streamclust.store.addresses import address
from streamclust.store.arrays import Where
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry, Snapshot, key_of
from streamclust.store.examine import PACK
from streamclust.store.publishing import Step, publish_drafts, refuse_stale
from streamclust.store.store import Store

MERGED = ("batch", "reduced", "labels")  # the kinds of which every batch has one or more
SMALL, LARGE = 2**25, 2**29  # bytes of an object that is merged, and of a pack

Object = tuple[str, Entry]


@dataclass(frozen=True)
class Compacted:
    """What a compaction did: the snapshot it is, objects that were merged, packs they are in, and bytes of those."""

    snapshot: int
    objects: int
    packs: int
    bytes: int


@dataclass(frozen=True)
class Shard:
    """One file of a pack: rows ``start .. stop`` of an array, and where each run of them lies now."""

    path: Path
    start: int
    stop: int
    sources: tuple[tuple[Where, int, int], ...]


def compact(store: Store, executor: Executor) -> Compacted:
    """Merge what is small among batches, reduced rows and labels; done again, it finds nothing to do.

    Small packs are merged as well. What is damaged is not: the error names it. Batches of which no row is left stay
    where they are.

    Raises
    ------
    ConflictError : rows are being forgotten, or something that was merged was taken out meanwhile. DamageError : a
    chunk is missing or altered. InputError : the store was opened at a given snapshot.
    """
    store.refuse_fixed()
    store.refresh()
    packs, moved, size = dict[str, tuple[Draft, Entry]](), dict[str, Entry](), 0
    for i, objects in enumerate(list(_mergeable(store))):
        draft = _draft(store, f"packs/{store.snapshot.number + 1:06d}-{i:03d}", objects)
        first, inner = _write(store, executor, draft, objects)
        packs[draft.name] = draft, draft.entry({"inner": inner}, {})
        for k, (name, entry) in enumerate(objects):
            moved[name] = replace(entry, path=draft.path, first={array: rows[k] for array, rows in first.items()})
        size += sum(_bytes(entry) for _, entry in objects)
    if packs:
        _publish(store, packs, moved)
    return Compacted(store.snapshot.number, len(moved), len(packs), size)


def _mergeable(store: Store) -> Iterator[list[Object]]:
    """Objects for a pack each, in the order of their batches: of one kind, and alike but for their rows."""
    empty = {batch.name for batch in store.numbered if batch.forgotten == batch.n}
    alike: dict[str, dict[str, list[Object]]] = {}
    for kind in MERGED:
        for name, entry in store.snapshot.of_kind(kind).items():
            if empty.isdisjoint({name, entry.attributes.get("batch")}) and _fits(entry):
                units = alike.setdefault(_form(name, entry), {})
                units.setdefault(entry.path, []).append((name, entry))
    for units in alike.values():
        yield from _runs(list(units.values()))


def _fits(entry: Entry) -> bool:
    """Whether an object is small or in a pack; one with an array of no width has nothing to merge."""
    wide = all(all(about.shape[1:]) for about in entry.arrays.values())
    return bool(entry.arrays) and wide and (bool(entry.first) or _bytes(entry) < SMALL)


def _form(name: str, entry: Entry) -> str:
    """What objects of one pack have in common: labels of one model, with the same arrays of the same width and type."""
    widths = sorted((array, about.dtype, about.shape[1:]) for array, about in entry.arrays.items())
    return json.dumps([name.rsplit("/", 1)[0], widths])


def _bytes(entry: Entry) -> int:
    return sum(about.shape[0] * metadata.row_bytes(about.shape, about.dtype) for about in entry.arrays.values())


def _runs(units: Sequence[list[Object]]) -> Iterator[list[Object]]:
    """Neighbours that fit a pack together. No two packs that this leaves do, so that nothing is merged twice."""
    run, size = list[list[Object]](), 0
    for unit in [*units, []]:
        more = sum(_bytes(entry) for _, entry in unit)
        if run and (not unit or size + more > LARGE):
            if len(run) > 1:
                yield [each for one in run for each in one]
            run, size = [], 0
        run.append(unit)
        size += more


def _draft(store: Store, name: str, objects: Sequence[Object]) -> Draft:
    facts = json.dumps([(name, key_of(name, entry)) for name, entry in objects])
    return store.draft(name, PACK, hashlib.sha256(facts.encode()).hexdigest())


def _write(
    store: Store, executor: Executor, draft: Draft, objects: Sequence[Object]
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The rows of every object in a pack; by array where each begins, and the rows of a chunk."""
    first, inner, shards = dict[str, list[int]](), dict[str, int](), list[Shard]()
    for array, about in objects[0][1].arrays.items():
        ends = list(accumulate(entry.arrays[array].shape[0] for _, entry in objects))
        first[array] = [0, *ends[:-1]]
        step, inner[array] = shard_rows(ends[-1], metadata.row_bytes(about.shape, about.dtype))
        shape = (ends[-1], *about.shape[1:])
        path = draft.create(array, shape, metadata.type_of(about.dtype), step, inner=inner[array])
        places = [address(store.path / "data", entry, array) for _, entry in objects]
        shards += [_shard(path, start, min(ends[-1], start + step), places, ends) for start in range(0, ends[-1], step)]
    executor.map(_copy, shards)
    return first, inner


def _shard(path: Path, start: int, stop: int, places: Sequence[Where], ends: Sequence[int]) -> Shard:
    sources = []
    for place, begin, end in zip(places, [0, *ends[:-1]], ends, strict=True):
        low, high = max(start, begin), min(stop, end)
        if low < high:
            sources.append((place, low - begin, high - begin))
    return Shard(path, start, stop, tuple(sources))


def _copy(shard: Shard) -> None:
    if not arrays.has_rows(shard.path, shard.start, shard.stop):
        rows = np.concatenate([arrays.read_rows(*source) for source in shard.sources])
        arrays.write_rows(shard.path, shard.start, rows)


def _publish(store: Store, packs: dict[str, tuple[Draft, Entry]], moved: dict[str, Entry]) -> None:
    """One manifest with the whole state, in which every entry keeps when it was added and with it its place.

    Only packs count as added: what lies in them now is said in the state, once.
    """

    def step(base: Snapshot) -> Step:
        refuse_stale(store.path, store.snapshot, base, packs)
        _refuse_moved(store, base, moved)
        made = {name: replace(entry, added=base.number + 1) for name, (_, entry) in packs.items()}
        state = {**base.entries, **moved, **made}
        used = {entry.path for entry in state.values() if entry.first}
        gone = tuple(name for name, entry in base.entries.items() if entry.kind == PACK and entry.path not in used)
        state = {name: entry for name, entry in state.items() if name not in gone}
        return manifest.COMPACT, made, gone, state

    publish_drafts(store.path, store.snapshot, packs, step)
    store.refresh()


def _refuse_moved(store: Store, base: Snapshot, moved: dict[str, Entry]) -> None:
    """What was merged is in force as it was read."""
    for name in moved:
        if base.entries.get(name) != store.snapshot.entries[name]:
            raise ConflictError(store.path, f"{name} was changed while it was merged", hint="run it again")
