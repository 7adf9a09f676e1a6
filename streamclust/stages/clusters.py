"""Cluster a descriptor: the whole range of k and the fine clustering in shared reads, then labels for every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import metrics
from streamclust.cluster.assign import assign
from streamclust.cluster.choice import Curves, nearly
from streamclust.cluster.members import MembersState, members_block
from streamclust.cluster.members import merge as merge_members
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages.former import FINE, Former, former
from streamclust.stages.labels import NO_VALUE, LabelWriter, unlabelled, up_to_date
from streamclust.stages.reduced import extend, read_valid, reduced_rows
from streamclust.stages.sweep import Score, has_each, sweep
from streamclust.store.rows import Rows

SHOWN = 12
ARRAYS = {"label": np.int32, FINE: np.int32, "distance": np.float32, "fine_distance": np.float32}


def cluster(job: Job, projection: str, before: str | None = None) -> str:
    """k-means for every k of the settings and a fine one; labels every row; returns the model's name.

    ``before`` is the model in force. Its clusters, and the kinds of rows that came since, are where k-means of as many
    starts; its k, with one more for each such kind, and the number of its fine clusters stay while they serve, so that
    labels change no more than the data did.
    """
    store, settings = job.store, job.settings
    entry = store.snapshot.entries[projection]
    addresses = reduced_rows(store, projection)
    batches = sorted({rows.batch for rows in addresses})
    inputs = fingerprint("kmeans", projection, batches, settings.cluster.model_dump(), settings.seed)
    descriptor, n = entry.attributes["descriptor"], entry.attributes["rows"]
    known = up_to_date(job, "model", f"{descriptor}/kmeans", inputs, "inputs")
    if known is not None:
        return known
    wanted = fingerprint(inputs, before)
    if (k := settings.cluster.k) and k > n:
        raise InputError(f"setting cluster.k = {k}", f"{descriptor} has {n} valid rows", f"at most {n}")
    with job.journal.stage(f"{descriptor}: k-means", n):
        kept = None if before is None else former(job, before, projection)
        scores = sweep(job, projection, addresses, _fine_k(job, n, kept), _starts(kept))
        chosen, reason = _choose({k: s for k, s in scores.items() if k != FINE}, settings.cluster.k, kept)
        reason += _plateaus(scores) + _words(scores[chosen])
    with job.journal.stage(f"{descriptor}: label", n):
        return _publish(job, projection, addresses, wanted, scores, chosen, reason, inputs)


def _starts(kept: Former | None) -> dict[str, NDArray[np.float32]]:
    if kept is None or not len(kept.label):
        return {}
    return {"label": np.concatenate([kept.label, kept.new]), FINE: kept.fine}


def _fine_k(job: Job, n: int, kept: Former | None) -> int:
    """One fine cluster for 50 rows, at most 400; as many as before while that is right within a factor of two."""
    if job.settings.cluster.fine_k:
        return min(n, job.settings.cluster.fine_k)
    k, before = max(1, min(400, n // 50)), 0 if kept is None else len(kept.fine)
    return before if before <= 2 * k and k <= 2 * before else k


def _choose(scores: Mapping[int, Score], wanted: int | None, kept: Former | None) -> tuple[int, str]:
    """The k set by hand; or the former one and what came since, unless larger ones are better; or by mean rank.

    A refit takes no cluster away by itself: somebody may have named it.
    """
    if wanted is not None and wanted in scores:
        return wanted, f"k = {wanted} was set by hand."
    curve = {k: (s.calinski_harabasz, s.davies_bouldin) for k, s in scores.items()}
    least = 0 if kept is None else kept.k + len(kept.new)
    if kept is None or least not in curve:
        return metrics.choose_k(curve)
    (harabasz, bouldin), centers = curve[least], scores[least].result.centers
    better = {k: s for k, s in curve.items() if k > least and s[0] > harabasz and s[1] < bouldin}
    better = {k: s for k, s in better.items() if has_each(scores[k].result.centers, centers)}
    if better:
        return metrics.choose_k(better)
    since = f", and {len(kept.new)} more for kinds of images that came since" if len(kept.new) else ""
    return least, (
        f"k = {least}: {kept.k} as before{since}; no larger one keeps them and is better by both Calinski-Harabasz and "
        "Davies-Bouldin."
    )


def _plateaus(scores: Mapping[Any, Score]) -> str:
    """Which k are nearly as good as the best by each index, where that is more than one."""
    ks = sorted(k for k in scores if k != FINE)
    harabasz, bouldin, silhouette = np.array(
        [(s.calinski_harabasz, s.davies_bouldin, s.silhouette) for s in (scores[k] for k in ks)]
    ).T
    curves: Curves = {
        "Calinski-Harabasz": ("high", harabasz),
        "Davies-Bouldin": ("low", bouldin),
        "silhouette": ("high", silhouette),
    }
    return nearly(ks, curves)


def _words(score: Score) -> str:
    if score.stability is None:
        return ""
    mean, low, high = score.stability
    agree = f"an adjusted Rand index of {mean:.2f} ({low:.2f} to {high:.2f})"
    return f" Halves of the sample, clustered apart, agree there at {agree}."


def predict(job: Job, model: str) -> list[str]:
    """Label the batches that a model has not labelled, by its centres as they are; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    extend(job, about["parents"][:1])
    addresses = reduced_rows(store, about["parents"][0], unlabelled(store, model))
    if not addresses:
        return []
    centers = {
        "label": store.read(model, f"sweep/{about['k']:05d}/centers"),
        FINE: store.read(model, f"{FINE}/centers"),
    }
    with job.journal.stage(f"{about['descriptor']}: label", sum(len(rows) for rows in addresses)):
        writer = LabelWriter(store, model, addresses, ARRAYS, fingerprint(model, "labels"))
        job.executor.fold(add_labels, writer.addresses, merge_labels, centers, job.settings.seed, run=1)
        drafts = writer.finish(about["role"], _columns(about["descriptor"]))
        store.publish(f"predict {about['descriptor']}", drafts)
    return sorted({rows.batch for rows in addresses})


