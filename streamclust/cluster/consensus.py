"""One clustering out of many: k-means of which clusters each row is in, so that its clusters are agreed upon.

Wu, Liu, Xiong, Cao and Chen, "K-means-based consensus clustering: a unified view", IEEE TKDE 27 (2015) 155-169, with
squared distances. What a consensus is worth is the information that it shares with the clusterings it is made of:
Strehl and Ghosh, "Cluster ensembles", JMLR 3 (2002) 583-617.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.counts import adjusted_mutual_info

Labels = NDArray[np.integer[Any]]
Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Table = NDArray[np.int64]

ENOUGH = 0.95  # of the most information that any number of clusters shares; more clusters soon share what is noise
LEAST = 0.05  # the smallest weight beside the largest


@dataclass(frozen=True)
class Ballot:
    """The clusterings that vote. ``sizes`` (m,) their numbers of clusters; ``weights`` (m,) float, sum 1."""

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def votes(self) -> NDArray[np.float32]:
        """What a row has in the column of each clustering's cluster that it is in : (m,)."""
        return np.sqrt(np.asarray(self.weights, np.float32))

    @property
    def starts(self) -> NDArray[np.int64]:
        """The column at which each clustering's clusters begin : (m + 1,)."""
        return np.cumsum([0, *self.sizes])

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        """Rows to cluster : (n, sum of sizes) float32, of labels (n, m); a negative label votes for nothing.

        Squared distances of two rows are twice the weight of the clusterings that tell them apart.
        """
        found = np.zeros((len(labels), int(self.starts[-1])), np.float32)
        rows, which = np.nonzero(labels >= 0)
        found[rows, self.starts[which] + labels[rows, which]] = self.votes[which]
        return found

    def shares(self, means: Float) -> list[Doubles]:
        """Of each clustering, the share of a consensus cluster's rows in its clusters : (k, size), of encoded means."""
        parts = zip(self.votes.astype(np.float64), self.starts, self.starts[1:], strict=False)
        return [means[:, a:b] / vote for vote, a, b in parts]

    def tables(self, means: Float, counts: Table) -> list[Table]:
        """Rows by consensus cluster and by each clustering's : (k, size), of the means of encoded rows and sizes."""
        return [np.rint(share * counts[:, None]).astype(np.int64) for share in self.shares(means)]

    def shared(self, means: Float, counts: Table) -> float:
        """Adjusted mutual information with the clusterings, weighted: how much of them the consensus holds."""
        return float(np.dot(self.weights, [adjusted_mutual_info(table) for table in self.tables(means, counts)]))

    def favourites(self, means: Float) -> NDArray[np.int64]:
        """The cluster of each clustering that most rows of a consensus cluster are in : (k, m)."""
        return np.stack([share.argmax(axis=1) for share in self.shares(means)], axis=1)

    def confidence(self, labels: Labels, consensus: Labels, favourites: NDArray[np.int64]) -> NDArray[np.float32]:
        """The weight of the clusterings that put a row where its consensus cluster mostly is, of those that have it.

        labels : (n, m), consensus : (n,), not negative; (n,) float32 from 0 to 1.
        """
        weights, voted = np.asarray(self.weights), labels >= 0
        agreed = (labels == favourites[consensus]) @ weights
        return np.asarray(agreed / np.maximum(voted @ weights, 1e-12), np.float32)


def sharpness(table: Table) -> tuple[NDArray[np.int64], Doubles]:
    """How sharply a clustering draws each consensus cluster: the cluster of its that fits best, and the F-measure.

    Parameters
    ----------
    table :
        (k, size) rows by consensus cluster and by the clustering's.

    Returns
    -------
    (k,) which of its clusters, and (k,) 2 x shared / (rows of the one + rows of the other), 1 where they are the same.
    Source: Larsen and Aone, "Fast and effective text mining using linear-time document clustering", KDD 1999.
    """
    both = table.sum(axis=1, keepdims=True) + table.sum(axis=0)
    measure = 2 * table / np.maximum(both, 1)
    best = measure.argmax(axis=1)
    return best, np.asarray(measure[np.arange(len(table)), best], np.float64)


def choose(shared: Mapping[int, float]) -> int:
    """The smallest number of clusters that shares ENOUGH; ``shared`` by number."""
    most = max(shared.values())
    return min(k for k, value in shared.items() if value >= ENOUGH * most or value == most)


def weigh(names: Sequence[str], tables: Mapping[tuple[str, str], Table]) -> tuple[float, ...]:
    """A weight for each clustering : (m,), sum 1: how much it agrees with the others, and LEAST of the best at least.

    ``tables`` are contingencies of pairs of names. What agrees with nothing is noise, or sees what no other sees.
    """
    agreed = dict.fromkeys(names, 0.0)
    for (a, b), table in tables.items():
        value = max(0.0, adjusted_mutual_info(table))
        agreed[a] += value
        agreed[b] += value
    most = max(agreed.values(), default=0.0)
    found = np.array([max(agreed[name], LEAST * most) if most > 0 else 1.0 for name in names])
    return tuple((found / found.sum()).tolist())
