"""Care of a store that needs no model: look through it, merge what is small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamclust.blocks import Executor, executor
from streamclust.budget import workers
from streamclust.config import Settings
from streamclust.errors import InputError
from streamclust.journal import Journal, Listener, Silent
from streamclust.store.compaction import Compacted
from streamclust.store.compaction import compact as merge_objects
from streamclust.store.store import open_store
from streamclust.store.verify import Verified
from streamclust.store.verify import verify as verify_store


def verify(
    store: Path | str, settings: Settings | None = None, listener: Listener | None = None, *, quick: bool = False
) -> Verified:
    """Look through everything a store holds, in all snapshots, and say what is damaged; nothing is changed.

    Raises
    ------
    InputError : not a store, or one of a newer format.
    """
    path = Path(store).absolute()
    if not path.is_dir():
        raise InputError(path, "no such store", "the folder of a store")
    with _upkeep("verify", settings or Settings(), listener or Silent()) as by:
        return verify_store(path, by, quick=quick)


def compact(store: Path | str, settings: Settings | None = None, listener: Listener | None = None) -> Compacted:
    """Merge what is stored of many small batches into few large files, as a new snapshot.

    Raises
    ------
    InputError : not a store. ConflictError : rows are being forgotten, or what was merged was taken out meanwhile.
    DamageError : what was to be merged is damaged.
    """
    opened = open_store(store)
    with _upkeep("compact", settings or Settings(), listener or Silent()) as by:
        done = merge_objects(opened, by)
        opened.sweep()
        return done


@contextmanager
def _upkeep(name: str, settings: Settings, listener: Listener) -> Iterator[Executor]:
    """An executor for a stage that needs no job."""
    found = executor(settings.scheduler, workers(settings), listener.progress)
    try:
        with Journal(listener).stage(name, 0):
            yield found
    finally:
        found.close()
