"""Thumbnails that were shown once and are kept, so that evidence outlives the zip it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from streamclust.store import arrays
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry
from streamclust.store.store import Store

Row = tuple[str, int]  # batch name, row within it
_JPEG = 0xFF  # the first byte; a forgotten thumbnail's bytes are zeros
_CHUNK = 2**20


def keep(store: Store, pictures: Mapping[Row, bytes], size: int) -> None:
    """Keep JPEG bytes by row for good, an object per batch; ``size`` is the side in pixels they were made for."""
    drafts: dict[str, tuple[Draft, Entry]] = {}
    for batch, group in groupby(sorted(pictures), key=lambda row: row[0]):
        rows = [row for _, row in group]
        name = f"thumbs/{batch.split('/', 1)[1]}-{store.snapshot.number + 1:06d}"
        data = b"".join(pictures[batch, row] for row in rows)
        digest = hashlib.sha256(f"{size} {rows}".encode() + data).hexdigest()
        draft = store.draft(name, "thumbs", digest)
        draft.write("rows", np.array(rows, np.int64))
        draft.write("offsets", np.cumsum([0, *(len(pictures[batch, row]) for row in rows)]))
        values = np.frombuffer(data, np.uint8)
        path = draft.create("data", values.shape, np.uint8, _CHUNK)
        for start in range(0, len(values), _CHUNK):
            arrays.write_rows(path, start, values[start : start + _CHUNK])
        drafts[name] = draft, draft.entry({"role": batch, "batch": batch, "size": size}, {})
    if drafts:
        store.publish("keep thumbnails", drafts)


def load(store: Store, rows: Iterable[Row], at_least: int = 0) -> dict[Row, bytes]:
    """The kept JPEG bytes of those rows that have a thumbnail made for ``at_least`` so many pixels; newest first."""
    wanted: dict[str, list[int]] = {}
    for batch, row in rows:
        wanted.setdefault(batch, []).append(row)
    found: dict[Row, bytes] = {}
    for name, entry in reversed(store.snapshot.of_kind("thumbs").items()):
        batch = entry.attributes["batch"]
        missing = np.array([row for row in wanted.get(batch, ()) if (batch, row) not in found], np.int64)
        if len(missing) and entry.attributes["size"] >= at_least:
            found |= {(batch, row): data for row, data in _stored(store, name, missing)}
    return found


def _stored(store: Store, name: str, wanted: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    rows, offsets = store.read(name, "rows"), store.read(name, "offsets")
    for i in np.flatnonzero(np.isin(rows, wanted)):
        data = store.read(name, "data", int(offsets[i]), int(offsets[i + 1]))
        if len(data) and data[0] == _JPEG:
            yield int(rows[i]), data.tobytes()
