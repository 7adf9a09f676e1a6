"""Calinski-Harabasz and Davies-Bouldin of all rows from mergeable sums, and the k that the two prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.compiled import compiled

Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

_TILE = 4096
_ROUNDING = 16 * float(np.finfo(np.float64).eps)
PLATEAU = 0.05


@dataclass(frozen=True, slots=True)
class LabelSums:
    """What rows with labels 0 .. k - 1 add up to, each label about a reference centre near its rows.

    Sums of deviations, not of coordinates: a common offset of the data cancels before anything is added.

    Attributes
    ----------
    centers : (k, p) float32, the references. counts : (k,) int64.
    sums : (k, p) float64, of ``x - c``. squares : (k,) float64, of ``||x - c||^2``.
    """

    centers: Float
    counts: NDArray[np.int64]
    sums: Doubles
    squares: Doubles

    @property
    def means(self) -> Doubles:
        """Mean of each label's rows : (k, p) float64; the reference where a label has no row."""
        return np.asarray(self.centers + self.sums / np.maximum(self.counts, 1)[:, None], np.float64)

    @property
    def scatter(self) -> Doubles:
        """Sum of squared distances of each label's rows to their mean : (k,) float64 (Huygens' theorem)."""
        lever: Doubles = np.einsum("ij,ij->i", self.sums, self.sums) / np.maximum(self.counts, 1)
        return np.maximum(self.squares - lever, 0)


@dataclass(frozen=True, slots=True)
class DaviesState:
    """Distances of each label's rows to a fixed centre, added up. ``counts`` (k,) int64, ``distances`` (k,) float64."""

    counts: NDArray[np.int64]
    distances: Doubles


def identity(centers: Float) -> LabelSums:
    """The sums of no rows about centers : (k, p)."""
    k, p = centers.shape
    return LabelSums(centers, np.zeros(k, np.int64), np.zeros((k, p)), np.zeros(k))


def merge(a: LabelSums, b: LabelSums) -> LabelSums:
    """The sums of both; both about the same centres."""
    return LabelSums(a.centers, a.counts + b.counts, a.sums + b.sums, a.squares + b.squares)


def group_sums(values: Float, labels: Integers, k: int) -> Doubles:
    """Sum of values : (n, p) under each of the labels 0 .. k - 1, in float64 : (k, p).

    ``labels`` : (n,), or (n, s) where every row counts under s labels.
    """
    sums = np.zeros((k, values.shape[1]))
    _add_under(values, np.ascontiguousarray(labels if labels.ndim > 1 else labels[:, None], np.int64), sums)
    return sums


@compiled
def _add_under(values: Float, labels: Integers, sums: Doubles) -> None:
    for i in range(len(values)):
        for s in range(labels.shape[1]):
            under = sums[labels[i, s]]
            for j in range(len(under)):
                under[j] += values[i, j]


def label_sums_block(X: Float, labels: Integers, centers: Float) -> LabelSums:
    """Sums of X : (n, p) under labels : (n,) about centers : (k, p); negative labels are left out.

    Any labels and any centres will do (float64 differences); centres near the rows keep the most digits.
    """
    k = len(centers)
    state = identity(centers)
    for start in range(0, len(X), _TILE):
        tile, label = _labelled(X, labels, start)
        deviation = tile.astype(np.float64) - centers[label]
        squares: Doubles = np.bincount(label, np.einsum("ij,ij->i", deviation, deviation), k).astype(np.float64)
        counts = np.bincount(label, minlength=k)
        state = merge(state, LabelSums(centers, counts, group_sums(deviation, label, k), squares))
    return state


def calinski_harabasz(state: LabelSums) -> float:
    """Calinski-Harabasz index of all rows that were added: higher is better; NaN unless 2 <= clusters < rows.

    As ``sklearn.metrics.calinski_harabasz_score``. Source: Calinski and Harabasz, Comm. Statistics 3 (1974) 1-27.
    """
    full = state.counts > 0
    clusters, rows = int(full.sum()), int(state.counts.sum())
    if not 2 <= clusters < rows:
        return float("nan")
    weights, centers = state.counts[full].astype(np.float64), state.centers[full].astype(np.float64)
    means = centers - centers[0] + state.sums[full] / weights[:, None]  # a common offset would cost digits
    means -= np.average(means, axis=0, weights=weights)
    between = float(weights @ np.einsum("ij,ij->i", means, means))
    within = float(state.scatter.sum())
    return 1.0 if within == 0 else between * (rows - clusters) / (within * (clusters - 1))


def spread_identity(k: int) -> DaviesState:
    """The spread of no rows."""
    return DaviesState(np.zeros(k, np.int64), np.zeros(k))


