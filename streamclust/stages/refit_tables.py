"""One descriptor before and after a refit: rows by old and new label, ids that stay, and a draw of rows that change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.cluster import matching
from streamclust.cluster.members import MembersState, members_block
from streamclust.cluster.members import merge as merge_members
from streamclust.job import Job
from streamclust.planning import LABEL_ROWS
from streamclust.stages.labels import labels_name
from streamclust.stages.names import LEVELS, Level, cluster_ids, next_id, origins
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Store

Tables = Mapping[Level, NDArray[np.int64]]
SHOWN = 12


def compare(job: Job, draft: Draft, descriptor: str, model: str, before: str | None) -> dict[str, Any]:
    """Ids and events of one descriptor; tables and rows go to the draft."""
    store = job.store
    about = {"model": model, "before": before}
    k = {level: len(cluster_ids(store, model, level)) for level in LEVELS}
    if before is None:
        return about | {level: asdict(matching.first(k[level])) for level in LEVELS}
    old = {level: cluster_ids(store, before, level) for level in LEVELS}
    addresses = list(_addresses(store, before, model))
    with job.journal.stage(f"{descriptor}: compare with the newest", sum(len(rows) for rows in addresses)):
        sizes = {level: (len(old[level]), k[level]) for level in LEVELS}
        first, later = _tables(job, before, addresses, sizes)
        found = {v: matching.match(first[v], old[v], next_id(store, before, v), later[v]) for v in LEVELS}
        ids = np.array(old["label"]), np.array(found["label"].ids)
        rows = job.executor.fold(add_changed, addresses, merge_members, *ids, job.settings.seed).random
    draft.write(f"{descriptor}/table", first["label"] + later["label"])
    draft.write(f"{descriptor}/rows", rows)
    return about | {level: asdict(found[level]) for level in LEVELS}


def _addresses(store: Store, before: str, model: str) -> Iterator[Rows]:
    """Rows of the batches that both models labelled."""
    for batch in store.batches:
        old, new = labels_name(before, batch.name), labels_name(model, batch.name)
        if {old, new} <= store.snapshot.entries.keys():
            paths = {f"{which}/{v}": store.array(n, v) for which, n in (("old", old), ("new", new)) for v in LEVELS}
            yield from store.rows(batch, LABEL_ROWS, paths | {"distance": store.array(new, "distance")})


def _tables(
    job: Job, before: str, addresses: Sequence[Rows], sizes: Mapping[Level, tuple[int, int]]
) -> tuple[Tables, Tables]:
    """Counts of each old cluster over the rows that gave it its id, or, if none of those is left, all; and over others.

    What is fitted together with a later kind of row, before the two are told apart, is still what it was named for.
    """
    meant = {level: origins(job.store, before, level) for level in LEVELS}
    groups: dict[tuple[tuple[bool, ...], ...], list[Rows]] = {}
    for rows in addresses:
        groups.setdefault(tuple(tuple(rows.batch in fit for fit in meant[v]) for v in LEVELS), []).append(rows)
    first, every = ({level: np.zeros(size, np.int64) for level, size in sizes.items()} for _ in range(2))
    for here, group in groups.items():
        found = job.executor.fold(add_tables, group, merge_tables, sizes)
        for level, mask in zip(LEVELS, here, strict=True):
            every[level] += found[level]
            first[level] += found[level] * np.array(mask)[:, None]
    for level in LEVELS:
        gone = first[level].sum(axis=1) == 0
        first[level][gone] = every[level][gone]
    return first, {level: every[level] - first[level] for level in LEVELS}


def add_tables(state: Tables | None, rows: Rows, sizes: Mapping[Level, tuple[int, int]]) -> Tables:
    """One block's rows by old and new label."""
    found = {
        v: counts.contingency_block(rows.read(f"old/{v}"), rows.read(f"new/{v}"), *size) for v, size in sizes.items()
    }
    return found if state is None else merge_tables(state, found)


def merge_tables(a: Tables, b: Tables) -> Tables:
    """Both."""
    return {level: a[level] + b[level] for level in a}


def add_changed(
    state: MembersState | None, rows: Rows, old_ids: NDArray[np.int64], new_ids: NDArray[np.int64], seed: int
) -> MembersState:
    """A draw of one block's rows whose id changes, by new label."""
    old, new = rows.read("old/label"), rows.read("new/label")
    moved = (old >= 0) & (new >= 0)
    moved[moved] = old_ids[old[moved]] != new_ids[new[moved]]
    found = members_block(rows.ids, np.where(moved, new, -1), rows.read("distance"), len(new_ids), SHOWN, seed)
    return found if state is None else merge_members(state, found)
