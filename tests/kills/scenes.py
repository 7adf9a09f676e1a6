"""What a process is killed in: stores to begin with, and the work that goes on in them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from streamclust import pipeline, planning
from streamclust.blocks import Serial
from streamclust.daily import daily
from streamclust.ingest import ingest
from streamclust.job import Job
from streamclust.readers.case import open_case
from streamclust.repair import repair
from streamclust.reporting import day, days
from streamclust.stages import refit
from streamclust.store.compaction import compact
from streamclust.store.history import rollback
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.cases import job_on, matrices, small, spoil, write_case
from tests.faults import chunk_bytes, no_fsync

BLOCKS = 640  # bytes of a chunk of what is ingested: two of a batch
N, DAY = 64, "2026-01-02"
SETTINGS = small(
    cluster__k=3,
    cluster__fine_k=6,
    cluster__restarts=1,
    cluster__passes=2,
    outliers__subsamples=1,
    outliers__subsample_rows=50,
    outliers__noise_rows=50,
    outliers__noise_votes=1,
    map__rows=100,
    daily__settle=0,
    workers=1,
)


def _ingest(store: Path, place: Path) -> None:
    with chunk_bytes(BLOCKS):
        ingest(job_on(store, SETTINGS), open_case(place / "base"))


def _fit(store: Path, place: Path) -> None:
    pipeline.fit(job_on(store, SETTINGS))


def _score(store: Path, place: Path) -> None:
    job = job_on(store, SETTINGS)
    pipeline.score(job)
    pipeline.place(job)


def _predict(store: Path, place: Path) -> None:
    job = job_on(store, SETTINGS)
    with chunk_bytes(BLOCKS // 2):
        ingest(job, open_case(place / "drop" / DAY))
    pipeline.predict(job)


def page(job: Job, *_: object) -> Path:
    """In place of pictures and pages, which take most of a small day's time and are no part of a snapshot."""
    path = day.page_of(job, DAY)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a page")
    return path


def _daily(store: Path, place: Path) -> None:
    with mock.patch.object(day, "write_day", page), mock.patch.object(days, "write_days", page):
        daily(store, place / "drop", SETTINGS)


def _refit(store: Path, place: Path) -> None:
    """As the command does it: a proposal that nobody accepted yet waits; one that was is in force."""
    job = job_on(store, SETTINGS)
    if refit.propose(job, 1).changes:
        refit.accept(job)


def _rollback(store: Path, place: Path) -> None:
    opened = open_store(store)
    if "roll back" not in newest_operation(store):
        rollback(opened, 3)


def _compact(store: Path, place: Path) -> None:
    with mock.patch.object(planning, "SHARD_BYTES", BLOCKS), mock.patch.object(planning, "INNER_BYTES", BLOCKS // 4):
        compact(open_store(store), Serial())


def _repair(store: Path, place: Path) -> None:
    repair(store, SETTINGS)


def newest_operation(store: Path) -> str:
    """What the newest manifest did."""
    from streamclust.store import manifest

    return str(manifest.read(store / "log", manifest.newest_number(store / "log"))["operation"])


@dataclass(frozen=True)
class Scene:
    """``work`` on a copy of the store ``start``, or on none."""

    start: str
    work: Callable[[Path, Path], None]


SCENES = {
    "ingest": Scene("", _ingest),
    "fit": Scene("ingested", _fit),
    "score": Scene("clustered", _score),
    "predict": Scene("fitted", _predict),
    "daily": Scene("fitted", _daily),
    "refit": Scene("grown", _refit),
    "rollback": Scene("grown", _rollback),
    "compact": Scene("grown", _compact),
    "repair": Scene("damaged", _repair),
}


def prepare(place: Path, starts: Collection[str] = ("damaged",)) -> None:
    """The cases, and stores that scenes start with, up to the last of those asked for."""
    write_case(place / "base", {"a": spoil(matrices(1, N, {"a": 5})["a"], [3])})
    write_case(place / "drop" / DAY, matrices(2, N // 2, {"a": 5}))
    previous, made = "", {"ingested": _ingest, "clustered": _fit, "fitted": _score, "grown": _predict}
    with no_fsync():
        for name, work in made.items():
            if not set(starts) & {*list(made)[list(made).index(name) :], "damaged"}:
                return
            if previous:
                shutil.copytree(place / previous, place / name)
            work(place / name, place)
            open_store(place / name).sweep()
            previous = name
    if "damaged" in starts:
        shutil.copytree(place / "grown", place / "damaged")
        _damage(place / "damaged")


def _damage(store: Path) -> None:
    """Some metadata, a batch's moments, and labels whose model is whole."""
    opened, rng = open_store(store), random.Random(0)
    labels = [e for n, e in opened.snapshot.entries.items() if e.kind == "labels" and n.endswith(f"-{DAY}")]
    for path, file in [
        (opened.batches[0].entry.path, "moments/a/mean/c/0"),
        (opened.batches[0].entry.path, "descriptors/a/zarr.json"),
        (labels[0].path, "zarr.json"),
        (labels[-1].path, next(f"{name}/c" for name in labels[-1].arrays)),
    ]:
        where = store / "data" / path / file
        where = where if where.is_file() else next(p for p in sorted(where.rglob("*")) if p.is_file())
        data = bytearray(where.read_bytes())
        data[rng.randrange(len(data))] ^= 0x55
        where.write_bytes(data)


def damage_of(store: Path) -> set[Any]:
    """The files that are damaged."""
    from streamclust.blocks import Serial

    return {one.file for one in verify(store, Serial()).damage}
