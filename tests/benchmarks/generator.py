"""Writes a made-up case of the reference size and layout: descriptors with a realistic spectrum and known truth.

Every block of rows has its own seeds, so that any part can be made alone, in constant memory, on any number of threads.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from threadpoolctl import threadpool_limits

from tests.benchmarks.truth import BLOCK, FACTORS, JUNK, Rows, frequencies, write_pictures, write_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

DIMS = {"effnet": 2560, "osnet": 512, "colour": 128, "type": 512}
# Shares of the between-cluster variance that each factor takes, in the order of FACTORS; other names draw theirs.
FOCUS = {
    "effnet": (0.45, 0.35, 0.20),
    "osnet": (0.35, 0.45, 0.20),
    "colour": (0.05, 0.10, 0.85),
    "type": (0.75, 0.20, 0.05),
}
NOISE_SHARE = 0.04  # of a column's variance, alike in all d directions
BETWEEN_SHARE = 0.6  # of the leading latent variance; clusters overlap
LEADING = 24  # latent directions over which the between-cluster share decays by e
JITTER = 0.03  # of a near-duplicate, in deviations of each column


def write_reference_case(
    folder: Path,
    n: int = 416_314,
    dims: Mapping[str, int] = DIMS,
    seed: int = 0,
    *,
    spectrum: float = 0.2,
    threads: int = 2,
    pictures: bool = False,
) -> Path:
    """Write descriptors/NAME.pickle, images_paths.csv, truth.csv and, if asked, row_data/images.zip; return `folder`.

    dims : columns of each descriptor. spectrum : the part of d components that holds 90 % of the variance of the
    standardised columns (0.05 to 0.25). The bytes depend on (n, dims, seed, spectrum) only, and the first rows of a
    longer case are those of a shorter one. Memory is about `threads` x 24 kB x the widest d, whatever n is.
    """
    folder = Path(folder)
    (folder / "descriptors").mkdir(parents=True, exist_ok=True)
    write_tables(folder, n, seed)
    if pictures:
        write_pictures(folder, n, seed)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for name, d in dims.items():
            path = folder / "descriptors" / f"{name}.pickle"
            head, tail = pickle_envelope((n, d))
            path.write_bytes(head)
            descriptor = Descriptor.draw(name, d, seed, spectrum)
            jobs = [(path, len(head), descriptor, n, seed, range(t, -(-n // BLOCK), threads)) for t in range(threads)]
            list(pool.map(lambda job: _write_blocks(*job), jobs))
            with path.open("r+b") as file:
                file.seek(len(head) + 4 * n * d)
                file.write(tail)
    return folder


def pickle_envelope(shape: tuple[int, int]) -> tuple[bytes, bytes]:
    """What stands before and after the raw bytes of a C-ordered float32 array in its protocol 4 pickle.

    The pickler writes large bytes outside its frames, so the envelope of a longer payload differs in its length only.
    """
    payload = bytes(1 << 17)
    whole = pickle.dumps(_Pickled(shape, payload), protocol=4)
    start = whole.index(b"B" + len(payload).to_bytes(4, "little") + payload)
    size = 4 * shape[0] * shape[1]
    length = b"B" + size.to_bytes(4, "little") if size < 1 << 32 else b"\x8e" + size.to_bytes(8, "little")
    return whole[:start] + length, whole[start + 5 + len(payload) :]


class _Pickled:
    """Pickles as an array of the given shape would whose bytes are `payload`."""

    def __init__(self, shape: tuple[int, int], payload: bytes) -> None:
        self.shape, self.payload = shape, payload

    def __reduce__(self) -> tuple[Any, ...]:
        state: Any
        rebuild, arguments, state = np.zeros((1, 1), np.float32).__reduce__()
        version, _, dtype, fortran, _ = state
        return rebuild, arguments, (version, self.shape, dtype, fortran, self.payload)


@dataclass(frozen=True)
class Descriptor:
    """One network's way of seeing: q latent directions with power-law variances, mixed into d columns."""

    name: str
    mixing: np.ndarray  # (q + 1, d) float32; the last row holds the columns' offsets
    scale: np.ndarray  # (d,) float32, the columns' standard deviations
    centres: tuple[np.ndarray, ...]  # per factor (levels, q) float32, in units of the latent deviations
    within: np.ndarray  # (q,) float32
    junk_centres: np.ndarray  # (kinds, q) float32
    junk_spread: np.ndarray  # (q,) float32
    visible: np.ndarray  # (kinds,) float32, how far junk moves away from the vehicles: 0 not at all

    @classmethod
    def draw(cls, name: str, d: int, seed: int, spectrum: float) -> Descriptor:
        rng = np.random.default_rng([seed, 1, crc32(name.encode())])
        q = max(2, round(0.3 * d))
        variances = _power_law(q, d, spectrum)
        between = BETWEEN_SHARE * np.exp(-np.arange(q) / LEADING)
        focus = FOCUS.get(name, tuple(rng.dirichlet((1.0, 1.0, 1.0))))
        centres = [_levels(rng, len(v), q) * np.sqrt(f * between) for v, f in zip(FACTORS.values(), focus, strict=True)]
        orthogonal = np.linalg.qr(rng.standard_normal((d, q), dtype=np.float32))[0].T
        scale = rng.lognormal(-1.0, 1.0, d)
        offset = scale * rng.normal(1.0, 2.0, d)
        flatter = variances**-0.25  # what is no vehicle shows in directions that vehicles hardly use
        flatter *= np.sqrt(3.0 * variances.sum() / (variances @ flatter**2))
        mixing = np.vstack([np.sqrt(variances)[:, None] * orthogonal * scale, offset])
        junk_centres = rng.standard_normal((len(JUNK), q)) * (0.8 * np.exp(-np.arange(q) / LEADING))
        visible = np.r_[0.0, rng.uniform(0.3, 0.95, len(JUNK) - 1)]
        return cls(
            name=name,
            mixing=_single(mixing),
            scale=_single(scale),
            centres=tuple(_single(c) for c in centres),
            within=_single(np.sqrt(1 - between)),
            junk_centres=_single(junk_centres),
            junk_spread=_single(flatter),
            visible=_single(visible),
        )

    def block(self, rows: Rows, seed: int, block: int, out: np.ndarray, noise: np.ndarray) -> None:
        """Fill `out` (BLOCK, d) with the block's vectors; `noise` is scratch of the same shape."""
        key = crc32(self.name.encode())
        rng = np.random.default_rng([seed, 2, key, block])
        q = len(self.within)
        latent = np.ones((BLOCK, q + 1), np.float32)
        inner = rng.standard_normal((BLOCK, q), dtype=np.float32)
        inner *= self.within
        inner *= rng.lognormal(0.0, 0.2, (BLOCK, 1)).astype(np.float32)  # tails heavier than a Gaussian's
        for centres, levels in zip(self.centres, rows.levels, strict=True):
            inner += centres[levels]
        bad = np.flatnonzero(rows.junk)
        strange = rng.standard_normal((bad.size, q), dtype=np.float32) * self.junk_spread
        heart = np.random.default_rng([seed, 3, key, block]).standard_normal(q, dtype=np.float32) * self.junk_spread
        strange = (
            np.where(rows.clump[bad, None] > 0, heart + 0.1 * strange, strange) + self.junk_centres[rows.junk[bad]]
        )
        visible = self.visible[rows.junk[bad], None]
        inner[bad] = np.sqrt(1 - visible**2) * inner[bad] + visible * strange
        latent[:, :q] = inner
        np.matmul(latent, self.mixing, out=out)
        rng.standard_normal(out=noise, dtype=np.float32)
        noise *= np.float32(NOISE_SHARE**0.5) * self.scale
        out += noise
        again = np.flatnonzero(rows.repeats >= 0)
        tremble = rng.standard_normal((again.size, out.shape[1]), dtype=np.float32)
        out[again] = out[rows.repeats[again]] + np.float32(JITTER) * self.scale * tremble


