"""Agglomerative clustering of any number of rows: few are merged one by one, of more micro-clusters of k-means are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import metrics
from streamclust.cluster import kmeans, passes
from streamclust.cluster.assign import assign
from streamclust.cluster.choice import nearly
from streamclust.cluster.heights import Linkage
from streamclust.cluster.hierarchy import Tree, agglomerate, cut, cut_all, linkage_matrix
from streamclust.cluster.restarts import restarts
from streamclust.cluster.stability import half_of, judges_of
from streamclust.cluster.two_level import Asked
from streamclust.job import Job
from streamclust.metrics import DaviesState, LabelSums
from streamclust.stages.reduced import load_sample, read_valid
from streamclust.stages.rules import Fitted, asked_k
from streamclust.stages.sweep import add_lloyd
from streamclust.store.rows import Rows
from streamclust.store.store import Store

Cuts = Mapping[int, NDArray[np.int32]]
Means = Mapping[int, NDArray[np.float64]]
Single = NDArray[np.float32]

SETTINGS = {"k", "linkage", "merged_rows", "micro_clusters"}  # what a fit depends on
NEIGHBORS = 10
PASSES = 2  # of Lloyd: micro-clusters need be small, not best


@dataclass(frozen=True, eq=False)
class Merged:
    """The cluster of each micro-cluster : (m,) int32, and where these are : (m, p) float32."""

    of: NDArray[np.int32]
    centers: Single

    def judge(self, Z: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `streamclust.stages.rules.Rule`."""
        return {"label": self.of[assign(Z, self.centers)[0]]}


def fit(job: Job, clustering: str, addresses: Sequence[Rows]) -> Fitted:
    """Merge rows or micro-clusters by their exact means and sizes; every k of the sweep is judged over all rows."""
    entries, linkage = job.store.snapshot.entries, job.settings.algorithms.linkage
    about = entries[clustering].attributes
    sample, n = load_sample(job.store, about["parents"][0]).Z, entries[about["parents"][0]].attributes["rows"]
    every = len(sample) == n <= job.settings.algorithms.merged_rows
    micro = _micro_clusters(job, sample, addresses, every=every)
    neighbors = None if every or linkage != "ward" else NEIGHBORS  # under a graph the others chain
    tree = agglomerate(micro.sums.means, micro.counts, linkage=linkage, neighbors=neighbors)
    m = len(micro.counts)
    cuts = cut_all(tree, sorted({min(k, m) for k in (*about["ks"], about["k"])}))
    united = {k: unite(micro.sums, of) for k, of in cuts.items()}
    means = {k: found.means for k, found in united.items()}
    spreads = job.executor.fold(add_spread, addresses, merge_spread, micro.centers, cuts, means, run=1)
    scores = [(metrics.calinski_harabasz(united[k]), metrics.davies_bouldin(spreads[k], means[k])) for k in cuts]
    leaves = "distinct rows" if every else "micro-clusters"
    k, reason = asked_k(job, clustering) or _choose(list(cuts), np.array(scores))
    if k > m:
        k, reason = m, f"k = {m}: there are no more {leaves}."
    arrays: dict[str, NDArray[Any]] = {
        "micro/of": cuts[k],
        "micro/centers": micro.centers,
        "micro/counts": micro.counts,
        "linkage": linkage_matrix(tree),
        "sweep/ks": np.array(list(cuts), np.int64),
        "sweep/scores": np.array(scores),
    }
    note = f"{linkage} linkage of {m:,} {leaves}"
    on_half = partial(label_judges, k=k, linkage=linkage)
    return Fitted(Merged(cuts[k], micro.centers), means[k], arrays, note, k, reason, on_half)


def label_judges(seed: int, sample: Single, *, k: int, linkage: Linkage) -> NDArray[np.int32]:
    """The tree of a random half of a sample, merged row by row, and what its cut says of the judges."""
    rows, count = np.unique(half_of(sample, seed), axis=0, return_counts=True)
    tree = agglomerate(rows, count, linkage=linkage, neighbors=None)
    return Merged(cut(tree, min(k, len(rows))), rows).judge(judges_of(sample))["label"][None]


