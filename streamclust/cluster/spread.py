"""How far rows lie from the mean of their cluster, for Davies-Bouldin, out of their distances to the centres."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import Tile, exact_sqdist, origin_of, tiles
from streamclust.metrics import DaviesState

Float = NDArray[np.floating[Any]]
Key = TypeVar("Key", bound=Hashable)

_CANCELLED = 1e-3  # a square this small beside its terms is taken by differences


def spread_block(X: Float, sets: Mapping[Key, Float], means: Mapping[Key, Float]) -> dict[Key, DaviesState]:
    """One block's distances, label by label, to the means of the rows that `assign` gives to each set's centres.

    Parameters
    ----------
    X :
        (n, p) float32, finite.
    sets :
        centres (k, p) float32 by key.
    means :
        (k, p) by key, the means of all rows under those labels, near their centres.
    """
    keys = list(sets)
    steps = {key: means[key] - sets[key].astype(np.float64) for key in keys}
    distances = {key: np.zeros(len(sets[key])) for key in keys}
    counts = {key: np.zeros(len(sets[key]), np.int64) for key in keys}
    for tile in tiles(X, list(sets.values())):
        for j, i in enumerate(tile.sets):
            key, labels = keys[i], tile.labels[j]
            length = _lengths(tile, j, X[tile.rows], sets[key], means[key], steps[key])
            distances[key] += np.bincount(labels, length, len(sets[key]))
            counts[key] += np.bincount(labels, minlength=len(sets[key]))
    return {key: DaviesState(counts[key], distances[key]) for key in keys}


def _lengths(tile: Tile, j: int, rows: Float, centers: Float, means: Float, steps: Float) -> NDArray[np.float64]:
    """``|x - m|^2 = |x - c|^2 - 2 (x - c).(m - c) + |m - c|^2``: one product with the own step instead of k."""
    labels, sqdist = tile.labels[j], tile.sqdist[j]
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 is taken by differences too
        along = np.vecdot(tile.centred, steps.astype(np.float32)[labels]).astype(np.float64)
    along -= np.vecdot(centers.astype(np.float64) - origin_of(centers), steps)[labels]
    longer = sqdist + np.vecdot(steps, steps)[labels]
    squares = longer - 2 * along
    poor = np.flatnonzero(~(np.isfinite(squares) & (squares > _CANCELLED * longer)))
    squares[poor] = exact_sqdist(rows[poor], means, labels[poor])
    return np.asarray(np.sqrt(squares), np.float64)
