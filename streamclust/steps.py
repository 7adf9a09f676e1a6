"""What each step costs: passes, bytes, disk, peak memory and arithmetic, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from streamclust.cluster.joint import thin
from streamclust.cluster.two_level import MANY
from streamclust.config import Settings
from streamclust.embedding import LEADING
from streamclust.planning import EM_BYTES, SCATTER_ROWS, WIDE, Shape, Step, chunk_rows, em_groups, mixture_bytes

# What the process of a run holds before each step: an interpreter, and the libraries that were loaded until then. Of
# the last, what drawing loads counts with what it holds.
PROCESS_BYTES = {
    "ingest": 130 * 10**6,
    "fit": 300 * 10**6,
    "algorithms": 420 * 10**6,
    "outliers": 450 * 10**6,
    "map": 470 * 10**6,
    "report": 410 * 10**6,
}
_ROW_BYTES = 1400  # scratch of tiled products and what is chosen from them, for each row of a block
UNPACK_BYTES = PROCESS_BYTES["ingest"] + 768 * 2**20  # this process and what a foreign format's reader may allocate
_SIGHT_BYTES = 68  # of a row and a vote: eight neighbours and their distances, and a cluster
# Arithmetic in units of `Rates`, from runs of 416,314 rows x 28 to 521 components and of 6,080 rows.
_EIGEN = 13  # multiply-adds of a decomposition by d cubed
_FIRST_WIDTH = 128  # of the basis that the components of a wide descriptor are sought in, each width in three reads
_TWO_PRODUCTS, _PER_VISIT = 2, 5  # of a row that meets a centre: distances and sums; comparisons
_RESTARTED, _PRODUCTS, _COMPARED = 5_000, 300, 10_000  # sample rows that restarts look at; of each that meets a centre
_FINE_SAMPLE, _FINE_LAPS = 40, 6  # sample rows for each fine centre at most, and how often they meet all of them
_PER_PAIR, _TREE = 3.5, 10  # comparisons of a row and a sampled one, and of two sampled ones in HDBSCAN's tree
_PER_CELL = 500  # comparisons of a cell of a contingency table, whose share of chance is summed
_TSNE, _DRAWING = 1.5e6, 1e3  # of a row in a map's fit, and of a pixel
_GRIDS = 2 * (2 * 2048**2 + 31 * 1024**2) * 4  # the count grids of one map, and what a day adds to them


def _block(shape: Shape) -> int:
    return chunk_rows(shape.n, shape.d * shape.itemsize) * shape.d * 4


def _reduced_block(shape: Shape) -> int:
    return chunk_rows(shape.n, 4 * shape.components) * shape.components * 4


def _at_work(shape: Shape, workers: int, each: int = 0) -> int:
    """What those workers hold that have a block of reduced rows: it, a copy, scratch and ``each`` bytes more."""
    rows = chunk_rows(shape.n, 4 * shape.components)
    return min(workers, -(-shape.n // rows)) * (rows * (8 * shape.components + _ROW_BYTES) + each)


def _busy(shape: Shape, workers: int) -> int:
    """How many workers have a block of stored rows."""
    return min(workers, -(-shape.n // chunk_rows(shape.n, shape.d * shape.itemsize)))


def _scatter(shape: Shape) -> int:
    return 0 if shape.d > WIDE else shape.d**2 * 8


def _taken(shape: Shape) -> bool:
    """Whether ingest takes a scatter of it."""
    return shape.d <= WIDE and shape.n >= SCATTER_ROWS * shape.d


def ingest(name: str, shape: Shape, workers: int) -> Step:
    """From the source into chunks, with moments and sample."""
    # A worker holds the block and zarr's encoded copy; where a scatter is taken, deviations, a float32 and a float64
    # d x d as well. One more state per worker waits to be merged, and a merge makes a copy.
    taken = _scatter(shape) if _taken(shape) else 0
    each = (3 if taken else 2) * _block(shape) + taken // 2 + 2 * taken
    peak = PROCESS_BYTES["ingest"] + _busy(shape, workers) * each + taken
    products = shape.n * taken / 8
    step = Step(
        "ingest", f"{name}: ingest", 1, shape.nbytes, shape.nbytes, peak, products, 4 * shape.n * shape.d, workers
    )
    if not shape.unpacked:
        return step
    # The reader of a foreign format is a process of its own, which ends before the first worker begins.
    read, written = 2 * shape.unpacked, shape.nbytes + shape.unpacked
    return replace(step, passes=2, bytes_read=read, bytes_written=written, peak_bytes=max(peak, UNPACK_BYTES))


def moments(name: str, shape: Shape, workers: int) -> Step:
    """As they are taken at ingest, of rows that are stored already."""
    return replace(ingest(name, shape, workers), command="fit", name=f"{name}: moments", bytes_written=0)


def fit(name: str, shape: Shape, settings: Settings) -> Step:
    """Scaler and PCA from moments, read again where no scatter was taken."""
    sample, p, d = min(shape.n, settings.ingest.sample_rows), shape.components, shape.d
    peak = PROCESS_BYTES["fit"] + 5 * _scatter(shape) + 8 * sample * (d + p) + 2 * _block(shape)
    passes, products = 0, _EIGEN * _scatter(shape) / 8 * d
    if d > WIDE:
        widths = [_FIRST_WIDTH << i for i in range(1 + max(0, (p - 1) // _FIRST_WIDTH).bit_length())]
        passes, products = 3 * len(widths), sum(6.0 * shape.n * d * min(d, width) for width in widths)
    elif not _taken(shape):
        passes, products = 1, products + shape.n * d**2
    read, written = sample * d * shape.itemsize + passes * shape.nbytes, 2 * _scatter(shape)
    return Step("fit", f"{name}: fit PCA", passes, read, written, peak, products)


def reduce(name: str, shape: Shape, workers: int, scalers: int = 1) -> Step:
    """The product with the components of each scaler's projection."""
    p = scalers * shape.components
    each = 3 * _block(shape) + 2 * scalers * _reduced_block(shape)
    peak = PROCESS_BYTES["fit"] + _busy(shape, workers) * each + workers * shape.d * p * 8
    written, products = shape.n * (p + 2 * scalers) * 4, shape.n * shape.d * p
    return Step("fit", f"{name}: reduce", 1, shape.nbytes, written, peak, products, 0, workers)


