"""A case becomes a batch: one read of the source writes the rows, folds their moments and keeps a sample."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamclust import moments as mo
from streamclust.errors import InputError
from streamclust.images import PLACES, write_images
from streamclust.job import Job
from streamclust.planning import SCATTER_ROWS, WIDE, chunk_rows
from streamclust.readers.arrivals import listing_of
from streamclust.readers.case import Case
from streamclust.readers.sources import ArraySource, Source, addressable, unpacked_bytes
from streamclust.sampling import batch_key, sample_rows
from streamclust.store import arrays, chunks
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry, Snapshot
from streamclust.store.rows import Rows, leaves


@dataclass(frozen=True)
class Taken:
    """What a fold over a source's blocks has seen; ``digests`` by first row, ``kept`` blocks found written already."""

    moments: mo.Moments
    digests: Mapping[int, str]
    valid: int
    kept: int


def ingest(job: Job, case: Case, batch: str | None = None) -> str:
    """Bring a case in as a batch; returns its name in the manifest. The same rows again are a no-op.

    Raises
    ------
    InputError : the batch's name is taken by other content, or a source changed while it was read.
    """
    batch = _checked_id(batch or case.name)
    if clash := sorted(case.paths.columns.keys() & set(PLACES)):
        raise InputError(case.paths.path, f"a column is called {clash[0]!r}", "a name that is not taken", "rename it")
    store = job.store
    _refuse_other_features(store.descriptors, case)
    for known in store.every_batch:
        if known.id == batch:
            same = _same_or_error(known.name, known.entry, _digest(_read_digests(job, case, known.name), case))
            job.journal.note(f"batch {batch} is stored already: nothing to ingest")
            return same
    name = f"batches/{len(store.numbered) + 1:06d}-{batch}"
    draft = store.draft(name, "batch", _fingerprint(case, batch, job))
    try:
        return _publish(job, name, draft, _write(job, draft, case, batch))
    except InputError:
        draft.discard()
        raise
    except BaseException:
        draft.abandon()
        raise


def _write(job: Job, draft: Draft, case: Case, batch: str) -> Entry:
    """Everything of a batch into its draft."""
    sample = sample_rows(case.paths.n, job.settings.ingest.sample_rows, batch_key(batch, job.settings.seed))
    sources = _unpacked(job, draft, case)
    with job.journal.stage("ingest", case.paths.n):
        taken = {name: _take(job, draft, name, source, sample[0]) for name, source in sources.items()}
        _refuse_useless(job, case, taken)
        _finish_samples(draft, case, sample)
        missing = write_images(job, draft, case)
    kept = sum(t.kept for t in taken.values())
    if draft.adopted and kept:
        job.journal.note(f"resumed: {kept} blocks of batch {batch} were written already")
    if missing:
        job.journal.warn(f"{missing:,} of {case.paths.n:,} pictures were not found; their rows have no picture")
    digests = {descriptor: t.digests for descriptor, t in taken.items()}
    return _entry(draft, case, batch, taken, _digest(digests, case))


def _unpacked(job: Job, draft: Draft, case: Case) -> dict[str, ArraySource]:
    """Matrices that can be read from the front only become plain files beside the draft, and go with it."""
    place = draft.scratch / ".unpacked"  # no descriptor's name begins with a dot
    if any(map(unpacked_bytes, case.descriptors.values())):
        with job.journal.stage("unpack", case.paths.n):
            return {name: addressable(source, place / f"{name}.npy") for name, source in case.descriptors.items()}
    return {name: addressable(source, place) for name, source in case.descriptors.items()}


def _refuse_other_features(stored: Mapping[str, int], case: Case) -> None:
    """A descriptor of another width is another descriptor."""
    for descriptor, source in case.descriptors.items():
        if (d := stored.get(descriptor, source.shape[1])) != source.shape[1]:
            found, hint = f"{source.shape[1]} features", "another network's descriptors need a name of their own"
            raise InputError(source.path, found, f"{d}, as {descriptor} has in the store", hint)


