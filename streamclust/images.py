"""The images of a batch: paths, metadata columns, and where each picture lies, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamclust.job import Job
from streamclust.readers.case import Case
from streamclust.readers.pictures import PictureSource
from streamclust.readers.tables import PathsTable
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows, leaves

PLACES = ("picture_offset", "picture_size")
_TEXT = np.dtypes.StringDType()


def write_images(job: Job, draft: Draft, case: Case) -> int:
    """Paths, metadata columns and where each picture lies; returns how many pictures are missing."""
    table, n = case.paths, case.paths.n
    kinds: dict[str, Any] = {"path": _TEXT} | {
        column: _TEXT if kind == "string" else np.dtype(kind) for column, kind in table.columns.items()
    }
    paths = {name: draft.create(f"images/{name}", (n,), kind, table.block_rows) for name, kind in kinds.items()}
    for name in PLACES:
        paths[name] = draft.create(f"images/{name}", (n,), np.int64, table.block_rows)
    addresses = list(leaves("", 0, n, table.block_rows, paths))
    job.executor.map(write_paths, addresses, table)
    if case.pictures is None:
        job.executor.map(no_pictures, addresses)
        return 0
    missing = n
    for partition in range(case.pictures.partitions()):
        missing -= sum(job.executor.map(locate_pictures, addresses, case.pictures, partition))
    return missing


def write_paths(rows: Rows, table: PathsTable) -> None:
    """A block of the table."""
    for name, values in table.read(rows.start, rows.stop).items():
        rows.write(f"{name}", values)


def no_pictures(rows: Rows) -> None:
    """A block of a case without pictures."""
    for name in PLACES:
        rows.write(name, np.full(len(rows), -1, np.int64))


def locate_pictures(rows: Rows, pictures: PictureSource, partition: int) -> int:
    """Where a block's pictures lie, as far as this partition of the index knows; returns how many it found."""
    offset, size = pictures.locate(rows.read("path"), partition)
    found = int((offset >= 0).sum())
    if partition:
        offset = np.where(offset >= 0, offset, rows.read("picture_offset"))
        size = np.where(size >= 0, size, rows.read("picture_size"))
    rows.write("picture_offset", offset)
    rows.write("picture_size", size)
    return found
