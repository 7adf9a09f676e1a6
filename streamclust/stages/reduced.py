"""Scale and reduce: a projection from the stored moments, then one affine GEMM over every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust import decomposition as pca
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.planning import chunk_rows
from streamclust.stages import projections
from streamclust.stages.sources import MIX, Source, Weights, finite, load_projection, of_projection, read, reduced_name
from streamclust.store import arrays
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store


@dataclass(frozen=True)
class Sample:
    """The resident sample of a projection: ids in the snapshot (m,) int64 and reduced rows (m, p) float32."""

    ids: NDArray[np.int64]
    Z: NDArray[np.float32]


def asked(job: Job) -> list[str]:
    """What is to be reduced and clustered: every descriptor and, where the settings have one, their mix.

    Raises
    ------
    InputError : the mix is of descriptors that did not come in, or a descriptor has its name.
    """
    known, of = sorted(job.store.descriptors), job.settings.mix.of
    if of and MIX in known:
        raise InputError("setting mix.of", f"{MIX!r} is a descriptor that came in", "a store without one of that name")
    if unknown := sorted(set(of) - set(known)):
        raise InputError("setting mix.of", f"no descriptor {unknown[0]!r}", f"some of {', '.join(known)}")
    return sorted([*known, *([MIX] if of else [])])


def reduce(job: Job, descriptor: str) -> str:
    """The projection of a descriptor over the snapshot's batches, and ``reduced`` of each; returns its name.

    That of the mix joins what the projections of its descriptors reduce, which are fitted first.
    """
    store, settings = job.store, job.settings.reduce
    source = _mix(job) if descriptor == MIX else Source(descriptor)
    batches = [batch for batch in store.batches if source.has(batch)]
    if not batches:
        raise InputError("setting mix.of", f"no batch has all of {', '.join(source.parts)}", "descriptors of one batch")
    facts = [descriptor, [b.digest for b in batches], settings.model_dump(), job.settings.seed]
    facts += [sorted(source.parts.items())] if source.parts else []
    wanted = fingerprint("projection", *facts)
    name = store.snapshot.find("projection", wanted)
    if name is None:
        with job.journal.stage(f"{descriptor}: fit PCA", sum(b.n for b in batches)):
            name = projections.fit(job, source, batches, wanted)
    extend(job, name)
    return name


def _mix(job: Job) -> Source:
    """Each descriptor with the same variance over its rows, but for the weight of the settings."""
    store, settings, parts = job.store, job.settings.mix, dict[str, tuple[str, float]]()
    for descriptor in settings.of:
        name = reduce(job, descriptor)
        variance = float(store.read(name, "explained_variance").sum())
        parts[descriptor] = name, settings.weights.get(descriptor, 1.0) / (variance or 1.0) ** 0.5
    return Source(MIX, parts)


def extend(job: Job, name: str) -> None:
    """Reduce, by a projection as it is, every batch that it did not reduce yet."""
    store, source = job.store, of_projection(job.store, name)
    missing = [b for b in store.batches if source.has(b) and reduced_name(name, b) not in store.snapshot.entries]
    if not missing:
        return
    for parent, _ in source.parts.values():
        extend(job, parent)
    projection = load_projection(store, name)
    for batch in missing:
        with job.journal.stage(f"{source.descriptor}: reduce {batch.id}", batch.n):
            _reduce_batch(job, source, name, projection, batch)


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


def _reduce_batch(job: Job, source: Source, name: str, projection: pca.Projection, batch: Batch) -> None:
    store, n, p = job.store, batch.n, len(projection.components)
    target = reduced_name(name, batch)
    draft = store.draft(target, "reduced", fingerprint(name, batch.digest))
    step = chunk_rows(n, 4 * p)
    paths = {
        **source.rows(store, [batch])[0].arrays,
        "Z": draft.create("Z", (n, p), np.float32, step),
        "norm": draft.create("norm", (n,), np.float32, step),
        "residual": draft.create("residual", (n,), np.float32, step),
    }
    digests = job.executor.map(reduce_block, list(store.rows(batch, step, paths)), projection, source.weights)
    attributes = {"projection": name, "batch": batch.name, "descriptor": source.descriptor}
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    store.publish(f"reduce {target}", {target: (draft, draft.entry(attributes, {"Z": whole}))})


def reduce_block(rows: Rows, projection: pca.Projection, weights: Weights) -> str:
    """One block through the affine map; rows that are not valid become NaN. Returns the digest of ``Z``."""
    if rows.written("Z", "norm", "residual"):
        return rows.digest("Z")
    Z = np.full((len(rows), len(projection.components)), np.nan, np.float32)
    norm, residual = np.full(len(rows), np.nan, np.float32), np.full(len(rows), np.nan, np.float32)
    for start, X in read(rows, weights):
        valid = finite(X)
        here = np.flatnonzero(valid) + start
        Z[here], norm[here], residual[here] = pca.transform(projection, X if valid.all() else X[valid])
    rows.write("norm", norm)
    rows.write("residual", residual)
    return rows.write("Z", Z)
