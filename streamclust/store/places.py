"""Where the pictures of a batch lie: as it came in, or where somebody said later that they are now."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamclust.errors import InputError
from streamclust.planning import LABEL_ROWS
from streamclust.readers.files import open_regular
from streamclust.readers.pictures import PictureSource
from streamclust.readers.zips import find_directory, read_entry
from streamclust.store.retention import find_batch, now, record
from streamclust.store.store import Batch, Store

_SAMPLED = 16
_LARGEST = 2**28  # bytes of a picture that is looked at


def pictures_of(store: Store) -> dict[str, PictureSource]:
    """Where the pictures of each batch that has any lie now, by the batch's name in the manifest."""
    moved = {entry.attributes["role"]: entry.attributes["root"] for entry in store.snapshot.of_kind("place").values()}
    return {batch.name: _source(batch, moved.get(batch.name)) for batch in store.every_batch if _has(batch)}


def _has(batch: Batch) -> bool:
    return batch.entry.attributes["pictures"] is not None


def _source(batch: Batch, root: Path | str | None) -> PictureSource:
    about = batch.entry.attributes["pictures"]
    return PictureSource(**about | {"root": Path(root or about["root"])})


def relocate(store: Store, batch_id: str, place: Path) -> Path:
    """Look for a batch's pictures in another place from the next snapshot on; returns the zip or folder.

    ``place`` is the same zip or the same folder of pictures, or the folder that the zip lies in. Up to 16 pictures all
    over the batch are looked at: name, size and checksum in a zip, name and size of loose files.

    Raises
    ------
    InputError : there is no such batch, it has no pictures, or what lies there differs.
    """
    batch = find_batch(store, batch_id)
    if not _has(batch):
        raise InputError(f"batch {batch_id!r}", "came without pictures", "a batch with pictures")
    place = Path(place).resolve()
    known = _source(batch, None)
    if known.kind == "zip" and place.is_dir():
        place = place / known.root.name
    if known.kind == "loose" and not place.is_dir():
        raise InputError(place, "is no folder", f"the folder of pictures that was {known.root}")
    source = _source(batch, place)
    rows, end = _examples(store, batch)
    _check_zip(store, batch, source, rows, end) if source.kind == "zip" else _check_loose(store, batch, source, rows)
    if pictures_of(store)[batch.name].root != place:
        name = f"places/{batch.name.split('/', 1)[1]}-{store.snapshot.number + 1:06d}"
        about = {"role": batch.name, "root": str(place), "time": now()}
        store.publish(f"relocate pictures of {batch.id}", record(store, name, "place", about))
    return place


def _examples(store: Store, batch: Batch) -> tuple[list[int], int]:
    """Rows that have a picture, spread over the batch, and where in the zip the last picture's bytes end."""
    rows, end = list[int](), 0
    for start in range(0, batch.n, LABEL_ROWS):
        stop = min(batch.n, start + LABEL_ROWS)
        offset, size = (store.read(batch.name, f"images/picture_{what}", start, stop) for what in ("offset", "size"))
        here = np.flatnonzero(offset >= 0)
        if len(here):
            end = max(end, int((offset[here] + size[here]).max()))
            rows += [start + int(i) for i in here[np.linspace(0, len(here) - 1, _SAMPLED).astype(int)]]
    if not rows:
        raise InputError(f"batch {batch.id!r}", "none of its pictures was found when it came in", "pictures")
    rows = sorted(set(rows))
    return [rows[i] for i in sorted(set(np.linspace(0, len(rows) - 1, _SAMPLED).astype(int).tolist()))], end


def _place(store: Store, batch: Batch, row: int) -> tuple[str, int, int]:
    path, offset, size = (
        store.read(batch.name, f"images/{name}", row, row + 1)[0] for name in ("path", "picture_offset", "picture_size")
    )
    return str(path), int(offset), int(size)


def _check_zip(store: Store, batch: Batch, source: PictureSource, rows: list[int], end: int) -> None:
    expected = f"the same zip that was {_source(batch, None).root}"
    with open_regular(source.root) as fd:
        if find_directory(source.root, fd).offset < end:
            raise InputError(
                source.root, f"ends before byte {end:,}, where the last picture of {batch.id} does", expected
            )
        for row in rows:
            path, offset, size = _place(store, batch, row)
            try:
                read_entry(source.root, fd, source.name_of(path), offset, size, _LARGEST)
            except InputError as error:
                raise InputError(source.root, f"{path[:200]!r} {error.found}", expected) from error


def _check_loose(store: Store, batch: Batch, source: PictureSource, rows: list[int]) -> None:
    places = [_place(store, batch, row) for row in rows]
    sizes = source.locate([path for path, _, _ in places])[1]
    for (path, _, size), found in zip(places, sizes.tolist(), strict=True):
        if found != size:
            said = "is missing" if found < 0 else f"has {found:,} bytes instead of {size:,}"
            raise InputError(
                source.root, f"{path[:200]!r} {said}", f"the same pictures as in {_source(batch, None).root}"
            )
