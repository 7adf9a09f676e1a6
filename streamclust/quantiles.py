"""A mergeable sketch of a distribution: fixed log-spaced bins, and the exact largest values.

It turns a raw score into a quantile that means the same tomorrow. Values are kept as float32. A bin holds the
values that share the upper 16 bits of their float32 pattern (sign, exponent, 7 bits of mantissa), so that bins are
0.4 to 0.8 % wide over the whole float range, need no tuning, and merging adds counts.

**What is exact.** Besides the bins every sketch keeps all values greater than its ``floor`` and the number of
values equal to it, where the floor is the (``exact`` + 1)-th largest value seen, or -inf while at most ``exact``
values were seen. A value above the floor of a merged sketch is above the floors of its parts (a union's r-th
largest value is never smaller than a part's), so no part has dropped it: by induction the kept values are the same
for every merge tree. With the default of 2**20 the largest 1 % are exact up to 104,857,600 values, and everything
is exact up to 1,048,576.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

EXACT = 2**20
_BINS = 2**16
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """Counts of float32 values: sparse bins of all of them, and the exact largest.

    Attributes
    ----------
    count : number of finite values seen.
    exact : how many of the largest values are kept at most.
    floor, at_floor : all values greater than the floor are kept; how many equal it.
    top : (t,) float32, ascending, every value greater than the floor.
    bins, counts : (b,) uint16 and int64, the occupied bins in ascending order of value and their counts.
    """

    count: int
    exact: int
    floor: float
    at_floor: int
    top: NDArray[np.float32]
    bins: NDArray[np.uint16]
    counts: NDArray[np.int64]


def identity(exact: int = EXACT) -> QuantileSketch:
    """The sketch of no values, neutral under ``merge``."""
    if exact < 1:
        raise InputError("QuantileSketch", f"exact = {exact}", "at least 1")
    empty = np.empty(0, np.float32)
    return QuantileSketch(0, exact, -np.inf, 0, empty, np.empty(0, np.uint16), np.empty(0, np.int64))


def sketch_block(values: ArrayLike, exact: int = EXACT) -> QuantileSketch:
    """The sketch of ``values`` (any shape, cast to float32); values that are not finite are left out."""
    array = np.asarray(values).ravel()
    kept = np.sort(_float32(array[np.isfinite(array)]))
    bins, counts = np.unique(_bin_of(kept), return_counts=True)
    whole = replace(identity(exact), count=len(kept), top=kept, bins=bins, counts=counts.astype(np.int64))
    return _keep(whole, exact)


def merge(a: QuantileSketch, b: QuantileSketch) -> QuantileSketch:
    """The sketch of both parts' values together. Raises InputError where ``exact`` differs."""
    if a.exact != b.exact:
        raise InputError("QuantileSketch", f"exact {a.exact} and {b.exact}", "sketches made with the same exact")
    floor = max(a.floor, b.floor)
    at_floor = _equal_to(a, floor) + _equal_to(b, floor)
    top = np.sort(np.concatenate([part.top[part.top > floor] for part in (a, b)]))
    bins, where = np.unique(np.concatenate([a.bins, b.bins]), return_inverse=True)
    counts = np.zeros(len(bins), np.int64)
    np.add.at(counts, where, np.concatenate([a.counts, b.counts]))
    return _keep(QuantileSketch(a.count + b.count, a.exact, floor, at_floor, top, bins, counts), a.exact)


def compact(sketch: QuantileSketch, fraction: float = 0.01) -> QuantileSketch:
    """The same sketch for storing: the largest ``fraction`` of its values (1,024 at least) stay exact.

    Merging it keeps exact what both parts know exactly.
    """
    return _keep(sketch, max(1024, int(np.ceil(fraction * sketch.count))))


