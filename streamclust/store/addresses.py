"""Where the arrays of published objects lie, by themselves or in a pack."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from streamclust.store.arrays import Part, Where
from streamclust.store.entries import Entry


def address(data: Path, entry: Entry, array: str) -> Where:
    """Where an array of an object lies below the folder ``data``."""
    return part(data, entry, array) if entry.first else _below(data, entry.path, array)


def part(data: Path, entry: Entry, array: str) -> Part:
    """The same of an object in a pack."""
    about = entry.arrays[array]
    return Part(_below(data, entry.path, array), entry.first[array], about.shape[0], about.chunks[0])


@lru_cache(maxsize=4096)
def _below(data: Path, path: str, array: str) -> Path:
    """The same one each time: a path's parts and hash take as long as the call of the system that it is for."""
    return data / path / array
