"""One day's page: what a batch brought, read from its own rows and from small entries only."""

from __future__ import annotations

import datetime as dt
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamclust import __version__
from streamclust.detector import FEW_DAYS, LEAST_ROWS
from streamclust.drift import Alarm, place
from streamclust.job import Job
from streamclust.planning import LABEL_ROWS
from streamclust.render import day as page
from streamclust.render import day_data as dd
from streamclust.render.parts import Outlier
from streamclust.reporting.album import Album
from streamclust.reporting.collect import clusterings
from streamclust.reporting.day_clusters import clusters_of, describe_day
from streamclust.reporting.watched import alarms_of, early, entry_of, figures_of
from streamclust.stages.labels import labels_name
from streamclust.stages.observe import camera_column
from streamclust.stages.sources import primary
from streamclust.store import table
from streamclust.store.store import Batch
from streamclust.streams import Stream

STRANGEST, STRANGEST_QUIET = 20, 5
CAMERAS_SHOWN = 40
INDEX = "index.html"


def page_of(job: Job, batch_id: str) -> Path:
    """Where the page of a batch lies; a batch called ``index`` makes room for the page over all days."""
    name = f"{batch_id}.html"
    return job.store.path / "report" / "days" / (name if name != INDEX else f"_{name}")


def write_day(job: Job, batch_name: str) -> Path:
    """Write the page of one labelled and watched batch; returns where it is. Later acknowledgements need it anew."""
    batch = next(b for b in job.store.batches if b.name == batch_name)
    path = page_of(job, batch.id)
    with job.journal.stage(f"{batch.id}: page", batch.n):
        album = Album(job.store, job.settings.render.thumbnail, job.settings.workers or os.cpu_count() or 1)
        data = collect_day(job, batch, album)
        album.keep()
        page.write_day(data, path)
    return path


def collect_day(job: Job, batch: Batch, album: Album) -> dd.Day:
    """Everything that one day's page says; the pictures it shows are then in the album."""
    store = job.store
    every = alarms_of(store)
    alarms = every.get(batch.name, ())
    strange = strangest(job, batch, STRANGEST if alarms else STRANGEST_QUIET)
    alarmed = {d: {a.cluster for a in alarms if a.descriptor == d and a.cluster >= 0} for d in _fitted(job)}
    found = [f for d, known in alarmed.items() if (f := clusters_of(job, batch, d, known))]
    rows = {row for row, _, _ in strange} | {row for f in found for row in f.pictured}
    rows |= {row for a in alarms for row in (*a.rows, *([int(a.proposal["medoid"])] if a.proposal else []))}
    album.fetch((batch.name, row) for row in rows)
    rows_judged, flagged, budget, threshold = judged(job, batch)
    return dd.Day(
        name=batch.id,
        store=store.path.name,
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        images=batch.n,
        judged=rows_judged,
        flagged=flagged,
        budget=budget,
        threshold=threshold,
        alarms=tuple(_alarm(job, batch, alarm, album) for alarm in alarms),
        strangest=tuple(
            Outlier(rank=i + 1, thumb=album.thumb((batch.name, row)), score=score, reason=reason)
            for i, (row, score, reason) in enumerate(strange)
        ),
        descriptors=tuple(describe_day(job, batch, f, album, alarmed[f.descriptor]) for f in found),
        cameras=_cameras(job, batch, {a.camera for a in alarms if a.camera}),
        missing=tuple(_missing(job, batch)),
        notes=tuple(_notes(job, batch)),
        older_open=sum(_older(job, batch, name, a) for name, of in every.items() for a in of),
        previous=_previous(job, batch),
        version=__version__,
    )


def strangest(job: Job, batch: Batch, most: int) -> list[tuple[int, float, str]]:
    """The ``most`` strangest rows of a batch as (row, score, reason), strangest first."""
    store, name = job.store, _judged_name(job, batch)
    best: list[tuple[float, int]] = []
    for start in range(0, batch.n if name else 0, LABEL_ROWS):
        scores = store.read(name, "outlier_score", start, min(batch.n, start + LABEL_ROWS))
        top = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:most]
        best += [(-float(scores[i]), start + int(i)) for i in top if np.isfinite(scores[i])]
        best = sorted(best)[:most]
    return [(row, -score, table.reasons(store, name, row, row + 1)[0]) for score, row in best]


def judged(job: Job, batch: Batch) -> tuple[int, int, float | None, float | None]:
    """Judged and flagged rows of a batch, and the budget and threshold that they were judged by."""
    store, name = job.store, _judged_name(job, batch)
    if not name:
        return 0, 0, None, None
    starts = range(0, batch.n, LABEL_ROWS)
    flags = (store.read(name, "outlier", start, min(batch.n, start + LABEL_ROWS)) for start in starts)
    flagged = sum(int(block.sum()) for block in flags)
    about = store.snapshot.entries[store.snapshot.entries[name].attributes["model"]].attributes
    return batch.n, flagged, float(about["budget"]), float(about["threshold"])


def _judged_name(job: Job, batch: Batch) -> str:
    """The labels of the newest fused model, empty where it has not judged the batch."""
    model = job.store.snapshot.newest("model", "outliers")
    name = labels_name(model, batch.name) if model else ""
    return name if name in job.store.snapshot.entries else ""


