"""k-means starts from a sample in memory: many seeded restarts, few iterations each, judged on rows they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import assign
from streamclust.cluster.kmeans import LloydState, Trail, lloyd_block, merge, onward, settled, update
from streamclust.cluster.two_level import lightly
from streamclust.compiled import compiled

Float = NDArray[np.floating[Any]]
Centers = NDArray[np.float32]

_FINE = 100
_FINE_RESTARTS = 1
_ROWS_PER_CENTER = 200
_FINE_ROWS_PER_CENTER = 20
_ENOUGH_TO_JUDGE = 1000
_SOME, _TO_THE_END = 5, 100
_MORE, _FIRST, _ONE_IN = 8, 10, 3  # times as many restarts; iterations after which one in so many goes on
_POLISH = 5
_POLISH_ITER, _FINE_POLISH_ITER = 20, 5  # passes over all rows gain more of many centres
_AT_ONCE, _IN_CACHE = 64, 2048  # rows drawn at once, and rows whose distances to these stay in the cache
_SLICE = 8192  # rows that one thread iterates over; the same for any number of threads


def restarts(
    sample: Float,
    ks: Sequence[int],
    n_init: int = 12,
    train_rows: int = 4000,
    n_iter: int | None = None,
    keep: int = 3,
    seed: int = 0,
    n_jobs: int = 1,
) -> dict[int, list[Centers]]:
    """Starts for every k, best first.

    Parameters
    ----------
    sample : (m, p) float32
        Rows drawn at random from the data, finite, at least one.
    ks : sequence of int
        Numbers of clusters.
    n_init : int
        Restarts per k; up to 8 times as many where the sample has fewer rows than one would train on; 1 for k > 100,
        whose local optima differ little.
    train_rows : int
        Sample rows that a restart trains on, or 200 for each centre (20 for k > 100) if that is more.
    n_iter : int
        Lloyd iterations before a restart is judged; by default 5, or up to 100 for a small sample. A lone start is
        not judged, only polished.
    keep : int
        How many starts to return per k.
    seed : int
        Of the split and of the draws.
    n_jobs : int
        Threads for the iterations; they do not change the result.

    Returns
    -------
    Per k at most ``keep`` arrays (k, p) float32. Where the sample has too few distinct rows the rest repeats centre 0,
    which `lloyd` takes as clusters to be placed.

    Notes
    -----
    Restarts are judged by inertia on held-back rows, as many as were trained on where the sample has them; a sample
    with fewer than 1000 rows to hold back is judged whole. The kept ones are polished on 5 times the training rows.
    All k up to 100 share their k-means++ draws: the first k of a longer draw are a draw for k. Source: Arthur and
    Vassilvitskii, "k-means++", SODA 2007, with greedy candidates as in scikit-learn.
    """
    coarse, fine = [k for k in ks if k <= _FINE], [k for k in ks if k > _FINE]
    groups = [(coarse, n_init, _ROWS_PER_CENTER)] * bool(coarse)
    groups += [([k], min(n_init, _FINE_RESTARTS), _FINE_ROWS_PER_CENTER) for k in fine]
    found: dict[int, list[Centers]] = {}
    for group, count, rows in groups:
        rng, size = np.random.default_rng([seed, max(group)]), max(train_rows, rows * max(group))
        few = group is coarse and len(sample) < _POLISH * size
        tries = count * min(_MORE, max(1, size // len(sample))) if few else count
        train, judge, polish = _split(sample, size, rng)
        with ThreadPoolExecutor(n_jobs) as pool:
            draws = list(pool.map(partial(_Drawing(train).draw, max(group)), rng.spawn(tries)))
        starts = {(k, i): _pad(train[draw[:k]], k) for k in group for i, draw in enumerate(draws)}
        if tries > 1 and few and not n_iter:
            starts = _best(train, judge, starts, _FIRST, max(keep, tries // _ONE_IN), n_jobs)
        if tries > 1:
            starts = _best(train, judge, starts, n_iter or (_TO_THE_END if few else _SOME), keep, n_jobs)
        polished, reached = _iterate(polish, starts, _POLISH_ITER if group is coarse else _FINE_POLISH_ITER, n_jobs)
        found |= {k: [polished[key] for key in _lowest(reached, k)] for k in group}
    return found


def kmeans_plusplus(X: Float, k: int, rng: np.random.Generator) -> Centers:
    """k-means++, greedy for k up to 100: at most k distinct rows of X : (n, p), each drawn far from those before it.

    Fewer than k where X has fewer distinct rows. For more than 100 many rows are drawn at once and refused as often as
    one that was kept has come near: rejection sampling, so that they are distributed as if drawn one by one. Source:
    Cohen-Addad et al., "Fast and accurate k-means++ via rejection sampling", NeurIPS 2020.
    """
    return np.ascontiguousarray(X[_Drawing(X).draw(k, rng)], np.float32)


class _Drawing:
    """Rows made ready for many draws of k-means++."""

    def __init__(self, X: Float) -> None:
        Z = np.ascontiguousarray(X - np.median(X, axis=0), np.float32)
        self.Z = Z / np.maximum(np.abs(Z).max(), np.finfo(np.float32).tiny)  # squares of 1e25 are beyond float32
        self.norms = np.vecdot(self.Z, self.Z)
        self.noise = np.float32(8 * np.finfo(np.float32).eps * Z.shape[1] ** 0.5)

    def draw(self, k: int, rng: np.random.Generator) -> list[int]:
        """Which rows are drawn."""
        chosen = [int(rng.integers(len(self.Z)))]
        closest = np.full(len(self.Z), np.inf, np.float32)
        self._approach(chosen, closest)
        count = _AT_ONCE if k > _FINE else 2 + int(np.log(k))
        while len(chosen) < k:
            reach = np.cumsum(closest, dtype=np.float64)
            if reach[-1] == 0:
                break
            drawn = np.searchsorted(reach, rng.random(count) * reach[-1], side="right").clip(max=len(closest) - 1)
            few = self._apart(drawn, closest, rng)[: k - len(chosen)] if k > _FINE else self._best(drawn, closest)
            self._approach(few, closest)
            chosen.extend(few)
        return chosen

    def _best(self, drawn: NDArray[np.intp], closest: Centers) -> list[int]:
        """The one that leaves the smallest sum."""
        products = self.Z[drawn] @ self.Z.T
        return [int(drawn[_sums_after(products, self.norms[drawn], self.norms, self.noise, closest).argmin()])]

    def _apart(self, drawn: NDArray[np.intp], closest: Centers, rng: np.random.Generator) -> list[int]:
        """Those that are kept, as others that are have come near."""
        norms = self.norms[drawn]
        scale = norms[:, None] + norms
        apart = scale - 2 * (self.Z[drawn] @ self.Z[drawn].T)
        return [
            int(drawn[i]) for i in _kept(closest[drawn], apart * (apart > self.noise * scale), rng.random(len(drawn)))
        ]

    def _approach(self, rows: list[int], closest: Centers) -> None:
        for start in range(0, len(self.Z), _IN_CACHE):
            part = slice(start, start + _IN_CACHE)
            _nearer(self.Z[rows] @ self.Z[part].T, self.norms[rows], self.norms[part], self.noise, closest[part])


def _kept(closest: Centers, apart: Centers, coins: NDArray[np.float64]) -> list[int]:
    """Which of some drawn rows to keep, whose squared distances to those before were ``closest``."""
    near, kept = closest.copy(), list[int]()
    for i, coin in enumerate(coins):
        if coin * closest[i] < near[i]:
            kept.append(i)
            near = np.minimum(near, apart[i])
    return kept


@compiled
def _nearer(products: Centers, row_norms: Centers, norms: Centers, noise: np.float32, closest: Centers) -> None:
    """Take the squared distances to some rows, of which these are the products : (c, n), into the closest : (n,).

    A distance is 0 where rounding cannot tell the rows apart.
    """
    for r in range(len(products)):
        for i in range(len(closest)):
            scale = row_norms[r] + norms[i]
            square = scale - np.float32(2) * products[r, i]
            square = square if square > noise * scale else np.float32(0)
            closest[i] = min(closest[i], square)


@compiled
def _sums_after(
    products: Centers, row_norms: Centers, norms: Centers, noise: np.float32, closest: Centers
) -> NDArray[np.float64]:
    """What the closest would add up to if each of the rows alone were taken in : (c,)."""
    sums = np.zeros(len(products))
    for i in range(len(closest)):
        for r in range(len(products)):
            scale = row_norms[r] + norms[i]
            square = scale - np.float32(2) * products[r, i]
            square = square if square > noise * scale else np.float32(0)
            sums[r] += min(closest[i], square)
    return sums


def _split(sample: Float, size: int, rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """Rows to train on, to judge by and to polish on."""
    order = rng.permutation(len(sample))
    train, held = order[:size], order[size : 2 * size]
    judge = sample[held] if len(held) >= min(size, _ENOUGH_TO_JUDGE) else sample
    return sample[train], judge, sample[order[: _POLISH * size]]


def _best(
    train: Float, judge: Float, starts: dict[tuple[int, int], Centers], n_iter: int, keep: int, n_jobs: int
) -> dict[tuple[int, int], Centers]:
    """For each k the starts that are best on the judge's rows after a few iterations, and where these led."""
    tried = _iterate(train, starts, n_iter, n_jobs)[0]
    inertia = {key: float(assign(judge, centers)[1].sum()) for key, centers in tried.items()}
    ks = dict.fromkeys(k for k, _ in starts)
    return {key: tried[key] for k in ks for key in _lowest(inertia, k)[:keep]}


