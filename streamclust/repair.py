"""A damaged store made as sound as it can be: orphans swept, what is derived made again, rows that came in named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from streamclust import pipeline, upkeep
from streamclust.blocks import Executor, executor
from streamclust.budget import workers
from streamclust.config import Settings
from streamclust.errors import StreamclustError
from streamclust.job import Job
from streamclust.journal import Journal, Listener, Silent
from streamclust.reporting import collect
from streamclust.store import arrays, manifest, mend
from streamclust.store.entries import Entry, key_of
from streamclust.store.examine import PACK, Damage
from streamclust.store.store import Store, open_store
from streamclust.store.verify import Verified, read_log, verify


def repair(
    store: Path | str, settings: Settings | None = None, listener: Listener | None = None
) -> tuple[Verified, list[str]]:
    """Repair what can be; returns what a last look found, and what was done.

    Metadata is written again from the manifest; moments, validity and sample of a batch from its rows. Other derived
    objects are taken out of the newest state with all that was made from them; what is reduced and the labels are made
    again at once by the models as they are, the rest by the next run. Rows that came in are never touched, and where
    manifests are damaged or lost nothing is.

    Raises
    ------
    InputError : not a store, or one of a newer format. ConflictError : somebody else took something out meanwhile.
    """
    settings, done = settings or Settings(), list[str]()
    found = upkeep.verify(store, settings, listener)
    if any(one.file.startswith("log/") or not (one.path or one.file.endswith("zarr.json")) for one in found.damage):
        return found, ["manifests are damaged or lost: nothing was changed; restore the folder log first"]
    opened = open_store(store)
    if found.orphans and (swept := opened.sweep()):
        done.append(f"{swept} orphans of dead writers were removed")
    if not found.damage and not found.taken_out:
        return found, done
    journal = Journal(listener or Silent())
    by = executor(settings.scheduler, workers(settings), journal.listener.progress)
    with Job(opened, settings, by, journal) as job:
        left = _in_place(opened, by, found.damage, done) if found.damage else ()
        gone = _take_out(job, {one.path for one in left}, done)
        if gone or found.taken_out:  # by one that was killed, and did not come to make anything again
            _label_again(job, gone, done)
    return upkeep.verify(store, settings, listener), done


def _in_place(store: Store, by: Executor, damage: tuple[Damage, ...], done: list[str]) -> tuple[Damage, ...]:
    """Metadata, and what batches derive from their rows; returns the damage that is left in those objects."""
    objects, paths = read_log(store.path / "log").objects, {one.path for one in damage if one.path}
    done += _metadata(store, objects, [one for one in damage if one.file.endswith("zarr.json")])
    arrays.forget_open_arrays()
    left = verify(store.path, by, only=paths).damage
    done += _derived(store, by, objects, left)
    indexes = [one for one in left if one.path and objects[one.path].kind == PACK]
    done += [f"index written again: {one.file}" for one in indexes if one.array and mend.write_index(store.path, one)]
    return verify(store.path, by, only=paths).damage


def _metadata(store: Store, objects: Mapping[str, Entry], damage: Iterable[Damage]) -> list[str]:
    trial = store.draft("mend", "trial", "")  # so that what a killed repair left is found and swept
    try:
        written = [one for one in damage if mend.write_metadata(store.path, one, objects.get(one.path), trial.scratch)]
    finally:
        trial.discard()
        store.sweep()
    return [f"written again from the manifest: {one.file}" for one in written]


def _derived(store: Store, by: Executor, objects: Mapping[str, Entry], damage: Iterable[Damage]) -> Iterator[str]:
    data = store.path / "data"
    spoiled = {(one.path, one.array) for one in damage if one.path and objects[one.path].kind == "batch"}
    for key in sorted({key for key, _ in spoiled if not objects[key].first}):
        for array in mend.make_again(by, data / key, objects[key], {array for one, array in spoiled if one == key}):
            yield f"made again from the rows: {key} {array}"
    for pack in sorted({objects[key].path for key, _ in spoiled if objects[key].first}):
        members = {key: entry for key, entry in objects.items() if entry.path == pack and entry.first}
        for array in mend.make_again_in_pack(by, data, members, spoiled):
            yield f"made again from the rows: a file of {pack} {array}"


def _take_out(job: Job, paths: set[str], done: list[str]) -> set[str]:
    """Derived objects that are still damaged leave the newest state, with all that was made from them."""
    store = job.store
    entries = store.snapshot.entries
    gone = mend.with_dependents(entries, [name for name, entry in entries.items() if key_of(name, entry) in paths])
    if gone:
        store.publish(manifest.REPAIR, {}, remove=tuple(sorted(gone)))
        done.append(f"taken out of the newest state, as snapshot {store.snapshot.number}: {', '.join(sorted(gone))}")
    return gone


def _label_again(job: Job, gone: set[str], done: list[str]) -> None:
    """Labels and reduced rows that are not there are made by the models as they are."""
    store, before = job.store, set(job.store.snapshot.entries)
    if collect.clusterings(job):
        try:
            pipeline.predict(job)
        except StreamclustError as error:
            done.append(f"not made again: {error}")
    if made := sorted(store.snapshot.entries.keys() - before):
        done.append(f"made again by the models as they are: {', '.join(made)}")
    if gone - store.snapshot.entries.keys():
        done.append("the rest is made again by: streamclust run, or fit, outliers, map and report")
