"""A descriptor's projection: scaler and PCA from stored moments, with the reduced rows of its resident sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import decomposition as pca
from streamclust import moments as mo
from streamclust.errors import InputError
from streamclust.job import Job
from streamclust.planning import WIDE
from streamclust.preprocessing import fit_scaler, resolve
from streamclust.sampling import smallest
from streamclust.stages.sources import Sampled, Source, Weights, finite, read
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

_SCALER_BYTES = 64 * 2**20


def fit(job: Job, source: Source, batches: Sequence[Batch], scaler: str, wanted: str) -> str:
    """Fit and publish the projection of a source over some batches; returns its name.

    Raises
    ------
    InputError : no row, or no sampled one, is valid.
    """
    store, settings, descriptor = job.store, job.settings.reduce, source.descriptor
    moments = _moments(job, source, batches)
    if moments.n < 1:
        raise InputError(descriptor, "no valid row: every one has NaN or infinite values", "finite descriptors")
    picked = _pick_sample(store, batches, job.settings.ingest.sample_rows)
    if not any(len(rows) for _, (rows, _) in _sample_chunks(store, source, batches, picked)):
        found = f"none of the {sum(map(len, picked)):,} sampled rows is valid ({moments.n:,} of all rows are)"
        raise InputError(descriptor, found, "finite descriptors", "leave the descriptor out")
    scaler = resolve(scaler, moments)
    raw = _head(store, source, batches, picked, _SCALER_BYTES) if scaler == "robust" else np.empty((0, 0))
    affine = fit_scaler(scaler, moments, raw)
    keep = settings.components or settings.variance
    if moments.scatter is not None:
        projection = pca.fit_pca(moments, affine, keep)
    else:
        addresses = source.rows(store, batches)

        def multiply(frame: pca.Projection, basis: NDArray[np.float32]) -> NDArray[np.float64]:
            return job.executor.fold(add_range, addresses, np.add, frame, basis, source.weights)

        projection = pca.find_range(multiply, moments, affine, keep, job.settings.seed)
    if (p := len(projection.components)) < (settings.components or 0):
        job.journal.warn(f"{descriptor}: reduce.components = {settings.components}, but {p} have variance: {p} kept")
    name = f"projections/{descriptor}-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "projection", wanted)
    _write(draft, projection)
    _write_sample(draft, store, source, projection, batches, picked)
    attributes = {
        "descriptor": descriptor,
        "scaler": scaler,
        "components": len(projection.components),
        "explained": float(projection.explained_variance_ratio.sum()),
        "total_variance": projection.total_variance,
        "rows": moments.n,
        "batches": [batch.name for batch in batches],
        "parts": [[d, parent, weight] for d, (parent, weight) in source.parts.items()],
        "snapshot": store.snapshot.number,
    }
    store.publish(f"fit {name}", {name: (draft, draft.entry(attributes, {}))})
    return name


def _moments(job: Job, source: Source, batches: Sequence[Batch]) -> mo.Moments:
    """Stored moments merged; batches too thin to keep a scatter are read again, and of the mix none are stored."""
    d = source.features(job.store)
    wide = d > WIDE
    total = mo.identity(d, scatter=not wide)
    unread = []
    for batch in batches:
        stored = None if source.parts else load_moments(job.store, source.needs[0], batch)
        if stored is None or (stored.scatter is None and not wide):
            unread.append(batch)
        else:
            total = mo.merge(total, stored)
    if unread:
        addresses = source.rows(job.store, unread)
        total = mo.merge(total, job.executor.fold(add_moments, addresses, mo.merge, source.weights, not wide))
    return total


def load_moments(store: Store, descriptor: str, batch: Batch) -> mo.Moments:
    """A batch's stored moments."""
    room = f"moments/{descriptor}"
    mean, m2, low, high = (store.read(batch.name, f"{room}/{name}") for name in ("mean", "m2", "min", "max"))
    packed = f"{room}/scatter" in batch.entry.arrays
    scatter = mo.unpack(store.read(batch.name, f"{room}/scatter"), len(mean)) if packed else None
    return mo.Moments(int(store.read(batch.name, f"{room}/n")[0]), mean, m2, low, high, scatter)


def add_moments(state: mo.Moments | None, rows: Rows, weights: Weights, scatter: bool) -> mo.Moments:
    """One stored block into moments."""
    for _, X in read(rows, weights):
        state = mo.accumulate(state or mo.identity(X.shape[1], scatter=scatter), _valid(X))
    assert state is not None
    return state


def add_range(
    state: NDArray[np.float64] | None, rows: Rows, frame: pca.Projection, basis: NDArray[np.float32], weights: Weights
) -> NDArray[np.float64]:
    """One stored block into the range finder's product."""
    for _, X in read(rows, weights):
        part = pca.range_block(frame, _valid(X), basis)
        state = part if state is None else state + part
    assert state is not None
    return state


def _valid(X: NDArray[Any]) -> NDArray[Any]:
    valid = finite(X)
    return X if valid.all() else X[valid]


def _pick_sample(store: Store, batches: Sequence[Batch], size: int) -> list[NDArray[np.int64]]:
    """For each batch the positions in its stored sample that belong to the union's bottom-k."""
    hashes = [store.read(batch.name, "sample/hashes") for batch in batches]
    where = np.repeat(np.arange(len(batches)), [len(h) for h in hashes])
    positions = np.concatenate([np.arange(len(h)) for h in hashes])
    kept, _ = smallest(np.arange(len(where)), np.concatenate(hashes), size)
    return [positions[kept][where[kept] == i] for i in range(len(batches))]


def _sample_chunks(
    store: Store, source: Source, batches: Sequence[Batch], picked: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[int, Sampled]]:
    """Which batch, and some of its sampled rows."""
    for i, (batch, positions) in enumerate(zip(batches, picked, strict=True)):
        for sampled in source.sample(store, batch.name, positions):
            yield i, sampled


def _head(
    store: Store, source: Source, batches: Sequence[Batch], picked: Sequence[NDArray[np.int64]], most: int
) -> NDArray[Any]:
    blocks, held = [], 0
    for _, (_, X) in _sample_chunks(store, source, batches, picked):
        blocks.append(X)
        held += X.nbytes
        if held >= most:
            break
    return np.concatenate(blocks)


def _write(draft: Draft, projection: pca.Projection) -> None:
    draft.write("center", projection.affine.center)
    draft.write("scale", projection.affine.scale)
    draft.write("mean", projection.mean)
    draft.write("components", projection.components)
    draft.write("explained_variance", projection.explained_variance)


def _write_sample(
    draft: Draft,
    store: Store,
    source: Source,
    projection: pca.Projection,
    batches: Sequence[Batch],
    picked: Sequence[NDArray[np.int64]],
) -> None:
    parts = [
        (np.full(len(rows), i, np.int32), rows, pca.transform(projection, X).rows)
        for i, (rows, X) in _sample_chunks(store, source, batches, picked)
    ]
    for array, values in zip(("batch", "row", "reduced"), zip(*parts, strict=True), strict=True):
        draft.write(f"sample/{array}", np.concatenate(values))
