"""How fast this machine multiplies, compares and reads just now, measured within half a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from streamclust.blocks import one_blas_thread
from streamclust.planning import Rates

_SECONDS = 0.1
_FILES, _BYTES, _PIECE = 2_000, 64 * 2**20, 2**20


def measure_rates(folder: Path) -> Rates:
    """The rates of one thread on matrices as stages use them, and of reading the largest files in ``folder``."""
    rng = np.random.default_rng(0)
    left, right = rng.random((512, 256), np.float32), rng.random((256, 2048), np.float32)
    tile, out = rng.random((256, 4096), np.float32), np.empty((256, 4096), np.float32)

    def compare() -> None:
        np.maximum(tile, np.float32(0.5), out=out)
        np.flatnonzero(tile < np.float32(0.01))
        out.argmin(axis=1)

    with one_blas_thread():
        products = _per_second(lambda: left @ right, left.size * right.shape[1])
        compared = _per_second(compare, tile.size)
    return Rates(products, compared, _reading(folder))


def _per_second(work: Callable[[], object], amount: int) -> float:
    work()
    began, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < _SECONDS or not times:
        work()
        times += 1
    return times * amount / passed


def _reading(folder: Path) -> float:
    """Bytes of a second; from the cache where they are in it, as a run that comes soon would have them."""
    files = sorted(islice(_files(folder), _FILES), key=lambda file: file.stat().st_size, reverse=True)
    began, read = time.perf_counter(), 0
    for file in files:
        if read >= _BYTES:  # opening more of them would count as reading
            break
        with file.open("rb") as source:
            while read < _BYTES and (piece := source.read(_PIECE)):
                read += len(piece)
    return max(read, 1) / (time.perf_counter() - began)


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(where, name)).is_file())
