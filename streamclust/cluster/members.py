"""Who stands for a cluster: its rows nearest to the centre, farthest from it, and drawn at random; mergeable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Doubles = NDArray[np.float64]
Ranked = tuple[Ids, Doubles, Doubles]

NOBODY = -1


@dataclass(frozen=True, slots=True)
class MembersState:
    """Up to m rows of each of k clusters, three ways, best first; all arrays (k, m).

    Attributes
    ----------
    nearest, farthest, random : int64 row ids, -1 where a cluster has fewer rows.
    nearest_distance, farthest_distance, random_distance : float64 distances to the centre, NaN where nobody is.
    random_hash : float64, what the draw is by: the m smallest hashes of (seed, row id), so that it depends on no order.
    """

    nearest: Ids
    nearest_distance: Doubles
    farthest: Ids
    farthest_distance: Doubles
    random: Ids
    random_distance: Doubles
    random_hash: Doubles


def identity(k: int, m: int) -> MembersState:
    """Nobody."""
    ids, missing = np.full((k, m), NOBODY, np.int64), np.full((k, m), np.nan)
    return MembersState(ids, missing, ids, missing, ids, missing, missing)


def members_block(
    row_ids: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    distances: NDArray[np.floating[Any]],
    k: int,
    m: int,
    seed: int = 0,
) -> MembersState:
    """The members of one block: row_ids, labels, distances : (n,). Negative labels belong to no cluster.

    ``row_ids`` are unique over all blocks. Equal distances go to the smaller id.
    """
    keep = labels >= 0
    cluster, ids = labels[keep].astype(np.int64), row_ids[keep].astype(np.int64)
    distance = distances[keep].astype(np.float64)
    return _state(_top(cluster, key, ids, distance, k, m) for key in (distance, -distance, _hash(ids, seed)))


def merge(a: MembersState, b: MembersState) -> MembersState:
    """The members of both blocks' rows."""
    k, m = a.nearest.shape
    ranked = []
    for key, ids, distance in (
        ("nearest_distance", "nearest", "nearest_distance"),
        ("farthest_distance", "farthest", "farthest_distance"),
        ("random_hash", "random", "random_distance"),
    ):
        row = np.concatenate([getattr(a, ids), getattr(b, ids)], axis=1)
        cluster, column = np.nonzero(row != NOBODY)
        keys, far = (np.concatenate([getattr(a, f), getattr(b, f)], axis=1)[cluster, column] for f in (key, distance))
        sign = -1 if ids == "farthest" else 1
        ranked.append(_top(cluster, sign * keys, row[cluster, column], far, k, m))
    return _state(ranked)


def _state(ranked: Iterable[Ranked]) -> MembersState:
    """From (ids, distances, keys) of the nearest, the farthest and the random ones."""
    near, far, drawn = ranked
    return MembersState(near[0], near[1], far[0], far[1], drawn[0], drawn[1], drawn[2])


def _top(cluster: Ids, key: Doubles, ids: Ids, distance: Doubles, k: int, m: int) -> Ranked:
    """The m rows of each cluster with the smallest keys: ids, distances and keys, each (k, m)."""
    few = _promising(cluster, key, k, m)
    cluster, key, ids, distance = cluster[few], key[few], ids[few], distance[few]
    order = np.lexsort((ids, key, cluster))
    cluster = cluster[order]
    rank = np.arange(len(order)) - np.searchsorted(cluster, cluster)
    first = order[rank < m]
    where = cluster[rank < m], rank[rank < m]
    found = np.full((k, m), NOBODY, np.int64), np.full((k, m), np.nan), np.full((k, m), np.nan)
    for table, values in zip(found, (ids, distance, key), strict=True):
        table[where] = values[first]
    return found


def _promising(cluster: Ids, key: Doubles, k: int, m: int) -> NDArray[np.intp]:
    """Rows that may be among the m smallest of their cluster: sorting all of a block costs more than labelling it."""
    bound = np.full(k, np.inf)
    part = slice(None, min(len(key), max(4096, 4 * k * m)))  # any part's m-th smallest bounds the whole's
    order = np.lexsort((key[part], cluster[part]))
    start = np.searchsorted(cluster[part][order], np.arange(k))
    full = np.bincount(cluster[part], minlength=k) >= m
    bound[full] = key[part][order[start[full] + m - 1]]
    return np.flatnonzero(key <= bound[cluster])


def _hash(ids: Ids, seed: int) -> Doubles:
    """SplitMix64 of (seed, id), its upper 53 bits so that a float64 holds them."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64)