def _refuse_useless(job: Job, case: Case, taken: Mapping[str, Taken]) -> None:
    """A descriptor without one valid row in the whole store could never be fitted."""
    seen = {d for b in job.store.batches for d, about in b.entry.attributes["descriptors"].items() if about["valid"]}
    for descriptor, found in taken.items():
        if not found.valid and descriptor not in seen:
            path = case.descriptors[descriptor].path
            raise InputError(path, "no valid row: every one has NaN or infinite values", "finite numbers")


def _checked_id(batch: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", batch):
        raise InputError(f"batch {batch!r}", "not usable as a name", "letters, digits, _ . -", "give one with --batch")
    return batch


def _fingerprint(case: Case, batch: str, job: Job) -> str:
    sources = {k: (s.shape, s.dtype.str, s.fingerprint) for k, s in case.descriptors.items()}
    table = (case.paths.digest, case.paths.fingerprint, case.paths.columns, case.paths.layout.positions)
    facts = [batch, job.settings.seed, job.settings.ingest.sample_rows, sources, table]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _grid(source: Source) -> tuple[int, list[Rows]]:
    n, d = source.shape
    rows = chunk_rows(n, d * source.dtype.itemsize)
    return rows, list(leaves("", 0, n, rows, {}))


def _take(job: Job, draft: Draft, descriptor: str, source: ArraySource, chosen: NDArray[np.int64]) -> Taken:
    """Write one descriptor; fold its moments; leave its sample rows beside the draft."""
    n, d = source.shape
    step, grid = _grid(source)
    paths = {
        "X": draft.create(f"descriptors/{descriptor}", (n, d), source.dtype, step),
        "valid": draft.create(f"valid/{descriptor}", (n,), np.bool_, step),
    }
    addresses = [replace(rows, arrays=paths) for rows in grid]
    scatter = d <= WIDE and n >= SCATTER_ROWS * d
    scratch = draft.scratch / descriptor
    scratch.mkdir(parents=True, exist_ok=True)
    run = 8 if d > 1024 else 1
    taken = job.executor.fold(take_block, addresses, merge_taken, source, chosen, scatter, scratch, run=run)
    _write_moments(draft, descriptor, taken.moments)
    return taken


def take_block(
    state: Taken | None, rows: Rows, source: ArraySource, chosen: NDArray[np.int64], scatter: bool, scratch: Path
) -> Taken:
    """One block: read, check, write, add up; chosen rows go to ``scratch`` by their first row."""
    kept = rows.written("X", "valid")
    X = rows.read("X") if kept else source.read(rows.start, rows.stop)
    valid = np.isfinite(X).all(axis=1)
    digest = arrays.digest(X) if kept else rows.write("X", X)
    if not kept:
        rows.write("valid", valid)
    lo, hi = np.searchsorted(chosen, [rows.start, rows.stop])
    _save(scratch / f"{rows.start}.npy", X[chosen[lo:hi] - rows.start])
    if state is None:
        state = Taken(mo.identity(source.shape[1], scatter=scatter), {}, 0, 0)
    moments = mo.accumulate(state.moments, X if valid.all() else X[valid])
    digests = {**state.digests, rows.start: digest}
    return Taken(moments, digests, state.valid + int(valid.sum()), state.kept + kept)


def _save(path: Path, values: NDArray[np.generic]) -> None:
    """A .npy that appears at once: the task may run twice, and the second time while the first one's rows are read."""
    held = io.BytesIO()
    np.save(held, values)
    chunks.put(path, held.getbuffer())


def merge_taken(a: Taken, b: Taken) -> Taken:
    """Both."""
    return Taken(mo.merge(a.moments, b.moments), {**a.digests, **b.digests}, a.valid + b.valid, a.kept + b.kept)


def _write_moments(draft: Draft, descriptor: str, moments: mo.Moments) -> None:
    room = f"moments/{descriptor}"
    draft.write(f"{room}/n", np.array([moments.n]))
    for name in ("mean", "m2", "min", "max"):
        draft.write(f"{room}/{name}", getattr(moments, name))
    if moments.scatter is not None:
        draft.write(f"{room}/scatter", mo.pack(moments.scatter))


def _finish_samples(draft: Draft, case: Case, sample: tuple[NDArray[np.int64], NDArray[np.uint64]]) -> None:
    """The sample rows that tasks left in scratch files become ``sample/<descriptor>``, a chunk at a time."""
    draft.write("sample/rows", sample[0])
    draft.write("sample/hashes", sample[1])
    for descriptor, source in case.descriptors.items():
        path = draft.create(f"sample/{descriptor}", (len(sample[0]), source.shape[1]), source.dtype)
        step, held, start = arrays.rows_per_chunk(path), np.empty((0, source.shape[1]), source.dtype), 0
        for rows in _grid(source)[1]:
            held = np.concatenate([held, np.load(draft.scratch / descriptor / f"{rows.start}.npy")])
            while len(held) >= step or (rows.stop == source.shape[0] and len(held)):
                arrays.write_rows(path, start, held[:step])
                start, held = start + len(held[:step]), held[step:]


def _read_digests(job: Job, case: Case, name: str) -> dict[str, dict[int, str]]:
    """The digests of a case's blocks without storing them; what has to be unpacked lies beside a draft that goes."""
    draft = None
    if any(map(unpacked_bytes, case.descriptors.values())):
        draft = job.store.draft(f"{name}-again", "batch", _fingerprint(case, name, job))
    try:
        sources = case.descriptors if draft is None else _unpacked(job, draft, case)
        with job.journal.stage("compare with what is stored", case.paths.n):
            return {descriptor: _block_digests(job, source) for descriptor, source in sources.items()}
    finally:
        if draft:
            draft.discard()


def _block_digests(job: Job, source: Source) -> dict[int, str]:
    grid = _grid(source)[1]
    return {rows.start: v for rows, v in zip(grid, job.executor.map(digest_block, grid, source), strict=True)}


def digest_block(rows: Rows, source: ArraySource) -> str:
    """The digest of one block of a source."""
    return arrays.digest(source.read(rows.start, rows.stop))


def _digest(digests: Mapping[str, Mapping[int, str]], case: Case) -> str:
    """A batch's identity: its paths and the bytes of its rows, whatever their container."""
    h = hashlib.sha256(case.paths.digest.encode())
    for descriptor in sorted(digests):
        h.update(f"\n{descriptor}:{','.join(digests[descriptor][row] for row in sorted(digests[descriptor]))}".encode())
    return h.hexdigest()


def _entry(draft: Draft, case: Case, batch: str, taken: Mapping[str, Taken], digest: str) -> Entry:
    about = {
        descriptor: {
            "features": source.shape[1],
            "dtype": source.dtype.name,
            "valid": taken[descriptor].valid,
            "source_bytes": source.fingerprint[0],
        }
        for descriptor, source in case.descriptors.items()
    }
    pictures = case.pictures
    attributes = {
        "id": batch,
        "rows": case.paths.n,
        "digest": digest,
        "descriptors": about,
        "columns": dict(case.paths.columns),
        "source": str(case.folder.absolute()),
        "listing": listing_of(case.folder),
        "pictures": None if pictures is None else asdict(pictures) | {"root": str(pictures.root.absolute())},
    }
    digests = {
        f"descriptors/{name}": hashlib.sha256("".join(v for _, v in sorted(t.digests.items())).encode()).hexdigest()
        for name, t in taken.items()
    }
    return draft.entry(attributes, digests)


def _same_or_error(name: str, entry: Entry, digest: str) -> str:
    if entry.attributes["digest"] != digest:
        where = f"batch {entry.attributes['id']!r}"
        raise InputError(where, "already stored with other content", "a new name", "give one with --batch")
    return name


class _AlreadyStoredError(Exception):
    def __init__(self, name: str) -> None:
        self.name = name


def _publish(job: Job, name: str, draft: Draft, entry: Entry) -> str:
    def check(newest: Snapshot) -> None:
        for known, other in newest.of_kind("batch").items():
            if other.attributes["digest"] == entry.attributes["digest"]:
                raise _AlreadyStoredError(known)
            if other.attributes["id"] == entry.attributes["id"]:
                _same_or_error(known, other, entry.attributes["digest"])

    try:
        job.store.publish(f"ingest {entry.attributes['id']}", {name: (draft, entry)}, check)
    except _AlreadyStoredError as same:
        draft.discard()
        job.store.refresh()
        job.journal.note(f"these rows are stored already as {same.name}: nothing to do")
        return same.name
    return name
