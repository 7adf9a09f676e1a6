"""Subsampled local density: how much sparser a row's neighbourhood is than that of its neighbours.

Every row is compared with a few small seeded subsamples only, so that scoring is one tiled GEMM per block, clumps of
strange rows thin out until they look strange, and the model is frozen for tomorrow's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamclust.cluster.distances import lifted, lowered
from streamclust.cluster.scans import around
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_TILE_ROWS = 256  # a tile's distances to a subsample of 500 stay in the processor's cache
_SCRATCH = 8 * 2**20  # bytes of one tile's distances at most; four such arrays live at a time
_FARTHEST = 1e6  # in units of the sample's typical distance from its centre: squares stay far from overflow
_NEAREST = 1e-3  # what float32 distances resolve, about the square root of its epsilon, in the same units
_ONESELF = np.float32(1e30)  # finite, so that a product with 0 is 0
_KNEE = 3.0  # a log ratio beyond this (a factor of 20) counts only by its logarithm


@dataclass(frozen=True, eq=False)
class SubsampledDensity:
    """Subsamples and their own densities.

    Attributes
    ----------
    centre, scale : (p,) and () float64; rows are taken relative to the centre, in units of the scale.
    points, ids : (T, m, p) float32 and (T, m) int64, the subsamples' rows, each subsample in ascending order of id.
    neighbours : (K,) int64, the neighbourhood sizes.
    k_distance, density : (T, K, m) float32, each point's distance to its k-th neighbour within its subsample and its
        local reachability density, itself left out.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    points: NDArray[np.float32]
    ids: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    k_distance: NDArray[np.float32]
    density: NDArray[np.float32]


def fit_density(
    sample: NDArray[np.float32],
    row_ids: NDArray[np.int64],
    *,
    n_subsamples: int = 10,
    subsample_rows: int = 500,
    neighbours: Sequence[float] = (0.04, 0.10),
    seed: int,
) -> SubsampledDensity:
    """Draw the subsamples and measure the density at each of their points.

    Parameters
    ----------
    sample :
        (M, p) float32 reduced rows, all finite.
    row_ids :
        (M,) int64 distinct global ids of these rows.
    n_subsamples :
        T.
    subsample_rows :
        m. A subsample is never larger than half of the sample (or 20 rows), so that subsamples of small
        data still differ.
    neighbours :
        neighbourhood sizes as fractions of m; at least 2 neighbours.
    seed :
        of the draws.

    Raises
    ------
    InputError : where the settings or the shapes cannot be used.

    References
    ----------
    Breunig et al., LOF: identifying density-based local outliers, SIGMOD 2000. Zimek et al., Subsampling for
    efficient and effective unsupervised outlier detection ensembles, KDD 2013.
    """
    n, p = _checked(sample, row_ids, n_subsamples, subsample_rows, neighbours)
    m = min(n, subsample_rows, max(n // 2, 20))
    if m < 3:
        m = 0
    centre, scale = _location(sample)
    ks = np.unique([min(max(2, round(f * m)), max(m - 1, 1)) for f in neighbours]).astype(np.int64)
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.choice(n, m, replace=False) for _ in range(n_subsamples)])
    draws = np.take_along_axis(draws, np.argsort(row_ids[draws], axis=1), 1)
    points = _standard(sample, centre, scale)[draws].reshape(n_subsamples, m, p)
    local = [_local_density(subsample, ks) for subsample in points]
    k_distance, density = (np.stack([part[i] for part in local]) for i in (0, 1))
    return SubsampledDensity(centre, scale, points, row_ids[draws], ks, k_distance, density)


