"""k-means by stochastic steps that cool down: towards a lower optimum than the nearest one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import origin_of, rounding_of
from streamclust.cluster.products import walk

Float = NDArray[np.floating[Any]]

_BATCH, _PER_CENTER = 1024, 25
_EPOCHS, _STEPS = 7, 1600
_LARGEST = 126  # power of two by which float32 is multiplied
_HOT = 0.04  # of a step's rows that are remembered at the next one, in the beginning


def anneal(X: Float, centers: Float, seed: Sequence[int]) -> NDArray[np.float32]:
    """Centres (k, p) float32 after random steps over X : (n, p) float32, finite, in memory.

    Each step looks at 25 rows for each centre, at least 1024, and moves a centre to the mean of the rows that it is
    nearest to and of those that it remembers. At first it remembers next to none, so that centres wander between the
    optima of small samples; the memory grows geometrically to an epoch, and they come to rest near a low optimum.

    Source: MiniBatchKMeans (Sculley, WWW 2010) with a rate that is annealed: stochastic gradient descent whose step
    sizes shrink from the Newton step (Bottou and Bengio, NIPS 1994) as temperatures do in simulated annealing
    (Kirkpatrick, Gelatt and Vecchi, Science 220, 1983).
    """
    n, k = len(X), len(centers)
    size = min(n, max(_BATCH, _PER_CENTER * k))
    steps = min(_STEPS, _EPOCHS * n // size)
    remembered = _HOT * (n / size / _HOT) ** (np.arange(steps) / max(1, steps - 1))  # in steps
    rng, origin = np.random.default_rng(seed), origin_of(centers)
    order = rng.permutation(n) if n <= steps * size else rng.integers(n, size=steps * size)
    extent = np.abs(X[order[:size]].astype(np.float64) - origin).max()
    unit = 2.0 ** min(-np.ceil(np.log2(extent)), _LARGEST) if extent else 1.0  # squares of 1e25 are beyond float32
    means = (centers.astype(np.float64) - origin) * unit
    rounding = 100 * rounding_of(origin, len(origin))
    walk(X, order, size, remembered / (1 + remembered), origin, np.float32(unit), rounding, means)
    found = (means / unit + origin).astype(np.float32)
    return found if np.isfinite(found).all() else centers
