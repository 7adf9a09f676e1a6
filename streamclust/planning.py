"""What a run will cost, before it starts: passes, bytes, disk and peak memory, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamclust.config import Settings
from streamclust.errors import BudgetError

CHUNK_BYTES = 48 * 2**20
LABEL_ROWS = 2**16
SHARD_BYTES, INNER_BYTES = 2**24, 2**16  # of a pack: a file, and a chunk in it, which is the least that is read of it
PROCESS_BYTES = 560 * 10**6  # an interpreter with every library loaded and the allocator's slack, generously
TILE_BYTES = 96 * 2**20  # scratch of a tiled GEMM and its selection, per worker, set generously
WIDE = 4096
EM_BYTES = 64 * 2**20  # of sums of mixtures in one read: with full covariances a read is little beside the arithmetic
UNPACK_BYTES = PROCESS_BYTES + 768 * 2**20  # this process and what the one that reads a foreign format may allocate
_SIGHT_BYTES = 68  # of a row and a vote: eight neighbours and their distances, and a cluster
_GRIDS = 2 * (2 * 2048**2 + 31 * 1024**2) * 4  # the count grids of one map, and what a day adds to them
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
class Step:
    """One step of a run: how often it reads what, what it writes, and its peak over all workers."""

    name: str
    passes: int
    bytes_read: int
    bytes_written: int
    peak_bytes: int


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


def plan(shapes: Mapping[str, Shape], settings: Settings, workers: int) -> Plan:
    """The steps of a whole run over these descriptors and, where the settings have one, their mix."""
    steps = [_ingest(name, shape, workers) for name, shape in shapes.items()]
    for name, shape in _mixed(shapes, settings).items():
        steps += [
            *([] if name in shapes else [_moments(name, shape, workers)]),
            _fit(name, shape, settings),
            _reduce(name, shape, workers),
            _cluster(name, shape, settings, workers),
            *(_FURTHER[also](name, shape, settings, workers) for also in settings.algorithms.also),
            _outliers(name, shape, settings, workers),
            _map(name, shape, settings, workers),
        ]
    return Plan((*steps, _draw(settings)), workers)


def plan_day(shapes: Mapping[str, Shape], settings: Settings, workers: int) -> Plan:
    """The steps of a day's work over these descriptors, by models that were fitted before."""
    steps = [_ingest(name, shape, workers) for name, shape in shapes.items()]
    for name, shape in _mixed(shapes, settings).items():
        steps += [_reduce(name, shape, workers)]
        steps += [_outliers(name, shape, settings, workers), _map(name, shape, settings, workers)]
    return Plan((*steps, Step("count grids", 0, 0, 0, PROCESS_BYTES + _GRIDS)), workers)


def _mixed(shapes: Mapping[str, Shape], settings: Settings) -> dict[str, Shape]:
    """With the mix, whose rows are what the others are reduced to; none where one of them is not here."""
    parts = [shapes[name] for name in settings.mix.of if name in shapes]
    if not parts or len(parts) < len(settings.mix.of):
        return dict(shapes)
    return {**shapes, "mix": Shape(max(part.n for part in parts), sum(part.components for part in parts))}


def within(
    shapes: Mapping[str, Shape],
    settings: Settings,
    workers: int,
    make: Callable[[Mapping[str, Shape], Settings, int], Plan] = plan,
) -> Plan:
    """The plan for as many workers as ``settings.memory`` allows, at most ``workers``.

    Raises
    ------
    BudgetError : not even one worker fits; names the step and the bytes.
    """
    budget = settings.memory_bytes
    for count in range(workers, 0, -1):
        found = make(shapes, settings, count)
        if budget is None or found.peak.peak_bytes <= budget:
            return found
    worst = found.peak
    raise BudgetError(
        f"--memory {settings.memory}",
        f"{worst.name} needs {worst.peak_bytes:,} bytes with one worker",
        f"at least {-(-worst.peak_bytes // 10**8) / 10:g}GB",
    )


def _block(shape: Shape) -> int:
    return chunk_rows(shape.n, shape.d * shape.itemsize) * shape.d * 4


def _reduced_block(shape: Shape) -> int:
    return chunk_rows(shape.n, 4 * shape.components) * shape.components * 4


def _scatter(shape: Shape) -> int:
    return 0 if shape.d > WIDE else shape.d**2 * 8


def _ingest(name: str, shape: Shape, workers: int) -> Step:
    # A worker holds the block, its deviations and zarr's encoded copy, a float32 and a float64 d x d; one more state
    # per worker waits to be merged, and a merge makes a copy.
    each = 4 * _block(shape) + _scatter(shape) // 2 + 2 * _scatter(shape)
    peak = PROCESS_BYTES + workers * each + _scatter(shape)
    if not shape.unpacked:
        return Step(f"{name}: ingest", 1, shape.nbytes, shape.nbytes, peak)
    # The reader of a foreign format is a process of its own, which ends before the first worker begins.
    return Step(f"{name}: ingest", 2, 2 * shape.unpacked, shape.nbytes + shape.unpacked, max(peak, UNPACK_BYTES))


