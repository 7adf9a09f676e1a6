"""k-means starts from a sample in memory: many seeded restarts, few iterations each, judged on rows they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import assign
from streamclust.cluster.kmeans import Trail, onward
from streamclust.cluster.passes import lloyd_block, merge_sets, settled, update
from streamclust.cluster.seeding import GREEDY, Drawing
from streamclust.cluster.swaps import swapped
from streamclust.cluster.two_level import Asked, roughly

Float = NDArray[np.floating[Any]]
Centers = NDArray[np.float32]

_FINE_RESTARTS = 1
_TRAIN_ROWS, _ROWS_PER_CENTER, _FINE_ROWS = 4000, 200, 20
_POLISH, _FINE_POLISH = 5, 40  # times as many rows; rows for each of many centres
_ENOUGH_TO_JUDGE = 1000
_SOME, _TO_THE_END = 5, 100
_MORE, _FIRST, _ONE_IN = 8, 10, 3  # times as many restarts; iterations after which one in so many goes on
_POLISH_ITER, _TO_SWAP, _SWAPPED = 20, 2, 3  # passes over all rows gain more of many centres
_SLICE = 4096  # rows that one thread iterates over; the same for any number of threads


def restarts(
    sample: Float,
    ks: Sequence[int],
    n_init: int = 12,
    train_rows: int = _TRAIN_ROWS,
    n_iter: int | None = None,
    keep: int = 3,
    seed: int = 0,
    n_jobs: int = 1,
    polish_iter: int | None = None,
) -> dict[int, list[Centers]]:
    """Starts for every k, best first.

    Parameters
    ----------
    sample : (m, p) float32
        Rows drawn at random from the data, finite, at least one.
    ks : sequence of int
        Numbers of clusters.
    n_init : int
        Restarts per k; of more than one up to 8 times as many where the sample has few rows; 1 for k > 100, whose local
        optima differ little.
    train_rows : int
        Sample rows that a restart trains on, or 200 for each centre (20 for k > 100) if that is more.
    n_iter : int
        Lloyd iterations before a restart is judged; by default 5, or for a small sample 10, and up to 100 more for the
        best third, at least ``keep``. A lone start is not judged, only polished.
    keep : int
        How many starts to return per k.
    seed : int
        Of the split and of the draws.
    n_jobs : int
        Threads for the iterations; they do not change the result.
    polish_iter : int
        Lloyd iterations of the kept ones; by default 20 for k <= 100 and 3 after the swaps of more.

    Returns
    -------
    Per k at most ``keep`` arrays (k, p) float32. Where the sample has too few distinct rows the rest repeats centre 0,
    which `lloyd` takes as clusters to be placed.

    Notes
    -----
    Restarts are judged by inertia on held-back rows, as many as were trained on where the sample has them; a sample
    with fewer than 1000 rows to hold back is judged whole. The kept ones are polished on 5 times the training rows. For
    k > 100 they are polished on 20,000 rows or 40 for each centre, and centres that hardly matter go where they are
    missed, see `swaps`. All k up to 100 share their k-means++ draws: the first k of a longer draw are a draw for k.
    """
    coarse, fine = [k for k in ks if k <= GREEDY], [k for k in ks if k > GREEDY]
    found: dict[int, list[Centers]] = {}
    for group in [coarse] * bool(coarse) + [[k] for k in fine]:
        rng = np.random.default_rng([seed, max(group)])
        size, most = _sizes(max(group), train_rows)
        few = group is coarse and len(sample) < most
        tries = n_init if group is coarse else min(n_init, _FINE_RESTARTS)
        tries *= min(_MORE, max(1, 2 * size // len(sample))) if few and tries > 1 else 1
        last = polish_iter if polish_iter is not None else _POLISH_ITER if group is coarse else _SWAPPED
        train, judge, polish = _split(sample, size, most if last or group is not coarse else 0, rng)
        starts = _draws(train, group, rng.spawn(tries), n_jobs)
        for iterations, best in _rounds(tries, keep, n_iter, few=few):
            starts = _best(train, judge, starts, iterations, best, n_jobs)
        if group is not coarse:
            near = _iterate(polish, starts, _TO_SWAP, n_jobs)[0]
            starts = {key: swapped(polish, centers, n_jobs) for key, centers in near.items()}
        polished, reached = _iterate(polish, starts, last, n_jobs)
        found |= {k: [polished[key] for key in _lowest(reached, k)] for k in group}
    return found


def rows_at_hand(k: int) -> int:
    """How many rows restarts for k clusters use of a sample that has as many."""
    return _sizes(k, _TRAIN_ROWS)[1]


def _sizes(k: int, train_rows: int) -> tuple[int, int]:
    """How many rows to train on and to polish on."""
    if k > GREEDY:
        return max(train_rows, _FINE_ROWS * k), max(_POLISH * train_rows, _FINE_POLISH * k)
    size = max(train_rows, _ROWS_PER_CENTER * k)
    return size, _POLISH * size


def _draws(
    train: Float, ks: Sequence[int], rngs: Sequence[np.random.Generator], n_jobs: int
) -> dict[tuple[int, int], Centers]:
    """For each k one start from each generator."""
    with ThreadPoolExecutor(n_jobs) as pool:
        draw = partial(Drawing(train).draw, max(ks))
        draws = list(pool.map(draw, rngs)) if len(rngs) > 1 else [draw(rngs[0], pool.map)]
    return {(k, i): _pad(train[draw[:k]], k) for k in ks for i, draw in enumerate(draws)}


def _rounds(tries: int, keep: int, n_iter: int | None, *, few: bool) -> list[tuple[int, int]]:
    """How many iterations starts take before they are judged, and how many of them go on; a lone start takes none."""
    if tries == 1:
        return []
    if n_iter or not few:
        return [(n_iter or _SOME, keep)]
    return [(_FIRST, max(keep, tries // _ONE_IN)), (_TO_THE_END, keep)]


def _split(sample: Float, size: int, most: int, rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """Rows to train on, to judge by and to polish on."""
    order = rng.permutation(len(sample))
    train, held = order[:size], order[size : 2 * size]
    judge = sample[held] if len(held) >= min(size, _ENOUGH_TO_JUDGE) else sample
    return sample[train], judge, sample[order[:most]]


def _best(
    train: Float, judge: Float, starts: dict[tuple[int, int], Centers], n_iter: int, keep: int, n_jobs: int
) -> dict[tuple[int, int], Centers]:
    """For each k the starts that are best on the judge's rows after a few iterations, and where these led."""
    tried = _iterate(train, starts, n_iter, n_jobs)[0]
    with ThreadPoolExecutor(n_jobs) as pool:
        costs = pool.map(lambda centers: float(assign(judge, centers)[1].sum()), tried.values())
        inertia = dict(zip(tried, costs, strict=True))
    ks = dict.fromkeys(k for k, _ in starts)
    return {key: tried[key] for k in ks for key in _lowest(inertia, k)[:keep]}


