"""How far all clusterings agree, those of descriptors and of algorithms, and whether descriptors line up at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.job import Job, fingerprint
from streamclust.planning import LABEL_ROWS
from streamclust.stages.algorithms import beside
from streamclust.stages.labels import labels_name, up_to_date
from streamclust.stages.sources import primary
from streamclust.store.rows import Rows
from streamclust.store.store import Batch

Counts = Mapping[str, NDArray[np.int64]]
Pair = tuple[str, str]


def clusterings(job: Job, models: Mapping[str, str]) -> dict[str, str]:
    """All clusterings in force by name, ``osnet/kmeans`` first; ``models`` maps descriptors to k-means models."""
    found = {}
    for descriptor, model in sorted(models.items()):
        found[f"{descriptor}/kmeans"] = model
        found |= {f"{descriptor}/{algorithm}": other for algorithm, other in beside(job.store, model).items()}
    return found


def compare(job: Job, models: Mapping[str, str]) -> str | None:
    """Contingency tables of all pairs of clusterings, of the fine ones of descriptors, and the verdict on alignment.

    ``models`` maps descriptors to their k-means models. Pairs that no batch has together are left out. Returns
    the comparison's name; ``None`` where there is no pair.
    """
    store, every = job.store, clusterings(job, models)
    addresses = label_rows(job, every, models)
    pairs = [pair for pair in combinations(every, 2) if any(_has(rows, pair) for rows in addresses)]
    alone = combinations(sorted(primary(models)), 2)
    fine = [pair for pair in alone if any(_has(rows, _kmeans(pair)) for rows in addresses)]
    if not pairs:
        return None
    wanted = fingerprint("comparison", sorted(every.items()), [(b.name, b.digest) for b in store.batches])
    known = up_to_date(job, "comparison", "comparison", wanted)
    if known is not None:
        return known
    about = {name: store.snapshot.entries[model].attributes for name, model in every.items()}
    ks = {name: int(of["clusters"]) for name, of in about.items()}
    ks |= {d: int(about[f"{d}/kmeans"]["fine_k"]) for d in models}
    with job.journal.stage("compare clusterings", sum(len(rows) for rows in addresses)):
        found = job.executor.fold(add_counts, addresses, merge_counts, pairs, fine, ks, run=1)
    verdicts = {"-".join(pair): _verdict(found, pair, min(ks[d] for d in pair)) for pair in fine}
    for pair in fine:
        verdict = verdicts["-".join(pair)]
        if not verdict.aligned:
            job.journal.warn(f"{pair[0]} and {pair[1]}: {verdict.sentence}")
    name = f"models/comparison-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "comparison", wanted)
    for key, table in found.items():
        draft.write(key, table)
    attributes = {
        "role": "comparison",
        "parents": sorted(every.values()),
        "label": [list(pair) for pair in pairs],
        "fine": [list(pair) for pair in fine],
        "aligned": {key: [verdict.aligned, verdict.sentence] for key, verdict in verdicts.items()},
    }
    store.publish("compare", {name: (draft, draft.entry(attributes, {}))})
    return name


def label_rows(
    job: Job, every: Mapping[str, str], fine: Sequence[str] | Mapping[str, str] = (), batches: Sequence[Batch] = ()
) -> list[Rows]:
    """Rows of the batches that at least two clusterings labelled: their labels by name, fine ones by descriptor."""
    store, found = job.store, list[Rows]()
    for batch in batches or store.batches:
        names = {name: labels_name(model, batch.name) for name, model in every.items()}
        names = {name: labels for name, labels in names.items() if labels in store.snapshot.entries}
        if len(names) > 1:
            paths = {name: store.array(labels, "label") for name, labels in names.items()}
            paths |= {d: store.array(names[f"{d}/kmeans"], "fine") for d in fine if f"{d}/kmeans" in names}
            found += store.rows(batch, LABEL_ROWS, paths)
    return found


def table_key(kind: str, pair: Sequence[str]) -> str:
    """Under which name a comparison stores the table of a pair; ``kind`` is label, fine or shifted."""
    return f"{kind}/{'-'.join(name.replace('/', '_') for name in pair)}"


def _kmeans(pair: Pair) -> Pair:
    return f"{pair[0]}/kmeans", f"{pair[1]}/kmeans"


def _has(rows: Rows, pair: Pair) -> bool:
    return all(name in rows.arrays for name in pair)


def add_counts(
    state: Counts | None, rows: Rows, pairs: Sequence[Pair], fine: Sequence[Pair], ks: Mapping[str, int]
) -> Counts:
    """One block's contingency tables of the pairs it has, and the fine ones again with the second one shifted."""
    labels = {key: rows.read(key) for key in rows.arrays}
    found: dict[str, NDArray[Any]] = {}
    for kind, wanted in (("label", pairs), ("fine", fine)):
        for a, b in (pair for pair in wanted if _has(rows, pair)):
            found[table_key(kind, (a, b))] = counts.contingency_block(labels[a], labels[b], ks[a], ks[b])
    for a, b in (pair for pair in fine if _has(rows, pair)):
        found[table_key("shifted", (a, b))] = counts.shift_block(labels[a], labels[b], ks[a], ks[b])
    return found if state is None else merge_counts(state, found)


def merge_counts(a: Counts, b: Counts) -> Counts:
    """Both."""
    return {key: a[key] + b[key] if key in a and key in b else (a if key in a else b)[key] for key in {**a, **b}}


def _verdict(found: Counts, pair: Pair, fewest: int) -> counts.Alignment:
    if fewest < 2:
        said = "one of them has a single cluster, so nothing tells whether their rows are aligned"
        return counts.Alignment(True, 0, {}, said)
    return counts.alignment_verdict(found[table_key("shifted", pair)])
