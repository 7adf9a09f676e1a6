"""Rows forgotten for good: chosen by path or by date, taken out of every retained snapshot, and proven to be gone.

In order: the choice is published as masks of rows, from which moment on nobody can publish what was made from them;
hashes of what goes are kept aside; every object loses the rows (`traces`); everything is looked through (`proof`); the
end is published. Whoever is killed between finds the choice again, and does what is left of the rest.
"""

from __future__ import annotations

import datetime as dt
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.errors import ConflictError, InputError
from streamclust.planning import LABEL_ROWS
from streamclust.readers.tables import open_paths
from streamclust.store import arrays, manifest
from streamclust.store.draft import Draft
from streamclust.store.entries import Entry, entry_from, key_of
from streamclust.store.erasure import Eraser, Mask, Masks, mask_name
from streamclust.store.proof import among, path_digests, prove, remember
from streamclust.store.pruning import finish
from streamclust.store.retention import find_batch, models_that_saw, now, record, withdrawal, withdrawal_name
from streamclust.store.store import FORMER, Batch, Store, unfinished
from streamclust.store.traces import FORGOTTEN, counted, erase

DATES = ("time", "date", "timestamp", "datetime")
_AT_ONCE = 4_000_000  # 64 MB of digests; a longer list takes several passes


@dataclass(frozen=True)
class Forgotten:
    """What a forgetting did.

    Attributes
    ----------
    rows : by the batch's id. asked, missing : paths in the list, and those that no batch had. undated : rows without a
    date. objects : published objects that lost something, in this run. snapshots : retained ones that had the rows.
    files : looked through for the proof. left : those that still hold a path or a row; empty when all is well.
    models : that saw the rows. withdrawn : ids of batches of which no row is left.
    """

    rows: dict[str, int]
    asked: int = 0
    missing: int = 0
    undated: int = 0
    objects: int = 0
    snapshots: int = 0
    files: int = 0
    left: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


def forget(
    store: Store,
    paths: Iterable[str] | Path | None = None,
    before: dt.date | None = None,
    batches: Sequence[str] | None = None,
) -> Forgotten:
    """Remove rows, their thumbnails and what was derived from them, from every retained snapshot, and prove it.

    Images of the same path in several batches are all meant unless ``batches`` names some. A row stays as a number
    without values, so that no other row's number moves. A forgetting that was interrupted is finished first. The
    report's folder goes as well: draw it again. Pictures where they came from, exports and backups are not touched.

    Parameters
    ----------
    store :
        must not be written to by anybody else.
    paths :
        of images, or a table of them as ``images_paths.csv`` is.
    before :
        rows of earlier days, by a column called time, date, timestamp or datetime in ISO form, else by the batch's id.
    batches :
        ids of the batches to look in, by default all.

    Raises
    ------
    InputError : neither or both of paths and a date are given, or nothing has a date. ConflictError : another run is
    writing to the store.
    """
    if (paths is None) == (before is None):
        raise InputError("what to forget", "not clear", "either paths or a date")
    resume(store)
    _refuse_busy(store, "wait for it, then try again")
    chosen = store.numbered if batches is None else [batch for name in batches for batch in _called(store, name)]
    name = f"forgettings/{store.snapshot.number + 1:06d}"
    draft = store.draft(name, "forgetting", secrets.token_hex(16))
    marks = _Marks(draft)
    try:
        facts = _by_path(store, marks, chosen, paths) if paths is not None else _by_date(store, marks, chosen, before)
    except BaseException:
        draft.discard()
        raise
    if not marks.counts:
        draft.discard()
        store.sweep()
        return Forgotten({}, **facts)
    facts |= {"models": models_that_saw(store, marks.counts)}
    attributes = {"role": "forgetting", "time": now(), "batches": marks.counts, "facts": facts}
    store.publish("forget rows", {name: (draft, draft.entry(attributes, {}))})
    return _finish(store, name)


def resume(store: Store) -> Forgotten | None:
    """Finish a forgetting that was interrupted; returns nothing where there is none. So is a prune, which held rows."""
    finish(store)
    store.refresh()
    pending = unfinished(store.snapshot)
    finished = [_finish(store, name) for name in pending]
    shutil.rmtree(_aside(store), ignore_errors=True)
    return finished[-1] if finished else None


def _called(store: Store, batch_id: str) -> list[Batch]:
    """The batches of that id, also those that a rollback left behind."""
    return [batch for batch in store.numbered if batch.id == batch_id] or [find_batch(store, batch_id)]


