"""How far the descriptors' clusterings agree, and whether their rows line up at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.job import Job, fingerprint
from streamclust.planning import LABEL_ROWS
from streamclust.stages.labels import labels_name, up_to_date
from streamclust.store.rows import Rows

Counts = Mapping[str, NDArray[np.int64]]


def compare(job: Job, models: Mapping[str, str]) -> str | None:
    """Contingency tables of all pairs of descriptors, at the chosen k and fine, and the verdict on alignment.

    ``models`` maps descriptors to their k-means models. Pairs that no batch has together are left out. Returns
    the comparison's name; ``None`` where there is no pair.
    """
    store, addresses = job.store, _addresses(job, models)
    pairs = [pair for pair in combinations(sorted(models), 2) if any(_has(rows, pair) for rows in addresses)]
    if not pairs:
        return None
    wanted = fingerprint("comparison", sorted(models.items()), [(b.name, b.digest) for b in store.batches])
    known = up_to_date(job, "comparison", "comparison", wanted)
    if known is not None:
        return known
    ks = {d: _sizes(job, m) for d, m in models.items()}
    with job.journal.stage("compare descriptors", sum(len(rows) for rows in addresses)):
        found = job.executor.fold(add_counts, addresses, merge_counts, pairs, ks, run=1)
    verdicts = {"-".join(pair): _verdict(found, pair, min(ks[d]["fine"] for d in pair)) for pair in pairs}
    for pair in pairs:
        verdict = verdicts["-".join(pair)]
        if not verdict.aligned:
            job.journal.warn(f"{pair[0]} and {pair[1]}: {verdict.sentence}")
    name = f"models/comparison-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "comparison", wanted)
    for key, table in found.items():
        draft.write(key, table)
    attributes = {
        "role": "comparison",
        "parents": sorted(models.values()),
        "pairs": [list(pair) for pair in pairs],
        "aligned": {key: [verdict.aligned, verdict.sentence] for key, verdict in verdicts.items()},
    }
    store.publish("compare", {name: (draft, draft.entry(attributes, {}))})
    return name


def _sizes(job: Job, model: str) -> dict[str, int]:
    about = job.store.snapshot.entries[model].attributes
    return {"label": int(about["clusters"]), "fine": int(about["fine_k"])}


def _addresses(job: Job, models: Mapping[str, str]) -> list[Rows]:
    """Rows of the batches that at least two models labelled."""
    store, found = job.store, list[Rows]()
    for batch in store.batches:
        names = {d: labels_name(model, batch.name) for d, model in models.items()}
        names = {d: name for d, name in names.items() if name in store.snapshot.entries}
        if len(names) > 1:
            paths = {f"{d}/{kind}": store.array(name, kind) for d, name in names.items() for kind in ("label", "fine")}
            found += store.rows(batch, LABEL_ROWS, paths)
    return found


def _has(rows: Rows, pair: tuple[str, str]) -> bool:
    return all(f"{d}/label" in rows.arrays for d in pair)


def add_counts(
    state: Counts | None, rows: Rows, pairs: Sequence[tuple[str, str]], ks: Mapping[str, Mapping[str, int]]
) -> Counts:
    """One block's contingency tables of the pairs it has, and the fine ones again with the second one shifted."""
    labels = {key: rows.read(key) for key in rows.arrays}
    found: dict[str, NDArray[Any]] = {}
    for a, b in (pair for pair in pairs if _has(rows, pair)):
        for kind in ("label", "fine"):
            pair = labels[f"{a}/{kind}"], labels[f"{b}/{kind}"]
            found[f"{kind}/{a}-{b}"] = counts.contingency_block(*pair, ks[a][kind], ks[b][kind])
        fine = labels[f"{a}/fine"], labels[f"{b}/fine"]
        found[f"shifted/{a}-{b}"] = counts.shift_block(*fine, ks[a]["fine"], ks[b]["fine"])
    return found if state is None else merge_counts(state, found)


def merge_counts(a: Counts, b: Counts) -> Counts:
    """Both."""
    return {key: a[key] + b[key] if key in a and key in b else (a if key in a else b)[key] for key in {**a, **b}}


def _verdict(found: Counts, pair: tuple[str, str], fewest: int) -> counts.Alignment:
    if fewest < 2:
        said = "one of them has a single cluster, so nothing tells whether their rows are aligned"
        return counts.Alignment(True, 0, {}, said)
    return counts.alignment_verdict(found[f"shifted/{pair[0]}-{pair[1]}"])
