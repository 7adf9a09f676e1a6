"""Sorted tile counts in chunks: their addresses, and how runs of them are merged, range of codes by range of codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import tiling
from streamclust.job import Job
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Store
from streamclust.tiling import STORED, Codes, Sparse

PART = 2**17  # keys in a chunk, more or less
_END = 4 ** (8 + tiling.DEPTH)
_NAMES = [f"{kind}{level}" for level in STORED for kind in ("keys", "counts")]


@dataclass(frozen=True)
class Chunk:
    """The address of sorted counts of one level; all codes lie in ``first .. last``; ``sign`` is how they count."""

    rows: Rows
    first: int
    last: int
    sign: int = 1

    def read(self, start: int = 0, stop: int = _END) -> Sparse:
        """The counts of codes ``start .. stop - 1``."""
        keys, counts = self.rows.read("keys"), self.rows.read("counts").astype(np.int64)
        low, high = np.searchsorted(keys, np.array([start, stop], np.uint64) << tiling.LAYER_BITS)
        return Sparse(keys[low:high], self.sign * counts[low:high])


@dataclass(frozen=True)
class Run:
    """Sorted counts of the finest level: their chunks, and the samples of each sorted stretch of them."""

    chunks: tuple[Chunk, ...]
    samples: tuple[Codes, ...]


def chunks(store: Store, sources: Sequence[tuple[str, int]], level: int) -> list[Chunk]:
    """The addresses of all counts of a stored level of some objects."""
    return [chunk for name, sign in sources for chunk in _chunks(store, name, level, sign)]


def _chunks(store: Store, name: str, level: int, sign: int) -> Iterator[Chunk]:
    size = store.snapshot.entries[name].arrays[f"keys{level}"].chunks[0]
    paths = {kind: store.array(name, f"{kind}{level}") for kind in ("keys", "counts")}
    parts = store.read(name, "parts")
    ends = np.append(parts[1:, 0], _END)
    shift = 2 * (tiling.DEPTH - level)
    for j, (part, end) in enumerate(zip(parts, ends, strict=True)):
        if entries := int(part[1 + STORED.index(level)]):
            where = Rows("", 0, j * size, j * size + entries, paths)
            yield Chunk(where, int(part[0]) >> shift, (int(end) - 1) >> shift, sign)


def stored_run(store: Store, name: str, sign: int) -> Run:
    """A published object as something to merge."""
    parts, flat = store.read(name, "parts"), store.read(name, "samples")
    ends = np.cumsum([tiling.sampled(int(entries)) for entries in parts[:, 1]])
    return Run(tuple(_chunks(store, name, tiling.DEPTH, sign)), tuple(np.split(flat, ends[:-1])))


def fill(out: Rows, part: Sparse, level: str) -> None:
    """Write one chunk of keys and counts, zeros behind them."""
    out.write(f"keys{level}", padded(part.keys, len(out)))
    out.write(f"counts{level}", padded(part.counts.astype(np.uint32), len(out)))


def padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Values with zeros behind them."""
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)])


@dataclass(frozen=True)
class Part:
    """What was written of one range of codes: entries by stored level, rows, samples of the keys."""

    entries: tuple[int, ...]
    rows: int
    samples: Codes


def write_part(address: tuple[Rows, Sequence[Chunk], int, int]) -> Part:
    """Sum the counts of a range of codes into one chunk of each stored level."""
    out, near, first, end = address
    if not out.written(*_NAMES):
        part = tiling.add([chunk.read(first, end) for chunk in near])
        for above, level in zip((STORED[0], *STORED), STORED, strict=False):
            part = tiling.coarser(part, above - level) if above > level else part
            fill(out, part, str(level))
    entries = tuple(int(np.count_nonzero(out.read(f"counts{level}"))) for level in STORED)
    keys, counts = out.read(_NAMES[0])[: entries[0]], out.read(_NAMES[1])
    return Part(entries, int(counts.sum(dtype=np.int64)), tiling.samples(keys))


def write_runs(job: Job, draft: Draft, runs: Sequence[Run]) -> list[Part]:
    """Merge runs into the arrays of a draft, whose chunks are ranges of codes, each written whole by one task."""
    firsts, most = tiling.cuts([samples for run in runs for samples in run.samples], PART)
    size = max(1, min(most, sum(len(chunk.rows) for run in runs for chunk in run.chunks)))
    shape = (len(firsts) * size,)
    paths = {f"keys{level}": draft.create(f"keys{level}", shape, np.uint64, size, compress=True) for level in STORED}
    paths |= {
        f"counts{level}": draft.create(f"counts{level}", shape, np.uint32, size, compress=True) for level in STORED
    }
    ends = np.append(firsts[1:], _END)
    addresses = []
    for j, (first, end) in enumerate(zip(firsts.tolist(), ends.tolist(), strict=True)):
        near = [chunk for run in runs for chunk in run.chunks if chunk.first < end and chunk.last >= first]
        addresses.append((Rows("", 0, j * size, (j + 1) * size, paths), near, first, end))
    found = job.executor.map(write_part, addresses)
    draft.write(
        "parts", np.array([[first, *part.entries] for first, part in zip(firsts, found, strict=True)], np.int64)
    )
    draft.write("samples", np.concatenate([part.samples for part in found]))
    return found