def tail_of(sketch: QuantileSketch, values: ArrayLike) -> NDArray[np.float64]:
    """1 - quantile of each value: the share of the sketch above it, ties counted half.

    Computed without the cancellation of 1 - q. At or above the floor it is exact: (above + equal / 2) / count.
    Below it is linear inside a bin, where ties count whole, so a tie is never called stranger than it is. Beyond the
    largest value seen there is no rank left, so the order is that of the raw score: 0.5 / count / (1 + (v - max) / s)
    with s = max - median (1 where that is 0); it falls strictly from 0.5 / count towards 0 and never reaches it.
    NaN gives NaN, and an empty sketch 1.

    Returns
    -------
    (n,) float64 in (0, 1], falling as the value rises.
    """
    raw = np.asarray(values).ravel()
    v = _float32(np.where(np.isnan(raw), 0, raw))
    if sketch.count == 0:
        return np.where(np.isnan(raw), np.nan, 1.0)
    first, last = np.searchsorted(sketch.top, v, "left"), np.searchsorted(sketch.top, v, "right")
    above = len(sketch.top) - (first + last) / 2
    on_floor = v == np.float32(sketch.floor)
    above[on_floor] = len(sketch.top) + sketch.at_floor / 2
    below = v < np.float32(sketch.floor)
    above[below] = _above_in_bins(sketch, v[below])
    tail = above / sketch.count
    largest = _largest(sketch)
    beyond = v > largest
    if beyond.any():
        spread = (largest - value_at(sketch, 0.5)) or 1.0
        tail[beyond] = 0.5 / sketch.count / (1 + (v[beyond].astype(np.float64) - largest) / spread)
    tail[np.isnan(raw)] = np.nan
    return tail


def quantile_of(sketch: QuantileSketch, values: ArrayLike) -> NDArray[np.float64]:
    """The mid-rank quantile of each value, (n,) float64 in [0, 1), by the rules of ``tail_of``."""
    return np.minimum(1 - tail_of(sketch, values), np.nextafter(1.0, 0.0))


def value_at(sketch: QuantileSketch, q: float) -> float:
    """The smallest value with at least a share ``q`` of the sketch at or below it; NaN for an empty sketch."""
    if not 0 <= q <= 1:
        raise InputError("value_at", f"q = {q}", "a quantile from 0 to 1")
    if sketch.count == 0:
        return float("nan")
    # the product of a decimal share and a count may miss the whole number it stands for by a rounding
    rank = max(1, int(np.ceil(q * sketch.count - 1e-9)))
    after = sketch.count - rank
    if after < len(sketch.top):
        return float(sketch.top[len(sketch.top) - 1 - after])
    if after < len(sketch.top) + sketch.at_floor:
        return sketch.floor
    lower, upper, counts, more = _bins_below(sketch)
    i = int(np.flatnonzero(more <= after)[0])
    share = (after + 1 - more[i]) / counts[i]
    return float(upper[i] - share * (upper[i] - lower[i]))


def threshold_above(sketch: QuantileSketch, share: float) -> float:
    """The smallest t for which at most floor(share * count) of the values are >= t, ties included.

    Exact down to the floor; below it the upper edge of a bin, which errs towards fewer. Just above the largest
    value where not even one value is allowed, and +inf for an empty sketch.
    """
    if not 0 <= share <= 1:
        raise InputError("budget", f"{share}", "a share from 0 to 1")
    allowed = int(np.floor(share * sketch.count + 1e-9))
    if sketch.count == 0:
        return float("inf")
    t = len(sketch.top)
    if allowed < t:
        return _next(float(sketch.top[t - 1 - allowed]))
    if allowed < t + sketch.at_floor:
        return _next(sketch.floor)
    if allowed >= sketch.count:
        return -_LARGEST
    if allowed == t + sketch.at_floor:
        return sketch.floor
    _, upper, _, more = _bins_below(sketch)
    return float(upper[np.flatnonzero(more <= allowed)[0]])


PARTS = ("head", "floor", "top", "bins", "counts")  # the names of the arrays that a sketch is stored as


