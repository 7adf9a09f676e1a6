"""Pictures of given rows: kept thumbnails first, else the zip or folder they lie in; a broken one is never fatal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from streamclust.planning import LABEL_ROWS
from streamclust.readers.pictures import PictureError, PictureSource, read_picture
from streamclust.render.contact_sheets import thumbnail
from streamclust.render.parts import Thumb
from streamclust.store import thumbs
from streamclust.store.places import pictures_of
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
        self._batches = {batch.name: batch for batch in store.every_batch}
        self._bases = np.array([batch.base for batch in store.every_batch])
        self._shown = {batch.name for batch in store.batches}
        self._sources = pictures_of(store)
        self._seen: dict[Row, Thumb] = {}
        self._read: set[Row] = set()

    def rows_of(self, ids: Iterable[int]) -> list[Row]:
        """Row numbers of the snapshot as (batch, row); -1 is nobody and left out, as are rows of withdrawn batches."""
        found = []
        for row in ids:
            batch = self._store.every_batch[int(np.searchsorted(self._bases, row, "right")) - 1]
            if row >= 0 and batch.name in self._shown:
                found.append((batch.name, int(row) - batch.base))
        return found

    def fetch(self, rows: Iterable[Row]) -> None:
        """Find the thumbnails of rows not seen yet: kept ones, else read side by side, else smaller kept ones."""
        wanted = sorted(set(rows) - set(self._seen))
        places = dict(zip(wanted, self._places(wanted), strict=True))
        kept = thumbs.load(self._store, wanted, self._size)
        missing = [row for row in wanted if row not in kept]
        with ThreadPoolExecutor(self._workers) as pool:
            read = dict(zip(missing, pool.map(partial(_thumb, size=self._size), map(places.get, missing)), strict=True))
        kept |= thumbs.load(self._store, [row for row, thumb in read.items() if thumb.image is None])
        self._read |= {row for row, thumb in read.items() if thumb.image is not None}
        self._seen |= read | {row: Thumb(path=places[row].path, image=image) for row, image in kept.items()}

    def keep(self) -> None:
        """Keep for good what was read for this album, so that it can be shown once its source is gone."""
        images = {row: image for row in self._read if (image := self._seen[row].image) is not None}
        thumbs.keep(self._store, images, self._size)
        self._read.clear()

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
                block = key, self._table(batch, key[1] * LABEL_ROWS)
            table, i = block[1], row % LABEL_ROWS
            where = int(table["picture_offset"][i]), int(table["picture_size"][i])
            found.append(Place(str(table["path"][i]), self._sources.get(name), *where))
        return found

    def _table(self, batch: Batch, start: int) -> dict[str, Any]:
        stop = min(batch.n, start + LABEL_ROWS)
        names = ("path", "picture_offset", "picture_size")
        return {name: self._store.read(batch.name, f"images/{name}", start, stop) for name in names}


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
