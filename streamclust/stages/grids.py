"""Additive count grids of the maps: all rows, rows by cluster, flagged rows; what pictures are shaded from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.stages.labels import labels_name, up_to_date
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

KEYS = ("density", "outliers", "clusters")
LAYERS = 30  # clusters with a layer of their own; ids run from the largest, the rest share one more
FINE_SIDE, CLUSTER_SIDE = 2048, 1024
Extent = tuple[float, float, float, float]
Grid = NDArray[np.uint32]


@dataclass(frozen=True)
class Frame:
    """What is counted where: the map's extent and the number of cluster layers."""

    extent: Extent
    layers: int


def grids(job: Job, place: str, clustering: str, outliers: str) -> str:
    """Count grids of one descriptor's map under its clusters and the flags; returns their name.

    Counts add up: batches that came since the last grids are added to those, and withdrawn ones are taken off.
    """
    store, parents = job.store, [place, clustering, outliers]
    entry = store.snapshot.entries[place]
    descriptor = entry.attributes["descriptor"]
    counted = [batch.name for batch in _counted(store, parents)]
    wanted = fingerprint("grids", *parents, counted)
    known = up_to_date(job, "grid", f"{descriptor}/grid", wanted)
    if known is not None:
        return known
    k = int(store.snapshot.entries[clustering].attributes["clusters"])
    frame = Frame(_with_margin(entry.attributes["extent"]), min(k, LAYERS) + (k > LAYERS))
    last = store.snapshot.newest("grid", f"{descriptor}/grid")
    if last and store.snapshot.entries[last].attributes["parents"] != parents:
        last = None
    with job.journal.stage(f"{descriptor}: count grids", store.n):
        found = _changed(job, last, parents, counted, frame)
    name = f"grids/{descriptor}-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "grid", wanted)
    for key, grid in found.items():
        draft.write(key, grid, compress=True)
    attributes = {
        "role": f"{descriptor}/grid",
        "descriptor": descriptor,
        "parents": parents,
        "batches": counted,
        "extent": list(frame.extent),
        "layers": frame.layers,
        "clusters": k,
    }
    store.publish(f"grids {descriptor}", {name: (draft, draft.entry(attributes, {}))})
    return name


def _with_margin(extent: list[float]) -> Extent:
    x0, x1, y0, y1 = extent
    pad = 0.03 * (max(x1 - x0, y1 - y0) or 1.0)
    return x0 - pad, x1 + pad, y0 - pad, y1 + pad


def _counted(store: Store, parents: Sequence[str]) -> list[Batch]:
    """The batches that all three models have labelled."""
    entries = store.snapshot.entries
    return [b for b in store.batches if all(labels_name(model, b.name) in entries for model in parents)]


def _changed(
    job: Job, last: str | None, parents: Sequence[str], counted: Sequence[str], frame: Frame
) -> Mapping[str, Grid]:
    """The counts of exactly these batches, out of the last ones where there are any."""
    store = job.store
    before = store.snapshot.entries[last].attributes["batches"] if last else []
    found = {key: store.read(last, key) for key in KEYS} if last else None
    for names, sign in ((set(counted) - set(before), np.add), (set(before) - set(counted), np.subtract)):
        addresses = [rows for b in store.every_batch if b.name in names for rows in _addresses(store, b, parents)]
        if addresses:
            change = job.executor.fold(add_grids, addresses, merge_grids, frame, run=len(addresses))
            if found is None:
                found = dict(change)
            else:
                for key in KEYS:
                    sign(found[key], change[key], out=found[key])
    if found is None:
        raise InputError(store.path, "no batch is on the map yet", "a map of labelled batches", "streamclust map STORE")
    return found


def _addresses(store: Store, batch: Batch, parents: Sequence[str]) -> list[Rows]:
    place, clustering, outliers = (labels_name(model, batch.name) for model in parents)
    paths = {axis: store.array(place, axis) for axis in ("x", "y")}
    paths |= {"label": store.array(clustering, "label"), "outlier": store.array(outliers, "outlier")}
    return list(store.rows(batch, 2**16, paths))


def add_grids(state: Mapping[str, Grid] | None, rows: Rows, frame: Frame) -> Mapping[str, Grid]:
    """Count one block's places, into the state's own memory."""
    x, y, label, outlier = (rows.read(name) for name in ("x", "y", "label", "outlier"))
    layer = np.minimum(label, frame.layers - 1)
    fine, coarse = (FINE_SIDE, FINE_SIDE), (CLUSTER_SIDE, CLUSTER_SIDE, frame.layers)
    found: dict[str, Any] = {
        "density": counts.grid_block(x, y, None, frame.extent, fine),
        "outliers": counts.grid_block(x[outlier], y[outlier], None, frame.extent, fine),
        "clusters": counts.grid_block(x, y, layer, frame.extent, coarse),
    }
    if state is None:
        return found
    for key, grid in found.items():
        np.add(state[key], grid, out=state[key])
    return state


def merge_grids(a: Mapping[str, Grid], b: Mapping[str, Grid]) -> Mapping[str, Grid]:
    """Both."""
    return {key: a[key] + b[key] for key in a}
