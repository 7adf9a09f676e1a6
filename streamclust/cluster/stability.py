"""How far a number of clusters is in the data: whether two halves of a sample, clustered apart, tell rows apart alike.

Ben-Hur, Elisseeff and Guyon, "A stability based method for discovering structure in clustered data", PSB 2002, 6-17,
with the adjusted Rand index; von Luxburg, "Clustering stability: an overview", 2010, on what it can and cannot say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import assign
from streamclust.cluster.restarts import restarts
from streamclust.counts import adjusted_rand, contingency_block

ROWS = 2_500  # of a half that is clustered
JUDGES = 2_000  # rows that both label
STARTS = 6  # of a half for each k: with fewer, what k-means missed would be laid to the data
MOST, LEAST_ROWS = 100, 10  # clusters, and rows of a half for each, beyond which nothing is said
INTERVAL = (0.05, 0.95)

Single = NDArray[np.float32]


def judged(ks: Sequence[int], n: int) -> list[int]:
    """Those numbers of clusters that a sample of n rows can say something of."""
    return [k for k in ks if 2 <= k <= min(MOST, min(n // 2, ROWS) // LEAST_ROWS)]


def half_of(sample: Single, seed: int) -> Single:
    """A random half of a sample : (n, p), at most ROWS of it, in its order."""
    half = np.random.default_rng(seed).permutation(len(sample))[: min(len(sample) // 2, ROWS)]
    return np.asarray(sample[np.sort(half)])


def judges_of(sample: Single) -> Single:
    """The rows of a sample that every half labels, at most JUDGES."""
    return sample[:: -(-len(sample) // JUDGES)]


def starts(half: Single, ks: Sequence[int], seed: int) -> list[Single]:
    """The centres of k-means of a half, for every k."""
    found = restarts(half, ks, n_init=STARTS, n_iter=5, keep=1, seed=seed)
    return [found[k][0] for k in ks]


def half_labels(seed: int, sample: Single, ks: Sequence[int]) -> NDArray[np.int32]:
    """Cluster a random half of a sample : (n, p) for every k and label the judges by it : (ks, judges)."""
    judges = judges_of(sample)
    return np.stack([assign(judges, centers)[0] for centers in starts(half_of(sample, seed), ks, seed)])


def stability(labels: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
    """Of labellings (ks, judges) by several halves: the mean adjusted Rand index of all pairs, and its interval.

    Returns
    -------
    (ks, 3) : mean, and the quantiles INTERVAL over pairs; NaN with fewer than two labellings.
    """
    pairs = list(combinations(labels, 2))
    if not pairs:
        return np.full((len(labels[0]) if labels else 0, 3), np.nan)
    scores = np.array([[_agree(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs])
    return np.column_stack([scores.mean(axis=0), *np.quantile(scores, INTERVAL, axis=0)])


def _agree(a: NDArray[np.int32], b: NDArray[np.int32]) -> float:
    return adjusted_rand(contingency_block(a, b, int(a.max()) + 1, int(b.max()) + 1))
