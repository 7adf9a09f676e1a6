"""How much of known groups the algorithms find, beside scikit-learn's: `python -m tests.benchmarks.recovery`.

The sets are real and lie outside the repository (STREAMCLUST_DATA); what is absent is left out. Ours are the stages'
mathematics: restarts and exact passes, a mixture from there, and the tree of rows or, beside it, of micro-clusters.
"""

from __future__ import annotations

import csv
import warnings
from typing import TYPE_CHECKING

import numpy as np

from streamclust.cluster import kmeans, mixture, passes
from streamclust.cluster.assign import assign
from streamclust.cluster.hierarchy import agglomerate, cut
from streamclust.cluster.restarts import restarts
from streamclust.config import AlgorithmSettings
from streamclust.moments import from_block
from streamclust.preprocessing import fit_scaler, resolve
from tests.conftest import SHARED_DATA
from tests.real import vehicles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = AlgorithmSettings()
SEEDS, TREES = 10, 3  # of k-means and mixtures, and of trees that are compared
FACTORS = {"view": "view_or_model", "colour": "color_pred", "source": "source", "type": "type_pred"}


def ours(X: np.ndarray, k: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Labels (n,) by algorithm; Ward's, which no seed changes where rows are few, by the first alone."""
    Z = np.ascontiguousarray(X, np.float32)
    starts = dict(enumerate(restarts(Z, [k], seed=seed)[k]))
    found = kmeans.lloyd(lambda centers: passes.lloyd_block(Z, centers), starts, 100).values()
    centers = min(found, key=lambda result: result.inertia).centers
    label = assign(Z, centers)[0]
    labels = {"k-means": label, "mixture": _mixture(Z, label, centers)}
    return labels if seed else labels | {"ward": ward(Z, k, len(Z) <= SETTINGS.merged_rows)}


def ward(Z: np.ndarray, k: int, every: bool, seed: int = 0) -> np.ndarray:
    """Labels (n,) of a tree of every row, or of micro-clusters."""
    m, start = SETTINGS.micro_clusters, np.unique(Z, axis=0)
    if not every and len(start) > m:
        start = restarts(Z, [m], n_init=1, seed=seed)[m][0]
    found = kmeans.lloyd(lambda sets: passes.lloyd_block(Z, sets), {0: start}, 2)[0]
    tree = agglomerate(found.sums.means, found.counts, neighbors=None if every else 10)
    return cut(tree, k)[assign(Z, found.centers)[0]]


def scaled(X: np.ndarray) -> np.ndarray:
    """Rows under ``scaler = "auto"``."""
    moments = from_block(X, scatter=False)
    affine = fit_scaler(resolve("auto", moments), moments, X)
    return (X - affine.center) / affine.scale


def _mixture(Z: np.ndarray, label: np.ndarray, centers: np.ndarray) -> np.ndarray:
    kind = "full" if len(Z) >= 10 * centers.size else "diag"
    start = mixture.maximise(mixture.labelled_block(Z, label, centers, kind))
    found = mixture.em(lambda sets: {key: mixture.mixture_block(Z, each) for key, each in sets.items()}, {0: start})[0]
    return mixture.posterior(Z, found.mixture)[0]


def theirs(X: np.ndarray, k: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The same by scikit-learn, in memory."""
    from sklearn.cluster import AgglomerativeClustering, KMeans
    from sklearn.mixture import GaussianMixture

    kind = "full" if len(X) >= 10 * k * X.shape[1] else "diag"
    labels = {
        "k-means": KMeans(k, n_init=10, random_state=seed).fit_predict(X),
        "mixture": GaussianMixture(k, covariance_type=kind, random_state=seed).fit_predict(X),
    }
    return labels if seed else labels | {"ward": AgglomerativeClustering(k).fit_predict(X)}


def published(group: str, name: str, k: int) -> dict[str, np.ndarray]:
    """Partitions that came with a set."""
    results = SHARED_DATA / "gagolews" / "results"
    paths = {"k-means": results / "sklearn_kmeans", "ward": results / "fastcluster_ward"}
    found = {key: path / group / f"{name}.result{k}.gz" for key, path in paths.items()}
    return {key: np.loadtxt(path, dtype=int, skiprows=1) for key, path in found.items() if path.exists()}


def sets() -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Group, name, rows and reference labels (0 is noise) of each set."""
    for path in sorted((SHARED_DATA / "gagolews" / "data").glob("*/*.data.gz")):
        name, group = path.name.removesuffix(".data.gz"), path.parent.name
        yield group, name, np.loadtxt(path, ndmin=2), np.loadtxt(path.with_name(f"{name}.labels0.gz"), dtype=int)


def recovery() -> str:
    """Mean adjusted Rand index at the true k, by group of sets; of seeds the mean."""
    from sklearn.metrics import adjusted_rand_score

    scores: dict[str, dict[tuple[str, str], list[float]]] = {}
    for group, name, X, truth in sets():
        k, known, Z = int(truth.max()), truth > 0, scaled(X)
        found = [("published", published(group, name, k))]
        for seed in range(SEEDS):
            found += [("ours", ours(X, k, seed)), ("ours, scaler auto", ours(Z, k, seed))]
            found += [("scikit-learn", theirs(X, k, seed))]
        of_set: dict[tuple[str, str], list[float]] = {}
        for who, labels in found:
            for algorithm, label in labels.items():
                value = float(adjusted_rand_score(truth[known], label[known]))
                of_set.setdefault((algorithm, who), []).append(value)
        for where in (group, "all"):
            for key, values in of_set.items():
                scores.setdefault(where, {}).setdefault(key, []).append(float(np.mean(values)))
    columns = sorted({key for found in scores.values() for key in found})
    rows = [[where, *(f"{np.mean(found[key]):.3f}" for key in columns)] for where, found in scores.items()]
    return _markdown("mean adjusted Rand index at the true k", ["sets", *(f"{a}, {w}" for a, w in columns)], rows)


def of_vehicles() -> str:
    """Normalised mutual information with what is known of real vehicle pictures, by descriptor and algorithm."""
    from sklearn.metrics import normalized_mutual_info_score

    _, descriptors = vehicles()
    truth = _truth(SHARED_DATA / "vehicles" / "base" / "truth.csv")
    rows = []
    for descriptor, Z in descriptors.items():
        for algorithm, label in ours(Z, 20).items():
            values = [normalized_mutual_info_score(of[of != ""], label[of != ""]) for of in truth.values()]
            rows.append([descriptor, algorithm, *(f"{value:.3f}" for value in values)])
    return _markdown("6,080 vehicles, k = 20: normalised mutual information", ["descriptor", "algorithm", *truth], rows)


def agreement() -> str:
    """How far trees agree with scikit-learn's Ward: of rows, of micro-clusters, and its own of nine rows in ten."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import adjusted_rand_score

    def nine_in_ten(X: np.ndarray, k: int, exact: np.ndarray, seed: int) -> float:
        kept = np.random.default_rng(seed).random(len(X)) < 0.9
        return adjusted_rand_score(exact[kept], AgglomerativeClustering(k).fit_predict(X[kept]))

    rows = []
    for name, X, k in _large():
        Z, exact = np.ascontiguousarray(X, np.float32), AgglomerativeClustering(k).fit_predict(X)
        micro = [adjusted_rand_score(exact, ward(Z, k, every=False, seed=seed)) for seed in range(TREES)]
        fewer = [nine_in_ten(X, k, exact, seed) for seed in range(TREES)]
        every = adjusted_rand_score(exact, ward(Z, k, every=True))
        rows.append(
            [name, f"{len(X):,}", str(k), *(f"{value:.3f}" for value in (every, np.mean(micro), np.mean(fewer)))]
        )
    head = ["set", "rows", "k", "every row", f"{SETTINGS.micro_clusters:,} micro-clusters", "its own, of nine in ten"]
    return _markdown("adjusted Rand index with scikit-learn's Ward", head, rows)


def _large() -> Iterator[tuple[str, np.ndarray, int]]:
    """Sets of more rows than micro-clusters."""
    for _, name, X, truth in sets():
        if len(X) > SETTINGS.micro_clusters:
            yield name, X, int(truth.max())
    for descriptor, Z in vehicles()[1].items():
        yield f"vehicles, {descriptor}", Z, 20


def _truth(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {name: np.array([row[column] for row in rows]) for name, column in FACTORS.items()}
    found["view"][~np.char.startswith(found["view"], "GTI")] = ""  # elsewhere that column names a model
    return found


def _markdown(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    warnings.simplefilter("ignore")  # peers' warnings of convergence
    if (SHARED_DATA / "gagolews").is_dir():
        print(recovery(), end="\n\n", flush=True)
    if (SHARED_DATA / "vehicles").is_dir():
        print(of_vehicles(), end="\n\n", flush=True)
        print(agreement(), flush=True)


if __name__ == "__main__":
    main()