def to_arrays(sketch: QuantileSketch) -> dict[str, NDArray[np.generic]]:
    """The sketch as named arrays, for storing."""
    head = np.array([sketch.count, sketch.exact, sketch.at_floor], np.int64)
    floor = np.array([sketch.floor], np.float32)
    return {"head": head, "floor": floor, "top": sketch.top, "bins": sketch.bins, "counts": sketch.counts}


def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> QuantileSketch:
    """The sketch that ``to_arrays`` was given."""
    count, exact, at_floor = (int(number) for number in arrays["head"])
    top, bins, counts = (np.asarray(arrays[name]) for name in ("top", "bins", "counts"))
    floor = float(np.asarray(arrays["floor"], np.float32)[0])
    return QuantileSketch(
        count, exact, floor, at_floor, top.astype(np.float32), bins.astype(np.uint16), counts.astype(np.int64)
    )


def _float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Clipped to what float32 holds; + 0 turns -0.0 into 0.0, so that both fall into one bin."""
    kept: NDArray[np.float32] = np.clip(values.astype(np.float64), -_LARGEST, _LARGEST).astype(np.float32)
    return kept + np.float32(0)


def _next(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(np.inf))) if value < _LARGEST else float("inf")


def _bin_of(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Upper 16 bits of the pattern, flipped so that unsigned order is the order of the values."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))
    return (ordered >> 16).astype(np.uint16)


def _lower_edge(bins: NDArray[np.integer]) -> NDArray[np.float64]:
    """The smallest value of each bin, the inverse of ``_bin_of``; bins outside the float range give its ends."""
    ordered = np.clip(bins.astype(np.int64), 0, _BINS - 1).astype(np.uint32) << 16
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    edge = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return np.clip(
        np.where(np.isnan(edge), np.where(bins < _BINS // 2, -_LARGEST, _LARGEST), edge), -_LARGEST, _LARGEST
    )


def _equal_to(part: QuantileSketch, floor: float) -> int:
    if floor == part.floor:
        return part.at_floor
    return int(np.count_nonzero(part.top == np.float32(floor)))


def _keep(sketch: QuantileSketch, exact: int) -> QuantileSketch:
    if len(sketch.top) <= exact:
        return sketch
    floor = sketch.top[len(sketch.top) - 1 - exact]
    at_floor = int(np.count_nonzero(sketch.top == floor))
    return replace(sketch, floor=float(floor), at_floor=at_floor, top=sketch.top[sketch.top > floor])


def _largest(sketch: QuantileSketch) -> float:
    return float(sketch.top[-1]) if len(sketch.top) else sketch.floor


def _bins_below(
    sketch: QuantileSketch,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Lower edge, upper edge and count of each bin's part below the floor, and how many values lie above that part."""
    kept = np.append(np.repeat(np.float32(sketch.floor), min(sketch.at_floor, 1)), sketch.top)
    weight = np.append(
        np.repeat(np.int64(sketch.at_floor), min(sketch.at_floor, 1)), np.ones(len(sketch.top), np.int64)
    )
    counts = sketch.counts.copy()
    np.subtract.at(counts, np.searchsorted(sketch.bins, _bin_of(kept.astype(np.float32))), weight)
    used = counts > 0
    bins, counts = sketch.bins[used].astype(np.int64), counts[used]
    lower, upper = _lower_edge(bins), np.minimum(_lower_edge(bins + 1), sketch.floor)
    more = sketch.count - np.cumsum(counts)
    return lower, upper, counts, more


def _above_in_bins(sketch: QuantileSketch, v: NDArray[np.float32]) -> NDArray[np.float64]:
    lower, upper, counts, more = _bins_below(sketch)
    # the corners of a piecewise linear curve: from each bin's upper edge to its lower edge its count is added
    edges = np.column_stack([lower, upper]).ravel()
    above = np.column_stack([more + counts, more]).ravel().astype(np.float64)
    if not len(edges):
        return np.full(len(v), float(sketch.count))
    return np.interp(v.astype(np.float64), edges, above, left=float(sketch.count))
