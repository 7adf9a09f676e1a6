"""Scale and reduce: a projection from the stored moments, then one affine GEMM over every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import decomposition as pca
from streamclust.config import AT, MIX
from streamclust.errors import InputError
from streamclust.job import Job, fingerprint
from streamclust.planning import chunk_rows
from streamclust.stages import projections
from streamclust.stages.sources import (
    Source,
    Weights,
    finite,
    load_projection,
    of_projection,
    read,
    reduced_name,
)
from streamclust.store import arrays
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store


@dataclass(frozen=True)
class Sample:
    """The resident sample of a projection: ids in the snapshot (m,) int64 and reduced rows (m, p) float32."""

    ids: NDArray[np.int64]
    Z: NDArray[np.float32]


def asked(job: Job) -> list[str]:
    """What is to be reduced and clustered: every descriptor, the same under further scalers, and their mix.

    Raises
    ------
    InputError : the mix is of descriptors that did not come in, or a descriptor has its name.
    """
    known, of = sorted(job.store.descriptors), job.settings.mix.of
    if of and MIX in known:
        raise InputError("setting mix.of", f"{MIX!r} is a descriptor that came in", "a store without one of that name")
    if unknown := sorted(set(of) - set(known)):
        raise InputError("setting mix.of", f"no descriptor {unknown[0]!r}", f"some of {', '.join(known)}")
    scaled = [f"{descriptor}{AT}{scaler}" for descriptor in known for scaler in job.settings.reduce.also]
    return sorted([*known, *scaled, *([MIX] if of else [])])


def reduce(job: Job, descriptors: Collection[str]) -> dict[str, str]:
    """The projections of some descriptors over the snapshot's batches, and ``reduced`` of each; returns their names.

    A descriptor under several scalers is read once. The mix joins what its descriptors' projections reduce, which are
    fitted first.
    """
    found = {d: _projection(job, Source(d)) for d in descriptors if d != MIX}
    extend(job, found.values())
    if MIX in descriptors:
        found[MIX] = _projection(job, _mix(job))
        extend(job, [found[MIX]])
    return found


def _projection(job: Job, source: Source) -> str:
    store, settings, descriptor = job.store, job.settings.reduce, source.descriptor
    batches = [batch for batch in store.batches if source.has(batch)]
    if not batches:
        raise InputError("setting mix.of", f"no batch has all of {', '.join(source.parts)}", "descriptors of one batch")
    further = descriptor.partition(AT)[2]
    scaler = "none" if source.parts else further or settings.scaler
    how = settings.model_dump(exclude={"also"}) | ({"scaler": further} if further else {})
    facts = [descriptor, [b.digest for b in batches], how, job.settings.seed]
    facts += [sorted(source.parts.items())] if source.parts else []
    wanted = fingerprint("projection", *facts)
    name = store.snapshot.find("projection", wanted)
    if name is None:
        with job.journal.stage(f"{descriptor}: fit PCA", sum(b.n for b in batches)):
            name = projections.fit(job, source, batches, scaler, wanted)
    return name


def _mix(job: Job) -> Source:
    """Each descriptor with the same variance over its rows, but for the weight of the settings."""
    store, settings, parts = job.store, job.settings.mix, dict[str, tuple[str, float]]()
    for descriptor, name in reduce(job, settings.of).items():
        variance = float(store.read(name, "explained_variance").sum())
        parts[descriptor] = name, settings.weights.get(descriptor, 1.0) / (variance or 1.0) ** 0.5
    return Source(MIX, parts)


def extend(job: Job, names: Iterable[str]) -> None:
    """Reduce, by projections as they are, every batch that they did not reduce yet; the same rows are read once."""
    store, alike = job.store, dict[tuple[Any, ...], dict[str, Source]]()
    every = {name: of_projection(store, name) for name in names}
    parents = [parent for source in every.values() for parent, _ in source.parts.values()]
    if parents:  # which share their reads with the others
        extend(job, [*parents, *(name for name, source in every.items() if not source.parts)])
    for name, source in every.items():
        alike.setdefault(tuple(source.parts.items()) or source.needs, {})[name] = source
    for sources in alike.values():
        for batch in store.batches:
            known = store.snapshot.entries
            missing = {n: s for n, s in sources.items() if s.has(batch) and reduced_name(n, batch) not in known}
            if missing:
                with job.journal.stage(f"{min(s.descriptor for s in missing.values())}: reduce {batch.id}", batch.n):
                    _reduce_batch(job, missing, batch)


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


def read_valid(rows: Rows, name: str = "Z") -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The valid reduced rows of an address, and which of its rows they are."""
    Z = rows.read(name)
    valid = np.isfinite(Z[:, 0])
    return (Z if valid.all() else Z[valid]), valid