def cluster(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """Restarts, chains, passes and the fine clustering, with all labels."""
    p, s, sample = shape.components, settings.cluster, min(shape.n, settings.ingest.sample_rows)
    centers = (sum(s.ks) * s.seeds + 400) * p * 8
    passes = 1 + s.passes + 4
    peak = PROCESS_BYTES["fit"] + 6 * centers + sample * p * 8 + _at_work(shape, workers, 2 * centers)
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


def label(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """By centres as they are."""
    p = shape.components
    visits = shape.n * (max(settings.cluster.ks) + _fine(shape, settings))
    peak = PROCESS_BYTES["fit"] + _at_work(shape, workers)
    return Step("fit", f"{name}: label", 1, shape.n * p * 4, shape.n * 16, peak, visits * p, visits, workers)


def mixture(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """EM in shared reads."""
    p, s = shape.components, settings.algorithms
    ks = settings.cluster.ks if s.k == "own" else (max(settings.cluster.ks) if s.k == "kmeans" else s.k,)
    sizes = [mixture_bytes(k, p, s.covariance) for k in ks]
    state = max(*sizes, min(sum(sizes), EM_BYTES))
    passes = len(em_groups(ks, p, s.covariance)) * (s.em_passes + 2) + 2
    # A worker holds a state and adds to one; merged ones wait. The M-step holds sums, and covariances with factors: its
    # own, those that EM started at, those of the best so far.
    peak = PROCESS_BYTES["algorithms"] + 5 * state + 2 * max(sizes) + _at_work(shape, workers, 3 * state)
    visits = shape.n * sum(ks) * (s.em_passes + 2)
    costs = visits * p * (2 if s.covariance in {"diag", "spherical"} else 2 * p), _PER_VISIT * visits
    return Step("fit", f"{name}: mixture", passes, passes * shape.n * p * 4, shape.n * 8, peak, *costs, workers)


def agglomerative(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """Micro-clusters or all rows, merged."""
    p, leaves = shape.components, _leaves(shape, settings)
    sample = min(shape.n, settings.ingest.sample_rows) * p * 8
    # Heights of all pairs, or of more links than ward's graph has; each worker holds sums of every leaf, and one waits.
    held = 4 * leaves**2 + 8 * leaves * p * 8 + 2 * sample
    peak = PROCESS_BYTES["algorithms"] + held + _at_work(shape, workers, 4 * leaves * p * 8)
    visits = 6 * shape.n * leaves
    costs = visits * p, visits
    return Step("fit", f"{name}: agglomerative", 6, 6 * shape.n * p * 4, shape.n * 4, peak, *costs, workers)


def _leaves(shape: Shape, settings: Settings) -> int:
    """Of the tree: all rows or, where these are too many, micro-clusters."""
    every = shape.n <= settings.algorithms.merged_rows
    return min(shape.n, settings.algorithms.merged_rows if every else settings.algorithms.micro_clusters)


FURTHER: Mapping[str, Callable[[str, Shape, Settings, int], Step]] = {
    "mixture": mixture,
    "agglomerative": agglomerative,
}


def every_k(shapes: Mapping[str, Shape], settings: Settings, workers: int) -> Step:
    """All clusterings of all descriptors at every k, counted against each other in one read."""
    ks, also = {k: k for k in settings.cluster.ks}, settings.algorithms.also
    chosen = settings.cluster.k or max(ks)
    curves = {f"{d}/kmeans": ks for d in shapes} | {f"{d}/agglomerative": ks for d in shapes if "agglomerative" in also}
    curves |= {f"{d}/mixture": {chosen: chosen} for d in shapes if "mixture" in also}
    kept = thin(curves, dict.fromkeys(curves, chosen))
    labelings, clusters = sum(map(len, kept.values())), sum(map(sum, kept.values()))
    rows, joint = max(shape.n for shape in shapes.values()), 8 * clusters**2
    # A worker holds a state and adds one; merged ones wait. Each row has two small numbers for every labeling.
    each = 3 * joint + 4 * labelings * min(chunk_rows(shape.n, 4 * shape.components) for shape in shapes.values())
    peak = PROCESS_BYTES["algorithms"] + 2 * joint + max(_at_work(shape, workers, each) for shape in shapes.values())
    leaves = {d: _leaves(shape, settings) if "agglomerative" in also else 0 for d, shape in shapes.items()}
    met = {d: shape.n * (sum(kept.get(f"{d}/kmeans", ())) + leaves[d]) for d, shape in shapes.items()}
    products = sum(visits * shapes[d].components for d, visits in met.items())
    compared = sum(met.values()) + rows * labelings**2 / 2 + _PER_CELL * clusters**2 / 2
    read = sum(shape.n * shape.components * 4 for shape in shapes.values())
    return Step("fit", "compare every k", 1, read, joint, peak, products, compared, workers)


def outliers(name: str, shape: Shape, settings: Settings, workers: int, *, known: bool = False) -> Step:
    """``known``: by what was fitted before."""
    o, p = settings.outliers, shape.components
    rows = min(shape.n, o.noise_rows * o.noise_votes, settings.ingest.sample_rows)
    one = min(o.noise_rows, shape.n)
    # Each vote holds the distances within its subsample while HDBSCAN's tree is found; two copies live for a while.
    fitting = (2 + max(2, min(workers, o.noise_votes))) * one**2 * 4
    peak = PROCESS_BYTES["outliers"] + 5 * rows * p * 4 + max(fitting, _at_work(shape, workers))
    seen = shape.n * o.noise_votes * _SIGHT_BYTES  # left by the look at all rows for their verdicts
    compared = shape.n * (one * o.noise_votes + min(o.subsample_rows, shape.n) * o.subsamples)
    products = (compared + (0 if known else 3 * one**2 * o.noise_votes)) * p
    compared += 0 if known else _TREE * one**2 * o.noise_votes
    read, written = 2 * shape.n * p * 4 + seen, shape.n * 40 + seen
    return Step("outliers", f"{name}: outliers", 2, read, written, peak, products, _PER_PAIR * compared, workers)


def tsne(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """A map of some rows."""
    rows = min(shape.n, settings.map.rows)
    peak = PROCESS_BYTES["map"] + workers * rows * (shape.components * 8 + 100 * 24)
    return Step("map", f"{name}: fit t-SNE", 0, 0, 0, peak, 0, _TSNE * rows, workers)


def place(name: str, shape: Shape, settings: Settings, workers: int) -> Step:
    """The other rows onto it."""
    p, rows = shape.components, min(shape.n, settings.map.rows)
    held = rows * p * 8 + rows * 100 * 24
    peak = PROCESS_BYTES["map"] + held + _at_work(shape, workers)
    pairs = shape.n * rows
    costs = pairs * min(p, LEADING), _PER_PAIR * pairs
    return Step("map", f"{name}: place on the map", 1, shape.n * p * 4, shape.n * 8, peak, *costs, workers)


def count_grids() -> Step:
    """A day's rows onto the maps as they are."""
    return Step("report", "count grids", 0, 0, 0, PROCESS_BYTES["map"] + _GRIDS)


def draw(shapes: Sequence[Shape], settings: Settings, workers: int) -> Step:
    """Maps and report."""
    # Smoothing and shading a 2048 x 2048 grid takes ten float64 copies; every cluster has a layer of 1024 x 1024. About
    # half of what the passes before took stays in the process, and something of every map.
    held = 10 * 2048**2 * 8 + min(max(settings.cluster.ks), 30) * 1024**2 * 4 + 20 * settings.render.size**2
    kept = max(_at_work(shape, workers) for shape in shapes) // 2 + len(shapes) * 20 * 10**6
    pixels = _DRAWING * len(shapes) * settings.render.size**2
    return Step("report", "draw maps and report", 0, 0, 0, PROCESS_BYTES["report"] + kept + held, 0, pixels)
