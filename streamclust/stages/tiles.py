"""Tile counts of a map: one object for each batch, and runs that hold many of them, so that few say it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import tiling
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages.labels import labels_name
from streamclust.stages.sources import described
from streamclust.stages.tile_chunks import Chunk, Run, fill, padded, stored_run, write_runs
from streamclust.store.arrays import Where
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store
from streamclust.tiling import EVERY, Frame, Sparse

BLOCK = 2**21  # rows that a task sorts at once
SCRATCH = 2**15  # keys in a chunk of a sorted block, which is only read to be merged


@dataclass(frozen=True)
class Cover:
    """Objects whose counts, with their signs, sum to those of some batches, which are given with their digests."""

    descriptor: str
    parents: tuple[str, ...]
    frame: Frame
    batches: Mapping[str, str]
    sources: tuple[tuple[str, int], ...] = ()


def count_tiles(job: Job, descriptor: str) -> Cover:
    """Count every batch that was not counted yet, merge runs, and say which objects hold the counts of all batches.

    Batches that the newest models have not labelled are left out. A run that holds a withdrawn batch is used with
    that batch taken off again, until it is merged with the next.

    Raises
    ------
    InputError : no such descriptor, no map, clusters or flags yet, or no batch that has them.
    """
    store, parents = job.store, models(job.store, descriptor)
    frame = tiling.square(store.snapshot.entries[parents[0]].attributes["extent"])
    digests = _digests(store, parents, frame)
    usable, stale = _objects(store, descriptor, digests)
    counted = _singles(usable)
    for batch in store.batches:
        if batch.name in digests and batch.name not in counted:
            with job.journal.stage(f"{descriptor}: count tiles of {batch.id}", batch.n):
                _count(job, batch, Cover(descriptor, parents, frame, {batch.name: digests[batch.name]}), stale)
            stale = ()
    batches = {batch.name: digests[batch.name] for batch in store.batches if batch.name in digests}
    if not batches:
        raise InputError(store.path, f"no batch is on {descriptor}'s map", "a placed batch", "streamclust map STORE")
    return _merged(job, Cover(descriptor, parents, frame, batches), digests)


def models(store: Store, descriptor: str) -> tuple[str, ...]:
    """The newest map, clusters and flags of a descriptor, whose labels are drawn."""
    if descriptor not in (known := described(store)):
        raise InputError(store.path, f"no descriptor {descriptor!r}", f"one of {', '.join(known)}")
    found = []
    for role, command in ((f"{descriptor}/map", "map"), (f"{descriptor}/kmeans", "fit"), ("outliers", "outliers")):
        name = store.snapshot.newest("model", role)
        if name is None:
            raise InputError(store.path, f"no model {role} yet", "a store that was run", f"streamclust {command} STORE")
        found.append(name)
    return tuple(found)


def single(store: Store, descriptor: str, batch: str, digest: str) -> str | None:
    """The object that holds the counts of one batch alone, if it is there."""
    return _singles(_objects(store, descriptor, {batch: digest})[0]).get(batch)


def rows_of(store: Store, sources: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Rows placed inside the frame by some objects, and rows outside it or without a place."""
    about = [(store.snapshot.entries[name].attributes, sign) for name, sign in sources]
    return sum(sign * a["rows"] for a, sign in about), sum(sign * a["outside"] for a, sign in about)


def _digests(store: Store, parents: Sequence[str], frame: Frame) -> dict[str, str]:
    """By batch, withdrawn ones too, a digest of what it is counted from."""
    found, entries = {}, store.snapshot.entries
    for batch in store.every_batch:
        names = [labels_name(model, batch.name) for model in parents]
        if all(name in entries for name in names):
            paths = [entries[name].path for name in names]  # what lies under one changes only where rows are forgotten
            found[batch.name] = fingerprint("tiles", vars(frame), paths, batch.forgotten)[:16]
    return found


