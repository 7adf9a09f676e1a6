"""A Gaussian mixture of a descriptor's reduced rows, started at its k-means clusters; every EM step is a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster import mixture
from streamclust.cluster.gaussians import CovarianceType
from streamclust.cluster.mixture import Mixture, MixtureState
from streamclust.job import Job
from streamclust.stages.reduced import read_valid
from streamclust.stages.rules import Fitted
from streamclust.store.rows import Rows
from streamclust.store.store import Store

SETTINGS = {"covariance", "em_passes"}  # what a fit depends on
ENOUGH = 10  # rows per column and component for a full covariance


@dataclass(frozen=True, eq=False)
class Posterior:
    """The most probable component and its probability."""

    mixture: Mixture

    def judge(self, Z: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `streamclust.stages.rules.Rule`."""
        label, confidence, _ = mixture.posterior(Z, self.mixture)
        return {"label": label, "confidence": confidence}


def fit(job: Job, clustering: str, addresses: Sequence[Rows]) -> Fitted:
    """EM from the chosen k-means clusters, at most ``algorithms.em_passes`` steps; BIC and AIC over all rows."""
    store, about = job.store, job.store.snapshot.entries[clustering].attributes
    centers = store.read(clustering, f"sweep/{about['k']:05d}/centers")
    kind = _covariance(job, len(centers), centers.shape[1], sum(map(len, addresses)))

    def fold(mixtures: dict[str, Mixture]) -> Mapping[str, MixtureState]:
        return job.executor.fold(add_expectation, addresses, merge, mixtures, run=1)

    hard = job.executor.fold(add_hard, addresses, mixture.merge, centers, kind, run=1)
    found = mixture.em(fold, {"": mixture.maximise(hard)}, job.settings.algorithms.em_passes)[""]
    ended = "converged" if found.converged else "stopped"
    fitted = found.mixture
    return Fitted(
        Posterior(fitted),
        fitted.means,
        {"weights": fitted.weights, "centers": fitted.means, "covariances": fitted.covariances},
        f"{kind} covariance, {ended} after {found.n_iter} steps of EM; BIC {found.bic:,.0f}, AIC {found.aic:,.0f}",
        {"covariance_type": kind, "bic": found.bic, "aic": found.aic, "converged": found.converged},
    )


def load(store: Store, model: str) -> Posterior:
    """The rule of a stored model."""
    parts = (store.read(model, name) for name in ("weights", "centers", "covariances"))
    return Posterior(Mixture.of(store.snapshot.entries[model].attributes["covariance_type"], *parts))


def _covariance(job: Job, k: int, p: int, n: int) -> CovarianceType:
    """As set; by itself full where every component has ten rows per column, else diagonal."""
    wanted = job.settings.algorithms.covariance
    if wanted == "auto":
        return "full" if n >= ENOUGH * k * p else "diag"
    return wanted


def add_hard(
    state: MixtureState | None, rows: Rows, centers: NDArray[np.float32], kind: CovarianceType
) -> MixtureState:
    """One block's sums under its k-means labels."""
    Z, valid = read_valid(rows)
    found = mixture.labelled_block(Z, rows.read("kmeans")[valid], centers, kind)
    return found if state is None else mixture.merge(state, found)


def add_expectation(
    state: Mapping[str, MixtureState] | None, rows: Rows, mixtures: Mapping[str, Mixture]
) -> Mapping[str, MixtureState]:
    """One block's E-step."""
    Z = read_valid(rows)[0]
    found = {key: mixture.mixture_block(Z, each) for key, each in mixtures.items()}
    return found if state is None else merge(state, found)


def merge(a: Mapping[str, MixtureState], b: Mapping[str, MixtureState]) -> Mapping[str, MixtureState]:
    """Both, mixture by mixture."""
    return {key: mixture.merge(a[key], b[key]) for key in a}
