"""Opens a file for a test: its only matrix, or all, unpacked beside it where need be."""

from __future__ import annotations

from pathlib import Path

from streamclust.readers.arrays import open_descriptors
from streamclust.readers.sources import ArraySource, Source, addressable


def matrices(path: Path) -> dict[str, ArraySource]:
    """Every matrix of a file, readable."""
    place = path.parent / f".{path.name}.unpacked"
    place.mkdir(exist_ok=True)
    found = {}
    for i, (name, source) in enumerate(open_descriptors(path).items()):
        (place / f"{i}.npy").unlink(missing_ok=True)
        found[name] = addressable(source, place / f"{i}.npy")
    return found


def only(path: Path) -> Source:
    """The only matrix of a file, as it was opened."""
    [source] = open_descriptors(path).values()
    return source


def readable(path: Path) -> ArraySource:
    """The only matrix of a file, readable."""
    [source] = matrices(path).values()
    return source
