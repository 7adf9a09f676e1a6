"""Cluster a descriptor: the whole range of k and the fine clustering in shared reads, then labels for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import metrics
from streamclust.cluster import kmeans
from streamclust.cluster.assign import assign
from streamclust.cluster.members import MembersState, members_block
from streamclust.cluster.members import merge as merge_members
from streamclust.cluster.restarts import restarts
from streamclust.cluster.spread import spread_block
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages.labels import NO_VALUE, LabelWriter, labels_name, unlabelled, up_to_date
from streamclust.stages.reduced import extend, load_sample, read_valid, reduced_rows
from streamclust.store.rows import Rows

Centers = Mapping[Any, NDArray[np.float32]]
Sums = Mapping[str, NDArray[np.float64]]
FORMER = "former"
KEEP = 0.03  # what a fresh start must save of the inertia to be worth labels that change
SHOWN = 12
FINE = "fine"
ARRAYS = {"label": np.int32, FINE: np.int32, "distance": np.float32, "fine_distance": np.float32}
CHAIN_ROWS = 2**17  # a bound on the chain's cost: the exact passes follow anyway
CHAINS = 4


@dataclass(frozen=True)
class Score:
    """One k: sizes and the two indices over all valid rows."""

    result: kmeans.LloydResult
    calinski_harabasz: float
    davies_bouldin: float


def cluster(job: Job, projection: str, former: str | None = None) -> str:
    """k-means for every k of the settings and a fine one; labels every row; returns the model's name.

    ``former`` is the model in force. Its clusters are where k-means of as many starts, and its k and the number of its
    fine clusters stay while they serve, so that labels change no more than the data did.
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
    wanted = fingerprint(inputs, former)
    if (k := settings.cluster.k) and k > n:
        raise InputError(f"setting cluster.k = {k}", f"{descriptor} has {n} valid rows", f"at most {n}")
    with job.journal.stage(f"{descriptor}: k-means", n):
        known_starts = {} if former is None else former_centers(job, former, addresses)
        scores = _sweep(job, projection, addresses, _fine_k(job, n, known_starts), known_starts)
        curve = {k: (s.calinski_harabasz, s.davies_bouldin) for k, s in scores.items() if k != FINE}
        k = None if former is None else store.snapshot.entries[former].attributes["k"]
        chosen, reason = _choose(curve, settings.cluster.k, k)
    with job.journal.stage(f"{descriptor}: label", n):
        return _publish(job, projection, addresses, wanted, scores, chosen, reason, inputs)


