"""Noise verdicts of HDBSCAN and OPTICS for every row, from a few subsamples whose density was measured on all rows.

In order: ``core_distances.draw_votes`` from the resident sample, fold ``core_distances.core_block`` over all rows,
``fit_noise``, then ``assign_noise`` per block. Nobody runs either method on all rows, and nobody calls
``approximate_predict`` (11 ms a row).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from streamclust.cluster.core_distances import (
    MIN_SAMPLES,
    centred,
    lifted,
    lowered,
    middle,
    position,
    squared_distances,
    tiles,
)
from streamclust.cluster.noise_rules import Vote, fit_hdbscan, fit_optics, judge_hdbscan, judge_optics, optics_labels
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamclust.cluster.core_distances import CoreState, Draw

_SMALLEST = 5  # min_samples and min_cluster_size of a subsample never fall below it
_ROUNDING = 8 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """What ``assign_noise`` needs, per vote (V) and sampled row (m); each vote's rows in ascending order of id.

    Attributes
    ----------
    method : "optics" or "hdbscan".
    centre : (p,) float64, taken off every row.
    points, ids : (V, m, p) float32 and (V, m) int64, the subsamples.
    core_distance : (V, m) float32; OPTICS: over all rows, HDBSCAN: within the subsample.
    anchor : (V, m) bool; OPTICS: core rows, HDBSCAN: members of a cluster. A row is judged by its nearest anchor.
    label : (V, m) int32, the cluster of each sampled row, -1 noise.
    threshold : (V, c) float64; OPTICS: eps, the calibrated limit of the log of an estimated core distance, the
        smallest distance that counts;
        HDBSCAN: the largest mutual reachability at which a row still joins each cluster.
    coefficients : (V, 6) float64, of OPTICS' core distance estimate; zeros for HDBSCAN.
    neighbour : the neighbour whose distance is a row's core distance within a subsample.
    radius : within it rows count as nearly identical.
    fraction : m / number of all rows.
    """

    method: str
    centre: NDArray[np.float64]
    points: NDArray[np.float32]
    ids: NDArray[np.int64]
    core_distance: NDArray[np.float32]
    anchor: NDArray[np.bool_]
    label: NDArray[np.int32]
    threshold: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    neighbour: int
    radius: float
    fraction: float

    @property
    def exact(self) -> bool:
        """Whether every row was sampled, so that nothing is propagated."""
        return self.fraction >= 1

    def judge(
        self, v: int, squares: NDArray[np.float32], own: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.intp]]:
        """One vote on rows with these squared distances to its subsample: noise, proven none, and the anchor."""
        vote = Vote(self.core_distance[v], self.anchor[v], self.label[v], self.threshold[v], self.coefficients[v])
        if self.method == "optics":
            return judge_optics(vote, squares, own)
        return judge_hdbscan(vote, self.neighbour, squares, own)


@dataclass(frozen=True, eq=False)
class NoiseVerdicts:
    """Of n rows: the verdicts of the votes and what follows from them.

    Attributes
    ----------
    votes : (V, n) bool, true where that subsample calls the row noise.
    share : (n,) float32, the share of votes for noise.
    noise : (n,) bool, the verdict.
    label : (n,) int32, the cluster (of the first subsample) of a row that is not noise, -1 of one that is.
    near_duplicates : (n,) float32, the estimated number of other rows that are nearly identical.
    """

    votes: NDArray[np.bool_]
    share: NDArray[np.float32]
    noise: NDArray[np.bool_]
    label: NDArray[np.int32]
    near_duplicates: NDArray[np.float32]


def fit_noise(
    points: NDArray[np.float32],
    point_ids: NDArray[np.int64],
    core: CoreState,
    draw: Draw,
    n_rows: int,
    *,
    method: Literal["hdbscan", "optics"],
    min_samples: int = MIN_SAMPLES,
    min_cluster_size: int = 50,
    eps_quantile: float = 0.9,
) -> NoiseModel:
    """Run the method on every subsample and calibrate the rule that carries its verdicts to every other row.

    Parameters
    ----------
    points :
        (u, p) float32, the rows ``draw.rows`` of the resident sample.
    point_ids :
        (u,) int64 their global ids.
    core :
        of these points, folded over all rows, with k >= min_samples.
    draw :
        who votes.
    n_rows :
        number of all (valid) rows.
    method :
        "optics": a row is noise iff it is no core row and farther than eps from every core row, eps being a quantile
        of the core distances (``OPTICS(cluster_method="dbscan")``); "hdbscan": iff it is in no selected cluster.
    min_samples :
        of the method on all rows. Within a subsample it scales with the fraction, never below 5.
    min_cluster_size :
        of HDBSCAN on all rows; scales likewise.
    eps_quantile :
        OPTICS' eps as a quantile of the core distances.

    References
    ----------
    Ankerst et al., OPTICS, SIGMOD 1999. Campello et al., HDBSCAN, PAKDD 2013.
    """
    if method not in {"hdbscan", "optics"} or not 0 < eps_quantile < 1 or core.distances.shape[1] < min_samples:
        found = f"{method}, eps_quantile {eps_quantile}, {core.distances.shape[1]} core distances"
        raise InputError("fit_noise", found, f"hdbscan or optics, 0 < eps_quantile < 1, at least {min_samples}")
    members = np.take_along_axis(draw.members, np.argsort(point_ids[draw.members], axis=1), 1)
    centre = middle(points)
    subsamples = centred(points, centre)[members]
    fraction = min(1.0, members.shape[1] / n_rows)
    radius = _near_radius(core, subsamples)
    k, smallest_cluster = (
        max(min(_SMALLEST, size), round(size * fraction)) for size in (min_samples, min_cluster_size)
    )
    if method == "optics":
        distances = core.distances[:, min(min_samples, n_rows) - 1]
        eps = max(float(np.quantile(distances, eps_quantile)), radius)
        votes = [
            fit_optics(S, distances[rows], eps, eps_quantile, radius)
            for S, rows in zip(subsamples, members, strict=True)
        ]
        votes[0] = votes[0]._replace(label=optics_labels(subsamples[0], votes[0].anchor, eps_quantile, k))
    else:
        votes = [fit_hdbscan(S, k, smallest_cluster) for S in subsamples]
    return NoiseModel(method, centre, subsamples, point_ids[members], *_stacked(votes), k, radius, fraction)


def _stacked(votes: Sequence[Vote]) -> Vote:
    """All votes in one, (V, ...) each; one with fewer limits than another has -inf in their place."""
    most = max(len(vote.threshold) for vote in votes)
    limits = [np.pad(vote.threshold, (0, most - len(vote.threshold)), constant_values=-np.inf) for vote in votes]
    even = [vote._replace(threshold=limit) for vote, limit in zip(votes, limits, strict=True)]
    return Vote._make(np.stack(parts) for parts in zip(*even, strict=True))


def assign_noise(model: NoiseModel, X: NDArray[np.float32], row_ids: NDArray[np.int64]) -> NoiseVerdicts:
    """Carry one method's verdicts to a block of rows: see :func:`assign_all`."""
    return assign_all([model], X, row_ids)[0]


