"""The rules by which one subsample's OPTICS or HDBSCAN verdicts are carried to rows outside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamclust.cluster.distances import among, lifted, lowered, squared_distances, tiles
from streamclust.cluster.nearest import Nearest, Reached, compare
from streamclust.cluster.spanning_tree import dbscan_labels, hdbscan_labels, spanning_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    # some rows and some sampled rows, by number -> parts of the rows, and their squared distances to the sampled ones
    SquaresTo = Callable[[NDArray[np.intp], NDArray[np.intp]], Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]]

NEIGHBOURS = 5  # sampled neighbours from which the core distance of another row is estimated
_FAR = float(np.finfo(np.float32).max)


class Vote(NamedTuple):
    """One subsample of m rows; the fields are those of ``density.NoiseModel``."""

    core_distance: NDArray[np.float32]
    anchor: NDArray[np.bool_]
    label: NDArray[np.int32]
    threshold: NDArray[np.float64]
    coefficients: NDArray[np.float64]


def fit_optics(near: Nearest, core_distance: NDArray[np.float32], eps: float, quantile: float, radius: float) -> Vote:
    """Core rows by their known core distances, and the estimate of that of rows outside the subsample.

    The estimate is a least-squares fit in logs on the sampled rows, each left out of its own neighbours. Its limit
    is the quantile that eps is of the core distances, so that as many rows are estimated to be core as there are.
    """
    m = len(core_distance)
    label: NDArray[np.int32] = np.zeros(m, np.int32)
    coefficients: NDArray[np.float64] = np.zeros(NEIGHBOURS + 1)
    if m <= 2 * (NEIGHBOURS + 1):
        return Vote(core_distance, core_distance <= eps, label, np.array([eps, -np.inf, radius]), coefficients)
    features = _features(near, core_distance, radius)
    log_core = np.log(np.maximum(core_distance, radius))
    coefficients = np.asarray(np.linalg.lstsq(features, log_core, rcond=None)[0], np.float64)
    limit = float(np.quantile(features @ coefficients, quantile))
    return Vote(core_distance, core_distance <= eps, label, np.array([eps, limit, radius]), coefficients)


def _features(near: Nearest, core_distance: NDArray[np.float32], radius: float) -> NDArray[np.float64]:
    """(n, 6) logs of the distances to the 1st, 2nd and 5th sampled row, of the core distances of those, and 1."""
    log_core = np.log(np.maximum(core_distance, radius)).astype(np.float64)[near.columns[:, :NEIGHBOURS]]
    squares = near.squares[:, [0, 1, NEIGHBOURS - 1]].astype(np.float64)
    distances = 0.5 * np.log(np.maximum(squares, radius**2))
    return np.column_stack([distances, log_core.mean(axis=1), log_core[:, 0], np.ones(len(squares))])


def optics_labels(
    S: NDArray[np.float32], near: Nearest, anchor: NDArray[np.bool_], quantile: float, k: int
) -> NDArray[np.int32]:
    """OPTICS' clusters (``cluster_method="dbscan"``) within one subsample; other rows get the nearest one's."""
    label = np.zeros(len(S), np.int32)
    if len(S) <= k:
        return label
    core = np.sqrt(near.squares[:, k - 2])
    eps = float(np.quantile(core, quantile))
    found = dbscan_labels(spanning_tree(S, core), core, eps)
    clustered = np.flatnonzero(found >= 0)
    if len(clustered):
        left, right = lifted(S), lowered(S[clustered])
        for tile in tiles(len(S), len(clustered)):
            squares = squared_distances(left[tile], right, np.full(tile.stop - tile.start, -1))
            label[tile] = found[clustered][np.argmin(squares, axis=1)]
    label[~anchor] = found[~anchor]
    return label


def judge_optics(
    vote: Vote, near: Nearest, own: NDArray[np.int64], squares_to: SquaresTo
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int32]]:
    """Of n rows with these nearest sampled rows, ``own`` of which they are themselves or -1: noise, proven none, label.

    squares_to : gives all distances of some of the rows to some sampled rows, where the nearest do not settle it.
    """
    eps, limit, radius = vote.threshold
    square, anchor = _nearest_core(vote, near, squares_to)
    proven = square <= eps**2
    noise = ~proven
    # only rows outside the subsample and far from its core rows need the estimate
    unknown = np.flatnonzero(noise & (own < 0))
    if len(unknown) and np.isfinite(limit):
        around = Nearest(near.squares[unknown], near.columns[unknown])
        noise[unknown] = _features(around, vote.core_distance, radius) @ vote.coefficients > limit
    return noise, proven, vote.label[anchor]


def _nearest_core(vote: Vote, near: Nearest, squares_to: SquaresTo) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The squared distance to the nearest core row, infinite where there is none, and which it is."""
    rows, listed = np.arange(len(near.squares)), vote.anchor[near.columns]
    first = np.argmax(listed, axis=1)
    square = np.where(listed[rows, first], near.squares[rows, first], np.float32(np.inf))
    anchor = near.columns[rows, first].astype(np.intp)
    core = np.flatnonzero(vote.anchor)
    if len(core):
        for part, squares in squares_to(np.flatnonzero(np.isinf(square)), core):
            best = np.argmin(squares, axis=1)
            square[part], anchor[part] = squares[np.arange(len(part)), best], core[best]
    return square, anchor


