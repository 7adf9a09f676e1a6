"""Sparse counts grown to discs that can be seen.

As datashader's ``spread`` and ``dynspread``, whose loops every process would compile anew: 5 s of a small run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamclust.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEN_SHARE = 0.03
TOUCHING = 0.9


def grown(counts: NDArray[Any], px: int = 0) -> NDArray[Any]:
    """Counts with sparse points grown to discs, summed where they overlap: by ``px`` cells, or until they touch.

    ``counts`` is (H, W) or (H, W, C), of which the last tells whether there are any. Small tight clusters touch at
    once; where too little of the map would be seen the discs are grown all the same.
    """
    if px:
        return _spread(counts, px)
    height, width = counts.shape[:2]
    rows = counts.reshape(height, width, -1)[..., -1]
    dots = int(np.count_nonzero(rows))
    found = _spread(counts, _until_they_touch(rows > 0, max(3, width // 250)))
    side = float(np.sqrt(SEEN_SHARE * rows.size / max(dots, 1)))
    least = min(round((side - 1) / 2), width // 500)
    small = np.count_nonzero(found.reshape(height, width, -1)[..., -1]) < SEEN_SHARE * rows.size
    return _spread(counts, least) if small and least > 0 else found


def mark_px(flagged: NDArray[Any], seen: int) -> int:
    """The radius in cells at which the marks of the flagged rows hide at most a third of the ``seen`` cells."""
    side = float(np.sqrt(seen / 3 / max(int(np.count_nonzero(flagged)), 1)))
    return int(np.clip(round((side - 1) / 2), 1, max(1, round(flagged.shape[1] / 300))))


def _until_they_touch(full: NDArray[np.bool_], most: int) -> int:
    """The radius, up to ``most``, before that at which more than TOUCHING of the discs have another within reach."""
    y, x = np.nonzero(full)
    total = np.pad(full.astype(np.int32).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = full.shape
    for px in range(1, most + 1):
        top, bottom = np.maximum(y - 2 * px, 0), np.minimum(y + 2 * px + 1, height)
        left, right = np.maximum(x - 2 * px, 0), np.minimum(x + 2 * px + 1, width)
        near = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        if not len(near) or np.count_nonzero(near > 1) > TOUCHING * len(near):
            return px - 1
    return most


def _spread(counts: NDArray[Any], px: int) -> NDArray[Any]:
    """Every count added to all cells of the disc of that radius about it."""
    if not px:
        return counts
    layers = np.ascontiguousarray(counts.reshape(*counts.shape[:2], -1))
    out = np.zeros_like(layers)
    _add_discs(layers, np.floor(np.sqrt((px + 0.5) ** 2 - np.arange(-px, px + 1) ** 2)).astype(np.int64), out)
    return out.reshape(counts.shape)


@compiled
def _add_discs(counts: NDArray[Any], halves: NDArray[np.int64], out: NDArray[Any]) -> None:
    """``halves`` (2 px + 1,) is half the width of the disc in each of its rows."""
    height, width, layers = counts.shape
    px = len(halves) // 2
    for y in range(height):
        for x in range(width):
            for c in range(layers):
                if counts[y, x, c]:
                    for i in range(max(y - px, 0), min(y + px + 1, height)):
                        half = halves[i - y + px]
                        for j in range(max(x - half, 0), min(x + half + 1, width)):
                            out[i, j, c] += counts[y, x, c]
