"""k-means by stochastic steps that cool down: towards a lower optimum than the nearest one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.assign import assign, origin_of
from streamclust.metrics import group_sums

Float = NDArray[np.floating[Any]]

_BATCH, _PER_CENTER = 1024, 25
_EPOCHS, _STEPS = 7, 1600
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
    means, counts = centers.astype(np.float64), np.zeros(k)
    rng, origin = np.random.default_rng(seed), origin_of(centers)
    order = rng.permutation(n) if n <= steps * size else rng.integers(n, size=steps * size)
    for step, kept in enumerate(remembered / (1 + remembered)):
        rows = X.take(order.take(np.arange(step * size, (step + 1) * size), mode="wrap"), axis=0)
        labels = assign(rows, means.astype(np.float32), origin=origin)[0]
        met = np.bincount(labels, minlength=k)
        counts = kept * counts + met
        seen = met > 0
        means[seen] += (group_sums(rows, labels, k)[seen] - met[seen, None] * means[seen]) / counts[seen, None]
    return means.astype(np.float32)