def _iterate(
    X: Float, sets: dict[tuple[int, int], Centers], n_iter: int, n_jobs: int
) -> tuple[dict[tuple[int, int], Centers], dict[tuple[int, int], float]]:
    """Every set's centres after at most that many Lloyd iterations, and the inertia that the last of them saw."""
    centers, inertia, active = dict(sets), dict.fromkeys(sets, float("inf")), set(sets)
    trails, now = dict[tuple[int, int], Trail](), dict[tuple[int, int], Asked]()
    slices = [X[start : start + _SLICE] for start in range(0, len(X), _SLICE)]
    with ThreadPoolExecutor(n_jobs) as pool:
        for i in range(n_iter):
            now = {key: roughly(centers[key], now.get(key)) for key in sets if key in active}
            states = reduce(merge_sets, pool.map(lambda rows, now=now: lloyd_block(rows, now, spare=8), slices))
            for key, state in states.items():
                inertia[key] = state.inertia
                if state.empty:
                    del now[key]  # its centres go elsewhere, and are put in order
                if i == n_iter - 1 or settled(state):
                    centers[key] = update(state)[0]
                    active.discard(key)
                else:
                    centers[key], trails[key] = onward(state, trails.get(key))
            if not active:
                break
    return centers, inertia


def _lowest(cost: Mapping[tuple[int, int], float], k: int) -> list[tuple[int, int]]:
    """The keys of this k, lowest cost first."""
    return sorted((key for key in cost if key[0] == k), key=cost.__getitem__)


def _pad(centers: Float, k: int) -> Centers:
    return np.concatenate([centers, np.repeat(centers[:1], k - len(centers), axis=0)]).astype(np.float32, copy=False)
