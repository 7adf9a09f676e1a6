"""Further algorithms beside a descriptor's k-means: under its ids, judged by the same indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamclust import counts, metrics
from streamclust.cluster import stability
from streamclust.cluster.matching import counterparts
from streamclust.job import Job, fingerprint
from streamclust.metrics import DaviesState, LabelSums
from streamclust.stages import hierarchies, mixtures
from streamclust.stages.labels import NO_VALUE, LabelWriter, labels_name, unlabelled, up_to_date
from streamclust.stages.names import cluster_ids, next_id
from streamclust.stages.reduced import load_sample, read_valid, reduced_rows
from streamclust.stages.rules import Fitted, Rule
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

ALGORITHMS = {"mixture": mixtures, "agglomerative": hierarchies}
KINDS = {"label": np.int32, "confidence": np.float32}


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows by k-means label and by the algorithm's : (k, k'), and what the rows of the latter add up to."""

    shared: NDArray[np.int64]
    sums: LabelSums


def cluster_again(job: Job, clustering: str) -> dict[str, str]:
    """Every further algorithm of the settings beside a k-means model, on the batches that it was fitted on.

    The other batches are labelled too. Returns the models' names by algorithm.
    """
    found = {str(name): _model(job, clustering, name) for name in job.settings.algorithms.also}
    for model in found.values():
        predict(job, model)
    return found


def beside(store: Store, clustering: str) -> dict[str, str]:
    """The newest model of each further algorithm that stands beside a k-means model."""
    snapshot, found = store.snapshot, {}
    for algorithm in ALGORITHMS:
        model = snapshot.newest("model", f"{snapshot.entries[clustering].attributes['descriptor']}/{algorithm}")
        if model and snapshot.entries[model].attributes["parents"][1] == clustering:
            found[algorithm] = model
    return found


