"""Scale and reduce: a projection from the stored moments, then one affine GEMM over every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import decomposition as pca
from streamclust import moments as mo
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.planning import chunk_rows
from streamclust.preprocessing import Affine, fit_scaler
from streamclust.sampling import smallest
from streamclust.store import arrays
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

_SCALER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Sample:
    """The resident sample of a projection: ids in the snapshot (m,) int64 and reduced rows (m, p) float32."""

    ids: NDArray[np.int64]
    Z: NDArray[np.float32]


def reduce(job: Job, descriptor: str) -> str:
    """The projection of a descriptor over the snapshot's batches, and ``reduced`` of each; returns its name."""
    store, settings = job.store, job.settings.reduce
    batches = [batch for batch in store.batches if batch.has(descriptor)]
    facts = [descriptor, [b.digest for b in batches], settings.model_dump(), job.settings.seed]
    wanted = fingerprint("projection", *facts)
    name = store.snapshot.find("projection", wanted)
    if name is None:
        with job.journal.stage(f"{descriptor}: fit PCA", sum(b.n for b in batches)):
            name = _fit(job, descriptor, batches, wanted)
    extend(job, name)
    return name


def extend(job: Job, name: str) -> None:
    """Reduce, by a projection as it is, every batch that it did not reduce yet."""
    store = job.store
    descriptor, projection = store.snapshot.entries[name].attributes["descriptor"], load_projection(store, name)
    for batch in store.batches:
        if batch.has(descriptor) and reduced_name(name, batch) not in store.snapshot.entries:
            with job.journal.stage(f"{descriptor}: reduce {batch.id}", batch.n):
                _reduce_batch(job, descriptor, name, projection, batch)


def reduced_name(projection: str, batch: Batch) -> str:
    """The manifest's name for one batch reduced by one projection."""
    return f"reduced/{projection.split('/', 1)[1]}/{batch.name.split('/', 1)[1]}"


def load_projection(store: Store, name: str) -> pca.Projection:
    """A stored projection."""
    parts = {k: store.read(name, k) for k in ("center", "scale", "mean", "components", "explained_variance")}
    total = store.snapshot.entries[name].attributes["total_variance"]
    affine = Affine(parts["center"], parts["scale"])
    return pca.Projection(affine, parts["mean"], parts["components"], parts["explained_variance"], total)


def load_sample(store: Store, projection: str) -> Sample:
    """The reduced sample rows of a projection, by hash order-free and complete rows only; forgotten ones are gone."""
    entry = store.snapshot.entries[projection]
    bases = {batch.name: batch.base for batch in store.every_batch}
    base = np.array([bases[name] for name in entry.attributes["batches"]])
    ids = base[store.read(projection, "sample/batch")] + store.read(projection, "sample/row")
    Z = store.read(projection, "sample/reduced")
    kept = np.isfinite(Z[:, 0])
    return Sample(ids.astype(np.int64)[kept], Z[kept])


def reduced_rows(store: Store, projection: str, batches: Sequence[Batch] | None = None, **extra: str) -> list[Rows]:
    """Addresses of reduced rows, as ``Z``, of all batches or of some; ``extra`` names further arrays of the group."""
    found: list[Rows] = []
    for batch in store.batches if batches is None else batches:
        name = reduced_name(projection, batch)
        if name in store.snapshot.entries:
            paths = {"Z": store.array(name, "Z")} | {key: store.array(name, array) for key, array in extra.items()}
            found += store.rows(batch, arrays.rows_per_chunk(paths["Z"]), paths)
    return found


