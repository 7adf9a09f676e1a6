"""The few sampled rows nearest to each row: verdicts are read from them, without a second look at all distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamclust.cluster.scans import smallest

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Nearest(NamedTuple):
    """Of n rows: squared distances (n, L) float32, ascending, and (n, L) int32 which sampled rows these are."""

    squares: NDArray[np.float32]
    columns: NDArray[np.int32]


def nearest(squares: NDArray[np.float32], count: int) -> Nearest:
    """The ``count`` smallest of each row of (n, m) squared distances, or all m; the first of equal ones."""
    shape = len(squares), min(count, squares.shape[1])
    found = Nearest(np.empty(shape, np.float32), np.empty(shape, np.int32))
    if shape[1]:
        smallest(squares, *found)
    return found
