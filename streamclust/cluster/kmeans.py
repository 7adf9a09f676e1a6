"""k-means by passes of Lloyd's algorithm, with steps with momentum between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.passes import LloydState, Measured, largest_first, reseed, settled, update
from streamclust.cluster.two_level import Asked, TwoLevel, roughly
from streamclust.metrics import LabelSums

Float = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

_MOMENTUM, _STEP = 0.85, 1.3
_EXACT = 2  # last passes, in which rows are compared with all of many centres


@dataclass(frozen=True, slots=True)
class LloydResult(Measured):
    """Final centres, largest cluster first by default, and what the last of ``n_iter`` passes measured at just these.

    No cluster is empty. ``converged`` is false where ``max_iter`` ended the search.
    """

    centers: NDArray[np.float32]
    n_iter: int
    converged: bool


def lloyd(
    fold: Callable[[dict[Key, Asked]], Mapping[Key, LloydState]],
    starts: Mapping[Key, Float],
    max_iter: int = 6,
    tol: float = 1e-4,
    *,
    keep: int | None = None,
    descending: bool = True,
) -> dict[Key, LloydResult]:
    """Lloyd's algorithm, accelerated as `onward` says, for many sets of centres that share every read of the data.

    Parameters
    ----------
    fold : function
        Evaluates every given set of centres over all rows (`lloyd_block`, `merge`), or one of many on two levels.
    starts : mapping of key to (k, p)
        A repeated centre is an empty cluster, to be placed where rows are far.
    max_iter : int
        Passes that may improve the centres, the last by going to the means. Then only sets with an empty cluster, or
        whose sizes do not descend, are read again: usually once. Until the last two, or until it settles, a search of
        1000 centres or more compares rows with those that are near, see `two_level`.
    tol : float
        A set is done when its centres' squared moves add up to at most ``tol`` x inertia / n.
    keep : int
        After the first pass only so many sets go on, those of the lowest inertia.
    descending : bool
        Whether the largest cluster must come first, for which most sets are read once more.

    Returns
    -------
    One result for each set that went on, of min(k, distinct rows) clusters, none empty: what `assign` finds there.
    """
    active = {key: np.ascontiguousarray(centers, np.float32) for key, centers in starts.items()}
    converged, ordered, done = dict.fromkeys(starts, False), set[Key](), dict[Key, LloydResult]()
    trails, passes = dict[Key, Trail](), 0
    rough, asked = set(active), dict[Key, Asked]()
    while active:
        passes += 1
        rough = rough if passes <= max_iter - _EXACT else set()
        asked = {key: roughly(c, asked.get(key)) if key in rough else c for key, c in active.items()}
        states = fold(dict(asked))
        if passes == 1:
            active = {key: active[key] for key in sorted(active, key=lambda key: states[key].inertia)[:keep]}
        for key, centers in list(active.items()):
            state = states[key]
            if not isinstance(asked[key], TwoLevel):
                converged[key] |= settled(state, tol)
            elif settled(state, tol):
                rough.discard(key)
            elif state.empty:
                del asked[key]  # its centres go elsewhere, and are put in order
            if not converged[key] and passes < max_iter - 1:
                active[key], trails[key] = onward(state, trails.get(key))
            elif not converged[key] and passes < max_iter:
                active[key] = update(state)[0]
            elif state.empty and len(state.far_rows):
                active[key] = reseed(state, centers)[0]
            elif descending and key not in ordered and not state.empty and (np.diff(state.counts) > 0).any():
                active[key] = centers[largest_first(state)]
                ordered.add(key)  # once: equal distances may fall otherwise under other ids
            else:
                done[key] = _result(state, passes, converged[key])
                del active[key]
    return {key: done[key] for key in starts if key in done}


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a search stood: its inertia, and the centres before momentum (k, p), None where it has none."""

    inertia: float
    centers: Doubles | None


def onward(state: LloydState, trail: Trail | None) -> tuple[NDArray[np.float32], Trail]:
    """Centres beyond the means, with momentum; the means alone where the inertia grew or a cluster is empty.

    Lloyd's step is one of gradient descent in the metric of the counts (Bottou and Bengio, NIPS 1994), and a safe one:
    no eigenvalue of its derivative is negative. Hence `_STEP` of it is stable under a momentum m of Nesterov (Soviet
    Math. Dokl. 27, 1983) up to 1 + 1 / (1 + 2 m). Starting over where the inertia grows: O'Donoghue and Candes, Found.
    Comput. Math. 15 (2015) 715-732.
    """
    if state.empty:
        return update(state)[0], Trail(np.inf, None)
    means = state.sums.means
    if trail is not None and state.inertia > trail.inertia:
        return means.astype(np.float32), Trail(state.inertia, None)
    centers = state.sums.centers + _STEP * (means - state.sums.centers)
    before = centers if trail is None or trail.centers is None else trail.centers
    ahead = centers + _MOMENTUM * (centers - before)
    return ahead.astype(np.float32), Trail(state.inertia, centers)


def _result(state: LloydState, passes: int, converged: bool) -> LloydResult:
    """What was measured. Clusters that are still empty go: every row is on a centre, so no row changes its cluster."""
    s = state.sums
    keep = largest_first(state)[: len(s.counts) - state.empty] if state.empty else np.arange(len(s.counts))
    kept = LabelSums(s.centers[keep], s.counts[keep], s.sums[keep], s.squares[keep])
    return LloydResult(kept, np.asarray(kept.centers, np.float32), passes, converged)
