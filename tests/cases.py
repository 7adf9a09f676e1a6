"""Random cases as they arrive: pickled descriptors with clusters, paths with metadata, tiny pictures."""

from __future__ import annotations

import csv
import io
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from streamclust import pipeline
from streamclust.blocks import Executor, Serial
from streamclust.config import Settings, load_settings
from streamclust.ingest import ingest
from streamclust.job import Job
from streamclust.journal import Journal
from streamclust.readers.case import open_case
from streamclust.store.store import create

# Everything small: seconds instead of minutes, every stage still runs.
SMALL: dict[str, Any] = {
    "ingest.sample_rows": 600,
    "cluster.k_min": 2,
    "cluster.k_max": 4,
    "cluster.fine_k": 12,
    "cluster.seeds": 1,
    "cluster.restarts": 1,
    "cluster.passes": 4,
    "cluster.halves": 0,
    "outliers.subsamples": 3,
    "outliers.subsample_rows": 100,
    "outliers.noise_rows": 100,
    "outliers.noise_votes": 2,
    "outliers.budget": 0.02,
    "outliers.shown": 6,
    "map.rows": 150,
    "map.perplexity": 8.0,
    "render.thumbnail": 32,
}


def small(**overrides: Any) -> Settings:
    """Settings for a quick run; ``cluster__k=3`` sets ``cluster.k``."""
    return load_settings(None, SMALL | {key.replace("__", "."): value for key, value in overrides.items()})


def small_toml(folder: Path, **overrides: Any) -> Path:
    """The same as a settings file."""
    settings = small(**overrides).model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for section, values in settings.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path = folder / "small.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def job_on(store: Path, settings: Settings | None = None, executor: Executor | None = None) -> Job:
    """A job on a store, which is made if need be."""
    return Job(create(store), settings or small(), executor or Serial(), Journal())


def work(store: Path, case: Path, settings: Settings | None = None, executor: Executor | None = None) -> Job:
    """Everything of a run but the drawing, which takes most of a small run's time."""
    job = job_on(store, settings, executor)
    ingest(job, open_case(case))
    pipeline.fit(job)
    pipeline.score(job)
    pipeline.place(job)
    return job


def clustered(seed: int, n: int, d: int, k: int = 4, which: np.ndarray | None = None) -> np.ndarray:
    """(n, d) float32 rows in k correlated clusters; ``which`` (n,) says in which, by default at random."""
    rng = np.random.default_rng(seed)
    centers = 6 * rng.normal(size=(k, d))
    which = rng.integers(0, k, n) if which is None else which % k
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    return (centers[which] + rng.normal(size=(n, d)) @ mixing).astype(np.float32)


def matrices(seed: int, n: int, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Descriptors of the same images: each sees the same clusters in its own space."""
    which = np.random.default_rng(seed).integers(0, 4, n)
    return {name: clustered(seed + 10 * (i + 1), n, d, which=which) for i, (name, d) in enumerate(dims.items())}


def spoil(X: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """The same with a NaN or an infinity in those rows."""
    X = X.copy()
    for i, row in enumerate(rows):
        X[row, i % X.shape[1]] = (np.nan, np.inf, -np.inf)[i % 3]
    return X


def write_case(
    folder: Path,
    descriptors: Mapping[str, np.ndarray],
    columns: Mapping[str, Sequence[Any]] | None = None,
    pictures: str | None = None,
    broken: Sequence[int] = (),
) -> Path:
    """A case folder; ``pictures`` is ``zip``, ``loose`` or ``None``; those of the rows ``broken`` are none."""
    (folder / "descriptors").mkdir(parents=True)
    for name, X in descriptors.items():
        (folder / "descriptors" / f"{name}.pickle").write_bytes(pickle.dumps(X, protocol=4))
    n = len(next(iter(descriptors.values())))
    paths = [f"pictures/{i:05d}.jpg" for i in range(n)]
    table = {"path": paths} | dict(columns or {})
    with (folder / "images_paths.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    if pictures:
        files = {path: b"not a picture" if i in broken else jpeg(i) for i, path in enumerate(paths)}
        _write_pictures(folder / "row_data", files, pictures)
    return folder


def metadata(n: int) -> dict[str, list[Any]]:
    """A camera and a time for each row."""
    return {
        "camera": [f"cam{i % 3}" for i in range(n)],
        "time": [f"2026-01-02 {i // 60 % 24:02d}:{i % 60:02d}" for i in range(n)],
    }


def jpeg(i: int) -> bytes:
    """A tiny picture."""
    out = io.BytesIO()
    Image.new("RGB", (12, 9), (i % 256, i // 256 % 256, 90)).save(out, "JPEG")
    return out.getvalue()


def _write_pictures(folder: Path, files: Mapping[str, bytes], kind: str) -> None:
    folder.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
    else:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
