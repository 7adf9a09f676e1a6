"""What lies in a store's data and no manifest names: of dead writers, of living ones, and of nobody at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from streamclust.errors import DamageError
from streamclust.store.draft import records
from streamclust.store.files import read_file


@dataclass(frozen=True)
class Orphans:
    """Files and folders relative to the store: left by dead writers, and without any record; and drafts at work."""

    dead: tuple[str, ...]
    unrecorded: tuple[str, ...]
    alive: int


def find_orphans(root: Path, named: Collection[str], later: Callable[[], Collection[str]]) -> Orphans:
    """Everything below ``data`` that is not among ``named``; ``later`` gives paths that were named meanwhile.

    A writer has a record until its object is named, and a sweep removes the record last. So what has no record after
    it was seen, is not named after that, and is still there, belongs to nobody.
    """
    known = {path for _, path, _ in records(root)} | set(named)
    seen = list(_unnamed(root / "data", known))
    found = list(records(root))
    published = {*named, *later()}
    held = {path for _, path, _ in found} | published
    mine = {str(parent) for path in held for parent in (PurePosixPath(path), *PurePosixPath(path).parents)}
    dead = [
        f"data/{path}" if path and path not in published and (root / "data" / path).is_dir() else f"drafts/{record}"
        for record, path, alive in found
        if not alive
    ]
    lost = [f"data/{path}" for path in seen if path not in mine and (root / "data" / path).is_dir()]
    return Orphans(tuple(dead), tuple(lost), sum(alive for *_, alive in found))


def _unnamed(data: Path, known: Collection[str]) -> Iterator[str]:
    """The uppermost folders that hold something and are neither in nor above a known path."""
    above = {str(parent) for path in known for parent in PurePosixPath(path).parents}
    waiting = [data]
    while waiting:
        for folder in sorted(path for path in waiting.pop().iterdir() if path.is_dir()):
            path = folder.relative_to(data).as_posix()
            if path in known:
                continue
            if path in above:
                waiting.append(folder)
            elif _holds(folder):
                yield path


def _holds(folder: Path) -> bool:
    """Whether there is anything but empty groups, which a sweep leaves above what it removed."""
    for where, _, files in os.walk(folder):
        for name in files:
            if name != "zarr.json" and not name.endswith(".partial"):
                return True
            if name == "zarr.json" and _attributes(Path(where, name)):
                return True
    return False


def _attributes(file: Path) -> bool:
    try:
        return bool(json.loads(read_file(file)).get("attributes"))
    except (OSError, DamageError, ValueError, AttributeError):
        return False