def _fine_k(job: Job, n: int, former: Centers) -> int:
    """One fine cluster for 50 rows, at most 400; as many as before while that is right within a factor of two."""
    if job.settings.cluster.fine_k:
        return min(n, job.settings.cluster.fine_k)
    k, before = max(1, min(400, n // 50)), len(former[FINE]) if former else 0
    return before if before <= 2 * k and k <= 2 * before else k


def _sweep(job: Job, projection: str, addresses: list[Rows], fine_k: int, former: Centers) -> dict[Any, Score]:
    """Exact Lloyd passes and both indices for every k: each read of the data shared by all.

    Where as many clusters were there before, their start is taken unless the other saves a few percent.
    """

    def fold(centers: Centers) -> Mapping[Any, kmeans.LloydState]:
        return job.executor.fold(add_lloyd, addresses, merge_lloyd, centers, run=1)

    starts: dict[Any, NDArray[np.float32]] = dict(_starts(job, projection, addresses, fine_k))
    sizes = {k: len(centers) for k, centers in starts.items()}
    again = {len(c) if key != FINE else FINE: c for key, c in former.items()}
    again = {k: c for k, c in again.items() if sizes.get(k) == len(c)}
    starts |= {(FORMER, k): centers for k, centers in again.items()}
    final: dict[Any, kmeans.LloydResult] = dict(kmeans.lloyd(fold, starts, job.settings.cluster.passes))
    for k in again:
        before = final.pop((FORMER, k))
        if before.inertia <= (1 + KEEP) * final[k].inertia and len(before.centers) == len(final[k].centers):
            final[k] = before
    means = {k: result.sums.means for k, result in final.items()}
    centers = {k: result.centers for k, result in final.items()}
    spreads = job.executor.fold(add_spread, addresses, merge_spread, centers, means, run=1)
    return {
        k: Score(r, metrics.calinski_harabasz(r.sums), metrics.davies_bouldin(spreads[k], means[k]))
        for k, r in final.items()
    }


def _starts(job: Job, projection: str, addresses: list[Rows], fine_k: int) -> dict[Any, NDArray[np.float32]]:
    """For each k the best of several seeds: restarts on the sample, chains of minibatches over rows, judged again."""
    settings, seed = job.settings.cluster, job.settings.seed
    sample = load_sample(job.store, projection).Z
    ks = [k for k in settings.ks if k <= job.store.snapshot.entries[projection].attributes["rows"]] or [1]
    groups = [(ks[i::CHAINS], settings.restarts, settings.seeds) for i in range(min(CHAINS, len(ks)))]
    (fine, fine_models), *others = job.executor.map(start_on_sample, [([fine_k], 2, 1), *groups], sample, seed)
    starts = {(FINE, i): centers for (_, i), centers in fine.items()}
    models = {(FINE, i): model for (_, i), model in fine_models.items()}
    for group, group_models in others:
        starts |= group
        models |= group_models
    order = np.random.default_rng(seed).permutation(len(addresses))
    seen = np.cumsum([0] + [len(addresses[i]) for i in order[:-1]])
    parts = [{key: models[key] for key in list(models)[i::CHAINS]} for i in range(CHAINS)]
    for chained in job.executor.chain(chain_block, [addresses[i] for i in order[seen < CHAIN_ROWS]], parts):
        starts |= kmeans.minibatch_centers(chained)
    inertia = dict(zip(starts, job.executor.map(sample_inertia, list(starts.values()), sample), strict=True))
    best = {k: min((key for key in starts if key[0] == k), key=inertia.__getitem__) for k, _ in starts}
    return {k: starts[key] for k, key in best.items()}


def former_centers(job: Job, former: str, addresses: Sequence[Rows]) -> dict[Any, NDArray[np.float32]]:
    """The means, in a new projection, of the rows that a former model labelled: ``label`` and ``fine``, (k, p) float32.

    Clusters without such a row are left out; nothing where it labelled none of the rows.
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
    sums = job.executor.fold(add_sums, labelled, merge_sums, ks, run=1)
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


def start_on_sample(
    wanted: tuple[list[int], int, int], sample: NDArray[np.float32], seed: int
) -> tuple[dict[Any, NDArray[np.float32]], dict[Any, Any]]:
    """The best starts of each k by (k, rank), and minibatch models at them."""
    ks, n_init, keep = wanted
    kept = restarts(sample, ks, n_init=n_init, keep=keep, seed=seed)
    starts = {(k, i): centers for k, found in kept.items() for i, centers in enumerate(found)}
    return starts, kmeans.minibatch_start(starts, sample[: kmeans.MINIBATCH])


def sample_inertia(centers: NDArray[np.float32], sample: NDArray[np.float32]) -> float:
    """The sum of squared distances of the sample rows to their centres."""
    return float(assign(sample, centers)[1].sum())


def chain_block(models: Mapping[Any, Any], rows: Rows) -> dict[Any, Any]:
    """A chain's step over one block."""
    return kmeans.minibatch_step(models, read_valid(rows)[0])


def add_lloyd(state: Mapping[Any, kmeans.LloydState] | None, rows: Rows, centers: Centers) -> dict[Any, Any]:
    """One block against every set of centres."""
    Z = read_valid(rows)[0]
    found = kmeans.lloyd_block(Z, centers)
    return found if state is None else merge_lloyd(state, found)


def merge_lloyd(a: Mapping[Any, kmeans.LloydState], b: Mapping[Any, kmeans.LloydState]) -> dict[Any, kmeans.LloydState]:
    """Both, set by set."""
    return {key: kmeans.merge(a[key], b[key]) for key in a}


def add_spread(
    state: Mapping[Any, metrics.DaviesState] | None, rows: Rows, centers: Centers, means: Centers
) -> dict[Any, metrics.DaviesState]:
    """One block's distances to the means of its labels, for Davies-Bouldin."""
    Z = read_valid(rows)[0]
    found = spread_block(Z, centers, means)
    return found if state is None else merge_spread(state, found)


def merge_spread(
    a: Mapping[Any, metrics.DaviesState], b: Mapping[Any, metrics.DaviesState]
) -> dict[Any, metrics.DaviesState]:
    """Both, set by set."""
    return {key: metrics.spread_merge(a[key], b[key]) for key in a}


def _choose(curve: Mapping[int, tuple[float, float]], wanted: int | None, former: int | None) -> tuple[int, str]:
    """The k set by hand; or the former one, unless larger ones are better by both indices; or by mean rank.

    A refit takes no cluster away by itself: somebody may have named it.
    """
    if wanted is not None and wanted in curve:
        return wanted, f"k = {wanted} was set by hand."
    if former is not None and former in curve:
        harabasz, bouldin = curve[former]
        better = {k: s for k, s in curve.items() if k > former and s[0] > harabasz and s[1] < bouldin}
        if not better:
            return former, f"k = {former} as before: no larger one is better by Calinski-Harabasz and Davies-Bouldin."
        return metrics.choose_k(better)
    return metrics.choose_k(curve)


def predict(job: Job, model: str) -> list[str]:
    """Label the batches that a model has not labelled, by its centres as they are; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    extend(job, about["parents"][0])
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
        draft.write(f"{room}/scores", np.array([_inertia(score), score.calinski_harabasz, score.davies_bouldin]))
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


def _inertia(score: Score) -> float:
    return score.result.inertia


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
