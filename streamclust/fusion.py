"""One outlier score from several descriptors: Fisher's rule on tails, weighted by how far the descriptors agree.

All functions take ``tails`` : (n, D) float64, 1 - quantile of each descriptor's score (``quantiles.tail_of``), NaN
where a row has no valid value of that descriptor. In order: fold ``overlap_block``, take ``overlap_weights``, fold
``fused_block``, build a ``Fusion``, then ``outlier_scores`` per block while folding a sketch of them, whose
``quantiles.threshold_above`` is the threshold of the flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from streamclust import quantiles
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from streamclust.quantiles import QuantileSketch

TOP = 0.02
_ALL_SUBSETS = 4  # up to so many descriptors every subset gets its own reference; beyond, only the likely ones


@dataclass(frozen=True, eq=False)
class Overlap:
    """Mergeable counts over rows that have both descriptors i and j.

    Attributes
    ----------
    rows : (D, D) int64, rows that have both.
    top : (D, D) int64, of those, rows in the top 2 % of i.
    both : (D, D) int64, of those, rows in the top 2 % of i and of j.
    """

    rows: NDArray[np.int64]
    top: NDArray[np.int64]
    both: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fusion:
    """The frozen fusion: weights per descriptor, and per subset of descriptors (bit i = descriptor i) a reference."""

    weights: NDArray[np.float64]
    references: Mapping[int, QuantileSketch]


def overlap_identity(n_descriptors: int) -> Overlap:
    """The counts of no rows."""
    zeros = np.zeros((n_descriptors, n_descriptors), np.int64)
    return Overlap(zeros, zeros.copy(), zeros.copy())


def overlap_block(tails: NDArray[np.float64], top: float = TOP) -> Overlap:
    """Count in how many rows two descriptors are present, and in their top ``top`` share, together."""
    present = ~np.isnan(tails)
    high = (np.where(present, tails, 1.0) <= top).astype(np.int64)
    here = present.astype(np.int64)
    return Overlap(here.T @ here, high.T @ here, high.T @ high)


def merge_overlap(a: Overlap, b: Overlap) -> Overlap:
    """The counts of both parts' rows."""
    return Overlap(a.rows + b.rows, a.top + b.top, a.both + b.both)


def overlap_weights(overlap: Overlap) -> NDArray[np.float64]:
    """The weight of each descriptor, without labels: the square of its mean overlap above chance with the others.

    The overlap of i and j is |both top| / sqrt(|top i| |top j|) among the rows that have both, less what
    independent scores would give. Strangeness that only one descriptor sees is mostly that descriptor's own noise.

    Returns
    -------
    (D,) float64, summing to 1; equal where all overlaps vanish.
    """
    norm = np.sqrt(overlap.top * overlap.top.T.astype(np.float64))
    share = np.divide(overlap.both, norm, out=np.zeros_like(norm), where=norm > 0)
    chance = np.divide(norm, overlap.rows, out=np.zeros_like(norm), where=overlap.rows > 0)
    above = np.maximum(share - chance, 0)
    np.fill_diagonal(above, 0)
    squares = (above.sum(1) / max(len(above) - 1, 1)) ** 2
    total = squares.sum()
    weights: NDArray[np.float64] = squares / total if total > 0 else np.full(len(above), 1 / len(above))
    return weights


