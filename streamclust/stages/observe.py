"""What is read of a batch to watch it: pairs of some of its rows for bursts and crowds, and one fold for its tally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import bursts, tallies
from streamclust.errors import InputError
from streamclust.job import Job
from streamclust.planning import LABEL_ROWS
from streamclust.sampling import batch_key, sample_rows
from streamclust.stages.labels import labels_name
from streamclust.stages.measures import Frozen, Measure, Single
from streamclust.stages.sources import holds, reduced_name
from streamclust.store import arrays
from streamclust.store.arrays import Where
from streamclust.store.rows import Rows, pick
from streamclust.store.store import Batch, Store
from streamclust.streams import Stream
from streamclust.tallies import Tally, Yardstick

CAMERAS = ("camera", "cam", "camera_id", "site")


@dataclass(frozen=True, eq=False)
class Crowd:
    """Crowded rows of one descriptor, of those whose pairs were compared, and the share of them that is flagged."""

    rows: NDArray[np.int64]
    flagged: float


@dataclass(frozen=True, eq=False)
class Observation:
    """A batch's tally, the rows amid its bursts (numbers in the batch, and where they lie), and its crowds."""

    tally: Tally
    amid: NDArray[np.int64]
    centres: dict[str, Single]
    crowds: dict[str, Crowd]


def camera_column(job: Job, batch: Batch) -> str | None:
    """The metadata column that names cameras: that of ``render.group_by``, or the first with a telling name."""
    columns = batch.entry.attributes["columns"]
    wanted = job.settings.render.group_by
    named = [wanted] if wanted else [c for name in CAMERAS for c in columns if c.lower() == name]
    return next((c for c in named if columns.get(c) in {"string", "int64"}), None)


def observe(job: Job, batch: Batch, models: Mapping[str, Frozen], measures: Mapping[str, Measure]) -> Observation:
    """A labelled batch's bursts, crowds and tally. Memory: PAIRED reduced rows here; per task its blocks.

    Nothing is seen of a batch that has none of the models' descriptors.
    """
    if not any(holds(job.store, batch, d) for d in models):
        return Observation({}, np.empty(0, np.int64), {}, {})
    addresses = addresses_of(job, batch, models)
    near = {d: m.near for d, m in measures.items() if f"{d}/Z" in addresses[0].arrays and m.near > 0}
    numbers, _ = sample_rows(batch.n, bursts.PAIRED, batch_key(batch.id, job.settings.seed))
    picked = job.executor.map(pick, addresses, numbers, ["outlier", *(f"{d}/Z" for d in near)])
    Z = {d: np.concatenate([part[f"{d}/Z"] for part in picked]) for d in sorted(near)}
    valid = np.logical_and.reduce(
        [np.full(len(numbers), bool(Z)), *(np.isfinite(rows).all(axis=1) for rows in Z.values())]
    )
    Y = _scaled({d: rows[valid] for d, rows in Z.items()}, near)
    found = job.executor.map(bursts.bursts, [Y], int(valid.sum()))[0]
    centres = {d: rows[found] for d, rows in Y.items()}
    yardsticks = {d: m.by for d, m in measures.items()}
    tally = job.executor.fold(add_tally, addresses, tallies.merge, yardsticks, near, centres)
    outlier = np.concatenate([part["outlier"] for part in picked])
    crowds = {}
    for d, flags in _crowded(job, measures, Z, near, centres).items():
        tallies.add_flags(tally, Stream("crowded", d), flags[flags >= 0] > 0)
        rows = flags > 0
        crowds[d] = Crowd(numbers[rows], float(outlier[rows].mean()) if rows.any() else 0.0)
    return Observation(tally, numbers[valid][found], centres, crowds)


