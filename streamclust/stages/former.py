"""What a refit keeps of the clusters in force: where they are now, and what came that they do not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust.bursts import PAIRED
from streamclust.cluster.newcomers import newcomers
from streamclust.job import Job
from streamclust.sampling import batch_key, sample_rows
from streamclust.stages.labels import labels_name
from streamclust.stages.reduced import load_sample, read_valid, reduced_rows
from streamclust.store.rows import Rows, pick
from streamclust.store.store import Batch

FINE = "fine"
Single = NDArray[np.float32]
Sums = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Former:
    """The clusters in force in a new projection, (k, p) float32 each: the chosen and the fine ones, and ``new`` ones.

    ``k`` is that of the model in force. A cluster without a row is left out; none is there where no row was labelled.
    """

    k: int
    label: Single
    fine: Single
    new: Single


def former(job: Job, model: str, projection: str) -> Former:
    """Where a model's clusters are in a new projection, and the kinds of rows that came since it was fitted."""
    about = job.store.snapshot.entries[model].attributes
    means = _means(job, model, reduced_rows(job.store, projection))
    p = job.store.snapshot.entries[projection].attributes["components"]
    none = np.empty((0, p), np.float32)
    found = means or {"label": none, FINE: none}
    most = 0 if job.settings.cluster.k else max(0, job.settings.cluster.k_max - int(about["k"]))
    return Former(int(about["k"]), found["label"], found[FINE], _new(job, model, projection, found["label"], most))


def _new(job: Job, model: str, projection: str, centers: Single, most: int) -> Single:
    """Newcomers in a sample of all rows that came since, and in the newest of them."""
    store, entries = job.store, job.store.snapshot.entries
    fitted = set(entries[entries[model].attributes["parents"][0]].attributes["batches"])
    later = [b for b in store.batches if b.name in entries[projection].attributes["batches"] and b.name not in fitted]
    if not later or not most:
        return centers[:0]
    sample = load_sample(store, projection)
    since = np.zeros(len(sample.ids), bool)
    for batch in later:
        since |= (sample.ids >= batch.base) & (sample.ids < batch.base + batch.n)
    shuffled = np.random.default_rng(job.settings.seed).permutation(len(since))
    before, after = (np.sort(shuffled[of[shuffled]][:PAIRED]) for of in (~since, since))
    windows = [sample.Z[after], *_newest(job, projection, later)]
    return job.executor.map(newcomers, [windows], sample.Z[before], centers, most)[0]


def _newest(job: Job, projection: str, later: Sequence[Batch]) -> list[Single]:
    """Reduced rows of the newest batches, PAIRED of them if there are so many; as one window, or none."""
    parts, missing = list[Single](), PAIRED
    for batch in reversed(later):
        rows, _ = sample_rows(batch.n, missing, batch_key(batch.id, job.settings.seed))
        picked = job.executor.map(pick, reduced_rows(job.store, projection, [batch]), rows, ["Z"])
        parts += [part["Z"][np.isfinite(part["Z"][:, 0])] for part in picked]
        missing -= len(rows)
        if not missing:
            break
    return [np.concatenate(parts)] if parts else []


def _means(job: Job, former: str, addresses: Sequence[Rows]) -> dict[str, Single]:
    """The means of the rows that a former model labelled: ``label`` and ``fine``; nothing where it labelled none.

    Where there are any, of those that it was fitted on: a new kind of row lies in some cluster, only because it must.
    """
    store = job.store
    found = [r for r in addresses if labels_name(former, r.batch) in store.snapshot.entries]
    if not found:
        return {}
    labelled = [
        r.with_arrays(**{key: store.array(labels_name(former, r.batch), key) for key in ("label", FINE)}) for r in found
    ]
    about = store.snapshot.entries[former].attributes
    ks = {"label": int(about["clusters"]), FINE: int(about["fine_k"])}
    fitted = set(store.snapshot.entries[about["parents"][0]].attributes["batches"])
    groups = [[rows for rows in labelled if (rows.batch in fitted) is first] for first in (True, False)]
    first, *others = [job.executor.fold(add_sums, group, merge_sums, ks, run=1) for group in groups if group]
    sums = {key: np.where(s[:, :1] > 0, s, others[0][key]) for key, s in first.items()} if others else first
    kept = {key: s[s[:, 0] > 0] for key, s in sums.items()}
    return {key: (s[:, 1:] / s[:, :1]).astype(np.float32) for key, s in kept.items()}


def add_sums(state: Sums | None, rows: Rows, ks: Mapping[str, int]) -> Sums:
    """One block's rows and sums of reduced rows by former label: (k, 1 + p) float64."""
    Z, valid = read_valid(rows)
    found = {}
    for key, k in ks.items():
        label = rows.read(key)[valid]
        known = label >= 0
        found[key] = np.zeros((k, 1 + Z.shape[1]))
        np.add.at(found[key], label[known], np.column_stack([np.ones(known.sum()), Z[known]]))
    return found if state is None else merge_sums(state, found)


def merge_sums(a: Sums, b: Sums) -> Sums:
    """Both."""
    return {key: a[key] + b[key] for key in a}