def assign_all(models: Sequence[NoiseModel], X: NDArray[np.float32], row_ids: NDArray[np.int64]) -> list[NoiseVerdicts]:
    """Carry the subsamples' verdicts to a block of rows, for several methods fitted on the same subsamples.

    OPTICS: a sampled row's core distance over all rows is known; another's is estimated from its distances to the
    nearest five sampled rows and from their core distances. A row is noise iff its core distance is above the limit
    and no sampled core row lies within eps. The majority of votes decides, but one core row within eps found by any
    vote proves a row to be none, so it overrules them.
    HDBSCAN: a sampled row keeps its verdict; another joins the cluster of the cluster member at the smallest mutual
    reachability unless that is above the cluster's threshold. The majority decides.

    Parameters
    ----------
    models :
        what ``fit_noise`` returned for the same points and draw; they share every distance.
    X :
        (n, p) float32, all finite.
    row_ids :
        (n,) int64 global ids.
    """
    first = models[0]
    V, m, p = first.points.shape
    if X.ndim != 2 or X.shape[1] != p or len(row_ids) != len(X):
        raise InputError("assign_noise", f"rows {X.shape} with {len(row_ids)} ids", f"(n, {p}) with n ids")
    votes, near = (np.zeros((len(models), V, len(X)), bool) for _ in range(2))
    twins, label = np.zeros(len(X)), np.zeros((len(models), len(X)), np.int32)
    own = np.stack([position(ids, row_ids) for ids in first.ids])
    points = [lowered(subsample) for subsample in first.points]
    for tile in tiles(len(X), m, most=512):
        rows = centred(X[tile], first.centre)
        within = first.radius**2 + _ROUNDING * np.vecdot(rows, rows)
        rows = lifted(rows)
        for v in range(V):
            squares = squared_distances(rows, points[v], own[v, tile])
            # most rows have no twin: one pass for the minimum instead of two for the count
            close = np.flatnonzero(squares.min(axis=1) <= within)
            found = np.count_nonzero(squares[close] <= within[close, None], axis=1)
            twins[tile.start + close] += found - (own[v, tile.start + close] >= 0)
            for i, model in enumerate(models):
                votes[i, v, tile], near[i, v, tile], anchor = model.judge(v, squares, own[v, tile])
                if v == 0:
                    label[i, tile] = model.label[0, anchor]
    near_duplicates = (twins / (V * first.fraction)).astype(np.float32)
    return [_verdicts(*parts, near_duplicates) for parts in zip(votes, near, label, strict=True)]


def _verdicts(
    votes: NDArray[np.bool_], near: NDArray[np.bool_], label: NDArray[np.int32], near_duplicates: NDArray[np.float32]
) -> NoiseVerdicts:
    share = np.where(near.any(0), 0, votes.mean(0)).astype(np.float32)
    noise = share > 0.5
    return NoiseVerdicts(
        votes, share, noise, np.where(noise, -1, np.maximum(label, 0)).astype(np.int32), near_duplicates
    )


def _near_radius(core: CoreState, subsamples: NDArray[np.float32]) -> float:
    """2 % of the median distance to the nearest other row; where all rows are the same, what float32 resolves."""
    nearest = core.distances[:, min(1, core.distances.shape[1] - 1)]
    nearest = nearest[np.isfinite(nearest) & (nearest > 0)]
    if len(nearest):
        return 0.02 * float(np.median(nearest))
    return max(float(np.abs(subsamples).max()) * 1e-6, 1e-15)