def _crowded(
    job: Job,
    measures: Mapping[str, Measure],
    Z: Mapping[str, Single],
    near: Mapping[str, float],
    centres: Mapping[str, Single],
) -> dict[str, NDArray[np.int8]]:
    """By descriptor 1 for crowded rows, 0 for others, -1 for rows of bursts, which count apart, and invalid ones."""
    burst = _in_bursts(Z, near, centres)
    kept = {d: ~burst & np.isfinite(rows).all(axis=1) for d, rows in Z.items()}
    tasks = [(rows[kept[d]], measures[d].fitted, measures[d].around) for d, rows in Z.items()]
    found = {d: np.full(len(burst), -1, np.int8) for d in Z}
    for d, flags in zip(Z, job.executor.map(crowded, tasks), strict=True):
        found[d][kept[d]] = flags
    return found


def crowded(task: tuple[Single, Single, float]) -> NDArray[np.bool_]:
    """One descriptor's crowded rows."""
    return bursts.crowded(*task)


def addresses_of(job: Job, batch: Batch, models: Mapping[str, Frozen]) -> list[Rows]:
    """Addresses over a batch with everything the models say of it.

    Raises
    ------
    InputError : it was not labelled yet.
    """
    store, paths = job.store, dict[str, Where]()
    for descriptor, model in models.items():
        if not holds(store, batch, descriptor):
            continue
        sources = {
            labels_name(model.clustering, batch.name): ("label", "fine", "distance"),
            labels_name(model.strangeness, batch.name): ("score", "near_duplicates"),
            reduced_name(model.projection, batch): ("Z", "norm", "residual"),
        }
        for name, wanted in sources.items():
            _require(store, batch, name)
            paths |= {f"{descriptor}/{array}": store.array(name, array) for array in wanted}
    outliers = labels_name(next(iter(models.values())).outliers, batch.name)
    _require(store, batch, outliers)
    paths["outlier"] = store.array(outliers, "outlier")
    if column := camera_column(job, batch):
        paths["camera"] = store.array(batch.name, f"images/{column}")
    steps = [arrays.rows_per_chunk(path) for name, path in paths.items() if name.endswith("/Z")]
    return list(store.rows(batch, min([batch.n, LABEL_ROWS, *steps]), paths))


def _require(store: Store, batch: Batch, name: str) -> None:
    if name not in store.snapshot.entries:
        raise InputError(f"batch {batch.id}", "was not labelled by the newest models", hint="streamclust predict STORE")


def measured(rows: Rows, descriptors: Sequence[str]) -> dict[str, dict[str, NDArray[Any]]]:
    """What tallies are made of, for each descriptor that the batch has."""
    names = ("label", "distance", "score", "near_duplicates", "norm")
    return {
        d: {name: rows.read(f"{d}/{name}") for name in names} | {"error": rows.read(f"{d}/residual")}
        for d in descriptors
        if f"{d}/label" in rows.arrays
    }


def in_bursts(rows: Rows, near: Mapping[str, float], centres: Mapping[str, Single]) -> NDArray[np.bool_]:
    """Which of an address's rows belong to bursts."""
    if not any(map(len, centres.values())):
        return np.zeros(len(rows), bool)
    return _in_bursts({d: rows.read(f"{d}/Z") for d in sorted(near)}, near, centres)


def _in_bursts(Z: Mapping[str, Single], near: Mapping[str, float], centres: Mapping[str, Single]) -> NDArray[np.bool_]:
    return bursts.near_any(_scaled(Z, near), centres)


def _scaled(Z: Mapping[str, Single], near: Mapping[str, float]) -> dict[str, Single]:
    """So that near-identical rows are at most 1 apart; what float32 would not hold becomes its largest number."""
    most = {d: float(np.finfo(np.float32).max) / 2 * min(near[d], 1.0) for d in Z}
    return {d: (rows.clip(-most[d], most[d]) / near[d]).astype(np.float32) for d, rows in Z.items()}


def add_tally(
    state: Tally | None,
    rows: Rows,
    by: Mapping[str, Yardstick],
    near: Mapping[str, float],
    centres: Mapping[str, Single],
) -> Tally:
    """One block's tally."""
    camera = np.array([str(c) for c in rows.read("camera").tolist()], object) if "camera" in rows.arrays else None
    burst = in_bursts(rows, near, centres)
    found = tallies.tally_block(measured(rows, sorted(by)), by, rows.read("outlier"), camera, burst)
    return found if state is None else tallies.merge(state, found)
