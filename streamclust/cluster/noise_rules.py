"""The rules by which one subsample's OPTICS or HDBSCAN verdicts are carried to rows outside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamclust.cluster.core_distances import among, lifted, lowered, squared_distances, tiles
from streamclust.cluster.spanning_tree import dbscan_labels, hdbscan_labels, spanning_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEAREST = 5  # sampled neighbours from which the core distance of another row is estimated
_FAR = float(np.finfo(np.float32).max)


class Vote(NamedTuple):
    """One subsample of m rows; the fields are those of ``density.NoiseModel``."""

    core_distance: NDArray[np.float32]
    anchor: NDArray[np.bool_]
    label: NDArray[np.int32]
    threshold: NDArray[np.float64]
    coefficients: NDArray[np.float64]


def fit_optics(
    S: NDArray[np.float32], core_distance: NDArray[np.float32], eps: float, quantile: float, radius: float
) -> Vote:
    """Core rows by their known core distances, and the estimate of that of rows outside the subsample.

    The estimate is a least-squares fit in logs on the sampled rows, each left out of its own neighbours. Its limit
    is the quantile that eps is of the core distances, so that as many rows are estimated to be core as there are.
    """
    label: NDArray[np.int32] = np.zeros(len(S), np.int32)
    coefficients: NDArray[np.float64] = np.zeros(_NEAREST + 1)
    if len(S) <= 2 * (_NEAREST + 1):
        return Vote(core_distance, core_distance <= eps, label, np.array([eps, -np.inf, radius]), coefficients)
    features = np.empty((len(S), _NEAREST + 1))
    for tile, squares in among(S, _FAR, most=512):
        features[tile] = _features(squares, core_distance, radius)
    log_core = np.log(np.maximum(core_distance, radius))
    coefficients = np.asarray(np.linalg.lstsq(features, log_core, rcond=None)[0], np.float64)
    limit = float(np.quantile(features @ coefficients, quantile))
    return Vote(core_distance, core_distance <= eps, label, np.array([eps, limit, radius]), coefficients)


def _features(squares: NDArray[np.float32], core_distance: NDArray[np.float32], radius: float) -> NDArray[np.float64]:
    """(n, 6) logs of the distances to the 1st, 2nd and 5th sampled row, of the core distances of those, and 1.

    Changes ``squares``. Five passes of argmin are faster than one argpartition at thousands of columns.
    """
    rows, found = np.arange(len(squares)), []
    for _ in range(_NEAREST):
        j = np.argmin(squares, axis=1)
        found.append((j, squares[rows, j].astype(np.float64)))
        squares[rows, j] = _FAR
    log_core = np.log(np.maximum(core_distance, radius)).astype(np.float64)
    distances = [0.5 * np.log(np.maximum(found[i][1], radius**2)) for i in (0, 1, _NEAREST - 1)]
    around = np.mean([log_core[j] for j, _ in found], axis=0)
    return np.column_stack([*distances, around, log_core[found[0][0]], np.ones(len(squares))])


def optics_labels(S: NDArray[np.float32], anchor: NDArray[np.bool_], quantile: float, k: int) -> NDArray[np.int32]:
    """OPTICS' clusters (``cluster_method="dbscan"``) within one subsample; other rows get the nearest one's."""
    label = np.zeros(len(S), np.int32)
    if len(S) <= k:
        return label
    core = _own_core(S, k - 1)
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


def _own_core(S: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The distance of each row to its k-th other row within the subsample."""
    core = np.empty(len(S), np.float32)
    for tile, squares in among(S, _FAR):
        core[tile] = np.sqrt(np.partition(squares, k - 1, axis=1)[:, k - 1])
    return core


def judge_optics(
    vote: Vote, squares: NDArray[np.float32], own: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.intp]]:
    eps, limit, radius = vote.threshold
    blocked = np.where(vote.anchor, np.float32(0), _FAR)
    anchor = np.argmin(np.maximum(squares, blocked), axis=1)
    rows = np.arange(len(squares))
    near = vote.anchor[anchor] & (squares[rows, anchor] <= eps**2)
    noise = ~near
    # only rows outside the subsample and far from its core rows need the estimate
    unknown = np.flatnonzero(noise & (own < 0))
    if len(unknown) and np.isfinite(limit):
        estimate = _features(squares[unknown], vote.core_distance, radius) @ vote.coefficients
        noise[unknown] = estimate > limit
    return noise, near, anchor


def fit_hdbscan(S: NDArray[np.float32], k: int, min_cluster_size: int) -> Vote:
    """HDBSCAN on one subsample, and per cluster the mutual reachability that best tells its members from noise."""
    label = np.full(len(S), -1, np.int32)
    coefficients, core = np.zeros(_NEAREST + 1), np.zeros(len(S), np.float32)
    if len(S) <= max(k, min_cluster_size):
        return Vote(core, label >= 0, label, np.array([-np.inf]), coefficients)
    core = _own_core(S, k)
    label = hdbscan_labels(spanning_tree(S, core), min_cluster_size)
    anchor = label >= 0
    reach, nearest = np.empty(len(S), np.float32), np.zeros(len(S), np.intp)
    for tile, squares in among(S, _FAR):
        reach[tile], nearest[tile] = _reach(squares, core, anchor)
    reach = np.maximum(reach, core)
    joined = label[nearest]
    cuts = [_best_cut(reach[joined == c], label[joined == c] == c) for c in range(label.max() + 1)]
    return Vote(core, anchor, label, np.array(cuts or [-np.inf]), coefficients)


def _best_cut(reach: NDArray[np.float32], member: NDArray[np.bool_]) -> float:
    """The threshold on reach that puts most members below it and most noise above it."""
    order = np.argsort(reach, kind="stable")
    gain = np.cumsum(np.where(member[order], 1, -1))
    best = int(np.argmax(gain)) if len(gain) else 0
    return float(reach[order[best]]) if len(gain) and gain[best] > 0 else -np.inf


def _reach(
    squares: NDArray[np.float32], core: NDArray[np.float32], anchor: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The cluster member at the smallest max(distance, its core distance), and that distance."""
    mutual = np.maximum(squares, np.where(anchor, core**2, _FAR))
    nearest = np.argmin(mutual, axis=1)
    return np.sqrt(mutual[np.arange(len(mutual)), nearest]), nearest


def judge_hdbscan(
    vote: Vote, k: int, squares: NDArray[np.float32], own: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.intp]]:
    none = np.zeros(len(squares), bool)
    if not vote.anchor.any():
        return ~none, none, np.zeros(len(squares), np.intp)
    reach, nearest = _reach(squares, vote.core_distance, vote.anchor)
    limit = vote.threshold[vote.label[nearest]]
    # its own core distance is within the limit where k sampled rows are: a count is faster than a partition
    within = np.count_nonzero(squares <= np.square(limit, dtype=np.float32)[:, None], axis=1)
    noise = (reach > limit) | (within < k)
    sampled = np.flatnonzero(own >= 0)
    noise[sampled] = vote.label[own[sampled]] < 0
    nearest[sampled] = np.where(noise[sampled], nearest[sampled], own[sampled])
    return noise, none, nearest
