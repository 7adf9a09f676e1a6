"""Pictures of given rows, straight from the zip or folder they came in; a broken one is said, never fatal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.planning import LABEL_ROWS
from streamclust.readers.pictures import PictureError, PictureSource, read_picture
from streamclust.render.contact_sheets import thumbnail
from streamclust.render.report_data import Thumb
from streamclust.store.store import Batch, Store

Row = tuple[str, int]  # batch name, row within it


@dataclass(frozen=True)
class Place:
    """One image: its path, and its batch's pictures and where in them it lies, if there are any."""

    path: str
    source: PictureSource | None
    offset: int
    size: int


class Album:
    """Thumbnails by row, each read once however often it is shown."""

    def __init__(self, store: Store, size: int, workers: int) -> None:
        self._store, self._size, self._workers = store, size, workers
        self._batches = {batch.name: batch for batch in store.batches}
        self._bases = np.array([batch.base for batch in store.batches])
        self._seen: dict[Row, Thumb] = {}

    def rows_of(self, ids: Iterable[int]) -> list[Row]:
        """Row numbers of the snapshot as (batch, row); -1 is nobody and left out."""
        found = []
        for row in ids:
            if row >= 0:
                batch = self._store.batches[int(np.searchsorted(self._bases, row, "right")) - 1]
                found.append((batch.name, int(row) - batch.base))
        return found

    def fetch(self, rows: Iterable[Row]) -> None:
        """Read the thumbnails of rows not seen yet, side by side."""
        wanted = sorted(set(rows) - set(self._seen))
        places = self._places(wanted)
        with ThreadPoolExecutor(self._workers) as pool:
            self._seen |= zip(wanted, pool.map(partial(_thumb, size=self._size), places), strict=True)

    def thumb(self, row: Row, caption: str = "") -> Thumb:
        """The thumbnail of a fetched row."""
        seen = self._seen[row]
        return Thumb(path=seen.path, image=seen.image, caption=caption, problem=seen.problem)

    def _places(self, rows: Sequence[Row]) -> list[Place]:
        """Paths and places of sorted rows; every chunk of the tables is read once."""
        found, block = [], (("", -1), dict[str, Any]())
        for name, row in rows:
            batch, key = self._batches[name], (name, row // LABEL_ROWS)
            if block[0] != key:
                block = key, self._read(batch, key[1] * LABEL_ROWS)
            table, i = block[1], row % LABEL_ROWS
            where = int(table["picture_offset"][i]), int(table["picture_size"][i])
            found.append(Place(str(table["path"][i]), _source(batch), *where))
        return found

    def _read(self, batch: Batch, start: int) -> dict[str, Any]:
        stop = min(batch.n, start + LABEL_ROWS)
        names = ("path", "picture_offset", "picture_size")
        return {name: self._store.read(batch.name, f"images/{name}", start, stop) for name in names}


def _source(batch: Batch) -> PictureSource | None:
    about = batch.entry.attributes["pictures"]
    return None if about is None else PictureSource(**about | {"root": Path(about["root"])})


def _thumb(place: Place, size: int) -> Thumb:
    if place.source is None:
        return Thumb(path=place.path)
    if place.offset < 0:
        return Thumb(path=place.path, problem="picture missing")
    try:
        picture = read_picture(place.source, place.path, place.offset, place.size)
    except PictureError:
        return Thumb(path=place.path, problem="broken picture")
    return Thumb(path=place.path, image=thumbnail(picture, size))
