"""Which sampled rows judge the others, and their core distances over all rows, folded block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MIN_SAMPLES = 10
_SCRATCH = 8 * 2**20  # bytes of one tile's distances; up to four such arrays live at a time
_COLUMNS = 4096


@dataclass(frozen=True, eq=False)
class Draw:
    """Which rows of the resident sample vote: ``rows`` (u,) their indices, ``members`` (V, m) indices into ``rows``."""

    rows: NDArray[np.int64]
    members: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CoreState:
    """(u, k) float32 ascending: the smallest distances of each sampled row to any row, itself included once (0)."""

    distances: NDArray[np.float32]


def draw_votes(n_sample: int, *, votes: int = 3, rows: int = 5_000, seed: int) -> Draw:
    """Draw the subsamples from the resident sample: disjoint where it is large enough.

    A sample of at most ``rows`` rows is taken whole, once: further votes would repeat the first.
    """
    if n_sample < 1 or votes < 1 or rows < 1:
        raise InputError("draw_votes", f"{votes} votes of {rows} rows from {n_sample}", "at least 1 of each")
    rng = np.random.default_rng(seed)
    if n_sample <= rows:
        members = np.arange(n_sample)[None]
    elif n_sample >= votes * rows:
        members = rng.permutation(n_sample)[: votes * rows].reshape(votes, rows)
    else:
        members = np.stack([rng.choice(n_sample, rows, replace=False) for _ in range(votes)])
    used = np.unique(members)
    return Draw(used, np.searchsorted(used, members))


def core_identity(n_points: int, k: int) -> CoreState:
    """The state of no rows."""
    return CoreState(np.full((n_points, k), np.inf, np.float32))


def core_block(
    points: NDArray[np.float32],
    point_ids: NDArray[np.int64],
    X: NDArray[np.float32],
    row_ids: NDArray[np.int64],
    k: int = MIN_SAMPLES,
) -> CoreState:
    """The k smallest distances from each sampled row to the rows of one block.

    Parameters
    ----------
    points :
        (u, p) float32 sampled rows.
    point_ids :
        (u,) int64 their global ids, by which a point recognises itself.
    X :
        (n, p) float32 block, all finite.
    row_ids :
        (n,) int64.
    k :
        how many; the last is the core distance of min_samples = k, counted as scikit-learn does.
    """
    state = core_identity(len(points), k)
    centre = middle(points)
    order = np.argsort(row_ids)
    targets = lifted(centred(points, centre))
    for start in range(0, len(X), _COLUMNS):
        part = order[start : start + _COLUMNS]
        rows, own = lowered(centred(X[part], centre)), position(row_ids[part], point_ids)
        for tile in tiles(len(points), len(part)):
            squares = squared_distances(targets[tile], rows, own[tile])
            both = np.concatenate([state.distances[tile], _smallest(squares, state.distances[tile, -1:], k)], axis=1)
            state.distances[tile] = np.sort(both, axis=1)[:, :k]
    return CoreState(np.sqrt(state.distances))


def _smallest(squares: NDArray[np.float32], below: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(a, <= k) in any order: of each row what can be among its k smallest and lies below; infinity where it has less.

    After a block's first columns few do, and looking for those is several times faster than a partition.
    """
    closer = squares < below
    if 16 * np.count_nonzero(closer) < closer.size:
        row, _ = found = np.divmod(np.flatnonzero(closer), closer.shape[1])
        first = np.searchsorted(row, np.arange(len(squares)))
        place = np.arange(len(row)) - first[row]
        some = np.full((len(squares), place.max(initial=-1) + 1), np.inf, np.float32)
        some[row, place] = squares[found]
        squares = some
    if squares.shape[1] > k:
        squares.partition(k - 1, axis=1)
    return squares[:, :k]


def merge_core(a: CoreState, b: CoreState) -> CoreState:
    """The smallest distances over both parts' rows, which must not share a row."""
    both = np.sort(np.concatenate([a.distances, b.distances], axis=1), axis=1)
    return CoreState(both[:, : a.distances.shape[1]])


def middle(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """The median of some points, which one absurd row cannot move as it would the mean."""
    return np.median(points[:1024], axis=0).astype(np.float64)


def centred(X: NDArray[np.float32], centre: NDArray[np.float64]) -> NDArray[np.float32]:
    """Subtracted in float64: under a common offset float32 distances would cancel."""
    shifted: NDArray[np.float32] = np.clip(X - centre, -1e15, 1e15).astype(np.float32)
    return shifted


def tiles(n: int, columns: int, most: int = 1024) -> Iterator[slice]:
    """Slices of at most ``most`` rows whose distances to ``columns`` points stay within the scratch bytes."""
    rows = max(1, min(most, _SCRATCH // (4 * max(columns, 1))))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def position(sorted_ids: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each id stands among the sorted ones, or -1."""
    at = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return np.where(sorted_ids[at] == ids, at, -1)


def lifted(A: NDArray[np.float32]) -> NDArray[np.float32]:
    """(a, p + 2): rows whose product with those of :func:`lowered` is their squared distance, with no pass after it."""
    return np.column_stack([A, np.vecdot(A, A), np.ones(len(A), np.float32)])


def lowered(B: NDArray[np.float32]) -> NDArray[np.float32]:
    """(b, p + 2): the other side of the product."""
    return np.column_stack([-2 * B, np.ones(len(B), np.float32), np.vecdot(B, B)])


def squared_distances(
    A: NDArray[np.float32], B: NDArray[np.float32], own: NDArray[np.int64], to_oneself: float = 0.0
) -> NDArray[np.float32]:
    """(a, b) float32 of rows A, `lifted`, and B, `lowered`.

    ``own`` (a,) names the column that is the same row (or -1), which gets ``to_oneself``.
    """
    squares: NDArray[np.float32] = A @ B.T
    np.maximum(squares, 0, out=squares)
    inside = np.flatnonzero(own >= 0)
    squares[inside, own[inside]] = to_oneself
    return squares


def among(
    S: NDArray[np.float32], to_oneself: float = 0.0, most: int = 1024
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Squared distances of some rows of S : (m, p) to all of them, tile by tile."""
    left, right = lifted(S), lowered(S)
    for tile in tiles(len(S), len(S), most):
        yield tile, squared_distances(left[tile], right, np.arange(tile.start, tile.stop), to_oneself)
