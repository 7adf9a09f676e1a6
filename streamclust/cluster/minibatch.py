"""A chain of minibatches for k-means: a good start on more rows than fit in memory."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Key = TypeVar("Key", bound=Hashable)

MINIBATCH = 4096


def start(starts: Mapping[Key, Float], sample: Float) -> dict[Key, Any]:
    """scikit-learn's MiniBatchKMeans at the given centres, weighted by one step over the sample : (m, p) float32.

    Sets with more centres than the sample has rows are left out: they need no chain.
    """
    from sklearn.cluster import MiniBatchKMeans

    models = {}
    for key, centers in starts.items():
        if len(centers) <= len(sample):
            # No random reassignment of small clusters: Lloyd's passes fill the empty ones, and better.
            model = MiniBatchKMeans(len(centers), init=centers, n_init=1, reassignment_ratio=0, random_state=0)
            models[key] = model.partial_fit(sample)
    return models


def step(models: Mapping[Key, Any], X: Float) -> dict[Key, Any]:
    """A chain's step: copies of the models that have also seen X : (n, p) float32, in minibatches of <= 4096 rows."""
    models = {key: copy.deepcopy(model) for key, model in models.items()}
    parts = -(-len(X) // MINIBATCH)
    for part in range(parts):
        batch = np.ascontiguousarray(X[part::parts], np.float32)  # neighbours in a block are often near-duplicates
        for model in models.values():
            model.partial_fit(batch)
    return models


def centers(models: Mapping[Key, Any]) -> dict[Key, NDArray[np.float32]]:
    """The models' centres, for `lloyd` to start from."""
    return {key: model.cluster_centers_.astype(np.float32) for key, model in models.items()}