def spread_block(X: Float, labels: Integers, means: Float) -> DaviesState:
    """Distances of X : (n, p) to means[labels], added up per label; negative labels are left out."""
    k = len(means)
    state = spread_identity(k)
    for start in range(0, len(X), _TILE):
        tile, label = _labelled(X, labels, start)
        deviation = tile.astype(np.float64) - means[label]
        lengths = np.sqrt(np.einsum("ij,ij->i", deviation, deviation))
        distances: Doubles = np.bincount(label, lengths, k).astype(np.float64)
        state = spread_merge(state, DaviesState(np.bincount(label, minlength=k), distances))
    return state


def spread_merge(a: DaviesState, b: DaviesState) -> DaviesState:
    """The distances of both."""
    return DaviesState(a.counts + b.counts, a.distances + b.distances)


def davies_bouldin(state: DaviesState, means: Float) -> float:
    """Davies-Bouldin index of all rows that were added: lower is better; NaN unless 2 <= clusters < rows.

    ``means`` : (k, p), the labels' means that `spread_block` measured from.
    As ``sklearn.metrics.davies_bouldin_score``. Source: Davies and Bouldin, IEEE TPAMI 1 (1979) 224-227.
    """
    from scipy.spatial.distance import pdist, squareform

    full = state.counts > 0
    clusters, rows = int(full.sum()), int(state.counts.sum())
    if not 2 <= clusters < rows:
        return float("nan")
    spread = state.distances[full] / state.counts[full]
    means = means[full].astype(np.float64)
    apart = squareform(pdist(means))
    if np.allclose(spread, 0) or np.allclose(apart, 0):
        return 0.0
    apart[apart <= _ROUNDING * np.abs(means).max()] = np.inf  # one place: how far apart rounding puts them says nothing
    return float(np.mean(((spread[:, None] + spread) / apart).max(axis=1)))


def plateau(values: Doubles, *, high: bool) -> tuple[int, int] | None:
    """First and last index of the run about the best value that is nearly as good; None where nothing is defined.

    Nearly as good is within PLATEAU of the range of all values : (n,), NaN where not defined.
    """
    cost = np.where(np.isnan(values), np.inf, -values if high else values)
    best = int(np.argmin(cost)) if len(cost) else 0
    if not np.isfinite(cost).any():
        return None
    near = cost <= cost[best] + PLATEAU * (cost[np.isfinite(cost)].max() - cost[best])
    first = last = best
    while first > 0 and near[first - 1]:
        first -= 1
    while last + 1 < len(near) and near[last + 1]:
        last += 1
    return first, last


def choose_k(curve: Mapping[int, tuple[float, float]]) -> tuple[int, str]:
    """The k with the best mean rank of Calinski-Harabasz (high) and Davies-Bouldin (low); ties to the smaller k.

    Parameters
    ----------
    curve : mapping of k to (Calinski-Harabasz, Davies-Bouldin)
        k whose indices are NaN (a single cluster) rank last.

    Returns
    -------
    k, and one sentence that says what each index alone would have chosen.
    """
    if not curve:
        raise ValueError("choose_k needs at least one k")
    ks = sorted(curve)
    harabasz = {k: float("inf") if np.isnan(curve[k][0]) else -curve[k][0] for k in ks}
    bouldin = {k: float("inf") if np.isnan(curve[k][1]) else curve[k][1] for k in ks}
    ranks = {k: (_rank(harabasz, k) + _rank(bouldin, k)) / 2 for k in ks}
    best = min(ks, key=lambda k: (ranks[k], k))
    if all(np.isnan(curve[k]).all() for k in ks):
        return best, f"k = {best}: neither Calinski-Harabasz nor Davies-Bouldin is defined for {k_words(ks)}."
    by_harabasz, by_bouldin = min(ks, key=harabasz.__getitem__), min(ks, key=bouldin.__getitem__)
    reason = (
        f"k = {best} of {k_words(ks)} has the best mean rank ({ranks[best]:g}) of Calinski-Harabasz"
        f" ({curve[best][0]:.4g}) and Davies-Bouldin ({curve[best][1]:.4g}); Calinski-Harabasz alone would choose"
        f" k = {by_harabasz}, Davies-Bouldin alone k = {by_bouldin}."
    )
    return best, reason


def _labelled(X: Float, labels: Integers, start: int) -> tuple[Float, Integers]:
    """A tile's rows that have a label, and their labels."""
    tile, label = X[start : start + _TILE], labels[start : start + _TILE]
    keep = label >= 0
    return (tile, label) if keep.all() else (tile[keep], label[keep])


def _rank(cost: Mapping[int, float], k: int) -> int:
    """1 for the lowest cost; equal costs share a rank."""
    return 1 + sum(other < cost[k] for other in cost.values())


def k_words(ks: Sequence[int]) -> str:
    """Ascending numbers as "2 to 20", or one by one where some are left out."""
    consecutive = len(ks) > 2 and list(ks) == list(range(ks[0], ks[-1] + 1))
    return f"{ks[0]} to {ks[-1]}" if consecutive else ", ".join(map(str, ks))
