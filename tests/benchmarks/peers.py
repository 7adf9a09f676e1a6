"""What the field's own tools take for the same work, each in a process of its own.

`python -m tests.benchmarks.peers TASK PEER DATA` runs one and prints a JSON line, {"seconds", "quality"} or {"error"}:
seconds of the work alone, without imports and loading. Any command that prints such a line can stand in the same
table; one that prints none is timed as a whole.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.generator import pickle_envelope
from tests.benchmarks.tables import THREADS, Result, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BATCH = 8192  # rows; the cap on IncrementalPCA's batch of 5 d
WARM = 1000  # rows that k-means is run on first, for its imports and compiled loops


def run_peer(task: str, peer: str, data: Path, timeout: float | None = None, **options: float) -> Result:
    """Run one of TASKS[task] on the pickled array `data`."""
    extra = [f"{key}={value}" for key, value in options.items()]
    return run_command([sys.executable, "-m", "tests.benchmarks.peers", task, peer, str(data), *extra], timeout)


def load(data: Path) -> np.ndarray:
    with Path(data).open("rb") as file:
        return pickle.load(file)


class Streamed:
    """The float32 rows of a pickle that the generator wrote, read slice by slice."""

    def __init__(self, data: Path, d: int) -> None:
        # What stands around the bytes is far shorter than a row's, and its end is the same few opcodes for any shape.
        self.data, tail = Path(data), len(pickle_envelope((1, d))[1])
        n = self.data.stat().st_size // (4 * d)
        head = len(pickle_envelope((n, d))[0])
        if head + tail + 4 * n * d != self.data.stat().st_size:
            raise ValueError(f"{data}: not a pickle of {d} float32 columns as the generator writes it")
        self.start, self.shape = head, (n, d)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        d = self.shape[1]
        return np.fromfile(self.data, np.float32, (stop - start) * d, offset=self.start + 4 * d * start).reshape(-1, d)


# PCA of standardised columns. Quality: the share of the variance that the components hold, counted over all rows.


def pca_incremental(data: Path, p: float) -> dict[str, Any]:
    from sklearn.decomposition import IncrementalPCA
    from sklearn.preprocessing import StandardScaler

    X = load(data)
    rows, begin = min(5 * X.shape[1], BATCH), time.perf_counter()
    scaler, pca = StandardScaler(), IncrementalPCA(int(p))
    starts = range(0, len(X) - int(p), rows)
    for i in starts:
        scaler.partial_fit(X[i : i + rows])
    for i in starts:
        end = i + rows if i != starts[-1] else len(X)  # a batch of fewer rows than components is refused
        pca.partial_fit(scaler.transform(X[i:end]))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "quality": {"p": int(p), "variance": held_variance(X, pca.components_)}}


def pca_covariance(data: Path, p: float) -> dict[str, Any]:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    X = load(data)
    begin = time.perf_counter()
    Z = StandardScaler().fit_transform(X)
    pca = PCA(int(p) if p >= 1 else p, svd_solver="covariance_eigh").fit(Z)
    seconds = time.perf_counter() - begin
    del Z
    quality = {"p": int(pca.n_components_), "variance": held_variance(X, pca.components_)}
    return {"seconds": seconds, "quality": quality}


def held_variance(X: np.ndarray | Streamed, components: np.ndarray) -> float:
    """The share of the standardised columns' variance within the span of `components` (p, d)."""
    blocks = [slice(i, i + 1024) for i in range(0, len(X), 1024)]
    mean = sum(X[b].sum(0, dtype=float) for b in blocks) / len(X)
    deviation = np.sqrt(sum(((X[b] - mean) ** 2).sum(0) for b in blocks) / len(X))
    deviation[deviation == 0] = 1
    basis = np.linalg.qr(np.asarray(components, float).T)[0].astype(np.float32)
    total = held = 0.0
    for b in blocks:
        Z = ((X[b] - mean) / deviation).astype(np.float32)
        total += np.square(Z, dtype=float).sum()
        held += np.square(Z @ basis, dtype=float).sum()
    return held / total


# k-means. Quality: inertia over all rows, by one function for all.


