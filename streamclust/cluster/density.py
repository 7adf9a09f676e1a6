"""Noise verdicts of HDBSCAN and OPTICS for every row, from a few subsamples whose density was measured on all rows.

In order: ``voters.draw_voters`` from the resident sample, ``fit_hdbscan_vote`` on each subsample, ``look`` at all rows
block by block, which finds the core distances too, ``fit_optics_votes``, then ``decide`` per block from what was seen:
the distances of all rows to all sampled rows are computed once. Nobody runs either method on all rows, and nobody calls
``approximate_predict`` (11 ms a row).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamclust.cluster.distances import centred, lifted, lowered, products, squared_distances, tiles
from streamclust.cluster.nearest import Nearest, compare
from streamclust.cluster.noise_rules import (
    NEIGHBOURS,
    Vote,
    fit_hdbscan,
    fit_optics,
    judge_hdbscan,
    judge_optics,
    least_reach,
    optics_labels,
)
from streamclust.cluster.voters import MIN_SAMPLES, Voters, surroundings
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from streamclust.cluster.noise_rules import SquaresTo

MIN_CLUSTER_SIZE = 50
LISTED = 8  # more of them would settle few rows that these do not
_ROUNDING = 8 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Votes:
    """What one method says of each subsample (V) and sampled row (m).

    Attributes
    ----------
    ids : (V, m) int64, the subsamples' rows.
    core_distance : (V, m) float32; OPTICS: over all rows, HDBSCAN: within the subsample.
    anchor : (V, m) bool; OPTICS: core rows, HDBSCAN: members of a cluster. A row is judged by its nearest anchor.
    label : (V, m) int32, the cluster of each sampled row, -1 noise.
    threshold : (V, c) float64; OPTICS: eps, the calibrated limit of the log of an estimated core distance, the
        smallest distance that counts;
        HDBSCAN: the largest mutual reachability at which a row still joins each cluster.
    coefficients : (V, 6) float64, of OPTICS' core distance estimate; zeros for HDBSCAN.
    """

    ids: NDArray[np.int64]
    core_distance: NDArray[np.float32]
    anchor: NDArray[np.bool_]
    label: NDArray[np.int32]
    threshold: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def __getitem__(self, v: int) -> Vote:
        return Vote(self.core_distance[v], self.anchor[v], self.label[v], self.threshold[v], self.coefficients[v])


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """What tomorrow's rows need: the subsamples, both methods' votes, and the radius of near-duplicates."""

    voters: Voters
    hdbscan: Votes
    optics: Votes
    radius: float


@dataclass(frozen=True, eq=False)
class Sight:
    """Of n rows and V subsamples: the L nearest sampled rows, and where HDBSCAN puts them.

    Attributes
    ----------
    squares, columns : (n, V, L) float32 and int32, as ``nearest.Nearest`` has them.
    joined : (n, V) int32, the cluster, or ``~`` the nearest one of a row that is noise.
    """

    squares: NDArray[np.float32]
    columns: NDArray[np.int32]
    joined: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class NoiseVerdicts:
    """Of n rows: the verdicts of the votes and what follows from them.

    Attributes
    ----------
    votes : (V, n) bool, true where that subsample calls the row noise.
    share : (n,) float32, the share of votes for noise.
    noise : (n,) bool, the verdict.
    label : (n,) int32, the cluster (of the first subsample) of a row that is not noise, -1 of one that is.
    """

    votes: NDArray[np.bool_]
    share: NDArray[np.float32]
    noise: NDArray[np.bool_]
    label: NDArray[np.int32]


def fit_hdbscan_vote(v: int, voters: Voters) -> tuple[Nearest, Vote]:
    """HDBSCAN on subsample ``v``, and the other sampled rows around each of its rows.

    Its min_samples of 10 and min_cluster_size of 50 are those of the method on all rows: within a subsample they scale
    with its fraction, never below 5.

    References
    ----------
    Campello et al., HDBSCAN, PAKDD 2013.
    """
    S = voters.points[v]
    around = surroundings(S, max(MIN_SAMPLES, NEIGHBOURS))
    return around, fit_hdbscan(S, around, voters.scaled(MIN_SAMPLES), voters.scaled(MIN_CLUSTER_SIZE))


def listed(voters: Voters) -> int:
    """How many sampled rows of each subsample are remembered of each row."""
    return min(max(LISTED, voters.scaled(MIN_SAMPLES)), len(voters.ids[0]))


def look(
    voters: Voters,
    hdbscan: Votes,
    X: NDArray[np.float32],
    row_ids: NDArray[np.int64],
    core: NDArray[np.float32] | None = None,
) -> Sight:
    """Compare a block's rows with every sampled row, once.

    A sampled row keeps HDBSCAN's verdict; another joins the cluster of the cluster member at the smallest mutual
    reachability unless that is above the cluster's threshold.

    Parameters
    ----------
    voters, hdbscan :
        the subsamples and what HDBSCAN says of them.
    X, row_ids :
        (n, p) float32, all finite, and (n,) int64 global ids.
    core :
        (V, m, k) as ``voters.core_identity`` makes it, or nothing; the distances of these rows are taken into it.
    """
    V, m, p = voters.points.shape
    if X.ndim != 2 or X.shape[1] != p or len(row_ids) != len(X):
        raise InputError("look", f"rows {X.shape} with {len(row_ids)} ids", f"(n, {p}) with n ids")
    shape = len(X), V, listed(voters)
    sight = Sight(np.empty(shape, np.float32), np.empty(shape, np.int32), np.empty(shape[:2], np.int32))
    own, points = voters.seats(row_ids), [lowered(S) for S in voters.points]
    least = [least_reach(core, anchor) for core, anchor in zip(hdbscan.core_distance, hdbscan.anchor, strict=True)]
    for tile in tiles(len(X), m, most=512):
        rows = lifted(centred(X[tile], voters.centre))
        for v in range(V):
            squares = products(rows, points[v], own[v, tile])
            near, reached = compare(squares, shape[2], least[v], None if core is None else core[v])
            sight.squares[tile, v], sight.columns[tile, v] = near
            sight.joined[tile, v] = judge_hdbscan(hdbscan[v], voters.scaled(MIN_SAMPLES), near, reached, own[v, tile])
    return sight


def fit_optics_votes(
    voters: Voters, around: Sequence[Nearest], core: NDArray[np.float32], *, eps_quantile: float = 0.9
) -> tuple[Votes, float]:
    """Calibrate OPTICS' rule on every subsample; also the radius within which rows count as nearly identical.

    A row is noise iff it is no core row and farther than eps from every core row, eps being a quantile of the core
    distances (``OPTICS(cluster_method="dbscan")``).

    Parameters
    ----------
    voters :
        the subsamples.
    around :
        what ``fit_hdbscan_vote`` found around the rows of each subsample.
    core :
        (V, m, k) squares, folded over all rows; the last are those of the core distances of min_samples = k.
    eps_quantile :
        between 0 and 1.

    References
    ----------
    Ankerst et al., OPTICS, SIGMOD 1999.
    """
    if not 0 < eps_quantile < 1:
        raise InputError("fit_optics_votes", f"eps_quantile {eps_quantile}", "0 < eps_quantile < 1")
    distances = np.sqrt(core)
    once = np.unique(voters.ids, return_index=True)[1]
    radius = _near_radius(distances[..., min(1, core.shape[2] - 1)].ravel()[once], voters)
    n_rows = round(core.shape[1] / voters.fraction)
    distances = distances[..., min(core.shape[2], n_rows) - 1]
    eps = max(float(np.quantile(distances.ravel()[once], eps_quantile)), radius)
    votes = [fit_optics(near, own, eps, eps_quantile, radius) for near, own in zip(around, distances, strict=True)]
    label = optics_labels(voters.points[0], around[0], votes[0].anchor, eps_quantile, voters.scaled(core.shape[2]))
    votes[0] = votes[0]._replace(label=label)
    return stacked(voters, votes), radius


def stacked(voters: Voters, votes: Sequence[Vote]) -> Votes:
    """All votes in one; one with fewer limits than another has -inf in their place."""
    most = max(len(vote.threshold) for vote in votes)
    limits = [np.pad(vote.threshold, (0, most - len(vote.threshold)), constant_values=-np.inf) for vote in votes]
    even = [vote._replace(threshold=limit) for vote, limit in zip(votes, limits, strict=True)]
    return Votes(voters.ids, *(np.stack(parts) for parts in zip(*even, strict=True)))


def decide(
    model: NoiseModel, X: NDArray[np.float32], row_ids: NDArray[np.int64], sight: Sight
) -> tuple[NoiseVerdicts, NoiseVerdicts, NDArray[np.float32]]:
    """HDBSCAN's and OPTICS' verdicts on a block of rows that were looked at, and how many others are nearly identical.

    OPTICS: a sampled row's core distance over all rows is known; another's is estimated from its distances to the
    nearest five sampled rows and from their core distances. A row is noise iff its core distance is above the limit
    and no sampled core row lies within eps. The majority of votes decides, but one core row within eps found by any
    vote proves a row to be none, so it overrules them. HDBSCAN: the majority decides.

    What the remembered neighbours do not settle is settled by all distances.
    """
    voters, V, n = model.voters, len(model.voters.points), len(X)
    votes, proven = np.zeros((V, n), bool), np.zeros((V, n), bool)
    label, twins = np.zeros(n, np.int32), np.zeros(n)
    own, rows = voters.seats(row_ids), lifted(centred(X, voters.centre))
    within = model.radius**2 + _ROUNDING * rows[:, -2]
    for v in range(V):
        near = Nearest(sight.squares[:, v], sight.columns[:, v])
        squares_to = partial(_squares_to, rows, voters.points[v])
        votes[v], proven[v], found = judge_optics(model.optics[v], near, own[v], squares_to)
        label = found if v == 0 else label
        twins += _count_within(near, within, squares_to, voters.points.shape[1]) - (own[v] >= 0)
    hdbscan = sight.joined.T
    return (
        _verdicts(hdbscan < 0, np.zeros_like(proven), np.maximum(hdbscan[0], ~hdbscan[0])),
        _verdicts(votes, proven, label),
        (twins / (V * voters.fraction)).astype(np.float32),
    )


def _squares_to(
    rows: NDArray[np.float32], S: NDArray[np.float32], numbers: NDArray[np.intp], columns: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Some of the rows, tile by tile, and their squared distances to some sampled ones."""
    if not len(numbers):
        return
    right = lowered(S[columns])
    for tile in tiles(len(numbers), len(columns), most=512):
        part = numbers[tile]
        yield part, squared_distances(rows[part], right, np.full(len(part), -1))


