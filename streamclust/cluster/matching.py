"""Which new cluster is which old one: ids that stay over a refit, and what was born, split, merged and died."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]
Weights = NDArray[np.int64] | NDArray[np.float64]
Kind = Literal["birth", "split", "merge", "death"]
Move = tuple[int, int, int]

MINIMUM = 0.25  # Jaccard index below which two clusters are not the same one
PART = 0.5  # a part lies in the whole by at least this share of itself
WORTH = 0.1  # and makes up at least this share of the whole


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to clusters, by their ids before (``old``) and after (``new``), each sorted.

    A birth has no old id and a death no new one. A split names the one old and its several parts, a merge the several
    old and the one new; where the whole keeps its id, that stands on both sides.
    """

    kind: Kind
    old: tuple[int, ...]
    new: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Matching:
    """Stable ids of a new clustering.

    Attributes
    ----------
    ids : the id of each new cluster, by position.
    next_id : above every id that was ever given; a dead one's is not given again.
    shared : rows that both clusterings label.
    changed : those of them whose id changes.
    events : births, splits, merges and deaths, in this order, then by id.
    """

    ids: tuple[int, ...]
    next_id: int
    shared: int
    changed: int
    events: tuple[Event, ...]


def first(k: int) -> Matching:
    """The ids of a first clustering: its positions."""
    return Matching(tuple(range(k)), k, 0, 0, ())


def match(
    counts: Table, old_ids: Sequence[int], next_id: int, later: Table | None = None, *, minimum: float = MINIMUM
) -> Matching:
    """Give each new cluster the id of the old one that it continues, or a new one.

    Of all ways to pair clusters one to one, each pair sharing at least a Jaccard index of ``minimum`` and no other old
    cluster more rows with the new one, the one in which fewest rows change their id: nothing is called by the name of a
    smaller part of it. Births are numbered from the largest. The order of the new clusters does not matter:
    only those with the very same counts are told apart by it.

    Parameters
    ----------
    counts : (k_old, k_new) int64
        Rows by old and new label (`streamclust.counts.contingency_block`), over rows that have both.
    old_ids : k_old distinct ints
        Ids of the old clusters.
    next_id : int
        Above every id that was ever given.
    later : (k_old, k_new) int64, optional
        The same of rows that came after the old ids were given. They count as shared and changed, and as the size of
        an old cluster; where it went, only the first rows say: a new kind of row lies in some old cluster, only because
        it must.
    minimum : float above 0
        A weaker pair is a death and a birth.

    Raises
    ------
    ValueError : ids that do not fit the counts, are not distinct, or are not below ``next_id``.

    Notes
    -----
    Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2 (1955) 83-97. The
    events follow Spiliopoulou et al., "MONIC: modeling and monitoring cluster transitions", KDD 2006, on shared rows.
    """
    old = np.asarray(old_ids, np.int64)
    if len(old) != len(counts) or len(np.unique(old)) != len(old) or (old >= next_id).any():
        msg = f"{len(counts)} old clusters need as many distinct ids below {next_id}, not {list(old_ids)}"
        raise ValueError(msg)
    order = np.argsort(old)
    counts, every, old = counts[order], (counts if later is None else counts + later)[order], old[order]
    weights = counts * (every.sum(axis=1) / np.maximum(counts.sum(axis=1), 1))[:, None]
    order = np.lexsort((*counts[::-1], -counts.sum(axis=0)))  # largest first, and the same in whatever order they came
    ordered = weights[:, order]
    rows, columns = _pairs(ordered, (jaccard(ordered) >= minimum) & (ordered == ordered.max(axis=0)))
    ids = np.full(counts.shape[1], -1, np.int64)
    ids[order[columns]] = old[rows]
    births = order[ids[order] < 0]
    ids[births] = next_id + np.arange(len(births))
    shared, kept = int(every.sum()), int(every[rows, order[columns]].sum())
    given = tuple(int(i) for i in ids)
    return Matching(given, next_id + len(births), shared, shared - kept, _events(weights, old, ids))


def counterparts(counts: Table, old_ids: Sequence[int], next_id: int) -> list[int]:
    """An id for each cluster of another clustering of the same rows, however many it has.

    Pairs are one to one and share as many rows as can be; an old cluster lends its id even to one that shares little
    with it, but not to one that shares nothing. The others are numbered from ``next_id``, largest first.
    ``counts`` : (k_old, k_new), ``old_ids`` : (k_old,).
    """
    rows, columns = _pairs(counts, counts > 0)
    ids = np.full(counts.shape[1], -1, np.int64)
    ids[columns] = np.asarray(old_ids, np.int64)[rows]
    others = np.flatnonzero(ids < 0)
    others = others[np.argsort(-counts.sum(axis=0)[others], kind="stable")]
    ids[others] = next_id + np.arange(len(others))
    return [int(i) for i in ids]


def jaccard(counts: Weights) -> NDArray[np.float64]:
    """Shared rows over the rows of either cluster, for every pair : (k_old, k_new); 0 where both are empty."""
    either = counts.sum(axis=1)[:, None] + counts.sum(axis=0) - counts
    return np.asarray(counts / np.maximum(either, 1), np.float64)


def moves(counts: Table, old_ids: Sequence[int], new_ids: Sequence[int]) -> tuple[Move, ...]:
    """Rows whose id changes as (old id, new id, rows), most rows first; ``counts`` as in `match`."""
    found = [(int(old_ids[i]), int(new_ids[j]), int(counts[i, j])) for i, j in np.argwhere(counts > 0)]
    return tuple(sorted((move for move in found if move[0] != move[1]), key=lambda move: (-move[2], move)))


def _pairs(counts: Weights, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The allowed one-to-one pairs that share most rows together."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.where(allowed, counts, 0), maximize=True)
    sound = allowed[rows, columns]
    return rows[sound], columns[sound]


def _events(counts: Weights, old: NDArray[np.int64], new: NDArray[np.int64]) -> tuple[Event, ...]:
    births = [Event("birth", (), (int(i),)) for i in sorted(set(new) - set(old))]
    deaths = [Event("death", (int(i),), ()) for i in sorted(set(old) - set(new))]
    splits = [Event("split", (whole,), parts) for whole, parts in _parts(counts, old, new)]
    merges = [Event("merge", parts, (whole,)) for whole, parts in _parts(counts.T, new, old)]
    return (*births, *splits, *merges, *deaths)


def _parts(counts: Weights, whole: NDArray[np.int64], part: NDArray[np.int64]) -> list[tuple[int, tuple[int, ...]]]:
    """(id, ids of its parts) of every cluster along axis 0 that has several parts along axis 1, by id."""
    within = counts >= PART * np.maximum(counts.sum(axis=0), 1)
    within &= counts >= WORTH * np.maximum(counts.sum(axis=1), 1)[:, None]
    found = [(int(whole[i]), tuple(sorted(int(p) for p in part[row]))) for i, row in enumerate(within) if row.sum() > 1]
    return sorted(found)
