"""How far noise verdicts agree: with the method run on all rows, or the votes among themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamclust.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RELIABLE_SHARE, _RELIABLE_KAPPA = 0.9, 0.6


@dataclass(frozen=True)
class Agreement:
    """Agreement of two noise verdicts on the same rows.

    Attributes
    ----------
    share : of the rows on which they agree.
    kappa : Cohen's kappa, the agreement beyond what the two noise shares give by chance; NaN where both are constant.
    f1 : of noise, NaN where neither calls any row noise.
    """

    share: float
    kappa: float
    f1: float

    @property
    def reliable(self) -> bool:
        """At least 90 % agreement and a kappa of at least 0.6, so that a rare verdict is not reliable by its rarity.

        0.61 is where Landis and Koch (1977) let "substantial" agreement begin. Where both verdicts are constant and
        the same there is nothing to disagree about.
        """
        if np.isnan(self.kappa):
            return self.share == 1
        return self.share >= _RELIABLE_SHARE and self.kappa >= _RELIABLE_KAPPA


def agreement(full: NDArray[np.bool_], propagated: NDArray[np.bool_]) -> Agreement:
    """Agreement of the verdicts of the method on all rows with the propagated ones, (n,) bool each, true for noise."""
    if full.shape != propagated.shape or not len(full):
        raise InputError("agreement", f"verdicts {full.shape} and {propagated.shape}", "two of the same rows")
    return _from_table(vote_counts(np.stack([full, propagated]))[0, 1])


def vote_counts(votes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(V, V, 2, 2) int64: how many rows votes i and j call (a, b), noise being 1. Blocks merge by addition."""
    kinds = np.stack([~votes, votes]).astype(np.int64)
    counts: NDArray[np.int64] = np.einsum("ain,bjn->ijab", kinds, kinds, optimize=True)
    return counts


def vote_agreement(counts: NDArray[np.int64]) -> Agreement:
    """The mean agreement of two votes, an estimate of reliability that needs no truth.

    Two subsamples that err alike agree, so this bounds reliability from above. A single vote is compared with
    nothing: all NaN, and not reliable.
    """
    pairs = [_from_table(counts[i, j]) for i in range(len(counts)) for j in range(i)]
    if not pairs:
        return Agreement(float("nan"), float("nan"), float("nan"))
    return Agreement(*(float(np.mean([getattr(pair, name) for pair in pairs])) for name in ("share", "kappa", "f1")))


def _from_table(table: NDArray[np.int64]) -> Agreement:
    n = float(table.sum())
    if n == 0:
        return Agreement(float("nan"), float("nan"), float("nan"))
    share = float(np.trace(table)) / n
    chance = float(table.sum(0) @ table.sum(1)) / n**2
    kappa = (share - chance) / (1 - chance) if chance < 1 else float("nan")
    called = 2 * table[1, 1] + table[0, 1] + table[1, 0]
    return Agreement(share, kappa, float(2 * table[1, 1] / called) if called else float("nan"))
