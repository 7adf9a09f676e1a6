"""Why a row looks strange, in words: of several measures, the one in which it is most extreme, and its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust import quantiles
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from streamclust.quantiles import QuantileSketch

Evidence = tuple["NDArray[np.uint8]", "NDArray[np.float32]", "NDArray[np.float32]"]

MEASURES = (
    "density",
    "centre_distance",
    "reconstruction_error",
    "norm",
    "near_duplicates",
    "hdbscan_noise",
    "optics_noise",
)
MISSING, NOT_VALID = 254, 255
_TYPICAL = {"centre_distance", "reconstruction_error", "norm"}  # told as a multiple of the median


def evidence(
    measures: Mapping[str, NDArray[np.floating]],
    sketches: Mapping[str, QuantileSketch],
    present: NDArray[np.bool_],
    valid: NDArray[np.bool_],
) -> Evidence:
    """Per row of one descriptor the measure with the largest quantile, its value and that quantile.

    Parameters
    ----------
    measures :
        name in ``MEASURES`` -> (n,) raw values; NaN where a measure has none. ``density`` is ``score_density``'s,
        ``near_duplicates`` a count of rows, the noises the share of votes from 0 to 1.
    sketches :
        name -> the sketch of that measure over all fitted rows. Ties share a quantile, so a verdict that 60 % of the
        rows get is worth 1 - 0.6 / 2 only.
    present :
        (n,) false where the batch lacks the descriptor.
    valid :
        (n,) false where the row holds a NaN or an infinity.

    Returns
    -------
    code, value, quantile : (n,) uint8, float32, float32. The code is an index into ``MEASURES``, ``NOT_VALID``
        (quantile 1: nothing is stranger than numbers that are none) or ``MISSING`` (quantile NaN: that is no
        evidence). The value is what ``sentence`` tells: how many times sparser, times the median, rows, or votes.

    Raises
    ------
    InputError : for an unknown measure or one without a sketch.
    """
    n = len(valid)
    code, value, least = np.full(n, NOT_VALID, np.uint8), np.full(n, np.nan, np.float32), np.full(n, np.inf)
    for name, raw in measures.items():
        if name not in MEASURES or name not in sketches:
            raise InputError("evidence", f"measure {name!r}", f"one of {', '.join(MEASURES)}, with its sketch")
        tail = _tail(name, raw, sketches[name])
        better = valid & present & (np.where(np.isnan(tail), np.inf, tail) < least)
        code[better], least[better] = MEASURES.index(name), tail[better]
        told = _told(name, np.asarray(raw, np.float64), sketches[name])[better]
        value[better] = np.minimum(told, np.finfo(np.float32).max)
    code[~present] = MISSING
    quantile = np.where(np.isfinite(least), 1 - least, np.where(valid & present, np.nan, 1.0))
    quantile[~present] = np.nan
    code[valid & present & ~np.isfinite(least)] = MISSING
    return code, value, quantile.astype(np.float32)


def strongest(
    per_descriptor: Mapping[str, Evidence],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Across descriptors, the evidence with the largest quantile: (index of the descriptor, code, value, quantile).

    Equal quantiles go to the descriptor named first; a row that lacks every descriptor gets the first one's MISSING.
    """
    stacked = [np.stack(parts) for parts in zip(*per_descriptor.values(), strict=True)]
    which = np.argmax(np.where(np.isnan(stacked[2]), -1, stacked[2]), axis=0)
    code, value, quantile = (np.take_along_axis(part, which[None], 0)[0] for part in stacked)
    return which, code, value, quantile


def sentence(code: int, value: float, quantile: float, descriptor: str) -> str:
    """One piece of evidence in plain words, with its value."""
    if code == NOT_VALID:
        return f"{descriptor}: contains NaN or infinite values"
    if code == MISSING:
        return f"{descriptor}: no descriptor of this image"
    name = MEASURES[code]
    if name.endswith("_noise"):
        return f"{descriptor}: {_noise_words(name, value, quantile)}"
    # rounded down, so that "100 %" is never claimed
    share = min(np.floor(quantile * 1000) / 10, 99.9)
    said = {
        "density": f"neighbourhood {value:.1f} times sparser than that of its neighbours",
        "centre_distance": f"{value:.1f} times the typical distance to the centre of its cluster",
        "reconstruction_error": f"reconstruction error {value:.1f} times the typical one",
        "norm": f"vector {value:.2f} times as long as the typical one",
        "near_duplicates": f"about {value:.0f} other images are nearly identical",
    }[name]
    return f"{descriptor}: {said} (stranger than {share:.1f}% of images)"


def _noise_words(name: str, value: float, quantile: float) -> str:
    method = {"hdbscan_noise": "HDBSCAN", "optics_noise": "OPTICS"}[name]
    if value < 0.5:
        return f"nothing unusual; {method} does not call it noise"
    return f"{method} calls it noise ({value:.0%} of its votes), as it does {2 * (1 - quantile):.1%} of images"


def _tail(name: str, raw: NDArray[np.floating], sketch: QuantileSketch) -> NDArray[np.float64]:
    tail = quantiles.tail_of(sketch, raw)
    if name != "norm":
        return tail
    # strangely short counts as strangely long does; below the smallest value seen a half rank is left
    lower = np.maximum(1 - tail, 0.5 / max(sketch.count, 1))
    return 2 * np.minimum(tail, lower)


def _told(name: str, raw: NDArray[np.float64], sketch: QuantileSketch) -> NDArray[np.float64]:
    if name == "density":
        return np.exp(np.minimum(raw, 80))
    if name in _TYPICAL:
        return raw / (quantiles.value_at(sketch, 0.5) or 1.0)
    return raw
