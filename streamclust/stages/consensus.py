"""A label for every row that descriptors and algorithms agree upon, weighted by evidence, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.cluster import kmeans, passes
from streamclust.cluster.assign import assign
from streamclust.cluster.consensus import Ballot, choose, weigh
from streamclust.cluster.matching import first, match
from streamclust.cluster.members import MembersState, members_block
from streamclust.cluster.members import merge as merge_members
from streamclust.cluster.restarts import restarts
from streamclust.cluster.two_level import Asked
from streamclust.job import Job, fingerprint
from streamclust.sampling import batch_key, row_hashes
from streamclust.stages.compare import clusterings, label_rows, table_key
from streamclust.stages.labels import NO_VALUE, LabelWriter, labels_name, ready, unlabelled, up_to_date
from streamclust.stages.names import cluster_ids, next_id
from streamclust.store.rows import Rows
from streamclust.store.store import Batch

ROLE = "consensus"
KINDS = {"label": np.int32, "confidence": np.float32}
COLUMNS = {"label": "consensus", "confidence": "confidence"}
SAMPLE = 20_000
SHOWN = 12
AGREED = 0.8  # the share of the evidence below which an image is in doubt

Names = Sequence[str]
Centers = NDArray[np.float32]


def agree(job: Job, models: Mapping[str, str], comparison: str) -> str:
    """The consensus of all clusterings; returns its model's name. Ids stay as they were where the rows did.

    ``models`` maps descriptors to k-means models, ``comparison`` holds their tables.
    """
    store, settings = job.store, job.settings.cluster
    every = clusterings(job, models)
    wanted = fingerprint(ROLE, sorted(every.items()), [b.name for b in store.batches], settings.ks, job.settings.seed)
    known = up_to_date(job, "model", ROLE, wanted, "inputs")
    if known is not None:
        return known
    names, addresses = list(every), _rows(job, every, store.batches)
    with job.journal.stage(ROLE, sum(map(len, addresses))):
        ballot = _ballot(job, every, comparison)
        found = _fit(job, ballot, names, addresses)
        shared = {k: ballot.shared(result.sums.means, result.counts) for k, result in found.items()}
        best = choose(shared)
        return _publish(job, every, ballot, addresses, found[best], shared[best], wanted)


def in_force(job: Job, models: Mapping[str, str]) -> str | None:
    """The newest consensus, if it is of the clusterings in force; ``models`` as in `agree`."""
    model = job.store.snapshot.newest("model", ROLE)
    of = None if model is None else job.store.snapshot.entries[model].attributes["parents"]
    return model if of == list(clusterings(job, models).values()) else None


def predict(job: Job, model: str) -> list[str]:
    """Label the batches that the consensus has not labelled, by what it agreed upon; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    every = dict(zip(about["clusterings"], about["parents"], strict=True))
    addresses = _rows(job, every, unlabelled(store, model))
    if not addresses:
        return []
    ballot = Ballot(tuple(about["sizes"]), tuple(about["weights"]))
    with job.journal.stage(f"{ROLE}: labels", sum(map(len, addresses))):
        writer = LabelWriter(store, model, addresses, KINDS, fingerprint(model, "labels"))
        centers = store.read(model, "centers")
        job.executor.map(write_labels, writer.addresses, ballot, list(every), centers)
        store.publish(f"predict {ROLE}", writer.finish(ROLE, COLUMNS))
    return sorted({rows.batch for rows in addresses})


def _rows(job: Job, every: Mapping[str, str], batches: Sequence[Batch]) -> list[Rows]:
    """Labels by all clusterings, of the batches that each of those has labelled."""
    found = [batch for batch in batches if ready(job.store, every.values(), batch)]
    return label_rows(job, every, batches=found) if found else []


def _ballot(job: Job, every: Mapping[str, str], comparison: str) -> Ballot:
    entries = job.store.snapshot.entries
    pairs = [(a, b) for a, b in entries[comparison].attributes["label"] if a in every and b in every]
    tables = {pair: job.store.read(comparison, table_key("label", pair)) for pair in pairs}
    sizes = tuple(int(entries[model].attributes["clusters"]) for model in every.values())
    return Ballot(sizes, weigh(list(every), tables))


def _fit(job: Job, ballot: Ballot, names: Names, addresses: Sequence[Rows]) -> dict[int, kmeans.LloydResult]:
    """Every k of the sweep, from restarts on a sample, by exact passes."""
    settings, seed = job.settings.cluster, job.settings.seed
    keys = {batch.name: batch_key(batch.id, seed) for batch in job.store.batches}
    share = min(1.0, SAMPLE / sum(map(len, addresses)))
    sample = ballot.encode(np.concatenate(job.executor.map(draw, addresses, names, keys, share)))
    ks = [k for k in settings.ks if k <= len(sample)] or [1]
    starts = job.executor.map(start, [ks], sample, settings.restarts, seed)[0]

    def fold(centers: dict[int, Asked]) -> Mapping[int, passes.LloydState]:
        return job.executor.fold(add_votes, addresses, passes.merge_sets, centers, ballot, names, run=1)

    return kmeans.lloyd(fold, starts, settings.passes)


