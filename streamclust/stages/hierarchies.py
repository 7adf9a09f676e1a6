"""Agglomerative clustering of any number of rows: fine clusters of k-means are merged and carry their rows along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import metrics
from streamclust.cluster.hierarchy import agglomerate, cut_all, linkage_matrix
from streamclust.job import Job
from streamclust.metrics import DaviesState, LabelSums
from streamclust.stages.reduced import read_valid
from streamclust.stages.rules import Fitted
from streamclust.store.rows import Rows
from streamclust.store.store import Store

Cuts = Mapping[int, NDArray[np.int32]]
Means = Mapping[int, NDArray[np.float64]]
NEIGHBORS = 10
SETTINGS = {"linkage"}  # what a fit depends on


@dataclass(frozen=True, eq=False)
class Merged:
    """The cluster of each fine cluster : (m,) int32."""

    of: NDArray[np.int32]

    def judge(self, Z: NDArray[Any], fine: NDArray[Any]) -> dict[str, NDArray[Any]]:  # noqa: ARG002 -- see Rule
        """See `streamclust.stages.rules.Rule`."""
        return {"label": self.of[fine]}


def fit(job: Job, clustering: str, addresses: Sequence[Rows]) -> Fitted:
    """Merge the fine clusters, by their exact means and sizes, and judge every k of the sweep over all rows."""
    store, linkage = job.store, job.settings.algorithms.linkage
    about = store.snapshot.entries[clustering].attributes
    sums = job.executor.fold(add_fine, addresses, metrics.merge, store.read(clustering, "fine/centers"), run=1)
    neighbors = NEIGHBORS if linkage == "ward" else None  # under a graph the others chain
    tree = agglomerate(sums.means, np.maximum(sums.counts, 1), linkage=linkage, neighbors=neighbors)
    m = len(sums.counts)
    cuts = cut_all(tree, sorted({min(k, m) for k in (*about["ks"], about["k"])}))
    united = {k: unite(sums, of) for k, of in cuts.items()}
    means = {k: found.means for k, found in united.items()}
    spreads = job.executor.fold(add_spread, addresses, merge_spread, cuts, means, run=1)
    scores = [(metrics.calinski_harabasz(united[k]), metrics.davies_bouldin(spreads[k], means[k])) for k in cuts]
    k = min(int(about["k"]), m)
    arrays: dict[str, NDArray[Any]] = {
        "of": cuts[k],
        "linkage": linkage_matrix(tree),
        "sweep/ks": np.array(list(cuts), np.int64),
        "sweep/scores": np.array(scores),
    }
    return Fitted(Merged(cuts[k]), means[k], arrays, f"{linkage} linkage of the {m:,} fine clusters")


def load(store: Store, model: str) -> Merged:
    """The rule of a stored model."""
    return Merged(store.read(model, "of"))


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


def add_fine(state: LabelSums | None, rows: Rows, centers: NDArray[np.float32]) -> LabelSums:
    """One block's sums of its fine clusters."""
    Z, valid = read_valid(rows)
    found = metrics.label_sums_block(Z, rows.read("fine")[valid], centers)
    return found if state is None else metrics.merge(state, found)


def add_spread(state: dict[int, DaviesState] | None, rows: Rows, cuts: Cuts, means: Means) -> dict[int, DaviesState]:
    """One block's distances to the means of every cut."""
    Z, valid = read_valid(rows)
    fine = rows.read("fine")[valid]
    found = {k: metrics.spread_block(Z, of[fine], means[k]) for k, of in cuts.items()}
    return found if state is None else merge_spread(state, found)


def merge_spread(a: dict[int, DaviesState], b: dict[int, DaviesState]) -> dict[int, DaviesState]:
    """Both, cut by cut."""
    return {k: metrics.spread_merge(a[k], b[k]) for k in a}
