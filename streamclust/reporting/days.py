"""The page over all days, made from what was published of each day and from nothing of the size of its rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from streamclust import __version__
from streamclust.drift import Alarm
from streamclust.job import Job
from streamclust.render import day as page
from streamclust.render import day_data as dd
from streamclust.reporting.collect import clusterings
from streamclust.reporting.day import INDEX, acknowledgement, command, page_of
from streamclust.reporting.watched import alarms_of, figures_of
from streamclust.stages.names import cluster_ids, names
from streamclust.stages.sources import primary
from streamclust.store.store import Batch
from streamclust.streams import Figure, Stream

Figures = Mapping[Stream, Figure]


def write_days(job: Job) -> Path:
    """Write the page over all watched days; returns where it is."""
    path = page_of(job, "any").with_name(INDEX)
    with job.journal.stage("all days: page", len(job.store.batches)):
        page.write_days(collect_days(job), path)
    return path


def collect_days(job: Job) -> dd.Days:
    """Everything that the page over all days says."""
    store = job.store
    every = alarms_of(store)
    entries = {entry.attributes["role"]: name for name, entry in store.snapshot.of_kind("day").items()}
    batches = [batch for batch in store.batches if batch.name in entries]
    figures = [figures_of(store, entries[batch.name]) for batch in batches]
    outliers = store.snapshot.newest("model", "outliers")
    fitted, own = primary(clusterings(job)), store.descriptors
    wanted = [d for d in fitted if d in own]
    return dd.Days(
        store=store.path.name,
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        days=tuple(_row(job, b, f, every[b.name], wanted) for b, f in zip(batches, figures, strict=True)),
        budget=float(store.snapshot.entries[outliers].attributes["budget"]) if outliers else None,
        shares=tuple(_shares(job, d, model, figures) for d, model in fitted.items()) if batches else (),
        command=command(job, "ID"),
        version=__version__,
    )


def _row(job: Job, batch: Batch, figures: Figures, alarms: Sequence[Alarm], wanted: Sequence[str]) -> dd.DayRow:
    judged = figures.get(Stream("outlier"), Figure(0.0, 0))
    path = page_of(job, batch.id)
    return dd.DayRow(
        name=batch.id,
        images=batch.n,
        judged=judged.rows,
        flagged=round(judged.value * judged.rows),
        page=path.name if path.is_file() else "",
        alarms=tuple(
            dd.DayAlarm(id=a.id, kind=a.kind, sentence=a.sentence, acknowledged=acknowledgement(a)) for a in alarms
        ),
        missing=tuple(_missing(batch, wanted)),
    )


def _missing(batch: Batch, wanted: Sequence[str]) -> Iterator[str]:
    about = batch.entry.attributes
    yield from (descriptor for descriptor in wanted if not batch.has(descriptor))
    if about["pictures"] is None:
        yield "pictures"
    if bad := max(batch.n - found["valid"] for found in about["descriptors"].values()):
        yield f"{bad:,} invalid rows" if bad > 1 else "1 invalid row"


def _shares(job: Job, descriptor: str, model: str, figures: Sequence[Figures]) -> dd.Shares:
    """Shares by the ids that stay over refits: the newest model's clusters, then those that are no more."""
    store = job.store
    k = store.snapshot.entries[model].attributes["k"]
    counted = store.read(model, f"sweep/{k:05d}/counts")
    newest = dict(zip(cluster_ids(store, model), (counted / max(int(counted.sum()), 1)).tolist(), strict=True))
    seen = [
        {s.cluster: f.value for s, f in of.items() if s.figure == "share" and s.descriptor == descriptor and f.rows}
        for of in figures
    ]
    ids = [*newest, *sorted({c for day in seen for c in day} - set(newest))]
    called = names(store, descriptor)
    return dd.Shares(
        descriptor=descriptor,
        clusters=tuple((c, called.get(c, "")) for c in ids),
        shares=tuple(tuple(day.get(c, 0.0) for c in ids) if day else None for day in seen),
        reference=tuple(newest.get(c, 0.0) for c in ids),
    )
