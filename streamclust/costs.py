"""What a command will cost, before it starts: passes, bytes, disk, peak memory and arithmetic, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from streamclust.cluster.two_level import MANY
from streamclust.config import Settings
from streamclust.embedding import LEADING
from streamclust.errors import BudgetError
from streamclust.planning import (
    EM_BYTES,
    WIDE,
    Plan,
    Shape,
    Step,
    chunk_rows,
    em_groups,
    mixture_bytes,
)

COMMANDS = ("run", "ingest", "fit", "outliers", "map", "report", "daily")
PROCESS_BYTES = 400 * 10**6  # an interpreter with every library loaded and the allocator's slack
TILE_BYTES = 96 * 2**20  # scratch of a tiled GEMM and its selection, per worker, set generously
UNPACK_BYTES = PROCESS_BYTES + 768 * 2**20  # this process and what the one that reads a foreign format may allocate
_SIGHT_BYTES = 68  # of a row and a vote: eight neighbours and their distances, and a cluster
# Arithmetic in units of `Rates`, from runs of 416,314 rows x 28 to 521 components and of 6,080 rows.
_EIGEN = 13  # multiply-adds of a decomposition by d cubed
_TWO_PRODUCTS, _PER_VISIT = 2, 5  # of a row that meets a centre: distances and sums; comparisons
_RESTARTED, _PRODUCTS, _COMPARED = 5_000, 300, 10_000  # sample rows that restarts look at; of each that meets a centre
_FINE_SAMPLE, _FINE_LAPS = 40, 6  # sample rows for each fine centre at most, and how often they meet all of them
_PER_PAIR, _TREE = 3.5, 10  # comparisons of a row and a sampled one, and of two sampled ones in HDBSCAN's tree
_TSNE, _DRAWING = 1.5e6, 1e3  # of a row in a map's fit, and of a pixel
_GRIDS = 2 * (2 * 2048**2 + 31 * 1024**2) * 4  # the count grids of one map, and what a day adds to them


def plan(shapes: Mapping[str, Shape], settings: Settings, workers: int, command: str = "run") -> Plan:
    """The steps of a command over these descriptors and, where the settings have one, their mix."""
    steps = _steps_of_day if command == "daily" else _steps_of_run
    found = steps(shapes, settings, workers)
    return Plan(tuple(step for step in found if command in {"run", "daily", step.command}), workers)


def _steps_of_run(shapes: Mapping[str, Shape], settings: Settings, workers: int) -> list[Step]:
    steps = [_ingest(name, shape, workers) for name, shape in shapes.items()]
    for name, shape in _mixed(shapes, settings).items():
        steps += [
            *([] if name in shapes else [_moments(name, shape, workers)]),
            _fit(name, shape, settings),
            _reduce(name, shape, workers),
            _cluster(name, shape, settings, workers),
            *(_FURTHER[also](name, shape, settings, workers) for also in settings.algorithms.also),
            _outliers(name, shape, settings, workers),
            _tsne(name, shape, settings, workers),
            _place(name, shape, settings, workers),
        ]
    return [*steps, _draw(settings, len(shapes))]


def _steps_of_day(shapes: Mapping[str, Shape], settings: Settings, workers: int) -> list[Step]:
    """By models that were fitted before."""
    steps = [_ingest(name, shape, workers) for name, shape in shapes.items()]
    for name, shape in _mixed(shapes, settings).items():
        steps += [_reduce(name, shape, workers), _label(name, shape, settings, workers)]
        steps += [_outliers(name, shape, settings, workers, known=True), _place(name, shape, settings, workers)]
    return [*steps, Step("report", "count grids", 0, 0, 0, PROCESS_BYTES + _GRIDS)]


def _mixed(shapes: Mapping[str, Shape], settings: Settings) -> dict[str, Shape]:
    """With the mix, whose rows are what the others are reduced to; none where one of them is not here."""
    parts = [shapes[name] for name in settings.mix.of if name in shapes]
    if not parts or len(parts) < len(settings.mix.of):
        return dict(shapes)
    return {**shapes, "mix": Shape(max(part.n for part in parts), sum(part.components for part in parts))}


def within(shapes: Mapping[str, Shape], settings: Settings, workers: int, command: str = "run") -> Plan:
    """The plan for as many workers as ``settings.memory`` allows, at most ``workers``.

    Raises
    ------
    BudgetError : not even one worker fits; names the step and the bytes.
    """
    budget = settings.memory_bytes
    for count in range(workers, 0, -1):
        found = plan(shapes, settings, count, command)
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
    each = 3 * _block(shape) + _scatter(shape) // 2 + 2 * _scatter(shape)
    peak = PROCESS_BYTES + workers * each + _scatter(shape)
    products = shape.n * _scatter(shape) / 8
    step = Step(
        "ingest", f"{name}: ingest", 1, shape.nbytes, shape.nbytes, peak, products, 4 * shape.n * shape.d, workers
    )
    if not shape.unpacked:
        return step
    # The reader of a foreign format is a process of its own, which ends before the first worker begins.
    read, written = 2 * shape.unpacked, shape.nbytes + shape.unpacked
    return replace(step, passes=2, bytes_read=read, bytes_written=written, peak_bytes=max(peak, UNPACK_BYTES))


def _moments(name: str, shape: Shape, workers: int) -> Step:
    """As they are taken at ingest, of rows that are stored already."""
    return replace(_ingest(name, shape, workers), command="fit", name=f"{name}: moments", bytes_written=0)


def _fit(name: str, shape: Shape, settings: Settings) -> Step:
    sample = min(shape.n, settings.ingest.sample_rows)
    peak = PROCESS_BYTES + 5 * _scatter(shape) + sample * shape.components * 8 + 3 * _block(shape)
    read, written = sample * shape.d * shape.itemsize, 2 * _scatter(shape)
    return Step("fit", f"{name}: fit PCA", 0, read, written, peak, _EIGEN * _scatter(shape) / 8 * shape.d)


def _reduce(name: str, shape: Shape, workers: int) -> Step:
    p = shape.components
    peak = PROCESS_BYTES + workers * (3 * _block(shape) + 2 * _reduced_block(shape) + shape.d * p * 8)
    written, products = shape.n * (p + 2) * 4, shape.n * shape.d * p
    return Step("fit", f"{name}: reduce", 1, shape.nbytes, written, peak, products, 0, workers)


def _cluster(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, s, sample = shape.components, settings.cluster, min(shape.n, settings.ingest.sample_rows)
    centers = (sum(s.ks) * s.seeds + 400) * p * 8
    passes = 1 + s.passes + 4
    peak = PROCESS_BYTES + 6 * centers + sample * p * 8
    peak += workers * (2 * _reduced_block(shape) + TILE_BYTES + 2 * centers)
    coarse, fine = sum(s.ks), _fine(shape, settings)
    visits = (coarse * (s.passes + 2) + _fine_visits(fine, s.passes + 2)) * shape.n
    visits += fine * min(sample, _FINE_SAMPLE * fine) * _FINE_LAPS
    restarted = coarse * min(sample, _RESTARTED)
    costs = (_TWO_PRODUCTS * visits + _PRODUCTS * restarted) * p, _PER_VISIT * visits + _COMPARED * restarted
    return Step("fit", f"{name}: cluster", passes, passes * shape.n * p * 4, shape.n * 16, peak, *costs, workers)


def _fine(shape: Shape, settings: Settings) -> int:
    return settings.cluster.fine_k or max(1, min(400, shape.n // 50))


def _fine_visits(k: int, passes: int) -> float:
    """How many of the fine centres a row meets; of many but a few in most passes."""
    return k * passes if k < MANY else 4 * k + 10 * k**0.5 * max(0, passes - 4)


def _label(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """By centres as they are."""
    p = shape.components
    visits = shape.n * (max(settings.cluster.ks) + _fine(shape, settings))
    peak = PROCESS_BYTES + workers * (2 * _reduced_block(shape) + TILE_BYTES)
    return Step("fit", f"{name}: label", 1, shape.n * p * 4, shape.n * 16, peak, visits * p, visits, workers)


def _mixture(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, s = shape.components, settings.algorithms
    ks = settings.cluster.ks if s.k == "own" else (max(settings.cluster.ks) if s.k == "kmeans" else s.k,)
    sizes = [mixture_bytes(k, p, s.covariance) for k in ks]
    state = max(*sizes, min(sum(sizes), EM_BYTES))
    passes = len(em_groups(ks, p, s.covariance)) * (s.em_passes + 2) + 2
    # A worker holds a state and adds to one; merged ones wait. The M-step holds sums, and covariances with factors: its
    # own, those that EM started at, those of the best so far.
    peak = PROCESS_BYTES + 5 * state + 2 * max(sizes) + workers * (2 * _reduced_block(shape) + TILE_BYTES + 3 * state)
    visits = shape.n * sum(ks) * (s.em_passes + 2)
    costs = visits * p * (2 if s.covariance in {"diag", "spherical"} else 2 * p), _PER_VISIT * visits
    return Step("fit", f"{name}: mixture", passes, passes * shape.n * p * 4, shape.n * 8, peak, *costs, workers)


def _agglomerative(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, every = shape.components, shape.n <= settings.algorithms.merged_rows
    leaves = min(shape.n, settings.algorithms.merged_rows if every else settings.algorithms.micro_clusters)
    sample = min(shape.n, settings.ingest.sample_rows) * p * 8
    # Heights of all pairs, or of more links than ward's graph has; each worker holds sums of every leaf, and one waits.
    held = 4 * leaves**2 + 8 * leaves * p * 8 + 2 * sample
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES + 4 * leaves * p * 8)
    visits = 6 * shape.n * leaves
    costs = visits * p, visits
    return Step("fit", f"{name}: agglomerative", 6, 6 * shape.n * p * 4, shape.n * 4, peak, *costs, workers)


_FURTHER = {"mixture": _mixture, "agglomerative": _agglomerative}


def _outliers(name: str, shape: Shape, settings: Settings, workers: int, *, known: bool = False) -> Step:
    """``known``: by what was fitted before."""
    o, p = settings.outliers, shape.components
    rows = min(shape.n, o.noise_rows * o.noise_votes, settings.ingest.sample_rows)
    one = min(o.noise_rows, shape.n)
    # Each vote holds the distances within its subsample while HDBSCAN's tree is found.
    held = 5 * rows * p * 4 + max(2, min(workers, o.noise_votes)) * one**2 * 4
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES)
    seen = shape.n * o.noise_votes * _SIGHT_BYTES  # left by the look at all rows for their verdicts
    compared = shape.n * (one * o.noise_votes + min(o.subsample_rows, shape.n) * o.subsamples)
    products = (compared + (0 if known else 3 * one**2 * o.noise_votes)) * p
    compared += 0 if known else _TREE * one**2 * o.noise_votes
    read, written = 2 * shape.n * p * 4 + seen, shape.n * 40 + seen
    return Step("outliers", f"{name}: outliers", 2, read, written, peak, products, _PER_PAIR * compared, workers)


def _tsne(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    rows = min(shape.n, settings.map.rows)
    peak = PROCESS_BYTES + workers * rows * (shape.components * 8 + 100 * 24)
    return Step("map", f"{name}: fit t-SNE", 0, 0, 0, peak, 0, _TSNE * rows, workers)


def _place(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    p, rows = shape.components, min(shape.n, settings.map.rows)
    held = rows * p * 8 + rows * 100 * 24
    peak = PROCESS_BYTES + held + workers * (2 * _reduced_block(shape) + TILE_BYTES)
    pairs = shape.n * rows
    costs = pairs * min(p, LEADING), _PER_PAIR * pairs
    return Step("map", f"{name}: place on the map", 1, shape.n * p * 4, shape.n * 8, peak, *costs, workers)


def _draw(settings: Settings, maps: int) -> Step:
    # Smoothing and shading a 2048 x 2048 grid takes a dozen float64 copies; every cluster has a layer of 1024 x 1024,
    # counted five times so that the measured peaks lie below.
    held = 12 * 2048**2 * 8 + 5 * min(max(settings.cluster.ks), 30) * 1024**2 * 4
    peak = PROCESS_BYTES + held + 20 * settings.render.size**2
    return Step("report", "draw maps and report", 0, 0, 0, peak, 0, _DRAWING * maps * settings.render.size**2)
