"""Gaussian mixtures of a descriptor's reduced rows, started at its k-means clusters; every EM step is a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster import mixture
from streamclust.cluster.assign import assign
from streamclust.cluster.choice import lowest_bic
from streamclust.cluster.gaussians import CovarianceType
from streamclust.cluster.mixture import Mixture, MixtureResult, MixtureState
from streamclust.cluster.stability import half_of, judges_of, starts
from streamclust.job import Job
from streamclust.planning import em_groups
from streamclust.stages.reduced import load_sample, read_valid
from streamclust.stages.rules import Fitted, OnHalf, asked_k
from streamclust.store.rows import Rows
from streamclust.store.store import Store

SETTINGS = {"k", "covariance", "em_passes"}  # what a fit depends on
ENOUGH = 10  # rows per column and component for a full covariance

Mixtures = Mapping[int, Mixture]  # by the k of the k-means that they start at
States = dict[int, MixtureState]


@dataclass(frozen=True, eq=False)
class Posterior:
    """The most probable component and its probability."""

    mixture: Mixture

    def judge(self, Z: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `streamclust.stages.rules.Rule`."""
        label, confidence, _ = mixture.posterior(Z, self.mixture)
        return {"label": label, "confidence": confidence}


def fit(job: Job, clustering: str, addresses: Sequence[Rows]) -> Fitted:
    """EM from the k-means clusters, at most ``algorithms.em_passes`` steps; BIC and AIC over all rows.

    Where no k is asked for, mixtures start at every k of k-means, and that of the lowest BIC is taken.
    """
    about, asked = job.store.snapshot.entries[clustering].attributes, asked_k(job, clustering)
    ks = about["ks"] if asked is None else [asked[0]]
    p = job.store.snapshot.entries[about["parents"][0]].attributes["components"]
    kind = _covariance(job, max(ks), p, sum(map(len, addresses)))
    criteria, best = list[tuple[float, float]](), list[MixtureResult]()
    for group in em_groups(ks, p, kind):
        said, leader = _fit_group(job, clustering, addresses, group, kind)
        criteria += said
        best = [min([*best, leader], key=_bic)]
    (found,), scores = best, np.array(criteria)
    k, reason = lowest_bic(ks, scores, int(about["k"])) if asked is None else asked
    fitted, ended = found.mixture, "converged" if found.converged else "stopped"
    return Fitted(
        Posterior(fitted),
        fitted.means,
        {
            "weights": fitted.weights,
            "centers": fitted.means,
            "covariances": fitted.covariances,
            "sweep/ks": np.array(ks, np.int64),
            "sweep/scores": scores,
        },
        f"{kind} covariance, {ended} after {found.n_iter} steps of EM; BIC {found.bic:,.0f}, AIC {found.aic:,.0f}",
        k,
        reason,
        _on_half(job, about["parents"][0], k, kind),
        {"covariance_type": kind, "bic": found.bic, "aic": found.aic, "converged": found.converged},
    )


def load(store: Store, model: str) -> Posterior:
    """The rule of a stored model."""
    parts = (store.read(model, name) for name in ("weights", "centers", "covariances"))
    return Posterior(Mixture.of(store.snapshot.entries[model].attributes["covariance_type"], *parts))


def _covariance(job: Job, k: int, p: int, n: int) -> CovarianceType:
    """As set; by itself full where each of k components has ten rows per column, else diagonal.

    One for every k that is tried: where it changed, BIC would compare shapes and not numbers.
    """
    wanted = job.settings.algorithms.covariance
    if wanted == "auto":
        return "full" if n >= ENOUGH * k * p else "diag"
    return wanted


def _on_half(job: Job, projection: str, k: int, kind: CovarianceType) -> OnHalf | None:
    n, p = (half := half_of(load_sample(job.store, projection).Z, job.settings.seed)).shape
    if (kind == "full" and n < ENOUGH * k * p) or len(np.unique(half, axis=0)) < k:
        return None
    return partial(label_judges, k=k, kind=kind, passes=job.settings.algorithms.em_passes)


def label_judges(
    seed: int, sample: NDArray[np.float32], *, k: int, kind: CovarianceType, passes: int
) -> NDArray[np.int32]:
    """A mixture of a random half of a sample, from its k-means clusters, and what it says of the judges."""
    half = half_of(sample, seed)
    centers = starts(half, [k], seed)[0]

    def fold(mixtures: Mixtures) -> States:
        return {key: mixture.mixture_block(half, each) for key, each in mixtures.items()}

    hard = mixture.labelled_block(half, assign(half, centers)[0], centers, kind)
    found = mixture.em(fold, {k: mixture.maximise(hard)}, passes)[k].mixture
    return mixture.posterior(judges_of(sample), found)[0][None]


def _fit_group(
    job: Job, clustering: str, addresses: Sequence[Rows], ks: Sequence[int], kind: CovarianceType
) -> tuple[list[tuple[float, float]], MixtureResult]:
    """BIC and AIC of the mixtures of a few k, which share every read, and the best; the others are let go."""
    centers = {k: job.store.read(clustering, f"sweep/{k:05d}/centers") for k in ks}

    def fold(mixtures: Mixtures) -> States:
        return job.executor.fold(add_expectation, addresses, merge, mixtures, run=1)

    hard = job.executor.fold(add_hard, addresses, merge, centers, kind, run=1)
    starts = {k: mixture.maximise(hard.pop(k)) for k in ks}
    found = mixture.em(fold, starts, job.settings.algorithms.em_passes)
    return [(found[k].bic, found[k].aic) for k in ks], min(found.values(), key=_bic)


def _bic(result: MixtureResult) -> float:
    return result.bic


def add_hard(
    state: States | None, rows: Rows, centers: Mapping[int, NDArray[np.float32]], kind: CovarianceType
) -> States:
    """One block's sums under its k-means labels of each k."""
    Z = read_valid(rows)[0]
    found = {k: mixture.labelled_block(Z, assign(Z, c)[0], c, kind) for k, c in centers.items()}
    return found if state is None else merge(state, found)


def add_expectation(state: States | None, rows: Rows, mixtures: Mixtures) -> States:
    """One block's E-step."""
    Z = read_valid(rows)[0]
    found = {k: mixture.mixture_block(Z, each) for k, each in mixtures.items()}
    return found if state is None else merge(state, found)


def merge(a: States, b: States) -> States:
    """Both, mixture by mixture."""
    return {k: mixture.merge(a[k], b[k]) for k in a}