Objects = Mapping[str, Mapping[str, Any]]  # attributes by name


def _objects(store: Store, descriptor: str, digests: Mapping[str, str]) -> tuple[Objects, tuple[str, ...]]:
    """The objects that hold counts of just these batches, as they are now; and the names of the others."""
    role = f"{descriptor}/tiles"
    found = {n: e.attributes for n, e in store.snapshot.of_kind("grid").items() if e.attributes["role"] == role}
    usable = {name: about for name, about in found.items() if about["batches"].items() <= digests.items()}
    return usable, tuple(found.keys() - usable.keys())


def _singles(objects: Objects) -> dict[str, str]:
    """The objects of one batch, by that."""
    return {next(iter(about["batches"])): name for name, about in objects.items() if len(about["batches"]) == 1}


# ---- counting one batch


def _count(job: Job, batch: Batch, cover: Cover, remove: tuple[str, ...]) -> None:
    """Sort its blocks, each into its own chunks of a scratch object, then merge them part by part."""
    store = job.store
    blocks = list(store.rows(batch, BLOCK, _labels(store, cover.parents, batch)))
    name = f"grids/{cover.descriptor}-tiles-{store.snapshot.number + 1:06d}-{batch.name.split('/', 1)[1]}"
    scratch = store.draft(f"{name}-sorted", "scratch", fingerprint("sorted", cover.batches))
    shape, step = (len(blocks) * BLOCK,), min(SCRATCH, batch.n)
    paths = {
        "keys": scratch.create("keys", shape, np.uint64, step),
        "counts": scratch.create("counts", shape, np.uint32, step),
    }
    paths["sorted"] = scratch.create("sorted", (len(blocks), BLOCK // EVERY + 2), np.int64, 1)
    outs = [Rows("", 0, i, i + 1, paths) for i in range(len(blocks))]
    found = job.executor.map(sort_block, list(zip(blocks, outs, strict=True)), cover.frame, step)
    runs = [_sorted_run(out, about, step) for out, about in zip(outs, found, strict=True)]
    draft = store.draft(name, "grid", fingerprint("tiles", cover.batches))
    entry = _entry(job, draft, runs, cover, batch.n)
    store.publish(f"tiles {cover.descriptor} {batch.id}", {name: (draft, entry)}, remove=remove)
    scratch.discard()


def _labels(store: Store, parents: Sequence[str], batch: Batch) -> dict[str, Where]:
    place, clustering, outliers = (labels_name(model, batch.name) for model in parents)
    paths = {axis: store.array(place, axis) for axis in ("x", "y")}
    return paths | {"label": store.array(clustering, "label"), "outlier": store.array(outliers, "outlier")}


def sort_block(address: tuple[Rows, Rows], frame: Frame, step: int) -> NDArray[np.int64]:
    """Sort one block's keys into its own chunks; returns how many there are and their samples."""
    rows, out = address
    if not out.written("sorted"):
        x, y, label, outlier = (rows.read(name) for name in ("x", "y", "label", "outlier"))
        part = tiling.count_keys(tiling.block_keys(x, y, label, outlier, frame))
        for first in range(0, len(part.keys), step):
            start, some = out.start * BLOCK + first, slice(first, first + step)
            fill(replace(out, start=start, stop=start + step), Sparse(part.keys[some], part.counts[some]), "")
        samples = tiling.samples(part.keys).astype(np.int64)
        out.write("sorted", padded(np.array([len(part.keys), *samples]), BLOCK // EVERY + 2)[None])
    about = out.read("sorted")[0]
    return np.asarray(about[: 1 + tiling.sampled(int(about[0]))])


def _sorted_run(out: Rows, about: NDArray[np.int64], step: int) -> Run:
    entries, samples = int(about[0]), about[1:].astype(np.uint64)
    codes = samples >> tiling.LAYER_BITS
    found = []
    for first in range(0, entries, step):
        start, end = out.start * BLOCK + first, min(first + step, entries)
        where = replace(out, start=start, stop=start + end - first)
        found.append(Chunk(where, int(codes[first // EVERY]), int(codes[-(-end // EVERY)])))
    return Run(tuple(found), (samples,))


def _entry(job: Job, draft: Draft, runs: Sequence[Run], cover: Cover, rows: int) -> Entry:
    """Merge runs of the batches of a cover, with so many rows in all, into a draft."""
    found = write_runs(job, draft, runs)
    placed = sum(part.rows for part in found)
    attributes = {
        "role": f"{cover.descriptor}/tiles",
        "descriptor": cover.descriptor,
        "parents": list(cover.parents),
        "frame": vars(cover.frame),
        "batches": dict(cover.batches),
        "rows": placed,
        "outside": rows - placed,
        "entries": sum(part.entries[0] for part in found),
    }
    return draft.entry(attributes, {})


# ---- few runs for many batches


@dataclass(frozen=True)
class _Piece:
    """What may be merged with its neighbours: its place in time, its objects, its entries, its batches."""

    order: int
    sources: tuple[tuple[str, int], ...]
    entries: int
    batches: frozenset[str]


def _merged(job: Job, cover: Cover, digests: Mapping[str, str]) -> Cover:
    """The cover with its objects, neighbours merged where runs have become too many."""
    store = job.store
    pieces = _pieces(store, cover, digests)
    groups = [pieces[run.start : run.stop] for run in tiling.carry([piece.entries for piece in pieces])]
    drafts: dict[str, tuple[Draft, Entry]] = {}
    sources: list[tuple[str, int]] = []
    for group in groups:
        together = [source for piece in group for source in piece.sources]
        if len(group) > 1:
            batches = {name: cover.batches[name] for piece in group for name in sorted(piece.batches)}
            name = f"grids/{cover.descriptor}-tiles-{store.snapshot.number + 1:06d}-run-{group[0].order + 1:06d}"
            draft = store.draft(name, "grid", fingerprint("tiles", batches))
            with job.journal.stage(f"{cover.descriptor}: merge tiles of {len(batches)} batches", 0):
                runs = [stored_run(store, *source) for source in together]
                rows, outside = rows_of(store, together)
                drafts[name] = draft, _entry(job, draft, runs, replace(cover, batches=batches), rows + outside)
            together = [(name, 1)]
        sources += together
    if drafts:
        replaced = {
            name for group in groups if len(group) > 1 for piece in group for name, sign in piece.sources if sign > 0
        }
        old = tuple(n for n in replaced if len(store.snapshot.entries[n].attributes["batches"]) > 1)
        store.publish(f"merge tiles {cover.descriptor}", drafts, remove=old)
    return replace(cover, sources=tuple(sources))


def _pieces(store: Store, cover: Cover, digests: Mapping[str, str]) -> list[_Piece]:
    """Disjoint objects that cover the batches, oldest first: the largest runs that can be used, then single batches."""
    order = {batch.name: i for i, batch in enumerate(store.every_batch)}
    usable, _ = _objects(store, cover.descriptor, digests)
    singles, left = _singles(usable), set(cover.batches)
    found = []
    for name, about in sorted(usable.items(), key=lambda item: -len(item[1]["batches"])):
        members = set(about["batches"])
        gone = sorted(members - set(cover.batches))
        if len(members) > 1 and members - set(gone) <= left and members - set(gone) and set(gone) <= singles.keys():
            left -= members
            sources = ((name, 1), *((singles[batch], -1) for batch in gone))
            found.append(
                _Piece(min(order[m] for m in members), sources, about["entries"], frozenset(members - set(gone)))
            )
    for batch in left:
        name = singles[batch]
        found.append(_Piece(order[batch], ((name, 1),), usable[name]["entries"], frozenset([batch])))
    return sorted(found, key=lambda piece: piece.order)