def inertia(X: np.ndarray | Streamed, centres: np.ndarray) -> float:
    """Sum of squared distances to the nearest centre, in float64 and without cancellation."""
    middle = centres.mean(0, dtype=float)
    C, total = centres - middle, 0.0
    half = (C**2).sum(1) / 2
    for i in range(0, len(X), BATCH):
        Z = X[i : i + BATCH] - middle
        total += ((Z - C[(half - Z @ C.T).argmin(1)]) ** 2).sum()
    return float(total)


def _kmeans(fit: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Path, float], dict[str, Any]]:
    def peer(data: Path, k: float) -> dict[str, Any]:
        X = load(data)
        fit(X[:WARM], 2)
        begin = time.perf_counter()
        centres = np.asarray(fit(X, int(k)))
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "quality": {"inertia": inertia(X, centres), "k": len(centres)}}

    return peer


def _sklearn(X: np.ndarray, k: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=10 if k < 100 else 1, random_state=0).fit(X).cluster_centers_


def _minibatch(X: np.ndarray, k: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(k, batch_size=4096, n_init=3, random_state=0).fit(X).cluster_centers_


def _dask_ml(X: np.ndarray, k: int) -> np.ndarray:
    import dask
    import dask.array as da
    from dask_ml.cluster import KMeans

    with dask.config.set(scheduler="threads", num_workers=THREADS):
        return KMeans(k, random_state=0).fit(da.from_array(X, chunks=(len(X) // 8, -1))).cluster_centers_


def _faiss(X: np.ndarray, k: int, **options: int) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    model = faiss.Kmeans(X.shape[1], k, niter=25, seed=0, **options)
    model.train(X)
    return model.centroids


def _super(X: np.ndarray, k: int, **options: Any) -> np.ndarray:
    from superkmeans import SuperKMeans

    return SuperKMeans(k, X.shape[1], n_threads=THREADS, seed=0, **options).train(X)


def _super_all(X: np.ndarray, k: int) -> np.ndarray:
    return _super(X, k, hierarchical=False, iters=25, sampling_fraction=1.0)


# All of it in memory, as a notebook would: load, scale, PCA(0.9), MiniBatchKMeans for k = 2 to k_max, both scores.


def route(data: Path, k_max: float = 20) -> dict[str, Any]:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score
    from sklearn.preprocessing import StandardScaler

    begin = time.perf_counter()
    R = PCA(0.9, svd_solver="covariance_eigh").fit_transform(StandardScaler().fit_transform(load(data)))
    scores = {}
    for k in range(2, int(k_max) + 1):
        labels = MiniBatchKMeans(k, batch_size=4096, n_init=3, random_state=0).fit_predict(R)
        scores[k] = calinski_harabasz_score(R, labels), davies_bouldin_score(R, labels)
    quality = {"p": R.shape[1], "k_by_ch": max(scores, key=lambda k: scores[k][0]), "CH(10)": scores[10][0]}
    quality |= {"k_by_db": min(scores, key=lambda k: scores[k][1]), "DB(10)": scores[10][1]}
    return {"seconds": time.perf_counter() - begin, "quality": quality}


TASKS: dict[str, dict[str, Callable[..., dict[str, Any]]]] = {
    "pca": {"sklearn IncrementalPCA": pca_incremental, "sklearn PCA(covariance_eigh)": pca_covariance},
    "kmeans": {
        "sklearn KMeans": _kmeans(_sklearn),
        "sklearn MiniBatchKMeans": _kmeans(_minibatch),
        "dask-ml KMeans": _kmeans(_dask_ml),
        "faiss, its own sample": _kmeans(_faiss),
        "faiss, all rows": _kmeans(lambda X, k: _faiss(X, k, max_points_per_centroid=len(X))),
        "superkmeans, as it comes": _kmeans(_super),
        "superkmeans, all rows": _kmeans(_super_all),
    },
    "route": {"sklearn in memory": route},
    "store": {"sklearn in memory": route},
}


def main(peers: Mapping[str, Callable[..., dict[str, Any]]], peer: str, data: str, *options: str) -> None:
    """Run one peer here and print its JSON line; its failure is a result too."""
    arguments = {key: float(value) for key, value in (option.split("=") for option in options)}
    try:
        said = peers[peer](Path(data), **arguments)
    except Exception as error:  # noqa: BLE001  # whatever another library raises goes into the table
        said = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print(json.dumps(said))


if __name__ == "__main__":
    main(TASKS[sys.argv[1]], *sys.argv[2:])
