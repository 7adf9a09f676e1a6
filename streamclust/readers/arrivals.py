"""Case folders as they arrive under a drop folder: their order, whether they are complete, whether they changed."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streamclust.errors import InputError

READY = "_READY"
_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


@dataclass(frozen=True)
class Arrival:
    """A case folder under a drop folder.

    Parameters
    ----------
    path : the folder. date : from its name, else from when it last changed.
    listing : see `listing_of`.
    quiet : seconds since anything of it last changed; infinite where a ``_READY`` marker says that it is complete.
    """

    path: Path
    date: dt.date
    listing: str
    quiet: float


def arrivals(drop: Path) -> list[Arrival]:
    """Every folder directly under ``drop`` but hidden ones, oldest first, equal dates by name.

    Raises
    ------
    InputError : ``drop`` is no folder.
    """
    if not drop.is_dir():
        found = "is not a folder" if drop.exists() else "does not exist"
        raise InputError(drop, found, "a folder with a case folder for each day")
    folders = [path for path in drop.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))]
    return sorted((_arrival(path) for path in folders), key=lambda found: (found.date, found.path.name))


def listing_of(folder: Path) -> str:
    """A digest of names, sizes and times of a case's files; equal listings are taken for equal content.

    Loose pictures are left out: a batch is its rows and paths.
    """
    found = sorted(
        (str(path.relative_to(folder)), status.st_size, status.st_mtime_ns)
        for path, status in _files(folder)
        if path.name != READY
    )
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _arrival(folder: Path) -> Arrival:
    # The change time, unlike the modification time, cannot be carried over by a copy that is still going on.
    changed = max([folder.stat().st_ctime, *(max(s.st_ctime, s.st_mtime) for _, s in _files(folder))])
    quiet = float("inf") if (folder / READY).exists() else time.time() - changed
    date = _date_of(folder.name) or dt.datetime.fromtimestamp(changed, dt.UTC).astimezone().date()
    return Arrival(folder, date, listing_of(folder), quiet)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a case but loose pictures and what goes away while we look."""
    descriptors = folder / "descriptors"  # of which one may be a folder
    places = ((folder, "*"), (descriptors, "**/*"), (folder / "row_data", "*.[czCZ]*"))
    for place, pattern in places:
        for path in place.glob(pattern):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.stat()


def _date_of(name: str) -> dt.date | None:
    for year, month, day in _DATE.findall(name):
        try:
            return dt.date(int(year), int(month), int(day))
        except ValueError:
            continue
    return None
