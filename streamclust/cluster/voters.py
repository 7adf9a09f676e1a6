"""Which sampled rows judge the others, and their core distances over all rows, folded tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamclust.cluster.distances import among, centred, middle, position
from streamclust.cluster.nearest import Nearest, nearest
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_SAMPLES = 10
SMALLEST = 5  # min_samples and min_cluster_size of a subsample never fall below it
_FAR = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Voters:
    """V subsamples of m rows each, in ascending order of id.

    Attributes
    ----------
    centre : (p,) float64, taken off every row.
    points, ids : (V, m, p) float32, centred, and (V, m) int64.
    fraction : m / number of all rows.
    """

    centre: NDArray[np.float64]
    points: NDArray[np.float32]
    ids: NDArray[np.int64]
    fraction: float

    def scaled(self, size: int) -> int:
        """A count of rows among all rows as one within a subsample."""
        return max(min(SMALLEST, size), round(size * self.fraction))

    def seats(self, row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(V, n): where each row sits in each subsample, or -1."""
        return np.stack([position(ids, row_ids) for ids in self.ids])


def draw_voters(
    sample: NDArray[np.float32],
    sample_ids: NDArray[np.int64],
    n_rows: int,
    *,
    votes: int = 3,
    rows: int = 5_000,
    seed: int,
) -> Voters:
    """Draw the subsamples from the resident sample: disjoint where it is large enough.

    A sample of at most ``rows`` rows is taken whole, once: further votes would repeat the first.

    Parameters
    ----------
    sample, sample_ids :
        (M, p) float32, all finite, and (M,) int64 distinct global ids.
    n_rows :
        number of all (valid) rows.
    votes, rows :
        V and m at most.
    seed :
        of the draw.
    """
    n = len(sample)
    if n < 1 or votes < 1 or rows < 1:
        raise InputError("draw_voters", f"{votes} votes of {rows} rows from {n}", "at least 1 of each")
    rng = np.random.default_rng(seed)
    if n <= rows:
        members = np.arange(n)[None]
    elif n >= votes * rows:
        members = rng.permutation(n)[: votes * rows].reshape(votes, rows)
    else:
        members = np.stack([rng.choice(n, rows, replace=False) for _ in range(votes)])
    centre = middle(sample[np.unique(members)])
    members = np.take_along_axis(members, np.argsort(sample_ids[members], axis=1), 1)
    points = np.stack([centred(sample[rows], centre) for rows in members])
    return Voters(centre, points, sample_ids[members], min(1.0, members.shape[1] / n_rows))


def surroundings(S: NDArray[np.float32], count: int) -> Nearest:
    """The ``count`` other rows of one subsample nearest to each of its rows; itself, far away, where it has fewer."""
    parts = [nearest(squares, count) for _, squares in among(S, _FAR)]
    return Nearest(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def core_identity(own: Sequence[Nearest], k: int = MIN_SAMPLES) -> NDArray[np.float32]:
    """(V, m, k) squares, the state of no rows: what the subsamples themselves say bounds the k-th from above.

    A bound is taken for a distance until a smaller one is found, and it is the true one where none is.
    """
    bounds = [
        around.squares[:, k - 2] if around.squares.shape[1] > k - 2 else np.full(len(around.squares), np.inf)
        for around in own
    ]
    return np.repeat(np.stack(bounds)[..., None], k, axis=2).astype(np.float32)


def merge_core(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest distances over both parts' rows, which must not share a row."""
    return np.sort(np.concatenate([a, b], axis=2), axis=2)[..., : a.shape[2]]
