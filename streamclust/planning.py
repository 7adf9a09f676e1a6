"""What a plan is made of: shapes of descriptors, steps with their bytes and their arithmetic, and a machine's rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHUNK_BYTES = 48 * 2**20
LABEL_ROWS = 2**16
SHARD_BYTES, INNER_BYTES = 2**24, 2**16  # of a pack: a file, and a chunk in it, which is the least that is read of it
WIDE = 4096
SCATTER_ROWS = 4  # for each feature, of a batch whose scatter is stored: of fewer it would outweigh the rows
EM_BYTES = 64 * 2**20  # of sums of mixtures in one read: with full covariances a read is little beside the arithmetic
KEPT = 0.3  # components for 90 % of the variance as a share of d, where nothing is fitted yet


@dataclass(frozen=True)
class Shape:
    """One descriptor: n rows of d numbers of ``itemsize`` bytes; p components if already known.

    unpacked : bytes that it has to be unpacked into before it can be read.
    """

    n: int
    d: int
    itemsize: int = 4
    p: int | None = None
    unpacked: int = 0

    @property
    def components(self) -> int:
        """Known or guessed number of components."""
        return self.p or max(1, min(self.n, int(KEPT * self.d) + 1))

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.n * self.d * self.itemsize


@dataclass(frozen=True)
class Rates:
    """What one worker does in a second, in multiply-adds of a product and in comparisons, and bytes read by all."""

    products: float
    compared: float
    read: float


@dataclass(frozen=True)
class Step:
    """One step of a command: how often it reads what, what it writes, and its peak over all workers.

    products, compared : multiply-adds and comparisons of all workers, by which its time is estimated.
    workers : how many share them.
    """

    command: str
    name: str
    passes: int
    bytes_read: int
    bytes_written: int
    peak_bytes: int
    products: float = 0.0
    compared: float = 0.0
    workers: int = 1

    def seconds(self, rates: Rates) -> float:
        """About how long it takes where arithmetic and reading take turns."""
        arithmetic = self.products / rates.products + self.compared / rates.compared
        return arithmetic / self.workers + (self.bytes_read + self.bytes_written) / rates.read


@dataclass(frozen=True)
class Plan:
    """All steps, and the number of workers they are planned for."""

    steps: tuple[Step, ...]
    workers: int

    @property
    def peak(self) -> Step:
        """The step that needs the most memory."""
        return max(self.steps, key=lambda step: step.peak_bytes)

    @property
    def disk_bytes(self) -> int:
        """What the store grows by, with what is unpacked for the time of the ingest."""
        return sum(step.bytes_written for step in self.steps)

    def seconds(self, rates: Rates) -> float:
        """About how long all of it takes."""
        return sum(step.seconds(rates) for step in self.steps)


def chunk_rows(n: int, row_bytes: int) -> int:
    """Rows in a chunk: the largest power of two within 48 MiB and 65,536 rows, or ``n`` if that is fewer.

    It depends on the stored data alone, and grids of different arrays nest.
    """
    most = max(1, CHUNK_BYTES // max(1, row_bytes))
    return max(1, min(n, LABEL_ROWS, 1 << (most.bit_length() - 1)))


def shard_rows(n: int, row_bytes: int) -> tuple[int, int]:
    """Rows in a file of an array that small ones are merged into, and in each chunk of such a file: powers of two.

    An array of ``n`` rows that fits one file has a file of that many whole chunks.
    """
    file, inner = (max(1, size // max(1, row_bytes)).bit_length() - 1 for size in (SHARD_BYTES, INNER_BYTES))
    inner = 1 << min(file, inner)
    return min(1 << file, max(1, -(-n // inner)) * inner), inner


def em_groups(ks: Sequence[int], p: int, covariance: str) -> list[list[int]]:
    """Which numbers of components of p features are fitted in shared reads: in order, as many as EM_BYTES hold, or one.

    Results do not depend on it.
    """
    groups, room = list[list[int]](), 0
    for k in ks:
        size = mixture_bytes(k, p, covariance)
        if size > room:
            groups.append([])
            room = EM_BYTES
        groups[-1].append(k)
        room -= size
    return groups


def mixture_bytes(k: int, p: int, covariance: str) -> int:
    """Bytes of a mixture's sums; what is to be decided by the rows counts as full."""
    second = {"tied": p * p, "diag": k * p, "spherical": k}.get(covariance, k * p * p)
    return 8 * (second + 2 * k * p)
