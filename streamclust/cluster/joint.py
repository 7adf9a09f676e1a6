"""Many labelings of the same rows against each other: the contingency tables of all pairs as one additive matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.compiled import compiled
from streamclust.counts import adjusted_mutual_info, adjusted_rand

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

MOST = 2_048  # clusters of all labelings together: their joint counts are 33 MB
SCORES = ("rows", "adjusted_rand", "adjusted_mutual_info")


def thin(curves: Mapping[str, Mapping[int, int]], chosen: Mapping[str, int], most: int = MOST) -> dict[str, list[int]]:
    """Which k of each curve are compared: all, or as many as have ``most`` clusters together, evenly over its range.

    curves : name -> k -> clusters at that k. chosen : name -> one of its k, which stays, as does the smallest. Nothing
    where even these have more.
    """
    for count in range(min(max(map(len, curves.values()), default=0), isqrt(2 * most) + 1), 0, -1):
        kept = {name: _evenly(sorted(curve), chosen[name], count) for name, curve in curves.items()}
        if sum(curves[name][k] for name, ks in kept.items() for k in ks) <= most:
            return kept
    return {}


def _evenly(ks: Sequence[int], chosen: int, count: int) -> list[int]:
    """About ``count`` of some k, and the chosen one."""
    return sorted({chosen} | {ks[round(at)] for at in np.linspace(0, len(ks) - 1, min(count, len(ks)))})


def joint_block(labels: NDArray[np.int16], sizes: Sequence[int]) -> Counts:
    """How many rows of a block carry each two labels : (K, K) int64, additive, K clusters in all.

    labels : (m, n) of m labelings with ``sizes`` (m,) clusters, which follow each other along both axes. A negative one
    is left out with all its pairs. A labeling stands beside later ones only, and its own counts on the diagonal.
    """
    starts = np.cumsum([0, *sizes])
    joint = np.zeros((int(starts[-1]), int(starts[-1])), np.int64)
    _add_pairs(np.ascontiguousarray(labels), starts, joint)
    return joint


@compiled
def _add_pairs(labels: NDArray[np.int16], starts: NDArray[np.int64], joint: Counts) -> None:
    for i in range(len(labels)):
        for j in range(i, len(labels)):
            table = joint[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]
            for row in range(labels.shape[1]):
                a, b = labels[i, row], labels[j, row]
                if a >= 0 and b >= 0:
                    table[a, b] += 1


def table_of(joint: Counts, sizes: Sequence[int], i: int, j: int) -> Counts:
    """The contingency table of labelings i < j : (sizes[i], sizes[j])."""
    starts = np.cumsum([0, *sizes])
    return joint[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]


def score_row(i: int, joint: Counts, sizes: Sequence[int]) -> Scores:
    """Rows, ARI and AMI that labeling i shares with each later one : (3, m); NaN before it, and where no row is."""
    found = np.full((len(SCORES), len(sizes)), np.nan)
    for j in range(i + 1, len(sizes)):
        table = table_of(joint, sizes, i, j)
        rows = table.sum()
        found[0, j] = rows
        if rows:
            found[1:, j] = adjusted_rand(table), adjusted_mutual_info(table)
    return found


def mirrored(found: Sequence[Scores], joint: Counts, sizes: Sequence[int]) -> dict[str, NDArray[Any]]:
    """What `score_row` says of every labeling as symmetric matrices : (m, m), by the names of SCORES."""
    scores = np.stack(found, axis=1)
    lower = np.tril_indices(len(sizes), -1)
    scores[:, lower[0], lower[1]] = scores.transpose(0, 2, 1)[:, lower[0], lower[1]]
    own = np.add.reduceat(np.diagonal(joint), np.cumsum([0, *sizes])[:-1])
    for matrix, values in zip(scores, (own, np.where(own, 1.0, np.nan), np.where(own, 1.0, np.nan)), strict=True):
        np.fill_diagonal(matrix, values)
    rows, *others = scores
    return dict(zip(SCORES, [rows.astype(np.int64), *others], strict=True))
