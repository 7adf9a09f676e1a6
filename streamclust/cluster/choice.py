"""The number of components of a mixture by its information criteria, and which numbers are nearly as good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamclust.metrics import k_words, plateau

Values = NDArray[np.floating[Any]]
Curves = Mapping[str, tuple[Literal["high", "low"], Values]]


def lowest_bic(ks: Sequence[int], scores: Values, kmeans: int) -> tuple[int, str]:
    """The k of the lowest BIC, ties to the smaller k, and why, in a few sentences.

    ``scores`` : (ks, 2) BIC and AIC of every k, ascending, over all rows; ``kmeans`` is the k of the k-means beside it.
    Source: Fraley and Raftery, "How many clusters? Which clustering method?", The Computer Journal 41 (1998) 578-588.
    """
    bic, aic = scores.T
    best, by_aic = int(np.argmin(bic)), ks[int(np.argmin(aic))]
    k = ks[best]
    said = f"k = {k} of {k_words(ks)} has the lowest BIC ({bic[best]:,.0f})"
    if k == kmeans:
        said += ", and k-means has as many"
    elif kmeans in ks:
        said += f"; at k-means's k = {kmeans} it is {bic[ks.index(kmeans)] - bic[best]:,.0f} higher"
    said += f"; AIC alone would choose k = {by_aic}." + nearly(ks, {"BIC": ("low", bic)})
    if k == ks[-1] and len(ks) > 1:
        said += " No larger k was tried, so BIC may fall further beyond: cluster.k_max sets how far is looked."
    return k, said


def nearly(ks: Sequence[int], curves: Curves) -> str:
    """Which k are nearly as good as the best by each index, where that is more than one; empty where none is.

    ``curves`` says by index which values are better, and the values : (ks,), NaN where not defined.
    """
    said = []
    for name, (best, values) in curves.items():
        flat = plateau(np.asarray(values, np.float64), high=best == "high")
        if flat is not None and flat[0] < flat[1]:
            said.append(f"k = {ks[flat[0]]} to {ks[flat[1]]} by {name}")
    return f" Nearly as good as the best: {', '.join(said)}." if said else ""
