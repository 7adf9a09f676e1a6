"""What every further algorithm is asked for and gives: a number of clusters, a rule that labels rows, what to store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.job import Job
from streamclust.metrics import k_words

Values = Mapping[str, NDArray[Any]]
OnHalf = Callable[[int, NDArray[np.float32]], NDArray[np.int32]]
"""Fits a random half of a sample, given a seed, and labels its judges : (1, judges); see `cluster.stability`."""


class Rule(Protocol):
    """Labels rows by a fitted algorithm; small enough to go to every task."""

    def judge(self, Z: NDArray[Any]) -> Values:
        """``label`` (n,) int32, and maybe ``confidence`` (n,) float32, of valid reduced rows Z : (n, p)."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A fitted algorithm.

    Attributes
    ----------
    rule : how rows are labelled.
    means : (k, p), where its clusters are, about which their rows are added up.
    arrays, about : what to store of the model.
    note : how it was fitted, in words.
    k, reason : the number of clusters that was chosen of those that were tried, and why, in a sentence or more.
    on_half : the same fit of a half of a sample; None where a half has too few rows for it.
    """

    rule: Rule
    means: NDArray[Any]
    arrays: Values
    note: str
    k: int
    reason: str
    on_half: OnHalf | None
    about: Mapping[str, Any] = field(default_factory=dict)


def asked_k(job: Job, clustering: str) -> tuple[int, str] | None:
    """The number of clusters that the settings ask for beside a k-means model, and so in words; None for its own.

    Raises
    ------
    InputError : k-means was not fitted at that number, which is more than there are rows.
    """
    about, k = job.store.snapshot.entries[clustering].attributes, job.settings.algorithms.k
    if k == "own":
        return None
    if k == "kmeans":
        return int(about["k"]), f"k = {about['k']}, as many as k-means has."
    if k not in about["ks"]:
        said = f"{about['descriptor']} has too few rows for so many clusters"
        raise InputError(f"setting algorithms.k = {k}", said, f"one of {k_words(about['ks'])}")
    return k, f"k = {k} was set by hand."
