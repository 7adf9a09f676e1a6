"""Additive count grids of the maps: all rows, rows by cluster, flagged rows; what pictures are shaded from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import counts
from streamclust.job import Job, fingerprint
from streamclust.stages.labels import labels_name, up_to_date
from streamclust.store.rows import Rows
from streamclust.store.store import Store

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
    """Count grids of one descriptor's map under its clusters and the flags; returns their name."""
    store = job.store
    wanted = fingerprint("grids", place, clustering, outliers)
    entry = store.snapshot.entries[place]
    descriptor = entry.attributes["descriptor"]
    known = up_to_date(job, "grid", f"{descriptor}/grid", wanted)
    if known is not None:
        return known
    k = int(store.snapshot.entries[clustering].attributes["clusters"])
    frame = Frame(_with_margin(entry.attributes["extent"]), min(k, LAYERS) + (k > LAYERS))
    addresses = _addresses(store, place, clustering, outliers)
    with job.journal.stage(f"{descriptor}: count grids", store.n):
        found = job.executor.fold(add_grids, addresses, merge_grids, frame, run=len(addresses))
    name = f"grids/{descriptor}-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "grid", wanted)
    for key, grid in found.items():
        draft.write(key, grid, compress=True)
    attributes = {
        "role": f"{descriptor}/grid",
        "descriptor": descriptor,
        "parents": [place, clustering, outliers],
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


def _addresses(store: Store, place: str, clustering: str, outliers: str) -> list[Rows]:
    found: list[Rows] = []
    for batch in store.batches:
        names = {m: labels_name(m, batch.name) for m in (place, clustering, outliers)}
        if all(name in store.snapshot.entries for name in names.values()):
            paths = {axis: store.array(names[place], axis) for axis in ("x", "y")}
            paths["label"] = store.array(names[clustering], "label")
            paths["outlier"] = store.array(names[outliers], "outlier")
            found += store.rows(batch, 2**16, paths)
    return found


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
