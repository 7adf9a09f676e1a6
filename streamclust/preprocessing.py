"""Scalers: every one is affine, ``(x - center) / scale``, and needs the moments or the sample, never a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.moments import Moments

SCALERS = ("standard", "min-max", "max-abs", "robust", "none")


AUTO = "auto"
_ALIKE = 10.0  # times as far as the narrowest column the widest may spread where no scaler is needed


@dataclass(frozen=True)
class Affine:
    """``(x - center) / scale`` with ``center`` and ``scale`` (d,) float64, scale > 0."""

    center: NDArray[np.float64]
    scale: NDArray[np.float64]


def fit_scaler(kind: str, moments: Moments, sample: NDArray[Any]) -> Affine:
    """The affine map of one of :data:`SCALERS`, as scikit-learn's scaler of that name defines it.

    ``sample : (m, d)`` finite rows give the robust scaler its quartiles; the others read the moments of all rows.
    A column without spread (variance within rounding of zero, IQR or range 0) keeps scale 1.
    """
    zeros, ones = np.zeros(len(moments.mean)), np.ones(len(moments.mean))
    if kind == "none" or moments.n == 0:
        return Affine(zeros, ones)
    if kind == "standard":
        center, scale = moments.mean, np.sqrt(moments.variance)
    elif kind == "min-max":
        center, scale = moments.min, moments.max - moments.min
    elif kind == "max-abs":
        center, scale = zeros, np.maximum(np.abs(moments.min), np.abs(moments.max))
    elif kind == "robust":
        low, center, high = _quartiles(sample)
        scale = high - low
    else:
        msg = f"scaler {kind!r} is not one of {', '.join(SCALERS)}"
        raise ValueError(msg)
    return Affine(center, np.where((scale > 0) & np.isfinite(scale), scale, 1.0))


def resolve(kind: str, moments: Moments) -> str:
    """Which scaler ``auto`` stands for: none where columns spread alike, else standard; any other kind is itself.

    Columns of one unit, such as coordinates, say more as they are. Where the standard deviation of one is more than ten
    times that of the narrowest that is not constant, it would be all that distances see.
    """
    if kind != AUTO:
        return kind
    spread = moments.variance[moments.variance > 0]
    return "standard" if len(spread) and spread.max() > _ALIKE**2 * spread.min() else "none"


def _quartiles(sample: NDArray[Any]) -> NDArray[np.float64]:
    # A few columns at a time: numpy.quantile works on a float64 copy.
    step = max(1, (1 << 21) // max(1, len(sample)))
    parts = [
        np.quantile(sample[:, start : start + step].astype(np.float64), [0.25, 0.5, 0.75], axis=0)
        for start in range(0, sample.shape[1], step)
    ]
    return np.concatenate(parts, axis=1)
