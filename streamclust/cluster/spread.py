"""How far rows lie from the mean of their cluster, and how much nearer to their centre than to the next one.

For Davies-Bouldin, and for the simplified silhouette: Hruschka, de Castro and Campello, "Evolutionary algorithms for
clustering gene-expression data", ICDM 2004; Vendramin, Campello and Hruschka, "Relative clustering validity criteria",
Statistical Analysis and Data Mining 3 (2010) 209-235.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import Tile, exact_sqdist, origin_of, tiles
from streamclust.metrics import DaviesState, spread_merge

Float = NDArray[np.floating[Any]]
Key = TypeVar("Key", bound=Hashable)

_CANCELLED = 1e-3  # a square this small beside its terms is taken by differences
_ROUNDED = 400 * float(np.finfo(np.float32).eps)  # and one this small beside what float32 multiplied


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the rows under each label : distances to its mean, and simplified silhouettes, (k,) float64, added up."""

    davies: DaviesState
    silhouettes: NDArray[np.float64]

    @property
    def silhouette(self) -> float:
        """The mean over all rows of 1 - a / b, a and b the distances to the nearest and the next centre.

        From 0, where two centres are as near, to 1; NaN with one centre. That is Rousseeuw's silhouette with centres
        in place of all rows of a cluster.
        """
        rows = self.davies.counts.sum()
        return float(self.silhouettes.sum() / rows) if rows and len(self.silhouettes) > 1 else float("nan")


def merge(a: Spread, b: Spread) -> Spread:
    """Both."""
    return Spread(spread_merge(a.davies, b.davies), a.silhouettes + b.silhouettes)


def spread_block(X: Float, sets: Mapping[Key, Float], means: Mapping[Key, Float]) -> dict[Key, Spread]:
    """One block's part, label by label, of the rows that `assign` gives to each set's centres.

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
    silhouettes = {key: np.zeros(len(sets[key])) for key in keys}
    for tile in tiles(X, list(sets.values()), second=True):
        for j, i in enumerate(tile.sets):
            key, labels = keys[i], tile.labels[j]
            length = _lengths(tile, j, X[tile.rows], sets[key], means[key], steps[key])
            distances[key] += np.bincount(labels, length, len(sets[key]))
            counts[key] += np.bincount(labels, minlength=len(sets[key]))
            silhouettes[key] += np.bincount(labels, _silhouettes(tile.sqdist[j], tile.second[j]), len(sets[key]))
    return {key: Spread(DaviesState(counts[key], distances[key]), silhouettes[key]) for key in keys}


def _silhouettes(nearest: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 for a row that lies on two centres at once."""
    ratio = np.divide(nearest, second, out=np.ones_like(nearest), where=second > 0)
    return np.asarray(1 - np.sqrt(np.minimum(ratio, 1)), np.float64)


def _lengths(tile: Tile, j: int, rows: Float, centers: Float, means: Float, steps: Float) -> NDArray[np.float64]:
    """``|x - m|^2 = |x - c|^2 - 2 (x - c).(m - c) + |m - c|^2``: one product with the own step instead of k."""
    labels, sqdist = tile.labels[j], tile.sqdist[j]
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 is taken by differences too
        along = np.vecdot(tile.centred, steps.astype(np.float32)[labels]).astype(np.float64)
        norms, squared = np.vecdot(tile.centred, tile.centred), np.vecdot(steps, steps)[labels]
        rounded = _ROUNDED * np.sqrt(norms) * np.sqrt(squared)
    along -= np.vecdot(centers.astype(np.float64) - origin_of(centers), steps)[labels]
    longer = sqdist + squared
    squares = longer - 2 * along
    poor = np.flatnonzero(~(np.isfinite(squares) & (squares > _CANCELLED * longer + rounded)))
    squares[poor] = exact_sqdist(rows[poor], means, labels[poor])
    return np.asarray(np.sqrt(squares), np.float64)
