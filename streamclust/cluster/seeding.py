"""k-means++: rows that are drawn far from one another, to start from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.compiled import compiled

Float = NDArray[np.floating[Any]]
Centers = NDArray[np.float32]
Each = Callable[..., Any]

GREEDY = 100  # clusters up to which each row is the best of a few
_AT_ONCE, _IN_CACHE = 64, 2048  # rows drawn at once, and rows whose distances to these stay in the cache
_SOME = 1000  # rows, of which nearly as many say where the middle is


class Drawing:
    """Rows X : (n, p), finite, made ready for many draws of k-means++.

    Greedy for k up to 100. For more than 100 many rows are drawn at once and refused as often as one that was kept has
    come near: rejection sampling, so that they are distributed as if drawn one by one. Sources: Arthur and
    Vassilvitskii, "k-means++", SODA 2007, with greedy candidates as in scikit-learn; Cohen-Addad et al., "Fast and
    accurate k-means++ via rejection sampling", NeurIPS 2020.
    """

    def __init__(self, X: Float) -> None:
        Z = np.ascontiguousarray(X - np.median(X[:: len(X) // _SOME + 1], axis=0), np.float32)
        largest = max(Z.max(), -Z.min(), np.finfo(np.float32).tiny)
        self.Z = Z / largest  # squares of 1e25 are beyond float32
        self.norms = np.vecdot(self.Z, self.Z)
        self.noise = np.float32(8 * np.finfo(np.float32).eps * Z.shape[1] ** 0.5)

    def draw(self, k: int, rng: np.random.Generator, each: Each = map) -> list[int]:
        """Which k distinct rows are drawn, each far from those before it; fewer where X has fewer distinct rows.

        ``each`` does a thing to each part of the rows, like `map`, where k is more than 100.
        """
        first = int(rng.integers(len(self.Z)))
        if k <= GREEDY:
            coins, chosen = rng.random((k - 1, 2 + int(np.log(k)))), np.full(k, first)
            return list(map(int, chosen[: _greedy(self.Z, self.norms, self.noise, coins, chosen)]))
        rows, closest = [first], np.full(len(self.Z), np.inf, np.float32)
        self._approach(rows, closest, each)
        while len(rows) < k:
            reach = np.cumsum(closest, dtype=np.float64)
            if reach[-1] == 0:
                break
            drawn = np.searchsorted(reach, rng.random(_AT_ONCE) * reach[-1], side="right").clip(max=len(closest) - 1)
            few = self._apart(drawn, closest, rng)[: k - len(rows)]
            self._approach(few, closest, each)
            rows.extend(few)
        return rows

    def _apart(self, drawn: NDArray[np.intp], closest: Centers, rng: np.random.Generator) -> list[int]:
        """Those that are kept, as others that are have come near."""
        Z, norms = self.Z[drawn], self.norms[drawn]
        scale = norms[:, None] + norms
        squares = scale - 2 * (Z @ Z.T)
        apart = squares * (squares > self.noise * scale)
        return [int(drawn[i]) for i in _kept(closest[drawn], apart, rng.random(len(drawn)))]

    def _approach(self, rows: list[int], closest: Centers, each: Each) -> None:
        drawn, norms = self.Z[rows], self.norms[rows]

        def nearer(start: int) -> None:
            part = slice(start, start + _IN_CACHE)
            _nearer(drawn @ self.Z[part].T, norms, self.norms[part], self.noise, closest[part])

        deque(each(nearer, range(0, len(self.Z), _IN_CACHE)), maxlen=0)


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


@compiled
def _greedy(
    Z: Centers, norms: Centers, noise: np.float32, coins: NDArray[np.float64], chosen: NDArray[np.int64]
) -> int:
    """Fill what is chosen : (k,) after its first row, by coins : (k - 1, c) for as many candidates; how many there are.

    Of the candidates the one is taken that leaves the smallest sum of squared distances to the closest.
    """
    closest, reach = np.full(len(Z), np.inf, np.float32), np.empty(len(Z))
    drawn, products = np.empty(coins.shape[1], np.int64), np.empty((coins.shape[1], len(Z)), np.float32)
    np.dot(Z, Z[chosen[0]], products[0])
    _nearer(products[:1], norms[chosen[:1]], norms, noise, closest)
    for count in range(1, len(chosen)):
        total = 0.0
        for i in range(len(reach)):
            total += closest[i]
            reach[i] = total
        if total == 0:
            return count
        for r in range(len(drawn)):
            drawn[r] = min(np.searchsorted(reach, coins[count - 1, r] * total, side="right"), len(reach) - 1)
            np.dot(Z, Z[drawn[r]], products[r])
        best = np.argmin(_sums_after(products, norms[drawn], norms, noise, closest))
        _nearer(products[best : best + 1], norms[drawn[best : best + 1]], norms, noise, closest)
        chosen[count] = drawn[best]
    return len(chosen)
