"""One day's images as marks over the grey density of the reference."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 680
"""Pixels of the map's longer side; twice its width on the page."""
PAPER, DENSE, TODAY, FLAGGED = (250, 251, 252), (120, 128, 140), (0, 114, 178), (213, 94, 0)
MANY = 5_000
"""Above so many places marks fade where few images lie, or they would cover everything alike."""


def shape_of(extent: tuple[float, float, float, float]) -> tuple[int, int]:
    """(H, W) in pixels of the map of an extent (x_min, x_max, y_min, y_max)."""
    x0, x1, y0, y1 = extent
    wide, high = max(x1 - x0, 1e-12), max(y1 - y0, 1e-12)
    longer = max(wide, high)
    return max(SIDE // 3, round(SIDE * high / longer)), max(SIDE // 3, round(SIDE * wide / longer))


def day_map(
    reference: NDArray[np.unsignedinteger[Any]],
    today: NDArray[np.unsignedinteger[Any]],
    flagged: NDArray[np.unsignedinteger[Any]],
) -> bytes:
    """JPEG bytes: today's images blue and the flagged ones orange over the reference's grey density.

    ``reference`` is (G, G) counts, ``today`` and ``flagged`` (H, W) counts at the picture's own size, all within the
    same extent, row 0 the lowest y.
    """
    from PIL import Image

    height, width = today.shape
    grey = smoothed(reference)[::-1]
    back = Image.fromarray((255 * grey).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    canvas = _over(np.full((height, width, 3), PAPER, np.float32), np.asarray(back, np.float32) / 255, DENSE)
    radius = float(np.clip(np.sqrt(0.06 * today.size / np.pi / max(int(today.sum()), 1)), 1.2, 7.0))
    for counts, colour, size in ((today, TODAY, radius), (flagged, FLAGGED, radius + 0.8)):
        if counts.any():
            near, alpha = _marks(counts[::-1], size)
            for rim, ink in ((1.5, (255, 255, 255)), (0.5, colour)):
                canvas = _over(canvas, np.clip(size + rim - near, 0, 1) * alpha, ink)
    out = io.BytesIO()
    Image.fromarray(canvas.round().astype(np.uint8)).save(out, format="JPEG", quality=84, optimize=True, subsampling=0)
    return out.getvalue()


def smoothed(counts: NDArray[Any]) -> NDArray[np.float32]:
    """Logarithm of the smoothed counts from 0 to 1, on at most 512 cells a side."""
    from scipy.ndimage import gaussian_filter

    step = max(1, min(counts.shape) // 512)
    rows, columns = (range(0, n, step) for n in counts.shape)
    coarse = np.add.reduceat(np.add.reduceat(counts.astype(np.float32), rows, axis=0), columns, axis=1)
    smooth = gaussian_filter(coarse, sigma=max(coarse.shape) / 120, mode="constant")
    logs = np.log1p(smooth / max(float(smooth.mean()), 1e-12))
    return np.asarray(np.clip(logs / max(float(np.quantile(logs, 0.995)), 1e-12), 0, 1), np.float32)


def _marks(counts: NDArray[Any], size: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The distance of every pixel to the nearest image, and how strongly a mark there is drawn."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    near = np.asarray(distance_transform_edt(counts == 0), np.float32)
    if np.count_nonzero(counts) <= MANY:
        return near, np.full(counts.shape, 0.85, np.float32)
    smooth = np.log1p(gaussian_filter(counts.astype(np.float32), sigma=2 * size))
    most = max(float(np.quantile(smooth[counts > 0], 0.98)), 1e-12)
    return near, np.asarray(np.clip(smooth / most, 0.12, 0.95), np.float32)


def _over(canvas: NDArray[np.float32], alpha: NDArray[Any], colour: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.asarray(canvas + alpha[..., None] * (np.array(colour, np.float32) - canvas), np.float32)