def _choose(ks: Sequence[int], scores: NDArray[np.float64]) -> tuple[int, str]:
    """By the rule of k-means; scores : (ks, 2) Calinski-Harabasz and Davies-Bouldin."""
    harabasz, bouldin = scores.T
    k, reason = metrics.choose_k(dict(zip(ks, scores.tolist(), strict=True)))
    return k, reason + nearly(ks, {"Calinski-Harabasz": ("high", harabasz), "Davies-Bouldin": ("low", bouldin)})


def load(store: Store, model: str) -> Merged:
    """The rule of a stored model."""
    return Merged(store.read(model, "micro/of"), store.read(model, "micro/centers"))


def cut_at(store: Store, model: str) -> list[int]:
    """Every k that the tree of a stored model was cut at; models of before have one."""
    entry = store.snapshot.entries[model]
    if "sweep/ks" not in entry.arrays:
        return [int(entry.attributes["clusters"])]
    return [int(k) for k in store.read(model, "sweep/ks")]


def cuts(store: Store, model: str) -> Cuts:
    """The cluster of each micro-cluster at each of those k."""
    ks, of = cut_at(store, model), store.read(model, "micro/of")
    if len(ks) == 1:
        return {ks[0]: of}
    linkage, counts = store.read(model, "linkage"), store.read(model, "micro/counts")
    return cut_all(Tree(linkage[:, :2].astype(np.int64), linkage[:, 2], linkage[:, 3], counts), ks)


def _micro_clusters(job: Job, sample: Single, addresses: Sequence[Rows], *, every: bool) -> kmeans.LloydResult:
    """Every distinct row of the sample, or where these are too many k-means from there; with their exact sums."""
    start, most = np.unique(sample, axis=0), job.settings.algorithms.micro_clusters
    if not every and len(start) > most:
        start = job.executor.map(start_micro, [most], sample, job.settings.seed, job.executor.threads)[0]

    def fold(centers: dict[str, Asked]) -> Mapping[str, passes.LloydState]:
        return job.executor.fold(add_lloyd, addresses, passes.merge_sets, centers, run=1)

    return kmeans.lloyd(fold, {"": start}, PASSES)[""]


def start_micro(k: int, sample: Single, seed: int, n_jobs: int) -> Single:
    """Centres for k micro-clusters."""
    return restarts(sample, [k], n_init=1, keep=1, seed=seed, n_jobs=n_jobs)[k][0]


def unite(sums: LabelSums, of: NDArray[np.int32]) -> LabelSums:
    """The sums of clusters that are united as ``of`` : (m,) says, about their means."""
    k = int(of.max()) + 1
    weights = sums.counts.astype(np.float64)
    rows = np.bincount(of, weights, k)
    totals = np.zeros((k, sums.centers.shape[1]))
    np.add.at(totals, of, weights[:, None] * sums.means)
    means = totals / np.maximum(rows, 1)[:, None]
    apart = np.square(sums.means - means[of]).sum(axis=1)
    squares = np.bincount(of, sums.scatter + weights * apart, k).astype(np.float64)
    return LabelSums(means, rows.astype(np.int64), np.zeros_like(means), squares)


def add_spread(
    state: dict[int, DaviesState] | None, rows: Rows, centers: Single, cuts: Cuts, means: Means
) -> dict[int, DaviesState]:
    """One block's distances to the means of every cut."""
    Z = read_valid(rows)[0]
    micro = assign(Z, centers)[0]
    found = {k: metrics.spread_block(Z, of[micro], means[k]) for k, of in cuts.items()}
    return found if state is None else merge_spread(state, found)


def merge_spread(a: dict[int, DaviesState], b: dict[int, DaviesState]) -> dict[int, DaviesState]:
    """Both, cut by cut."""
    return {k: metrics.spread_merge(a[k], b[k]) for k in a}