def _iterate(
    X: Float, sets: dict[tuple[int, int], Centers], n_iter: int, n_jobs: int
) -> tuple[dict[tuple[int, int], Centers], dict[tuple[int, int], float]]:
    """Every set's centres after at most that many Lloyd iterations, and the inertia that the last of them saw."""
    centers, inertia, active = dict(sets), dict.fromkeys(sets, float("inf")), set(sets)
    trails, now = dict[tuple[int, int], Trail](), dict[tuple[int, int], Any]()
    slices = [X[start : start + _SLICE] for start in range(0, len(X), _SLICE)]
    with ThreadPoolExecutor(n_jobs) as pool:
        for i in range(n_iter):
            now = {key: lightly(centers[key], now.get(key)) for key in sets if key in active}
            states = reduce(_merged, pool.map(lambda rows, now=now: lloyd_block(rows, now, spare=8), slices))
            for key, state in states.items():
                inertia[key] = state.inertia
                if state.empty:
                    del now[key]  # whose centre goes elsewhere
                if i == n_iter - 1 or settled(state):
                    centers[key] = update(state)[0]
                    active.discard(key)
                else:
                    centers[key], trails[key] = onward(state, trails.get(key))
            if not active:
                break
    return centers, inertia


def _merged(
    a: dict[tuple[int, int], LloydState], b: dict[tuple[int, int], LloydState]
) -> dict[tuple[int, int], LloydState]:
    return {key: merge(a[key], b[key]) for key in a}


def _lowest(cost: Mapping[tuple[int, int], float], k: int) -> list[tuple[int, int]]:
    """The keys of this k, lowest cost first."""
    return sorted((key for key in cost if key[0] == k), key=cost.__getitem__)


def _pad(centers: Float, k: int) -> Centers:
    return np.concatenate([centers, np.repeat(centers[:1], k - len(centers), axis=0)]).astype(np.float32, copy=False)