def _alarm(job: Job, batch: Batch, alarm: Alarm, album: Album) -> dd.Alarm:
    proposal = alarm.proposal
    return dd.Alarm(
        id=alarm.id,
        kind=alarm.kind,
        sentence=alarm.sentence,
        command=command(job, alarm.id),
        subject=place(Stream("", alarm.descriptor, alarm.cluster, alarm.camera)),
        value=alarm.value,
        expected=alarm.expected,
        pictures=tuple(album.thumb((batch.name, row)) for row in alarm.rows),
        proposal=dd.Proposal(rows=round(proposal["size"]), medoid=album.thumb((batch.name, int(proposal["medoid"]))))
        if proposal
        else None,
        acknowledged=acknowledgement(alarm),
    )


def acknowledgement(alarm: Alarm) -> dd.Acknowledgement | None:
    """Who acknowledged an alarm, when and why; None while it is open."""
    if alarm.reason is None or alarm.who is None or alarm.when is None:
        return None
    return dd.Acknowledgement(by=alarm.who, on=alarm.when[:10], reason=alarm.reason)


def command(job: Job, alarm: str) -> str:
    """The line that acknowledges an alarm."""
    return f'streamclust alarms {shlex.quote(str(job.store.path))} --ack {shlex.quote(alarm)} --reason "..."'


def _cameras(job: Job, batch: Batch, alarmed: set[str]) -> dd.Cameras | None:
    column, name = camera_column(job, batch), _judged_name(job, batch)
    if column is None or not name:
        return None
    seen: dict[str, list[int]] = {}
    for start in range(0, batch.n, LABEL_ROWS):
        stop = min(batch.n, start + LABEL_ROWS)
        values = job.store.read(batch.name, f"images/{column}", start, stop).tolist()
        names, which = np.unique(
            np.array([str(value) for value in values], np.dtypes.StringDType()), return_inverse=True
        )
        flags = job.store.read(name, "outlier", start, stop)
        for camera, rows, flagged in zip(names, np.bincount(which), np.bincount(which, flags), strict=True):
            total = seen.setdefault(str(camera), [0, 0])
            total[0], total[1] = total[0] + int(rows), total[1] + int(flagged)
    ordered = sorted(seen.items(), key=lambda item: (item[0] not in alarmed, -item[1][0], item[0]))
    cameras = tuple(dd.Camera(name=c, rows=n, flagged=m, alarmed=c in alarmed) for c, (n, m) in ordered)
    return dd.Cameras(column=column, cameras=cameras[:CAMERAS_SHOWN], total=len(cameras))


def _missing(job: Job, batch: Batch) -> Iterator[str]:
    about = batch.entry.attributes
    own = job.store.descriptors
    for descriptor in _fitted(job):
        if descriptor in own and not batch.has(descriptor):
            yield f"The descriptor {descriptor} did not come with this day."
    for descriptor, found in about["descriptors"].items():
        if bad := batch.n - found["valid"]:
            yield f"{descriptor}: {bad:,} of {batch.n:,} rows hold no finite numbers, and have no score."
    if about["pictures"] is None:
        yield "No pictures came with this day."
    else:
        sizes = (
            job.store.read(batch.name, "images/picture_size", start, min(batch.n, start + LABEL_ROWS))
            for start in range(0, batch.n, LABEL_ROWS)
        )
        if lost := sum(int((size < 0).sum()) for size in sizes):
            yield f"{lost:,} of {batch.n:,} pictures were not found."


def _notes(job: Job, batch: Batch) -> Iterator[str]:
    fitted = _fitted(job)
    for descriptor in batch.entry.attributes["descriptors"]:
        if descriptor not in fitted:
            yield f"The descriptor {descriptor} is new: no model knows it yet, and it takes no part until a refit."
    if batch.n < LEAST_ROWS:
        yield f"Fewer than {LEAST_ROWS} images say too little of a day to judge its shares: none of them could alarm."
    if name := entry_of(job.store, batch.name):
        if early(job.store, name):
            yield (
                f"Fewer than {FEW_DAYS} days were seen since the start or the last change, "
                "so only large changes alarm yet."
            )
        usual = figures_of(job.store, name).get(Stream("outlier"))
        if usual and (burst := batch.n - usual.rows):
            yield (
                f"{burst:,} of the images are a near-identical burst; of the other {usual.rows:,}, "
                f"{round(usual.value * usual.rows):,} are flagged ({usual.value:.1%})."
            )


def _fitted(job: Job) -> Sequence[str]:
    return list(primary(clusterings(job)))


def _previous(job: Job, batch: Batch) -> tuple[str, str] | None:
    """The newest earlier batch that has a page."""
    earlier = (b for b in reversed(job.store.batches) if b.base < batch.base)
    before = next((b for b in earlier if page_of(job, b.id).is_file()), None)
    return (before.id, page_of(job, before.id).name) if before else None


def _older(job: Job, batch: Batch, name: str, alarm: Alarm) -> bool:
    entries = job.store.snapshot.entries
    return alarm.reason is None and entries[name].added < batch.entry.added