def _publish(
    job: Job,
    projection: str,
    addresses: list[Rows],
    wanted: str,
    scores: Mapping[Any, Score],
    chosen: int,
    reason: str,
    inputs: str,
) -> str:
    """Write the model and the labels of every batch; both become visible at once."""
    store = job.store
    descriptor = store.snapshot.entries[projection].attributes["descriptor"]
    name = f"models/{descriptor}-kmeans-{store.snapshot.number + 1:06d}"
    writer = LabelWriter(store, name, addresses, ARRAYS, fingerprint(wanted, "labels"))
    centers = {"label": scores[chosen].result.centers, FINE: scores[FINE].result.centers}
    members = job.executor.fold(add_labels, writer.addresses, merge_labels, centers, job.settings.seed, run=1)
    draft = store.draft(name, "model", wanted)
    for key, score in scores.items():
        room = FINE if key == FINE else f"sweep/{key:05d}"
        draft.write(f"{room}/centers", score.result.centers)
        draft.write(f"{room}/counts", score.result.counts)
        scored = [score.result.inertia, score.calinski_harabasz, score.davies_bouldin, score.silhouette]
        draft.write(f"{room}/scores", np.array(scored))
        if score.stability is not None:
            draft.write(f"{room}/stability", score.stability)
    for key, state in members.items():
        for kind in ("nearest", "random", "farthest"):
            draft.write(f"members/{key}/{kind}", getattr(state, kind))
    attributes = {
        "role": f"{descriptor}/kmeans",
        "descriptor": descriptor,
        "algorithm": "kmeans",
        "parents": [projection],
        "k": chosen,
        "clusters": len(centers["label"]),
        "reason": reason,
        "ks": sorted(key for key in scores if key != FINE),
        "fine_k": len(scores[FINE].result.centers),
        "snapshot": store.snapshot.number,
        "inputs": inputs,
    }
    drafts = writer.finish(f"{descriptor}/kmeans", _columns(descriptor)) | {name: (draft, draft.entry(attributes, {}))}
    store.publish(f"cluster {descriptor}", drafts)
    return name


def _columns(descriptor: str) -> dict[str, str]:
    return {"label": f"{descriptor}_kmeans", "fine": f"{descriptor}_fine", "distance": f"{descriptor}_distance"}


def add_labels(
    state: Mapping[str, MembersState] | None, rows: Rows, centers: Mapping[str, NDArray[np.float32]], seed: int
) -> dict[str, MembersState]:
    """Label one block under the chosen and the fine centres, write it, and keep who stands for each cluster."""
    Z, valid = read_valid(rows)
    found = {}
    for key, c in centers.items():
        labels, sqdist = assign(Z, c)
        distance = np.sqrt(sqdist).astype(np.float32)
        found[key] = members_block(rows.ids[valid], labels, distance, len(c), SHOWN, seed)
        every = np.full(len(rows), NO_VALUE, np.int32)
        every[valid] = labels
        far = np.full(len(rows), np.nan, np.float32)
        far[valid] = distance
        rows.write(key, every)
        rows.write("distance" if key == "label" else f"{key}_distance", far)
    return found if state is None else merge_labels(state, found)


def merge_labels(a: Mapping[str, MembersState], b: Mapping[str, MembersState]) -> dict[str, MembersState]:
    """Both."""
    return {key: merge_members(a[key], b[key]) for key in a}
