"""Noise verdicts of HDBSCAN and OPTICS for every row, from a few subsamples whose density was measured on all rows.

In order: ``draw_votes`` from the resident sample, fold ``core_block`` over all rows, ``fit_noise``, then
``assign_noise`` per block. Nobody runs either method on all rows, and nobody calls ``approximate_predict``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MIN_SAMPLES = 10
_SMALLEST = 5  # min_samples and min_cluster_size of a subsample never fall below it
_NEAREST = 5  # sampled neighbours from which the core distance of another row is estimated
_SCRATCH = 8 * 2**20
_ROUNDING = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Draw:
    """Which rows of the resident sample vote: ``rows`` (u,) their indices, ``members`` (V, m) indices into ``rows``."""

    rows: NDArray[np.int64]
    members: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CoreState:
    """(u, k) float32 ascending: the smallest distances of each sampled row to any row, itself included once (0)."""

    distances: NDArray[np.float32]


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
    threshold : (V, c) float64; OPTICS: c = 2, eps and the calibrated limit of the estimated core distance;
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


def draw_votes(n_sample: int, *, votes: int = 3, rows: int = 5_000, seed: int) -> Draw:
    """Draw the subsamples from the resident sample: disjoint where it is large enough.

    A sample of at most ``rows`` rows is taken whole, once: further votes would repeat the first.
    """
    if n_sample < 1 or votes < 1 or rows < 1:
        raise InputError("draw_votes", f"{votes} votes of {rows} rows from {n_sample}", "at least 1 of each")
    rng = np.random.default_rng(seed)
    if n_sample <= rows:
        members = np.arange(n_sample)[None]
    elif n_sample >= votes * rows:
        members = rng.permutation(n_sample)[: votes * rows].reshape(votes, rows)
    else:
        members = np.stack([rng.choice(n_sample, rows, replace=False) for _ in range(votes)])
    used = np.unique(members)
    return Draw(used, np.searchsorted(used, members))


def core_identity(n_points: int, k: int) -> CoreState:
    """The state of no rows."""
    return CoreState(np.full((n_points, k), np.inf, np.float32))


def core_block(
    points: NDArray[np.float32],
    point_ids: NDArray[np.int64],
    X: NDArray[np.float32],
    row_ids: NDArray[np.int64],
    k: int = MIN_SAMPLES,
) -> CoreState:
    """The k smallest distances from each sampled row to the rows of one block.

    Parameters
    ----------
    points :
        (u, p) float32 sampled rows.
    point_ids :
        (u,) int64 their global ids, by which a point recognises itself.
    X :
        (n, p) float32 block, all finite.
    row_ids :
        (n,) int64.
    k :
        how many; the last is the core distance of min_samples = k, counted as scikit-learn does.
    """
    state = core_identity(len(points), k)
    centre = points.mean(0, dtype=np.float64)
    order = np.argsort(row_ids)
    targets = _centred(points, centre)
    width = max(1, min(4096, _SCRATCH // (4 * max(len(points), 1)) * 8))
    for start in range(0, len(X), width):
        part = order[start : start + width]
        rows, own = _centred(X[part], centre), _position(row_ids[part], point_ids)
        for tile in _tiles(len(points), len(part)):
            squares = _squares(targets[tile], rows, own[tile], 0.0)
            if len(part) > k:
                squares.partition(k - 1, axis=1)
            both = np.concatenate([state.distances[tile], np.sqrt(squares[:, :k])], axis=1)
            state.distances[tile] = np.sort(both, axis=1)[:, :k]
    return state


def merge_core(a: CoreState, b: CoreState) -> CoreState:
    """The smallest distances over both parts' rows, which must not share a row."""
    both = np.sort(np.concatenate([a.distances, b.distances], axis=1), axis=1)
    return CoreState(both[:, : a.distances.shape[1]])


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
    centre = points.mean(0, dtype=np.float64)
    subsamples = _centred(points, centre)[members]
    fraction = min(1.0, members.shape[1] / max(n_rows, 1))
    radius = _near_radius(core, subsamples)
    smaller = [max(min(_SMALLEST, size), round(size * fraction)) for size in (min_samples, min_cluster_size)]
    if method == "optics":
        distances = core.distances[:, min(min_samples, n_rows) - 1]
        eps = max(float(np.quantile(distances, eps_quantile)), radius)
        parts = [_fit_optics(S, distances[rows], eps, eps_quantile, smaller[0]) for S, rows in zip(subsamples, members, strict=True)]
    else:
        parts = [_fit_hdbscan(S, *smaller) for S in subsamples]
    most = max(len(part[3]) for part in parts)
    limits = np.stack([np.pad(part[3], (0, most - len(part[3])), constant_values=-np.inf) for part in parts])
    c, anchor, label, coefficients = (np.stack([part[i] for part in parts]) for i in (0, 1, 2, 4))
    ids = point_ids[members]
    return NoiseModel(method, centre, subsamples, ids, c, anchor, label, limits, coefficients, smaller[0], radius, fraction)
