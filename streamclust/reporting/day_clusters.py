"""What a day's page says of one descriptor: its clusters' shares beside the reference's, and where its images lie."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.job import Job
from streamclust.planning import LABEL_ROWS
from streamclust.render import day_data as dd
from streamclust.render.day_map import day_map, shape_of
from streamclust.render.parts import Figure
from streamclust.reporting.album import Album
from streamclust.stages.grids import FINE_SIDE
from streamclust.stages.labels import labels_name
from streamclust.stages.names import cluster_ids, names
from streamclust.store.store import Batch

SHOWN = 16


@dataclass(frozen=True, eq=False)
class Found:
    """One descriptor's clusters on one day.

    rows, reference : (k,) rows of each cluster today and in the reference. typical : (k,) the row of today that is
    nearest to each centre, -1 where there is none. shown : positions of the clusters worth a line.
    """

    descriptor: str
    ids: tuple[int, ...]
    rows: NDArray[np.int64]
    reference: NDArray[np.int64]
    typical: NDArray[np.int64]
    shown: tuple[int, ...]

    @property
    def pictured(self) -> list[int]:
        """The rows of today that stand for the shown clusters."""
        return [int(row) for row in self.typical[list(self.shown)] if row >= 0]


def clusters_of(job: Job, batch: Batch, descriptor: str, alarmed: Collection[int]) -> Found | None:
    """The clusters of one descriptor today; None where the newest model has not labelled the batch."""
    store = job.store
    model = store.snapshot.newest("model", f"{descriptor}/kmeans")
    labels = labels_name(model, batch.name) if model else ""
    if model is None or labels not in store.snapshot.entries:
        return None
    about, ids = store.snapshot.entries[model].attributes, cluster_ids(store, model)
    rows, typical = np.zeros(len(ids), np.int64), np.full(len(ids), -1)
    nearest = np.full(len(ids), np.inf)
    for start in range(0, batch.n, LABEL_ROWS):
        label, distance = (
            store.read(labels, a, start, min(batch.n, start + LABEL_ROWS)) for a in ("label", "distance")
        )
        here = np.flatnonzero(label >= 0)
        rows += np.bincount(label[here], minlength=len(ids))
        order = here[np.lexsort((distance[here], label[here]))]
        first, where = np.unique(label[order], return_index=True)
        closer = distance[order[where]] < nearest[first]
        nearest[first[closer]] = distance[order[where]][closer]
        typical[first[closer]] = start + order[where][closer]
    reference = store.read(model, f"sweep/{about['k']:05d}/counts").astype(np.int64)
    return Found(descriptor, ids, rows, reference, typical, _worth_showing(rows, reference, ids, alarmed))


def _worth_showing(
    rows: NDArray[np.int64], reference: NDArray[np.int64], ids: tuple[int, ...], alarmed: Collection[int]
) -> tuple[int, ...]:
    """The largest clusters, those that differ most, and those with an alarm; largest in the reference first."""
    share, usual = (n / max(int(n.sum()), 1) for n in (rows, reference))
    weight = np.maximum(share, usual) + np.abs(share - usual) + 2.0 * np.isin(ids, sorted(alarmed))
    kept = np.argsort(-weight, kind="stable")[:SHOWN]
    return tuple(sorted((int(c) for c in kept), key=lambda c: (-reference[c], c)))


def describe_day(job: Job, batch: Batch, found: Found, album: Album, alarmed: Collection[int]) -> dd.DescriptorDay:
    """One descriptor's section, with pictures from an album that has the rows it shows."""
    total, reference = int(found.rows.sum()), int(found.reference.sum())
    called = names(job.store, found.descriptor)
    shown = tuple(
        dd.ClusterShare(
            id=found.ids[c],
            name=called.get(found.ids[c], ""),
            rows=int(found.rows[c]),
            share=float(found.rows[c] / max(total, 1)),
            reference=float(found.reference[c] / max(reference, 1)),
            typical=album.thumb((batch.name, int(found.typical[c]))) if found.typical[c] >= 0 else None,
            alarmed=found.ids[c] in alarmed,
        )
        for c in found.shown
    )
    return dd.DescriptorDay(
        name=found.descriptor,
        rows=total,
        reference_rows=reference,
        k=len(found.ids),
        clusters=shown,
        map=_map(job, batch, found.descriptor),
    )


def _map(job: Job, batch: Batch, descriptor: str) -> Figure | None:
    """Today's images over the density of all others; None without a place on the map or a count grid of it."""
    store, newest = job.store, job.store.snapshot.newest
    place, outliers = newest("model", f"{descriptor}/map"), newest("model", "outliers")
    grid = newest("grid", f"{descriptor}/grid")
    if place is None or grid is None or outliers is None:
        return None
    about = store.snapshot.entries[grid].attributes
    places, flags = labels_name(place, batch.name), labels_name(outliers, batch.name)
    if about["parents"][0] != place or not {places, flags} <= store.snapshot.entries.keys():
        return None
    extent, density = tuple(about["extent"]), store.read(grid, "density")
    shape, fine = shape_of(extent), (FINE_SIDE, FINE_SIDE)
    today, flagged = np.zeros((2, *shape), np.uint32)
    for start in range(0, batch.n, LABEL_ROWS):
        stop = min(batch.n, start + LABEL_ROWS)
        x, y = (store.read(places, axis, start, stop) for axis in ("x", "y"))
        outlier = store.read(flags, "outlier", start, stop)
        today += counts.grid_block(x, y, None, extent, shape)
        flagged += counts.grid_block(x[outlier], y[outlier], None, extent, shape)
        if batch.name in about["batches"]:
            density -= counts.grid_block(x, y, None, extent, fine)
    words = (
        f"Grey: where the {int(density.sum()):,} other images lie, darker where more. "
        "Blue: today's images; orange: those flagged."
    )
    return Figure(title=f"{descriptor}: today on the map", image=day_map(density, today, flagged), caption=words)