def fuse(tails: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fisher's combination: the weighted sum of -log(tail) over the descriptors that a row has.

    Comparable only between rows that have the same descriptors. A descriptor on its own, or several whose weights
    are all 0, count equally, so that no row's score is constant.

    Returns
    -------
    (n,) float64, higher is stranger; NaN for a row that has none.
    """
    present = ~np.isnan(tails)
    used = np.where(present, weights, 0.0)
    unweighted = used.sum(1) == 0
    used[unweighted] = present[unweighted]
    used /= np.maximum(used.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    strangeness = -np.log(np.where(present, tails, 1.0))
    score: NDArray[np.float64] = np.einsum("ij,ij->i", used, strangeness)
    score[~present.any(1)] = np.nan
    return score


def subsets(n_descriptors: int) -> tuple[int, ...]:
    """The subsets of descriptors that get a reference, as bit masks.

    All of them up to 4 descriptors. Beyond, each alone, all together, and all but one or two: a row that has yet
    another combination is judged by the heaviest of these within it.
    """
    everything = 2**n_descriptors - 1
    if n_descriptors <= _ALL_SUBSETS:
        return tuple(range(1, everything + 1))
    singles = [1 << i for i in range(n_descriptors)]
    pairs = [everything & ~(a | b) for a, b in combinations(singles, 2)]
    return tuple(sorted({everything, *singles, *pairs, *(everything & ~a for a in singles)}))


def fused_identity(n_descriptors: int) -> dict[int, QuantileSketch]:
    """The references of no rows."""
    return {mask: quantiles.identity() for mask in subsets(n_descriptors)}


def fused_block(tails: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[int, QuantileSketch]:
    """Per subset, the sketch of the fused scores of every row that has at least those descriptors, judged by them.

    So that a descriptor that fails tomorrow has a reference although it was complete in all that was fitted.
    """
    present = ~np.isnan(tails)
    references = {}
    for mask in subsets(tails.shape[1]):
        members = _members(mask, tails.shape[1])
        rows = present[:, members].all(1)
        references[mask] = quantiles.sketch_block(fuse(tails[np.ix_(rows, members)], weights[members]))
    return references


def merge_fused(a: Mapping[int, QuantileSketch], b: Mapping[int, QuantileSketch]) -> dict[int, QuantileSketch]:
    """The references of both parts' rows."""
    return {mask: quantiles.merge(a[mask], b[mask]) for mask in a}


def finish_fusion(weights: NDArray[np.float64], references: Mapping[int, QuantileSketch]) -> Fusion:
    """Freeze weights and references, those compacted to their exact top 1 %, those of no rows left out."""
    kept = {mask: quantiles.compact(sketch) for mask, sketch in references.items() if sketch.count}
    return Fusion(weights, kept)


def outlier_scores(fusion: Fusion, tails: NDArray[np.float64]) -> NDArray[np.float32]:
    """The final score of each row: -log10 of its share of the fitted rows that are at least as strange.

    2 means "stranger than 99 % of the rows", whatever descriptors the row has. Beyond the strangest fitted row it
    keeps rising with the raw score.

    Returns
    -------
    (n,) float32, higher is stranger; NaN for a row without any valid descriptor.

    Raises
    ------
    InputError : where the number of descriptors differs from the fitted one.
    """
    n_descriptors = len(fusion.weights)
    if tails.ndim != 2 or tails.shape[1] != n_descriptors:
        raise InputError("outlier_scores", f"tails {tails.shape}", f"(n, {n_descriptors})")
    masks = (~np.isnan(tails)).astype(np.int64) @ (1 << np.arange(n_descriptors))
    scores = np.full(len(tails), np.nan, np.float32)
    for mask in np.unique(masks):
        known = _heaviest(fusion, int(mask))
        if known:
            members, rows = _members(known, n_descriptors), np.flatnonzero(masks == mask)
            fused = fuse(tails[np.ix_(rows, members)], fusion.weights[members])
            scores[rows] = -np.log10(quantiles.tail_of(fusion.references[known], fused))
    return scores


def _members(mask: int, n_descriptors: int) -> NDArray[np.intp]:
    return np.flatnonzero(mask >> np.arange(n_descriptors) & 1)


def _heaviest(fusion: Fusion, mask: int) -> int:
    """The subset with a reference that lies within the mask and weighs most; 0 where there is none."""
    within = [known for known in fusion.references if known & mask == known]
    n = len(fusion.weights)
    return max(within, key=lambda m: (fusion.weights[_members(m, n)].sum(), m.bit_count(), m), default=0)
