"""A small store with everything in it that may hold traces of a row; copied where it is changed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from streamclust import pipeline
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.reporting.album import Album
from streamclust.stages import grids
from tests.cases import job_on, matrices, small, write_case
from tests.faults import no_fsync

DAYS = ("2026-01-01", "2026-01-02")
ROWS = 90
LONELY = 17  # of the first day: so strange that it is a cluster of its own


def columns(day: str) -> dict[str, list[str]]:
    return {
        "camera": [f"cam-{day}-{i:03d}" for i in range(ROWS)],
        "time": [f"{day}T{i // 4:02d}:00" for i in range(ROWS)],
    }


def day_case(folder, seed: int, name: str):
    of = matrices(seed, ROWS, {"a": 9, "b": 6})
    if name == DAYS[0]:
        for X in of.values():
            X[LONELY] = 60 + np.arange(X.shape[1])
    return write_case(folder / name, of, columns(name), pictures="zip")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Two days fitted by every algorithm, scored, placed, counted, with kept thumbnails and a report's folder."""
    root = tmp_path_factory.mktemp("whole")
    job = job_on(root / "s", small(algorithms__also=["mixture", "agglomerative"], algorithms__consensus=True))
    with no_fsync():
        for seed, day in enumerate(DAYS):
            ingest(job, open_case(day_case(root / "cases", seed, day)))
        for stage in (pipeline.fit, pipeline.score, pipeline.place):
            stage(job)
        newest = job.store.snapshot.newest
        for d in ("a", "b"):
            grids.grids(job, *(str(newest("model", role)) for role in (f"{d}/map", f"{d}/kmeans", "outliers")))
        album = Album(job.store, 32, 1)
        album.fetch((batch.name, row) for batch in job.store.batches for row in range(0, ROWS, 5))
        album.keep()
        job.store.sweep()
    (job.store.path / "report").mkdir()
    (job.store.path / "report" / "index.html").write_text("<p>pictures/00005.jpg</p>")
    return job.store.path


@pytest.fixture
def copied(made, tmp_path):
    """A copy to change."""
    shutil.copytree(made, tmp_path / "s")
    return tmp_path / "s"
