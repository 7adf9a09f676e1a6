"""The page of a refit: what would change, or did, with pictures of a random draw of the rows that do."""

from __future__ import annotations

import datetime as dt
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from streamclust import __version__
from streamclust.cluster.matching import Event
from streamclust.job import Job
from streamclust.render import refit as page
from streamclust.render import refit_data as rd
from streamclust.reporting.album import Album
from streamclust.stages.names import cluster_ids, names
from streamclust.stages.refit import Change, Proposal

PAGE = "refit.html"
SHOWN = 24  # clusters of a descriptor that gain rows


def write_refit(job: Job, data: rd.Refit) -> Path:
    """Write the page of a refit, proposed or accepted; returns where it is."""
    path = job.store.path / "report" / PAGE
    page.write_refit(data, path)
    return path


def collect_refit(job: Job, proposal: Proposal) -> rd.Refit:
    """Everything that the page of a proposal says; its pictures are kept."""
    store = job.store
    album = Album(store, job.settings.render.thumbnail, job.settings.workers or os.cpu_count() or 1)
    every = [row for change in proposal.changes.values() for rows in change.rows.values() for row in rows]
    album.fetch(album.rows_of(every))
    descriptors = tuple(_describe(job, change, album) for change in proposal.changes.values())
    album.keep()
    return rd.Refit(
        store=store.path.name,
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        accepted=False,
        days=proposal.days,
        rows=sum(batch.n for batch in store.batches if batch.id in proposal.days),
        descriptors=descriptors,
        command=f"streamclust refit {shlex.quote(str(store.path))} --accept{_which(job, proposal)}",
        version=__version__,
    )


def _which(job: Job, proposal: Proposal) -> str:
    """The options that name the proposal's days; none where it was fitted on all."""
    chosen = [batch for batch in job.store.batches if batch.id in proposal.days]
    if len(chosen) == len(job.store.batches):
        return ""
    if chosen == job.store.batches[-len(chosen) :]:
        return f" --last {len(chosen)}"
    return "".join(f" --batch {shlex.quote(batch.id)}" for batch in chosen)


def _describe(job: Job, change: Change, album: Album) -> rd.DescriptorRefit:
    called = names(job.store, change.descriptor)
    old = set(cluster_ids(job.store, change.before)) if change.before else set()
    sums: dict[int, int] = {}
    for _, then, rows in change.moves:
        sums[then] = sums.get(then, 0) + rows
    largest = sorted(sums, key=lambda c: (-sums[c], c))
    return rd.DescriptorRefit(
        name=change.descriptor,
        before=len(old),
        after=len(change.label.ids),
        shared=change.label.shared,
        changed=change.label.changed,
        fine_changed=change.fine.changed,
        events=tuple(_events(change.label.events, called)),
        gains=tuple(
            rd.Gain(
                cluster=_cluster(then, called),
                rows=sums[then],
                born=then not in old,
                sources=tuple((_cluster(now, called), rows) for now, to, rows in change.moves if to == then),
                pictures=tuple(album.thumb(row) for row in album.rows_of(change.rows.get(then, ()))),
            )
            for then in largest[:SHOWN]
        ),
        more=max(0, len(largest) - SHOWN),
    )


def _cluster(cluster: int, called: Mapping[int, str]) -> rd.Cluster:
    return rd.Cluster(id=cluster, name=called.get(cluster, ""))


def _events(events: tuple[Event, ...], called: Mapping[int, str]) -> Iterator[str]:
    """Births, splits, merges and deaths in words."""
    for event in events:
        old, new = (
            " and ".join(f"{i} ({called[i]})" if i in called else str(i) for i in ids) for ids in (event.old, event.new)
        )
        yield {
            "birth": f"Cluster {new} is born.",
            "split": f"Cluster {old} splits into {new}.",
            "merge": f"Clusters {old} merge into {new}.",
            "death": f"Cluster {old} is no more.",
        }[event.kind]
