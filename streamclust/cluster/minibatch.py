"""A chain of minibatches for k-means: a good start on more rows than fit in memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.passes import lloyd_block

Float = NDArray[np.floating[Any]]
Key = TypeVar("Key", bound=Hashable)

MINIBATCH = 4096


class Chain(NamedTuple):
    """Centres (k, p) float64, each the mean of the (k,) int64 rows that it was nearest to when they came."""

    centers: NDArray[np.float64]
    counts: NDArray[np.int64]


def start(starts: Mapping[Key, Float], sample: Float) -> dict[Key, Chain]:
    """The given centres, (k, p) each, that have seen the sample : (m, p) float32 as one minibatch."""
    chains = {key: Chain(np.asarray(c, np.float64), np.zeros(len(c), np.int64)) for key, c in starts.items()}
    return _seen(chains, sample)


def step(chains: Mapping[Key, Chain], X: Float) -> dict[Key, Chain]:
    """The same that have also seen X : (n, p) float32, in minibatches of <= 4096 rows."""
    chains, parts = dict(chains), -(-len(X) // MINIBATCH)
    for part in range(parts):
        chains = _seen(chains, X[part::parts])  # neighbours in a block are often near-duplicates
    return chains


def centers(chains: Mapping[Key, Chain]) -> dict[Key, NDArray[np.float32]]:
    """Where the chains stand, for `lloyd` to start from."""
    return {key: chain.centers.astype(np.float32) for key, chain in chains.items()}


def _seen(chains: Mapping[Key, Chain], batch: Float) -> dict[Key, Chain]:
    """One step of each, as scikit-learn's MiniBatchKMeans(reassignment_ratio=0) takes it; all share the products.

    Small clusters start nowhere else: Lloyd's passes fill the empty ones, and better. Source: Sculley, "Web-scale
    k-means clustering", WWW 2010.
    """
    states = lloyd_block(np.ascontiguousarray(batch, np.float32), centers(chains), spare=0)
    moved = {}
    for key, (before, counts) in chains.items():
        sums, after = states[key].sums, counts + states[key].counts
        steps = sums.sums + sums.counts[:, None] * (sums.centers - before)
        moved[key] = Chain(before + steps / np.maximum(after, 1)[:, None], after)
    return moved
