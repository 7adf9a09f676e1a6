"""One descriptor's sweep over k: starts, Lloyd passes and indices of every k, each read of the data shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import metrics
from streamclust.cluster import kmeans, minibatch, passes
from streamclust.cluster import spread as spreading
from streamclust.cluster.assign import assign
from streamclust.cluster.restarts import restarts
from streamclust.cluster.spread import Spread
from streamclust.cluster.stability import half_labels, judged, stability
from streamclust.cluster.two_level import Asked
from streamclust.job import Job
from streamclust.stages.former import FINE
from streamclust.stages.reduced import load_sample, read_valid
from streamclust.store.rows import Rows

Centers = Mapping[Any, NDArray[np.float32]]
FORMER = "former"
KEEP = 0.03  # what a fresh start must save of the inertia to be worth labels that change
CHAIN_ROWS = 2**16  # a bound on the chain's cost: the exact passes follow anyway
CHAINS = 4


@dataclass(frozen=True)
class Score:
    """One k: sizes and indices over all valid rows; (mean, low, high) of its stability on halves of the sample."""

    result: kmeans.LloydResult
    calinski_harabasz: float
    davies_bouldin: float
    silhouette: float
    stability: NDArray[np.float64] | None = None


def sweep(job: Job, projection: str, addresses: list[Rows], fine_k: int, former: Centers) -> dict[Any, Score]:
    """Lloyd passes and both indices for every k: each read of the data shared by all.

    Where as many clusters were there before, their start is taken unless the other saves a few percent and, of those
    that may have names, takes none away.
    """

    def fold(centers: Mapping[Any, Asked]) -> Mapping[Any, passes.LloydState]:
        return job.executor.fold(add_lloyd, addresses, passes.merge_sets, centers, run=1)

    starts: dict[Any, NDArray[np.float32]] = dict(_starts(job, projection, addresses, fine_k))
    sizes = {k: len(centers) for k, centers in starts.items()}
    again = {len(c) if key != FINE else FINE: c for key, c in former.items()}
    again = {k: c for k, c in again.items() if sizes.get(k) == len(c)}
    starts |= {(FORMER, k): centers for k, centers in again.items()}
    final: dict[Any, kmeans.LloydResult] = dict(kmeans.lloyd(fold, starts, job.settings.cluster.passes))
    for k in again:
        before = final.pop((FORMER, k))
        small = before.inertia <= (1 + KEEP) * final[k].inertia
        kept = k == FINE or has_each(final[k].centers, before.centers)
        if len(before.centers) == sizes[k] and (small or not kept):
            final[k] = before
    means = {k: result.sums.means for k, result in final.items()}
    centers = {k: result.centers for k, result in final.items()}
    stable = _stability(job, projection, [k for k in final if k != FINE])
    spreads = job.executor.fold(add_spread, addresses, merge_spread, centers, means, run=1)
    bouldin = {k: metrics.davies_bouldin(spread.davies, means[k]) for k, spread in spreads.items()}
    return {
        k: Score(r, metrics.calinski_harabasz(r.sums), bouldin[k], spreads[k].silhouette, stable.get(k))
        for k, r in final.items()
    }


def _stability(job: Job, projection: str, every: Sequence[int]) -> dict[int, NDArray[np.float64]]:
    sample, seed, halves = load_sample(job.store, projection).Z, job.settings.seed, job.settings.cluster.halves
    ks = judged(every, len(sample))
    if halves < 2 or not ks:
        return {}
    labels = job.executor.map(half_labels, range(seed, seed + halves), sample, ks)
    return dict(zip(ks, stability(labels), strict=True))


def has_each(centers: NDArray[np.float32], former: NDArray[np.float32]) -> bool:
    """Whether every former centre has a nearest centre of its own; if not, some of their clusters become one."""
    return len(np.unique(assign(former, centers)[0])) == len(former)


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
        starts |= minibatch.centers(chained)
    inertia = dict(zip(starts, job.executor.map(sample_inertia, list(starts.values()), sample), strict=True))
    best = {k: min((key for key in starts if key[0] == k), key=inertia.__getitem__) for k, _ in starts}
    return {k: starts[key] for k, key in best.items()}


def start_on_sample(
    wanted: tuple[list[int], int, int], sample: NDArray[np.float32], seed: int
) -> tuple[dict[Any, NDArray[np.float32]], dict[Any, Any]]:
    """The best starts of each k by (k, rank), and minibatch models at them."""
    ks, n_init, keep = wanted
    kept = restarts(sample, ks, n_init=n_init, keep=keep, seed=seed)
    starts = {(k, i): centers for k, found in kept.items() for i, centers in enumerate(found)}
    return starts, minibatch.start(starts, sample[: minibatch.MINIBATCH])


def sample_inertia(centers: NDArray[np.float32], sample: NDArray[np.float32]) -> float:
    """The sum of squared distances of the sample rows to their centres."""
    return float(assign(sample, centers)[1].sum())


def chain_block(models: Mapping[Any, Any], rows: Rows) -> dict[Any, Any]:
    """A chain's step over one block."""
    return minibatch.step(models, read_valid(rows)[0])


def add_lloyd(
    state: Mapping[Any, passes.LloydState] | None, rows: Rows, centers: Mapping[Any, Asked]
) -> dict[Any, Any]:
    """One block against every set of centres."""
    Z = read_valid(rows)[0]
    found = passes.lloyd_block(Z, centers)
    return found if state is None else passes.merge_sets(state, found)


def add_spread(state: Mapping[Any, Spread] | None, rows: Rows, centers: Centers, means: Centers) -> dict[Any, Spread]:
    """One block's distances to the means of its labels, for Davies-Bouldin, and its simplified silhouettes."""
    Z = read_valid(rows)[0]
    found = spreading.spread_block(Z, centers, means)
    return found if state is None else merge_spread(state, found)


def merge_spread(a: Mapping[Any, Spread], b: Mapping[Any, Spread]) -> dict[Any, Spread]:
    """Both, set by set."""
    return {key: spreading.merge(a[key], b[key]) for key in a}