def read_valid(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The valid reduced rows of an address, and which of its rows they are."""
    Z = rows.read("Z")
    valid = np.isfinite(Z[:, 0])
    return (Z if valid.all() else Z[valid]), valid


def _fit(job: Job, descriptor: str, batches: Sequence[Batch], wanted: str) -> str:
    store, settings = job.store, job.settings.reduce
    moments = _moments(job, descriptor, batches)
    if moments.n < 1:
        raise InputError(descriptor, "no valid row: every one has NaN or infinite values", "finite descriptors")
    picked = _pick_sample(store, batches, job.settings.ingest.sample_rows)
    if not any(len(rows) for _, rows, _ in _sample_chunks(store, descriptor, [b.name for b in batches], picked)):
        found = f"none of the {sum(map(len, picked)):,} sampled rows is valid ({moments.n:,} of all rows are)"
        raise InputError(descriptor, found, "finite descriptors", "leave the descriptor out")
    raw = _head(store, descriptor, picked, _SCALER_BYTES) if settings.scaler == "robust" else np.empty((0, 0))
    affine = fit_scaler(settings.scaler, moments, raw)
    keep = settings.components or settings.variance
    if moments.scatter is not None:
        projection = pca.fit_pca(moments, affine, keep)
    else:
        addresses = _source_rows(store, descriptor, batches)

        def multiply(frame: pca.Projection, basis: NDArray[np.float32]) -> NDArray[np.float64]:
            return job.executor.fold(add_range, addresses, np.add, frame, basis)

        projection = pca.find_range(multiply, moments, affine, keep, job.settings.seed)
    name = f"projections/{descriptor}-{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "projection", wanted)
    _write(draft, projection)
    _write_sample(draft, store, descriptor, projection, picked)
    attributes = {
        "descriptor": descriptor,
        "scaler": settings.scaler,
        "components": len(projection.components),
        "explained": float(projection.explained_variance_ratio.sum()),
        "total_variance": projection.total_variance,
        "rows": moments.n,
        "batches": [batch.name for batch in batches],
        "snapshot": store.snapshot.number,
    }
    store.publish(f"fit {name}", {name: (draft, draft.entry(attributes, {}))})
    return name


def _moments(job: Job, descriptor: str, batches: Sequence[Batch]) -> mo.Moments:
    """Stored moments merged; batches too thin to keep a scatter are read again."""
    d = job.store.descriptors[descriptor]
    wide = d > pca.WIDE
    total = mo.identity(d, scatter=not wide)
    thin = []
    for batch in batches:
        stored = load_moments(job.store, descriptor, batch)
        if stored.scatter is None and not wide:
            thin.append(batch)
        else:
            total = mo.merge(total, stored)
    if thin:
        total = mo.merge(total, job.executor.fold(add_moments, _source_rows(job.store, descriptor, thin), mo.merge))
    return total


def load_moments(store: Store, descriptor: str, batch: Batch) -> mo.Moments:
    """A batch's stored moments."""
    room = f"moments/{descriptor}"
    mean, m2, low, high = (store.read(batch.name, f"{room}/{name}") for name in ("mean", "m2", "min", "max"))
    packed = f"{room}/scatter" in batch.entry.arrays
    scatter = mo.unpack(store.read(batch.name, f"{room}/scatter"), len(mean)) if packed else None
    return mo.Moments(int(store.read(batch.name, f"{room}/n")[0]), mean, m2, low, high, scatter)


def _source_rows(store: Store, descriptor: str, batches: Sequence[Batch]) -> list[Rows]:
    found: list[Rows] = []
    for batch in batches:
        paths = {"X": store.array(batch.name, f"descriptors/{descriptor}")}
        found += store.rows(batch, arrays.rows_per_chunk(paths["X"]), paths)
    return found


def _finite(X: NDArray[Any]) -> NDArray[Any]:
    valid = np.isfinite(X).all(axis=1)
    return X if valid.all() else X[valid]


def add_moments(state: mo.Moments | None, rows: Rows) -> mo.Moments:
    """One stored block into moments with scatter."""
    X = rows.read("X")
    return mo.accumulate(state or mo.identity(X.shape[1], scatter=True), _finite(X))


def add_range(
    state: NDArray[np.float64] | None, rows: Rows, frame: pca.Projection, basis: NDArray[np.float32]
) -> NDArray[np.float64]:
    """One stored block into the range finder's product."""
    part = pca.range_block(frame, _finite(rows.read("X")), basis)
    return part if state is None else state + part


def _pick_sample(store: Store, batches: Sequence[Batch], size: int) -> list[NDArray[np.int64]]:
    """For each batch the positions in its stored sample that belong to the union's bottom-k."""
    hashes = [store.read(batch.name, "sample/hashes") for batch in batches]
    where = np.repeat(np.arange(len(batches)), [len(h) for h in hashes])
    positions = np.concatenate([np.arange(len(h)) for h in hashes])
    kept, _ = smallest(np.arange(len(where)), np.concatenate(hashes), size)
    return [positions[kept][where[kept] == i] for i in range(len(batches))]


def _sample_chunks(
    store: Store, descriptor: str, batches: Sequence[str], picked: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]:
    """(batch index, row numbers in the batch, finite rows) a stored chunk at a time."""
    for i, (batch, positions) in enumerate(zip(batches, picked, strict=True)):
        path, numbers = store.array(batch, f"sample/{descriptor}"), store.read(batch, "sample/rows")
        step = arrays.rows_per_chunk(path)
        for start in range(0, len(numbers), step):
            here = positions[(positions >= start) & (positions < start + step)]
            X = arrays.read_rows(path, start, min(start + step, len(numbers)))[here - start]
            valid = np.isfinite(X).all(axis=1)
            yield i, numbers[here[valid]], X[valid]


def _head(store: Store, descriptor: str, picked: Sequence[NDArray[np.int64]], most: int) -> NDArray[Any]:
    names = [batch.name for batch in store.batches if batch.has(descriptor)]
    blocks, held = [], 0
    for _, _, X in _sample_chunks(store, descriptor, names, picked):
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
    draft: Draft, store: Store, descriptor: str, projection: pca.Projection, picked: Sequence[NDArray[np.int64]]
) -> None:
    names = [batch.name for batch in store.batches if batch.has(descriptor)]
    parts = [
        (np.full(len(rows), i, np.int32), rows, pca.transform(projection, X).rows)
        for i, rows, X in _sample_chunks(store, descriptor, names, picked)
    ]
    for array, values in zip(("batch", "row", "reduced"), zip(*parts, strict=True), strict=True):
        draft.write(f"sample/{array}", np.concatenate(values))


