"""Snapshots older than the newest few removed, with every object that no kept one names.

In order: a manifest says which snapshot is the oldest from now on, so that nobody can publish an older state any more;
``log/first.json`` takes over what older manifests say of kept objects; the others go, each at once by a rename; then
the manifests, newest first. Whoever is killed between leaves a store that reads, and the next prune does the rest.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.store import floor, manifest
from streamclust.store.entries import Snapshot, tree_of
from streamclust.store.files import sync
from streamclust.store.store import Store, unfinished
from streamclust.store.verify import read_log

PRUNE = "prune"
_TRIES = 20


@dataclass(frozen=True)
class Pruned:
    """What a prune did: the oldest snapshot now, how many manifests and objects went, and the bytes of those."""

    first: int
    snapshots: int
    objects: int
    bytes: int


def prune(store: Store, keep: int) -> Pruned:
    """Keep the newest ``keep`` snapshots, from whenever they are; prunes themselves do not count as the newest.

    Rows in force, withdrawn batches and those behind a rollback all stay, and so does every row number. Writers' drafts
    are left alone. Whoever reads a snapshot that goes finds its files missing.

    Raises
    ------
    InputError : ``keep`` is below 1. ConflictError : rows are being forgotten. DamageError : manifests are damaged.
    """
    if keep < 1:
        raise InputError("snapshots to keep", str(keep), "1 or more")
    store.refuse_fixed()
    log = store.path / "log"
    for attempt in range(_TRIES):
        store.refresh()
        base = store.snapshot
        first = _newest(log, base) - keep + 1
        if first <= base.first:
            break
        if pending := unfinished(base):
            hint = "finish it first: streamclust forget STORE --resume"
            raise ConflictError(store.path, f"{pending[0]} is not finished", hint=hint)
        if damage := read_log(log).damage:
            raise DamageError(store.path / damage[0].file, damage[0].found, hint=damage[0].hint)
        try:
            store.snapshot = manifest.publish(log, base, PRUNE, {}, (), first=first)
            break
        except ConflictError:
            if attempt == _TRIES - 1:
                raise
    return finish(store)


def _newest(log: Path, base: Snapshot) -> int:
    """The newest snapshot that changed anything."""
    number = base.number
    while number > base.first and manifest.read(log, number)["operation"] == PRUNE:
        number -= 1
    return number


def finish(store: Store) -> Pruned:
    """Remove what the log says is pruned; done again after a kill, it does the rest."""
    log, trash = store.path / "log", store.path / "pruned"
    shutil.rmtree(trash, ignore_errors=True)
    first, begins = manifest.first_number(log), floor.read(log)
    if begins is None or begins.number < first:
        if first == 0:
            return Pruned(0, 0, 0, 0)
        left = [path for path in begins.leaving if (store.path / "data" / path).exists()] if begins else []
        begins = _floor(log, first, left)
        floor.write(log, begins)
    objects, size = _remove(store.path / "data", begins.leaving, trash)
    old = sorted(path for path in log.glob("????????.json") if path.stem.isdigit() and int(path.stem) < first)
    for path in reversed(old):  # a reader who finds one missing begins with the floor
        path.unlink(missing_ok=True)
    sync(log)
    return Pruned(first, len(old), objects, size)


def _floor(log: Path, first: int, left: Iterable[str]) -> floor.Floor:
    """What the log begins with; ``left`` are paths that an earlier prune did not come to."""
    state, before, every = manifest.load(log, first), read_log(log, first), read_log(log)
    kept = {entry.path for entry in state.entries.values()}
    for number in range(first + 1, every.number + 1):
        kept |= {tree["path"] for tree in manifest.read(log, number)["add"].values()}
    return floor.Floor(
        number=first,
        manifest=state.digest,
        state={name: tree_of(entry) for name, entry in state.entries.items()},
        objects=tuple((before.names[k], tree_of(e)) for k, e in before.objects.items() if e.path in kept),
        taken_out=tuple(sorted(k for k in before.taken_out if before.objects[k].path in kept)),
        leaving=tuple(sorted(({e.path for e in every.objects.values()} | set(left)) - kept)),
    )


def _remove(data: Path, paths: Iterable[str], trash: Path) -> tuple[int, int]:
    """How many objects went, and their bytes."""
    objects, size, above = 0, 0, set[Path]()
    for folder in (data / path for path in paths):
        with contextlib.suppress(FileNotFoundError):  # somebody else is at the same
            found = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            trash.mkdir(exist_ok=True)
            folder.rename(trash / secrets.token_hex(8))
            objects, size = objects + 1, size + found
            above.add(folder.parent)
    for folder in above:
        sync(folder)
    shutil.rmtree(trash, ignore_errors=True)
    return objects, size