def _reduce_batch(job: Job, sources: Mapping[str, Source], batch: Batch) -> None:
    """Rows of one batch by several projections, which share each read; all are published at once."""
    store, steps, frames, drafts = job.store, dict[str, int](), dict[str, pca.Projection](), dict[str, Draft]()
    source = next(iter(sources.values()))
    paths = dict(source.rows(store, [batch])[0].arrays)
    for name in sources:
        frames[name] = frame = load_projection(store, name)
        p = len(frame.components)
        drafts[name] = draft = store.draft(reduced_name(name, batch), "reduced", fingerprint(name, batch.digest))
        steps[name] = step = chunk_rows(batch.n, 4 * p)
        shapes = {"Z": (batch.n, p), "norm": (batch.n,), "residual": (batch.n,)}
        paths |= {f"{name}/{array}": draft.create(array, shape, np.float32, step) for array, shape in shapes.items()}
    addresses = list(store.rows(batch, max(steps.values()), paths))
    digests = job.executor.map(reduce_block, addresses, frames, steps, source.weights)
    found = {}
    for name, of in sources.items():
        attributes = {"projection": name, "batch": batch.name, "descriptor": of.descriptor}
        whole = hashlib.sha256("".join(digest for block in digests for digest in block[name]).encode()).hexdigest()
        found[reduced_name(name, batch)] = drafts[name], drafts[name].entry(attributes, {"Z": whole})
    store.publish(f"reduce {', '.join(found)}", found)


def reduce_block(
    rows: Rows, projections: Mapping[str, pca.Projection], steps: Mapping[str, int], weights: Weights
) -> dict[str, list[str]]:
    """One block through the affine map of each projection, whole chunks of ``steps`` rows written one by one.

    Rows that are not valid become NaN. Returns the digests of the chunks of each ``Z``.
    """
    writing = [_Writing(name, frame, rows, steps[name]) for name, frame in projections.items()]
    if not all(all(each.digests) for each in writing):
        for start, X in read(rows, weights):
            for each in writing:
                each.add(start, X)
    return {each.name: each.digests for each in writing}


class _Writing:
    """What one projection makes of an address's rows, written as soon as a chunk is whole."""

    def __init__(self, name: str, projection: pca.Projection, rows: Rows, step: int) -> None:
        self.name, self.step, self._projection = name, step, projection
        self._arrays = [f"{name}/{array}" for array in ("Z", "norm", "residual")]
        self._chunks = list(rows.split(step))
        self.digests = [c.digest(self._arrays[0]) if c.written(*self._arrays) else "" for c in self._chunks]

    def add(self, start: int, X: NDArray[Any]) -> None:
        """The address's rows from ``start`` on, which come in order."""
        for at in range(0, len(X), self.step):
            self._fill(*divmod(start + at, self.step), X[at : at + self.step])

    def _fill(self, i: int, at: int, X: NDArray[Any]) -> None:
        chunk = self._chunks[i]
        if self.digests[i]:
            return
        if at == 0:
            shapes = (len(chunk), len(self._projection.components)), len(chunk), len(chunk)
            self._held = [np.full(shape, np.nan, np.float32) for shape in shapes]
        valid = finite(X)
        here = np.flatnonzero(valid) + at
        found = pca.transform(self._projection, X if valid.all() else X[valid])
        for held, values in zip(self._held, found, strict=True):
            held[here] = values
        if at + len(X) == len(chunk):
            digests = [chunk.write(*pair) for pair in zip(self._arrays, self._held, strict=True)]
            self.digests[i] = digests[0]