class _Marks:
    """Masks of chosen rows in a draft; ``counts`` by batch."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.counts = draft, dict[str, int]()

    def add(self, batch: Batch, start: int, hit: Mask) -> None:
        """Mark some rows from ``start``, a whole block of them."""
        if not hit.any():
            return
        path = self.draft.folder / mask_name(batch.name)
        if batch.name not in self.counts:
            self.draft.create(mask_name(batch.name), (batch.n,), np.bool_, LABEL_ROWS, compress=True)
            for first, stop in _blocks(batch):
                arrays.write_rows(path, first, np.zeros(stop - first, bool))
        before = arrays.read_rows(path, start, start + len(hit))
        arrays.write_rows(path, start, before | hit)
        self.counts[batch.name] = self.counts.get(batch.name, 0) + int((hit & ~before).sum())


def _blocks(batch: Batch) -> Iterator[tuple[int, int]]:
    return ((start, min(batch.n, start + LABEL_ROWS)) for start in range(0, batch.n, LABEL_ROWS))


def _by_path(store: Store, marks: _Marks, batches: Sequence[Batch], paths: Iterable[str] | Path) -> dict[str, Any]:
    table = open_paths(Path(paths)).blocks() if isinstance(paths, str | Path) else ((0, paths),)
    texts, asked, missing = (str(path) for _, block in table for path in block), 0, 0
    while len(part := np.unique(path_digests(islice(texts, _AT_ONCE)))):
        found = np.zeros(len(part), bool)
        for batch in batches:
            for start, stop in _blocks(batch):
                digests = path_digests(store.read(batch.name, "images/path", start, stop).tolist())
                hit = among(digests, part)
                found[np.searchsorted(part, digests[hit])] = True
                marks.add(batch, start, hit)
        asked, missing = asked + len(part), missing + int((~found).sum())
    return {"asked": asked, "missing": missing}


def _by_date(store: Store, marks: _Marks, batches: Sequence[Batch], before: dt.date | None) -> dict[str, Any]:
    undated = rows = 0
    for batch in (batch for batch in batches if batch.forgotten < batch.n):
        columns = {name.lower(): name for name, kind in batch.entry.attributes["columns"].items() if kind != "float64"}
        column = next((columns[name] for name in DATES if name in columns), None)
        for start, stop in _blocks(batch):
            here = store.read(batch.name, "images/path", start, stop) != FORGOTTEN
            values = store.read(batch.name, f"images/{column}", start, stop).tolist() if column else [""] * len(here)
            days = [_day(str(value)) or _day(batch.id) for value in values]
            marks.add(batch, start, here & np.array([bool(day and before and day < before) for day in days]))
            undated += int((here & np.array([day is None for day in days])).sum())
            rows += int(here.sum())
    if rows and undated == rows:
        expected = f"a column called {', '.join(DATES)} or batches called by their day, such as 2026-01-31"
        raise InputError(store.path, "no row has a date", expected)
    return {"undated": undated}


def _day(text: str) -> dt.date | None:
    for length in (10, 8):
        try:
            return dt.date.fromisoformat(text[:length])
        except ValueError:
            continue
    return None


def _finish(store: Store, name: str) -> Forgotten:
    """All but the choice; done again after a kill, it ends the same."""
    masks, aside = Masks(store, name), _aside(store) / name.split("/")[1]
    objects = _objects(store)
    remember(masks, objects, aside / "hashes")
    shutil.rmtree(aside / "scratch", ignore_errors=True)
    eraser = Eraser(masks, aside / "scratch")
    erase(eraser, objects)
    shutil.rmtree(store.path / "report", ignore_errors=True)
    _refuse_busy(store, "its results will not be taken; when it has ended: streamclust forget STORE --resume")
    files, left = prove(masks, objects, aside / "hashes")
    done = _report(store, masks, len(eraser.touched), files, left)
    _end(store, name, masks, done)
    shutil.rmtree(_aside(store), ignore_errors=True)
    return done


def _report(store: Store, masks: Masks, objects: int, files: int, left: Sequence[str]) -> Forgotten:
    begun, batches = store.snapshot.entries[masks.name], masks.batches.values()
    facts = dict(begun.attributes["facts"])
    return Forgotten(
        {batch.id: masks.counts[batch.name] for batch in batches},
        objects=objects,
        snapshots=begun.added - max(store.snapshot.first, min(batch.entry.added for batch in batches)),
        files=files,
        left=tuple(left),
        models=tuple(facts.pop("models")),
        withdrawn=tuple(batch.id for batch in batches if batch.forgotten == batch.n),
        **facts,
    )


def _end(store: Store, name: str, masks: Masks, done: Forgotten) -> None:
    """Publish that it ended: whole batches go, and grids that counted the rows, to be counted again."""
    attributes = {"role": name, "time": now(), "files": done.files, "left": list(done.left)}
    drafts = record(store, name.replace("forgettings/", "forgotten/"), "forgotten", attributes)
    entries = store.snapshot.entries
    for batch in masks.batches.values():
        gone = batch.forgotten == batch.n and batch.entry.kind != FORMER
        if gone and withdrawal_name(batch.name) not in entries:
            drafts |= withdrawal(store, batch.name, "all of its rows were forgotten")
    grids = [grid for grid, e in entries.items() if grid.startswith("grids/") and counted(e, masks.counts)]
    store.publish("rows are forgotten", drafts, remove=tuple(grids))


def _objects(store: Store) -> list[tuple[str, Entry]]:
    """Every object that any retained snapshot names, once, by its name and as was last said of it."""
    log = store.path / "log"
    said = manifest.said_before(log)
    for document in manifest.kept(log):
        trees = {**(document["checkpoint"] or {}), **document["add"]}  # what moved into packs is in the checkpoint only
        said += [(name, entry_from(tree)) for name, tree in trees.items()]
    return list({key_of(name, entry): (name, entry) for name, entry in said}.values())


def _refuse_busy(store: Store, hint: str) -> None:
    store.sweep()
    if any((store.path / "drafts").glob("*.json")):
        raise ConflictError(store.path, "another run is writing to it", "nobody else at work", hint)


def _aside(store: Store) -> Path:
    return store.path / "forgetting"