def fit_hdbscan(S: NDArray[np.float32], near: Nearest, k: int, min_cluster_size: int) -> Vote:
    """HDBSCAN on one subsample, and per cluster the mutual reachability that best tells its members from noise."""
    label = np.full(len(S), -1, np.int32)
    coefficients, core = np.zeros(NEIGHBOURS + 1), np.zeros(len(S), np.float32)
    if len(S) <= max(k, min_cluster_size):
        return Vote(core, label >= 0, label, np.array([-np.inf]), coefficients)
    core = np.sqrt(near.squares[:, k - 1])
    label = hdbscan_labels(spanning_tree(S, core), min_cluster_size)
    anchor = label >= 0
    reach, nearest = np.empty(len(S), np.float32), np.zeros(len(S), np.int32)
    least = least_reach(core, anchor)
    for tile, squares in among(S, _FAR):
        reach[tile], nearest[tile] = compare(squares, 0, least)[1]
    reach = np.maximum(np.sqrt(reach), core)
    joined = label[nearest]
    cuts = [_best_cut(reach[joined == c], label[joined == c] == c) for c in range(label.max() + 1)]
    return Vote(core, anchor, label, np.array(cuts or [-np.inf]), coefficients)


def _best_cut(reach: NDArray[np.float32], member: NDArray[np.bool_]) -> float:
    """The threshold on reach that puts most members below it and most noise above it."""
    order = np.argsort(reach, kind="stable")
    gain = np.cumsum(np.where(member[order], 1, -1))
    best = int(np.argmax(gain)) if len(gain) else 0
    return float(reach[order[best]]) if len(gain) and gain[best] > 0 else -np.inf


def least_reach(core: NDArray[np.float32], anchor: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(m,): the smallest squared mutual reachability of each sampled row, out of reach where it is in no cluster."""
    return np.where(anchor, core**2, np.float32(_FAR))


def judge_hdbscan(vote: Vote, k: int, near: Nearest, reached: Reached, own: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n,): the cluster that each row joins, or ``~`` the nearest one where it is noise.

    ``reached`` is the cluster member at the smallest squared mutual reachability, by `least_reach`.
    """
    if not vote.anchor.any():
        return np.full(len(own), -1, np.int32)
    joined = vote.label[reached.columns]
    limit = vote.threshold[joined]
    # its own core distance is within the limit where k sampled rows are
    noise = (np.sqrt(reached.squares) > limit) | (near.squares[:, k - 1] > np.square(limit, dtype=np.float32))
    sampled = np.flatnonzero(own >= 0)
    known = vote.label[own[sampled]]
    noise[sampled] = known < 0
    joined[sampled] = np.where(known < 0, joined[sampled], known)
    return np.where(noise, ~joined, joined)