def predict(job: Job, model: str) -> list[str]:
    """Label the batches that a model has not labelled, as it is; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    addresses = _addresses(job, about["parents"][1], unlabelled(store, model))
    if not addresses:
        return []
    rule = ALGORITHMS[about["algorithm"]].load(store, model)
    with job.journal.stage(f"{about['descriptor']}: {about['algorithm']} labels", sum(map(len, addresses))):
        writer = LabelWriter(store, model, addresses, _kinds(about["columns"]), fingerprint(model, "labels"))
        job.executor.map(label_block, writer.addresses, rule)
        store.publish(f"predict {about['role']}", writer.finish(about["role"], about["columns"]))
    return sorted({rows.batch for rows in addresses})


def _model(job: Job, clustering: str, algorithm: str) -> str:
    store, about = job.store, job.store.snapshot.entries[clustering].attributes
    role, settings = f"{about['descriptor']}/{algorithm}", job.settings.algorithms
    wanted = fingerprint(clustering, algorithm, settings.model_dump(include=ALGORITHMS[algorithm].SETTINGS))
    known = up_to_date(job, "model", role, wanted, "inputs")
    if known is not None:
        return known
    own = store.snapshot.entries[about["parents"][0]].attributes["batches"]
    addresses = _addresses(job, clustering, [batch for batch in store.batches if batch.name in own])
    with job.journal.stage(f"{about['descriptor']}: {algorithm}", sum(map(len, addresses))):
        fitted = ALGORITHMS[algorithm].fit(job, clustering, addresses)
        return _publish(job, clustering, algorithm, addresses, fitted, wanted)


def _publish(job: Job, clustering: str, algorithm: str, addresses: Sequence[Rows], fitted: Fitted, wanted: str) -> str:
    """Label every row, judge the labels, and make model and labels visible at once."""
    store, about = job.store, job.store.snapshot.entries[clustering].attributes
    descriptor, ids = about["descriptor"], cluster_ids(store, clustering)
    name, role = f"models/{descriptor}-{algorithm}-{store.snapshot.number + 1:06d}", f"{descriptor}/{algorithm}"
    columns = {"label": f"{descriptor}_{algorithm}"}
    if algorithm == "mixture":
        columns["confidence"] = f"{descriptor}_{algorithm}_confidence"
    writer = LabelWriter(store, name, addresses, _kinds(columns), fingerprint(wanted, "labels"))
    judged = job.executor.fold(add_judged, writer.addresses, merge, fitted.rule, fitted.means, len(ids), run=1)
    means = judged.sums.means
    spread = job.executor.fold(add_spread, writer.addresses, metrics.spread_merge, means)
    draft = store.draft(name, "model", fingerprint(wanted, "model"))
    for key, values in {**fitted.arrays, "shared": judged.shared, "counts": judged.sums.counts}.items():
        draft.write(key, values)
    attributes = {
        "role": role,
        "descriptor": descriptor,
        "algorithm": algorithm,
        "parents": [about["parents"][0], clustering],
        "k": fitted.k,
        "reason": fitted.reason,
        "clusters": len(means),
        "ids": {"label": counterparts(judged.shared, ids, next_id(store, clustering))},
        "columns": columns,
        "note": fitted.note,
        "calinski_harabasz": _defined(metrics.calinski_harabasz(judged.sums)),
        "davies_bouldin": _defined(metrics.davies_bouldin(spread, means)),
        "adjusted_rand": counts.adjusted_rand(judged.shared),
        "stability": _stability(job, about["parents"][0], fitted),
        "inputs": wanted,
        **fitted.about,
    }
    store.publish(f"fit {role}", writer.finish(role, columns) | {name: (draft, draft.entry(attributes, {}))})
    return name


def _stability(job: Job, projection: str, fitted: Fitted) -> list[float] | None:
    """How far halves of the sample agree, with an interval, as k-means has it for every k; None where none can say."""
    sample, seed, halves = load_sample(job.store, projection).Z, job.settings.seed, job.settings.cluster.halves
    if halves < 2 or fitted.on_half is None or not stability.judged([fitted.k], len(sample)):
        return None
    labels = job.executor.map(fitted.on_half, range(seed, seed + halves), sample)
    return [float(value) for value in stability.stability(labels)[0]]


def _defined(value: float) -> float | None:
    """Nothing where an index is not defined, as of a single cluster."""
    return None if np.isnan(value) else value


def _addresses(job: Job, clustering: str, batches: Sequence[Batch]) -> list[Rows]:
    """Reduced rows of the batches that k-means labelled, with its labels as ``kmeans``."""
    store, found = job.store, list[Rows]()
    projection = store.snapshot.entries[clustering].attributes["parents"][0]
    for rows in reduced_rows(store, projection, batches):
        labels = labels_name(clustering, rows.batch)
        if labels in store.snapshot.entries:
            found.append(rows.with_arrays(kmeans=store.array(labels, "label")))
    return found


def _kinds(columns: Mapping[str, str]) -> dict[str, DTypeLike]:
    return {array: KINDS[array] for array in columns}


def label_block(rows: Rows, rule: Rule) -> None:
    """Label one block and write it."""
    _label(rows, rule)


def add_judged(state: Judged | None, rows: Rows, rule: Rule, centers: NDArray[Any], k: int) -> Judged:
    """Label one block, write it, and count it."""
    Z, valid, label = _label(rows, rule)
    shared = counts.contingency_block(rows.read("kmeans")[valid], label, k, len(centers))
    found = Judged(shared, metrics.label_sums_block(Z, label, centers))
    return found if state is None else merge(state, found)


def merge(a: Judged, b: Judged) -> Judged:
    """Both."""
    return Judged(a.shared + b.shared, metrics.merge(a.sums, b.sums))


def add_spread(state: DaviesState | None, rows: Rows, means: NDArray[np.float64]) -> DaviesState:
    """One labelled block's distances to the means of its clusters."""
    Z, valid = read_valid(rows)
    found = metrics.spread_block(Z, rows.read("label")[valid], means)
    return found if state is None else metrics.spread_merge(state, found)


def _label(rows: Rows, rule: Rule) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]:
    Z, valid = read_valid(rows)
    found = rule.judge(Z)
    for array, values in found.items():
        every = np.full(len(rows), NO_VALUE if array == "label" else np.nan, KINDS[array])
        every[valid] = values
        rows.write(array, every)
    return Z, valid, found["label"]