def _count_within(near: Nearest, within: NDArray[np.float32], squares_to: SquaresTo, m: int) -> NDArray[np.intp]:
    """How many sampled rows lie within each row's limit, itself included."""
    count: NDArray[np.intp] = np.count_nonzero(near.squares <= within[:, None], axis=1)
    known = near.squares.shape[1]
    more = np.flatnonzero(count == known) if known < m else np.empty(0, np.intp)
    for part, squares in squares_to(more, np.arange(m)):
        count[part] = np.count_nonzero(squares <= within[part, None], axis=1)
    return count


def _verdicts(votes: NDArray[np.bool_], proven: NDArray[np.bool_], label: NDArray[np.int32]) -> NoiseVerdicts:
    share = np.where(proven.any(0), 0, votes.mean(0)).astype(np.float32)
    noise = share > 0.5
    return NoiseVerdicts(votes, share, noise, np.where(noise, -1, np.maximum(label, 0)).astype(np.int32))


def _near_radius(nearest: NDArray[np.float32], voters: Voters) -> float:
    """2 % of the median distance to the nearest other row; where all rows are the same, what float32 resolves."""
    nearest = nearest[np.isfinite(nearest) & (nearest > 0)]
    if len(nearest):
        return 0.02 * float(np.median(nearest))
    return max(float(np.abs(voters.points).max()) * 1e-6, 1e-15)