def _moments(name: str, shape: Shape, workers: int) -> Step:
    """As they are taken at ingest, of rows that are stored already."""
    return replace(_ingest(name, shape, workers), name=f"{name}: moments", bytes_written=0)


def _fit(name: str, shape: Shape, settings: Settings) -> Step:
    sample = min(shape.n, settings.ingest.sample_rows)
    held = 5 * _scatter(shape) + sample * shape.components * 8 + 3 * _block(shape)
    return Step(f"{name}: fit PCA", 0, sample * shape.d * shape.itemsize, 2 * _scatter(shape), PROCESS_BYTES + held)


def _reduce(name: str, shape: Shape, workers: int) -> Step:
    each = 3 * _block(shape) + 2 * _reduced_block(shape) + shape.d * shape.components * 8
    written = shape.n * (shape.components + 2) * 4
    return Step(f"{name}: reduce", 1, shape.nbytes, written, PROCESS_BYTES + workers * each)


def _cluster(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p = shape.components
    centers = (sum(settings.cluster.ks) * settings.cluster.seeds + 400) * p * 8
    passes = 1 + settings.cluster.passes + 4
    held = 6 * centers + min(shape.n, settings.ingest.sample_rows) * p * 8
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES + 2 * centers)
    return Step(f"{name}: cluster", passes, passes * shape.n * p * 4, shape.n * 16, peak)


def em_groups(ks: Sequence[int], p: int, covariance: str) -> list[list[int]]:
    """Which numbers of components of p features are fitted in shared reads: in order, as many as EM_BYTES hold, or one.

    Results do not depend on it.
    """
    groups, room = list[list[int]](), 0
    for k in ks:
        size = _sums(k, p, covariance)
        if size > room:
            groups.append([])
            room = EM_BYTES
        groups[-1].append(k)
        room -= size
    return groups


def _sums(k: int, p: int, covariance: str) -> int:
    """Bytes of a mixture's sums; what is to be decided by the rows counts as full."""
    second = {"tied": p * p, "diag": k * p, "spherical": k}.get(covariance, k * p * p)
    return 8 * (second + 2 * k * p)


def _mixture(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, s = shape.components, settings.algorithms
    ks = settings.cluster.ks if s.k == "own" else (max(settings.cluster.ks) if s.k == "kmeans" else s.k,)
    sizes = [_sums(k, p, s.covariance) for k in ks]
    state = max(*sizes, min(sum(sizes), EM_BYTES))
    passes = len(em_groups(ks, p, s.covariance)) * (s.em_passes + 2) + 2
    # A worker holds a state and adds to one; merged ones wait. The M-step holds sums, and covariances with factors: its
    # own, those that EM started at, those of the best so far.
    peak = PROCESS_BYTES + 5 * state + 2 * max(sizes) + workers * (2 * _reduced_block(shape) + TILE_BYTES + 3 * state)
    return Step(f"{name}: mixture", passes, passes * shape.n * p * 4, shape.n * 8, peak)


def _agglomerative(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, every = shape.components, shape.n <= settings.algorithms.merged_rows
    leaves = min(shape.n, settings.algorithms.merged_rows if every else settings.algorithms.micro_clusters)
    sample = min(shape.n, settings.ingest.sample_rows) * p * 8
    # Heights of all pairs, or of more links than ward's graph has; each worker holds sums of every leaf, and one waits.
    held = 4 * leaves**2 + 8 * leaves * p * 8 + 2 * sample
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES + 4 * leaves * p * 8)
    return Step(f"{name}: agglomerative", 6, 6 * shape.n * p * 4, shape.n * 4, peak)


_FURTHER = {"mixture": _mixture, "agglomerative": _agglomerative}


def _outliers(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    o, p = settings.outliers, shape.components
    rows = min(shape.n, o.noise_rows * o.noise_votes, settings.ingest.sample_rows)
    # Each vote holds the distances within its subsample while HDBSCAN's tree is found.
    held = 5 * rows * p * 4 + max(2, min(workers, o.noise_votes)) * min(o.noise_rows, shape.n) ** 2 * 4
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES)
    seen = shape.n * o.noise_votes * _SIGHT_BYTES  # left by the look at all rows for their verdicts
    return Step(f"{name}: outliers", 4, 2 * shape.n * p * 4 + seen, shape.n * 40 + seen, peak)


def _map(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, rows = shape.components, min(shape.n, settings.map.rows)
    held = rows * p * 8 + rows * 100 * 24
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES)
    return Step(f"{name}: map", 1, shape.n * p * 4, shape.n * 8, peak)


def _draw(settings: Settings) -> Step:
    # Smoothing and shading a 2048 x 2048 grid takes a dozen float64 copies; every cluster has a layer of 1024 x 1024.
    held = 12 * 2048**2 * 8 + 3 * min(max(settings.cluster.ks), 30) * 1024**2 * 4
    return Step("draw maps and report", 0, 0, 0, PROCESS_BYTES + held + 20 * settings.render.size**2)