def _reduce_batch(job: Job, descriptor: str, name: str, projection: pca.Projection, batch: Batch) -> None:
    store, n, p = job.store, batch.n, len(projection.components)
    target = reduced_name(name, batch)
    draft = store.draft(target, "reduced", fingerprint(name, batch.digest))
    step = chunk_rows(n, 4 * p)
    paths = {
        "X": store.array(batch.name, f"descriptors/{descriptor}"),
        "Z": draft.create("Z", (n, p), np.float32, step),
        "norm": draft.create("norm", (n,), np.float32, step),
        "residual": draft.create("residual", (n,), np.float32, step),
    }
    digests = job.executor.map(reduce_block, list(store.rows(batch, step, paths)), projection)
    attributes = {"projection": name, "batch": batch.name, "descriptor": descriptor}
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    store.publish(f"reduce {target}", {target: (draft, draft.entry(attributes, {"Z": whole}))})


def reduce_block(rows: Rows, projection: pca.Projection) -> str:
    """One block through the affine map; rows that are not valid become NaN. Returns the digest of ``Z``."""
    if rows.written("Z", "norm", "residual"):
        return rows.digest("Z")
    Z = np.full((len(rows), len(projection.components)), np.nan, np.float32)
    norm, residual = np.full(len(rows), np.nan, np.float32), np.full(len(rows), np.nan, np.float32)
    step = arrays.rows_per_chunk(rows.arrays["X"])
    for start in range(rows.start, rows.stop, step):
        X = arrays.read_rows(rows.arrays["X"], start, min(start + step, rows.stop))
        valid = np.isfinite(X).all(axis=1)
        here = np.flatnonzero(valid) + (start - rows.start)
        Z[here], norm[here], residual[here] = pca.transform(projection, X if valid.all() else X[valid])
    rows.write("norm", norm)
    rows.write("residual", residual)
    return rows.write("Z", Z)
