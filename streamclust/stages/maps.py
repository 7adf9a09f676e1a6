"""The map of each descriptor: t-SNE of the sample, every other row placed from its neighbours in the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust.embedding import LEADING, fit_map, place
from streamclust.job import Job, fingerprint
from streamclust.stages.labels import LabelWriter, unlabelled, up_to_date
from streamclust.stages.reduced import load_sample, read_valid, reduced_rows
from streamclust.store.rows import Rows
from streamclust.store.store import Store

PLACES = {"x": np.float32, "y": np.float32}

Sample = tuple[NDArray[np.int64], NDArray[np.float32]]  # ids (m,) and leading components (m, q)


@dataclass(frozen=True)
class SampleMap:
    """A fitted map: reduced sample rows by their leading components (m, q), their ids (m,) and their places (m, 2)."""

    ids: NDArray[np.int64]
    Z: NDArray[np.float32]
    xy: NDArray[np.float32]


def maps(job: Job, projections: Sequence[str]) -> list[str]:
    """A map model and places of every row for each projection; returns the models' names."""
    store, settings = job.store, job.settings
    wanted = {
        name: fingerprint(
            "map", name, [r.batch for r in reduced_rows(store, name)], settings.map.model_dump(), settings.seed
        )
        for name in projections
    }
    of = {name: store.snapshot.entries[name].attributes["descriptor"] for name in projections}
    known = {name: up_to_date(job, "model", f"{of[name]}/map", wanted[name]) for name in projections}
    missing = [name for name in projections if known[name] is None]
    if missing:
        samples = [_sample(store, name, settings.map.rows, settings.seed) for name in missing]
        with job.journal.stage("map: fit t-SNE", sum(len(ids) for ids, _ in samples)):
            fitted = _fit(job, samples)
        for name, found in zip(missing, fitted, strict=True):
            with job.journal.stage(f"{of[name]}: place on the map", store.snapshot.entries[name].attributes["rows"]):
                known[name] = _publish(job, name, of[name], found, wanted[name])
    return [str(known[name]) for name in projections]


def _fit(job: Job, samples: Sequence[Sample]) -> list[SampleMap]:
    """All of them side by side, a thread for each; the last ones, fewer than threads, share all."""
    threads = job.executor.threads
    full = len(samples) - len(samples) % threads
    fitted = list[SampleMap]()
    for part, n_jobs in ((samples[:full], 1), (samples[full:], threads // max(1, len(samples) - full))):
        fitted += job.executor.map(fit_sample, part, job.settings.seed, job.settings.map.perplexity, n_jobs)
    return fitted


def _sample(store: Store, projection: str, rows: int, seed: int) -> Sample:
    sample = load_sample(store, projection)
    Z = sample.Z[:, :LEADING]
    if len(sample.ids) <= rows:
        return sample.ids, Z
    kept = np.sort(np.random.default_rng(seed).choice(len(sample.ids), rows, replace=False))
    return sample.ids[kept], Z[kept]


def fit_sample(sample: Sample, seed: int, perplexity: float, n_jobs: int) -> SampleMap:
    """t-SNE of one sample."""
    ids, Z = sample
    return SampleMap(ids, Z, fit_map(Z, seed, perplexity, n_jobs))


def _publish(job: Job, projection: str, descriptor: str, found: SampleMap, wanted: str) -> str:
    store = job.store
    name = f"models/{descriptor}-map-{store.snapshot.number + 1:06d}"
    writer = LabelWriter(store, name, reduced_rows(store, projection), PLACES, fingerprint(wanted, "labels"))
    job.executor.map(place_block, writer.addresses, found)
    draft = store.draft(name, "model", wanted)
    for array in ("ids", "Z", "xy"):
        draft.write(array, getattr(found, array))
    role = f"{descriptor}/map"
    attributes = {
        "role": role,
        "descriptor": descriptor,
        "algorithm": "t-SNE",
        "parents": [projection],
        "extent": [float(v) for axis in (0, 1) for v in (found.xy[:, axis].min(), found.xy[:, axis].max())],
        "snapshot": store.snapshot.number,
    }
    drafts = writer.finish(role, _columns(descriptor))
    store.publish(f"map {descriptor}", drafts | {name: (draft, draft.entry(attributes, {}))})
    return name


def predict(job: Job, model: str) -> list[str]:
    """Place on a map as it is the rows of batches that it has not placed; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    addresses = reduced_rows(store, about["parents"][0], unlabelled(store, model))
    if not addresses:
        return []
    descriptor = about["descriptor"]
    with job.journal.stage(f"{descriptor}: place on the map", sum(len(rows) for rows in addresses)):
        writer = LabelWriter(store, model, addresses, PLACES, fingerprint(model, "labels"))
        found = SampleMap(*(store.read(model, array) for array in ("ids", "Z", "xy")))
        job.executor.map(place_block, writer.addresses, found)
        store.publish(f"predict {descriptor} map", writer.finish(about["role"], _columns(descriptor)))
    return sorted({rows.batch for rows in addresses})


def _columns(descriptor: str) -> dict[str, str]:
    return {"x": f"{descriptor}_x", "y": f"{descriptor}_y"}


def place_block(rows: Rows, found: SampleMap) -> None:
    """Places of one block's rows; none for rows that are not valid."""
    if rows.written("x", "y"):
        return
    Z, valid = read_valid(rows)
    xy = np.full((len(rows), 2), np.nan, np.float32)
    xy[valid] = place(Z[:, : found.Z.shape[1]], found.Z, found.xy)
    rows.write("x", np.ascontiguousarray(xy[:, 0]))
    rows.write("y", np.ascontiguousarray(xy[:, 1]))
