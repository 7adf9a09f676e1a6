"""Rows chosen by a hash of (seed, batch, row): the same rows whatever the blocks, the workers or the order."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEP = 1 << 20


def batch_key(batch: str, seed: int) -> int:
    """A 64-bit key of a batch's id under a seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{batch}".encode(), digest_size=8).digest(), "little")


def row_hashes(key: int, start: int, stop: int) -> NDArray[np.uint64]:
    """Hashes of rows ``start .. stop`` of the batch with that key.

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        z = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def sample_rows(n: int, size: int, key: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The ``min(n, size)`` rows of a batch with the smallest hashes, in row order, and those hashes.

    A bottom-k sample (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007): uniform without
    replacement, and the bottom-k of a union is the bottom-k of the bottom-ks. Holds ``size`` + 2**20 hashes at most.
    """
    rows = np.empty(0, np.int64)
    hashes = np.empty(0, np.uint64)
    for start in range(0, n, _STEP):
        stop = min(n, start + _STEP)
        rows = np.concatenate([rows, np.arange(start, stop, dtype=np.int64)])
        hashes = np.concatenate([hashes, row_hashes(key, start, stop)])
        rows, hashes = smallest(rows, hashes, size)
    return rows, hashes


def smallest(rows: NDArray[np.int64], hashes: NDArray[np.uint64], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The ``size`` rows with the smallest hashes, in the order they came in."""
    if len(rows) <= size:
        return rows, hashes
    keep = np.sort(np.argpartition(hashes, size - 1)[:size])
    return rows[keep], hashes[keep]