def _single(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32)


def _levels(rng: np.random.Generator, levels: int, q: int) -> np.ndarray:
    """Centres (levels, q) with mean 0 and variance 1 under the levels' frequencies."""
    centres, weights = rng.standard_normal((levels, q)), frequencies(levels)
    centres -= weights @ centres
    return centres / np.sqrt(weights @ centres**2)


def _power_law(q: int, d: int, spectrum: float) -> np.ndarray:
    """Latent variances i^-a, scaled so that a column's variance is 1, with `a` such that `spectrum` d hold 90 %."""
    ranks = np.arange(1, q + 1)
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        variances = ranks**-middle * (1 - NOISE_SHARE) * d / (ranks**-middle).sum()
        held = (variances[: round(spectrum * d)].sum() + NOISE_SHARE * round(spectrum * d)) / d
        low, high = (middle, high) if held < 0.9 else (low, middle)
    return variances


def _write_blocks(path: Path, start: int, descriptor: Descriptor, n: int, seed: int, blocks: range) -> None:
    d = len(descriptor.scale)
    out, noise = np.empty((BLOCK, d), np.float32), np.empty((BLOCK, d), np.float32)
    with path.open("r+b") as file:
        for block in blocks:
            descriptor.block(Rows.draw(seed, block), seed, block, out, noise)
            file.seek(start + 4 * d * BLOCK * block)
            file.write(out[: n - BLOCK * block].data)