def score_density(model: SubsampledDensity, X: NDArray[np.float32], row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean log density ratio of each row: log of LOF, averaged over subsamples and neighbourhood sizes.

    0 is as dense as its neighbours, log(3) three times sparser. Each ratio is compressed beyond a factor of 20, so
    that one subsample in which a row lies beside a clump of duplicates does not decide alone. A row that is part of
    a subsample is left out of it, recognised by its id. A row's score does not depend on the rest of its block.

    Parameters
    ----------
    model :
        what ``fit_density`` returned.
    X :
        (n, p) float32, all finite.
    row_ids :
        (n,) int64 global ids.

    Returns
    -------
    (n,) float32; 0 throughout where the sample had fewer than 3 rows.
    """
    T, m, p = model.points.shape
    if X.ndim != 2 or X.shape[1] != p or len(row_ids) != len(X):
        raise InputError("score_density", f"rows {X.shape} with {len(row_ids)} ids", f"(n, {p}) with n ids")
    total = np.zeros(len(X))
    if m == 0:
        return total.astype(np.float32)
    points = [lowered(subsample) for subsample in model.points]
    own = np.stack([_position(ids, row_ids) for ids in model.ids])
    for tile in _tiles(len(X), m):
        rows = lifted(_standard(X[tile], model.centre, model.scale))
        ratios = np.empty((len(rows), T, len(model.neighbours)))
        for t in range(T):
            distance = _distances(rows, points[t], own[t, tile])
            ratios[:, t] = _ratios(distance, model.neighbours, model.k_distance[t], model.density[t])
        total[tile] = _compressed(np.log(ratios)).sum(axis=(1, 2))
    mean: NDArray[np.float32] = (total / (T * len(model.neighbours))).astype(np.float32)
    return mean


def _checked(
    sample: NDArray[np.float32],
    row_ids: NDArray[np.int64],
    n_subsamples: int,
    subsample_rows: int,
    neighbours: Sequence[float],
) -> tuple[int, int]:
    if sample.ndim != 2 or row_ids.shape != (len(sample),):
        raise InputError("fit_density", f"a sample {sample.shape} with ids {row_ids.shape}", "(M, p) with (M,)")
    if n_subsamples < 1 or subsample_rows < 3:
        raise InputError("fit_density", f"{n_subsamples} subsamples of {subsample_rows} rows", "at least 1 of 3 rows")
    if not neighbours or not all(0 < f < 1 for f in neighbours):
        raise InputError("fit_density", f"neighbours {tuple(neighbours)}", "fractions of a subsample between 0 and 1")
    return len(sample), sample.shape[1]


def _location(sample: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The median, which one absurd row cannot move, and the typical distance from it."""
    if not len(sample):
        return np.zeros(sample.shape[1]), np.array(1.0)
    centre = np.median(sample, axis=0).astype(np.float64)
    away = np.linalg.norm(sample - centre, axis=1)
    away = away[away > 0]
    return centre, np.array(np.median(away) if len(away) else 1.0)


def _standard(X: NDArray[np.float32], centre: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Centred in float64: under a common offset float32 distances would cancel."""
    standard: NDArray[np.float32] = np.clip((X - centre) / scale, -_FARTHEST, _FARTHEST).astype(np.float32)
    return standard


def _tiles(n: int, columns: int) -> Iterator[slice]:
    rows = max(1, min(_TILE_ROWS, _SCRATCH // (4 * max(columns, 1))))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _position(sorted_ids: NDArray[np.int64], row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row stands among the ids, or -1."""
    at = np.minimum(np.searchsorted(sorted_ids, row_ids), len(sorted_ids) - 1)
    return np.where(sorted_ids[at] == row_ids, at, -1)


def _distances(rows: NDArray[np.float32], points: NDArray[np.float32], own: NDArray[np.int64]) -> NDArray[np.float32]:
    """(rows, m) Euclidean distances of rows, `lifted`, to points, `lowered`; beyond all others to oneself."""
    distance: NDArray[np.float32] = rows @ points.T
    np.sqrt(np.maximum(distance, _NEAREST**2, out=distance), out=distance)
    inside = np.flatnonzero(own >= 0)
    distance[inside, own[inside]] = _ONESELF
    return distance


def _local_density(
    points: NDArray[np.float32], ks: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """k-distance and local reachability density of each point of one subsample, (K, m) each."""
    m = len(points)
    if m == 0:
        return np.zeros((len(ks), 0), np.float32), np.zeros((len(ks), 0), np.float32)
    distance = _distances(lifted(points), lowered(points), np.arange(m))
    radius = np.sort(distance, axis=1)[:, ks - 1]
    k_distance = np.ascontiguousarray(radius.T)
    reach, _, count = _neighbourhood(distance, radius, k_distance, k_distance)
    return k_distance, (count / reach).T.astype(np.float32)


def _ratios(
    distance: NDArray[np.float32],
    ks: NDArray[np.int64],
    k_distance: NDArray[np.float32],
    density: NDArray[np.float32],
) -> NDArray[np.float64]:
    """(rows, K): the mean density of the neighbours by the own density."""
    # a full sort is vectorised: measured 3 to 10 times faster than a partition at several k
    radius = np.sort(distance, axis=1)[:, ks - 1]
    reach, weights, count = _neighbourhood(distance, radius, k_distance, density)
    return np.asarray(weights * reach / count**2)


def _neighbourhood(
    distance: NDArray[np.float32],
    radius: NDArray[np.float32],
    k_distance: NDArray[np.float32],
    density: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Sums over the points within each radius (ties included, as Breunig et al. do): reachability, density, one.

    (3, rows, K).
    """
    sums = np.empty((*radius.shape, 3))
    around(distance, np.ascontiguousarray(radius), k_distance, density, sums)
    return np.moveaxis(sums, 2, 0)


def _compressed(log_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unchanged up to the knee, logarithmic beyond: bounded in effect, yet without ties among the farthest rows."""
    beyond = np.maximum(np.abs(log_ratio) - _KNEE, 0)
    near = np.clip(log_ratio, -_KNEE, _KNEE)
    return near + np.copysign(np.log1p(beyond), log_ratio)
