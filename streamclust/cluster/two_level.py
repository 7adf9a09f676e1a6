"""The nearest of many centres by way of places amid them: for nearly every row, at a fraction of the products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster import assign as exact
from streamclust.cluster.scans import lowest
from streamclust.metrics import group_sums

MANY = 1000  # centres, from which on it pays
_PLACES, _NEAR = 2, 8  # for each square root of k: so many places, and centres that rows near one are compared with
_LAPS = 8


@dataclass(frozen=True, slots=True)
class TwoLevel:
    """Centres, places amid them, and which centres may be nearest to a row that is nearest to a place.

    Attributes
    ----------
    centers, places : (k, p) and (g, p) float32.
    near : per place the centres that belong to it and those that lie nearest to it, ascending.
    """

    centers: NDArray[np.float32]
    places: NDArray[np.float32]
    near: tuple[NDArray[np.intp], ...]


def two_level(centers: NDArray[np.float32]) -> TwoLevel:
    """Places found by k-means of the centres : (k, p)."""
    k = len(centers)
    g, w = (min(k, int(factor * k**0.5)) for factor in (_PLACES, _NEAR))
    places = centers[np.linspace(0, k - 1, g).astype(np.intp)]
    for _ in range(_LAPS):
        own = exact.assign(centers, places)[0]
        counts = np.bincount(own, minlength=g)[:, None]
        places = np.where(counts, group_sums(centers, own, g) / np.maximum(counts, 1), places).astype(np.float32)
    own, about = exact.assign(centers, places)[0], centers - places.mean(axis=0, dtype=np.float64)
    half, products = np.vecdot(about, about) / 2, (places - places.mean(axis=0, dtype=np.float64)) @ about.T
    nearest = np.argpartition(half - products, w - 1, axis=1)[:, :w]
    near = [np.union1d(nearest[i], np.flatnonzero(own == i)) for i in range(g)]
    return TwoLevel(centers, places, tuple(near))


def lightly(centers: NDArray[np.float32], before: Any = None) -> NDArray[np.float32] | TwoLevel:
    """Centres for a pass that need not compare every row with all of them: on two levels where they are many.

    ``before`` is what it said of the same centres where they stood a step ago, if anything: they keep their places, so
    that a row has the same choice and the inertia of a search descends.
    """
    if len(centers) < MANY:
        return centers
    return replace(before, centers=centers) if isinstance(before, TwoLevel) else two_level(centers)


def assign(X: NDArray[np.float32], levels: TwoLevel) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Label every row with the nearest of the centres near its nearest place; see `streamclust.cluster.assign.assign`.

    Each centre is among those near its own place, so that a row on it is at distance 0. Of 1000 centres of 200,000 rows
    with 100 columns 99.7 % of the rows got the nearest.
    """
    place, origin = exact.assign(X, levels.places)[0], exact.origin_of(levels.centers)
    order, ends = np.argsort(place, kind="stable"), np.cumsum(np.bincount(place, minlength=len(levels.near)))
    parts = list(zip(levels.near, np.r_[0, ends].tolist(), ends.tolist(), strict=False))
    rows, labels, sqdist = X[order], np.zeros((1, len(X)), np.int32), np.empty((1, 2, len(X)))
    with np.errstate(over="ignore", invalid="ignore"):
        Z = rows - origin if origin.any() else rows
        doubtful = _lowest(Z, origin - levels.centers, parts, labels, sqdist)
    for near, start, stop in parts:
        labels[0, start:stop] = near[labels[0, start:stop]]
    again = np.flatnonzero(doubtful)
    labels[0, again], sqdist[0, 0, again] = exact.assign(rows[again], levels.centers)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return labels[0, back], sqdist[0, 0, back]


def _lowest(
    Z: NDArray[np.float32],
    minus: NDArray[np.float32],
    parts: list[tuple[NDArray[np.intp], int, int]],
    labels: NDArray[np.int32],
    sqdist: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """The nearest of those centres that each part names, for its rows; returns where rounding could decide : (n,)."""
    norms, half, rounding = np.vecdot(Z, Z), np.vecdot(minus, minus) / 2, 100 * exact.rounding_of(Z, Z.shape[1])
    doubtful: NDArray[np.bool_] = ~(norms + 2 * half.max() < exact.FAR)
    for near, first, last in parts:
        here, about, ends = minus[near], half[near], np.array([0, len(near)])
        step = exact.gemm_rows(len(near))
        for start in range(first, last, step):
            scores = here @ Z[start : min(start + step, last)].T
            lowest(scores, about, ends, norms, rounding, start, False, labels, sqdist, doubtful)
    return doubtful
