"""Which rows of a day show what an alarm says: few and small states out of one fold, or two for a new kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamclust import bursts, quantiles, tallies
from streamclust.drift import Finding
from streamclust.job import Job
from streamclust.sampling import batch_key, row_hashes
from streamclust.stages.measures import Frozen, Measure
from streamclust.stages.observe import Observation, addresses_of, in_bursts, measured
from streamclust.store.rows import Rows, pick
from streamclust.store.store import Batch
from streamclust.streams import Stream
from streamclust.tallies import Yardstick

SHOWN = 12
CANDIDATES = 2048  # rows among which a new kind's heart is looked for
Best = NDArray[np.float64]  # (m, 2): key and row, smallest keys first


@dataclass(frozen=True)
class Shown:
    """Rows of the batch, the most telling first, and a new cluster's medoid, size and closeness where one is seen."""

    rows: tuple[int, ...]
    proposal: Mapping[str, float] | None = None


def show(
    job: Job,
    batch: Batch,
    models: Mapping[str, Frozen],
    measures: Mapping[str, Measure],
    seen: Observation,
    found: Finding,
) -> Shown:
    """The rows that show a finding."""
    addresses = addresses_of(job, batch, models)
    near = {d: measures[d].near for d in seen.centres}
    yardsticks = {d: m.by for d, m in measures.items()}
    stream, new = found.lead.stream, found.kind == "new kind of image"
    if stream.figure == "crowded":
        rows = seen.crowds[stream.descriptor].rows
    else:
        merge = partial(merge_best, most=CANDIDATES if new else SHOWN)
        key = batch_key(batch.id, job.settings.seed)
        best = job.executor.fold(add_best, addresses, merge, found, yardsticks, near, seen.centres, merge, key)
        rows = best[:, 1].astype(np.int64)
    if stream.figure == "burst":
        return Shown(tuple(dict.fromkeys([*seen.amid.tolist(), *rows.tolist()]))[:SHOWN])
    if stream.figure != "crowded" and (not new or not len(rows)):
        return Shown(tuple(rows.tolist()))
    return _proposed(job, addresses, yardsticks[stream.descriptor], seen, found, np.sort(rows))


def _proposed(
    job: Job, addresses: list[Rows], by: Yardstick, seen: Observation, found: Finding, rows: NDArray[np.int64]
) -> Shown:
    """The heart of a new kind among candidate rows, as a new cluster."""
    descriptor = found.lead.stream.descriptor
    name = f"{descriptor}/Z"
    Z = np.concatenate([part[name] for part in job.executor.map(pick, addresses, rows, [name])])
    usual = quantiles.value_at(by.sketches["centre_distance"], 0.5)
    share = max(found.lead.value - found.lead.expected, 0.0) / max(found.lead.value, 1e-9)
    kind = bursts.heart(Z, usual, round(share * len(Z)))
    size = share * found.lead.value * tallies.figures(seen.tally)[Stream("outlier")].rows
    shown = tuple(rows[kind.members[:SHOWN]].tolist())
    return Shown(shown, {"medoid": int(rows[kind.medoid]), "size": round(size), "closeness": float(kind.closeness)})


def add_best(
    state: Best | None,
    rows: Rows,
    found: Finding,
    by: Mapping[str, Yardstick],
    near: Mapping[str, float],
    centres: Mapping[str, NDArray[np.float32]],
    first: Callable[[Best, Best], Best],
    key: int,
) -> Best:
    """One block's most telling rows."""
    burst = in_bursts(rows, near, centres)
    if found.lead.stream.figure == "burst":
        order = np.where(burst, 0.0, np.inf)
    else:
        order = np.where(burst, np.inf, _order(rows, found, by, key))
    numbers = np.arange(rows.start, rows.stop, dtype=np.float64)
    mine = np.column_stack([order, numbers])[np.isfinite(order)]
    return first(mine if state is None else state, mine[:0] if state is None else mine)


def merge_best(a: Best, b: Best, most: int) -> Best:
    """The ``most`` most telling rows of both."""
    best = np.concatenate([a, b])
    return best[np.lexsort((best[:, 1], best[:, 0]))][:most]


def _order(rows: Rows, found: Finding, by: Mapping[str, Yardstick], key: int) -> NDArray[np.float64]:
    """(n,) what to show first, smallest first; infinite for rows that have no part in it."""
    stream, least = found.lead.stream, np.inf
    order = row_hashes(key, rows.start, rows.stop).astype(np.float64)
    part = np.ones(len(rows), bool)
    if stream.camera:
        part &= np.array([str(c) == stream.camera for c in rows.read("camera").tolist()], bool)
    if stream.figure == "outlier":
        part &= rows.read("outlier")
    if stream.descriptor:
        values = measured(rows, [stream.descriptor])[stream.descriptor]
        part &= (values["label"] < 0) == (stream.figure == "invalid")
        if stream.cluster >= 0:
            part &= values["label"] == by[stream.descriptor].ids.index(stream.cluster)
            order = values["distance"].astype(np.float64)
        elif stream.figure == "unheld":
            part &= tallies.unheld(values, by[stream.descriptor])
        elif stream.figure in values:
            order = values[stream.figure] * np.float64(-1 if found.lead.value > found.lead.expected else 1)
    return np.where(part & np.isfinite(order), order, least)
