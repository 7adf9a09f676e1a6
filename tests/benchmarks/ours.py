"""Our own mathematics on the peers' tasks, as bare functions on streamed blocks.

`python -m tests.benchmarks.ours TASK DATA OPTIONS` runs one and prints a line as the peers do.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from streamclust.cluster import kmeans
from streamclust.cluster import passes as lloyd
from streamclust.cluster.restarts import restarts, rows_at_hand
from streamclust.config import load_settings
from streamclust.decomposition import fit_pca
from streamclust.moments import accumulate, identity
from streamclust.pipeline import fit, ingest_case, run
from streamclust.preprocessing import fit_scaler
from streamclust.streaming.kmeans import StreamingKMeans
from tests.benchmarks.peers import BATCH, WARM, Streamed, held_variance, inertia, load, main
from tests.benchmarks.tables import THREADS


def pca(data: Path, d: float, p: float) -> dict[str, Any]:
    """Moments in one read, then one eigendecomposition; p >= 1 is a number of components, below that a share."""
    begin = time.perf_counter()
    X = Streamed(data, int(d))
    moments = identity(int(d), scatter=True)
    for i in range(0, len(X), BATCH // 2):
        moments = accumulate(moments, X[i : i + BATCH // 2])
    affine = fit_scaler("standard", moments, np.empty((0, int(d)), np.float32))
    found = fit_pca(moments, affine, int(p) if p >= 1 else p)
    seconds = time.perf_counter() - begin
    del moments
    quality = {"p": len(found.components), "variance": held_variance(X, found.components)}
    return {"seconds": seconds, "quality": quality}


def clusters(data: Path, d: float, k: float, passes: float) -> dict[str, Any]:
    """Restarts on a sample, then at most `passes` Lloyd passes from the best of them, each of which reads the file."""
    X, k = Streamed(data, int(d)), int(k)
    StreamingKMeans(2).fit(X[:WARM])
    begin = time.perf_counter()
    rows = np.sort(np.random.default_rng(0).choice(len(X), min(len(X), rows_at_hand(k)), replace=False))
    blocks = [slice(i, i + BATCH) for i in range(0, len(X), BATCH)]
    sample = np.concatenate([X[s][rows[(rows >= s.start) & (rows < s.stop)] - s.start] for s in blocks])
    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        start = {0: restarts(sample, [k], keep=1, n_jobs=THREADS)[k][0]}

        def merge(a: dict[int, lloyd.LloydState], b: dict[int, lloyd.LloydState]) -> dict[int, lloyd.LloydState]:
            return {i: lloyd.merge(a[i], b[i]) for i in a}

        def fold(centers: dict[int, Any]) -> dict[int, lloyd.LloydState]:
            return reduce(merge, pool.map(lambda s: lloyd.lloyd_block(X[s], centers), blocks))

        found = kmeans.lloyd(fold, start, int(passes), descending=False)[0]
    seconds = time.perf_counter() - begin
    quality = {"inertia": inertia(X, found.centers), "k": len(found.centers), "reads": found.n_iter}
    return {"seconds": seconds, "quality": quality}


def estimator(data: Path, k: float, passes: float) -> dict[str, Any]:
    """What a user of `StreamingKMeans` waits for, the rows in memory as the peers have them; with all labels."""
    X = load(data)
    StreamingKMeans(2).fit(X[:WARM])
    begin = time.perf_counter()
    found = StreamingKMeans(int(k), max_iter=int(passes), random_state=0).fit(X)
    seconds = time.perf_counter() - begin
    quality = {"inertia": inertia(X, found.cluster_centers_), "k": len(found.cluster_centers_), "reads": found.n_iter_}
    return {"seconds": seconds, "quality": quality}


def route(data: Path) -> dict[str, Any]:
    """The pipeline from a case to scored clusterings: ingest, scale, PCA, k = 2 to 20 and a fine one, labels stored."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        job, _ = ingest_case(Path(folder) / "bench.store", data)
        models = fit(job)
        seconds = time.perf_counter() - begin
        about = {name: job.store.snapshot.entries[model].attributes for name, model in models.items()}
    return {"seconds": seconds, "quality": {name: {"k": found["k"]} for name, found in about.items()}}


def from_store(data: Path, k_max: float) -> dict[str, Any]:
    """A stored case to scored clusterings of k = 2 to `k_max` and a fine one; ingest is not counted."""
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        begin = time.perf_counter()
        settings = load_settings(overrides={"cluster.k_max": int(k_max)})
        job, _ = ingest_case(Path(folder) / "bench.store", data, settings)
        stored = time.perf_counter()
        fit(job)
        seconds = time.perf_counter() - stored
    return {"seconds": seconds, "quality": {"ingest": round(stored - begin, 1)}}


def everything(data: Path) -> dict[str, Any]:
    """The whole job of a case within 2 GB, with maps, outliers and the report."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        result = run(Path(folder) / "bench.store", data, load_settings(overrides={"memory": "2GB"}))
        seconds = time.perf_counter() - begin
        stages = {stage.name: round(stage.seconds, 1) for stage in result.journal.stages}
    return {"seconds": seconds, "quality": stages}


if __name__ == "__main__":
    tasks = {"pca": pca, "kmeans": clusters, "estimator": estimator, "route": route, "store": from_store}
    main(tasks | {"reference": everything}, *sys.argv[1:])