def _publish(
    job: Job,
    every: Mapping[str, str],
    ballot: Ballot,
    addresses: Sequence[Rows],
    found: kmeans.LloydResult,
    shared: float,
    wanted: str,
) -> str:
    """Label every row; ids are those of the consensus before, where the rows are; all visible at once."""
    store, before = job.store, job.store.snapshot.newest("model", ROLE)
    name, k = f"models/{ROLE}-{store.snapshot.number + 1:06d}", len(found.centers)
    old = () if before is None else cluster_ids(store, before)
    writer = LabelWriter(store, name, _with_old(job, before, addresses), KINDS, fingerprint(wanted, "labels"))
    agreed = job.executor.fold(
        add_labels, writer.addresses, merge, ballot, list(every), found.centers, len(old), job.settings.seed, run=1
    )
    ids = first(k) if before is None else match(agreed.moved, old, next_id(store, before))
    draft = store.draft(name, "model", fingerprint(wanted, "model"))
    draft.write("centers", found.centers)
    draft.write("counts", agreed.counts)
    draft.write("confidence", agreed.confidence / np.maximum(agreed.counts, 1))
    draft.write("doubted", agreed.doubted)
    for kind in ("nearest", "random", "farthest"):
        draft.write(f"members/{kind}", getattr(agreed.members, kind))
    attributes = {
        "role": ROLE,
        "parents": list(every.values()),
        "clusterings": list(every),
        "sizes": list(ballot.sizes),
        "weights": list(ballot.weights),
        "clusters": k,
        "shared": shared,
        "ids": {"label": list(ids.ids)},
        "next_ids": {"label": ids.next_id},
        "inputs": wanted,
    }
    store.publish(f"fit {ROLE}", writer.finish(ROLE, COLUMNS) | {name: (draft, draft.entry(attributes, {}))})
    return name


def _with_old(job: Job, before: str | None, addresses: Sequence[Rows]) -> list[Rows]:
    """The same rows with the labels of the consensus before, as ``old``, where it gave any."""
    store = job.store
    if before is None:
        return list(addresses)
    labels = {batch.name: labels_name(before, batch.name) for batch in store.batches}
    return [
        rows.with_arrays(old=store.array(labels[rows.batch], "label"))
        if labels[rows.batch] in store.snapshot.entries
        else rows
        for rows in addresses
    ]


def read_labels(rows: Rows, names: Names) -> NDArray[np.int32]:
    """What each clustering says of an address's rows : (n, m); NO_VALUE of those that say nothing."""
    found = np.full((len(rows), len(names)), NO_VALUE, np.int32)
    for column, name in enumerate(names):
        if name in rows.arrays:
            found[:, column] = rows.read(name)
    return found


def draw(rows: Rows, names: Names, keys: Mapping[str, int], share: float) -> NDArray[np.int32]:
    """Labels of a random share of an address's rows, of those that have any."""
    labels = read_labels(rows, names)
    hashes = row_hashes(keys[rows.batch], rows.start, rows.stop)
    return labels[(hashes <= np.uint64(share * (2**64 - 2**11))) & (labels >= 0).any(axis=1)]


def start(ks: Sequence[int], sample: Centers, n_init: int, seed: int) -> dict[int, Centers]:
    """The best start of each k."""
    return {k: found[0] for k, found in restarts(sample, ks, n_init=n_init, keep=1, seed=seed).items()}


def add_votes(
    state: Mapping[int, passes.LloydState] | None,
    rows: Rows,
    centers: Mapping[int, Centers],
    ballot: Ballot,
    names: Names,
) -> Mapping[int, passes.LloydState]:
    """One block's part of an exact pass over encoded rows."""
    labels = read_labels(rows, names)
    found = passes.lloyd_block(ballot.encode(labels[(labels >= 0).any(axis=1)]), centers)
    return found if state is None else passes.merge_sets(state, found)


def label_block(rows: Rows, ballot: Ballot, names: Names, centers: Centers) -> tuple[NDArray[Any], NDArray[Any]]:
    """Label one block and write it; labels and confidences of all its rows."""
    labels = read_labels(rows, names)
    voted = (labels >= 0).any(axis=1)
    label, sure = np.full(len(rows), NO_VALUE, np.int32), np.full(len(rows), np.nan, np.float32)
    label[voted] = assign(ballot.encode(labels[voted]), centers)[0]
    sure[voted] = ballot.confidence(labels[voted], label[voted], ballot.favourites(centers))
    rows.write("label", label)
    rows.write("confidence", sure)
    return label, sure


def write_labels(rows: Rows, ballot: Ballot, names: Names, centers: Centers) -> None:
    """The same, and nothing that travels."""
    label_block(rows, ballot, names, centers)


@dataclass(frozen=True, eq=False)
class Agreed:
    """Of k consensus clusters: rows, summed confidence and rows in doubt (k,), rows by old label (k_old, k), and who is
    surest.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    doubted: NDArray[np.int64]
    moved: NDArray[np.int64]
    members: MembersState


def add_labels(
    state: Agreed | None, rows: Rows, ballot: Ballot, names: Names, centers: Centers, old: int, seed: int
) -> Agreed:
    """Label one block, write it, and count it."""
    label, sure = label_block(rows, ballot, names, centers)
    k, valid = len(centers), label >= 0
    before = rows.read("old") if "old" in rows.arrays else np.full(len(rows), NO_VALUE)
    found = Agreed(
        np.bincount(label[valid], minlength=k).astype(np.int64),
        np.bincount(label[valid], sure[valid], k).astype(np.float64),
        np.bincount(label[valid & (sure < AGREED)], minlength=k).astype(np.int64),
        counts.contingency_block(before, label, old, k),
        members_block(rows.ids[valid], label[valid], 1 - sure[valid], k, SHOWN, seed),
    )
    return found if state is None else merge(state, found)


def merge(a: Agreed, b: Agreed) -> Agreed:
    """Both."""
    members, sure = merge_members(a.members, b.members), a.confidence + b.confidence
    return Agreed(a.counts + b.counts, sure, a.doubted + b.doubted, a.moved + b.moved, members)
