"""Numbered manifests: the one commit point, and the only place that knows how a state is published."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamclust.errors import ConflictError, DamageError, InputError
from streamclust.store import floor
from streamclust.store.entries import Entry, Snapshot, entry_from, tree_of
from streamclust.store.files import naming, read_file, sync
from streamclust.store.form import fault

FORMAT = 2  # and 1 where no object lies in a pack, which older programs know nothing of
CHECKPOINT_EVERY = 100
REPAIR = "repair"  # the operation that takes damaged objects out of the state
COMPACT = "compact"  # the one that adds packs, and whose state has objects moved into them


def create_log(log: Path) -> None:
    """Manifest 0 of a new store; refuses a file system without exclusive hard links."""
    log.mkdir(exist_ok=True)
    try:
        _publish_file(log, 0, _document(0, "", "create", {}, (), {}))
    except FileExistsError:
        return
    except OSError as error:
        raise InputError(
            log, f"this file system cannot publish with a hard link ({error.strerror})", hint="put the store elsewhere"
        ) from error


def _last(log: Path, since: Snapshot | None) -> int:
    """The highest number; the log is listed only where nothing is known of it, for it grows with history."""
    if since is not None and _file(log, since.number).exists():
        number = since.number
        while _file(log, number + 1).exists():
            number += 1
        return number
    return newest_number(log)


def newest_number(log: Path) -> int:
    """The highest number in a log.

    Raises
    ------
    InputError : there is none.
    """
    numbers = [int(p.stem) for p in log.glob("????????.json") if p.stem.isdigit()]
    if not numbers:
        raise InputError(log.parent, "not a streamclust store", "a folder with log/00000000.json")
    return max(numbers)


def load(log: Path, number: int | None = None, since: Snapshot | None = None) -> Snapshot:
    """The state after manifest ``number`` (the highest by default), from the last checkpoint on or a known state.

    Raises
    ------
    InputError : not a store, no such number, or one of a format that is not read here. DamageError : a manifest is
    missing or altered.
    """
    last = _last(log, since)
    if number is not None and not (first := first_number(log, last)) <= number <= last:
        expected = f"{first} to {last}"
        raise InputError(log.parent, f"no snapshot {number}", expected, "streamclust history STORE lists them")
    last = last if number is None else number
    documents: list[dict[str, Any]] = []
    for step in range(last, -1, -1):
        try:
            document = read(log, step)
        except DamageError:
            if (known := _from_floor(log, documents)) is not None:
                return known
            raise
        if documents and documents[-1]["parent"] != document["digest"]:
            raise DamageError(_file(log, step), "its digest is not what the next manifest names", hint="restore it")
        if since is not None and document["digest"] == since.digest:
            return _replay(since, documents)
        documents.append(document)
        if document["checkpoint"] is not None:
            break
    return _replay(None, documents)


def first_number(log: Path, last: int | None = None) -> int:
    """The oldest snapshot that is kept, as the newest manifest (or that of number ``last``) says."""
    return int(read(log, newest_number(log) if last is None else last).get("first", 0))


def kept(log: Path) -> Iterator[dict[str, Any]]:
    """Every manifest from where the log begins, oldest first."""
    begins = floor.read(log)
    for number in range(begins.number if begins else 0, newest_number(log) + 1):
        yield read(log, number)


def said_before(log: Path) -> list[tuple[str, Entry]]:
    """Names and entries of the kept objects of pruned manifests, what was last said of one behind what was before."""
    begins = floor.read(log)
    return [(name, entry_from(one)) for name, one in (*begins.objects, *begins.state.items())] if begins else []


def _from_floor(log: Path, documents: Sequence[Mapping[str, Any]]) -> Snapshot | None:
    """The state after some documents, newest first, one of which is where the log begins."""
    begins = floor.read(log)
    for i, document in enumerate(documents):
        if begins is not None and document["digest"] == begins.manifest:
            known = Snapshot(begins.number, begins.manifest, _entries(begins.state), document.get("first", 0))
            return _replay(known, documents[:i])
    return None


def _entries(trees: Mapping[str, Any]) -> dict[str, Entry]:
    return {name: entry_from(tree) for name, tree in trees.items()}


def _replay(known: Snapshot | None, documents: Sequence[Mapping[str, Any]]) -> Snapshot:
    """The state after some documents, newest first, that follow a known one or end with a checkpoint or the first."""
    if known is not None and not documents:
        return known
    entries = dict(known.entries) if known is not None else {}
    for document in reversed(documents):
        if document["checkpoint"] is not None:  # it holds what it adds
            entries = _entries(document["checkpoint"])
            continue
        for name in document["remove"]:
            entries.pop(name, None)
        entries |= {name: replace(entry_from(e), added=document["number"]) for name, e in document["add"].items()}
    return Snapshot(documents[0]["number"], documents[0]["digest"], entries, documents[0].get("first", 0))


def read(log: Path, number: int) -> dict[str, Any]:
    """One manifest, checked against its own digest."""
    path = _file(log, number)
    try:
        document: dict[str, Any] = json.loads(read_file(path))
        claimed = document.pop("digest")
        form = document["format"]
        if type(form) is int and form > FORMAT:
            found = f"store format {form}, written by a newer streamclust"
            raise InputError(path, found, f"format 1 to {FORMAT}", "upgrade streamclust")
        if claimed != _digest(document) or document["number"] != number:
            raise DamageError(path, "the manifest does not match its digest", hint="restore it")
        if type(form) is not int or form < 1:  # True and 1.5 are none
            found = f"store format {json.dumps(form)[:40]}, which this streamclust does not read"
            raise InputError(path, found, f"format 1 to {FORMAT}", "read it with the streamclust that wrote it")
        if wrong := fault(document):
            raise DamageError(path, f"{wrong} of the manifest is not as streamclust writes it", hint="restore it")
    except FileNotFoundError:
        raise DamageError(path, "the manifest is missing", hint="restore it") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError(path, f"the manifest cannot be read ({error})", hint="restore it") from None
    return document | {"digest": claimed}


def publish(
    log: Path,
    base: Snapshot,
    operation: str,
    add: Mapping[str, Entry],
    remove: tuple[str, ...],
    state: Mapping[str, Entry] | None = None,
    first: int = 0,
) -> Snapshot:
    """Publish the state after ``base``. The caller has synced every file that ``add`` names.

    ``state`` is what shall be in force as it is, down to when each entry was added; ``add`` and ``remove`` then only
    say how it differs from ``base``, but for what moved into packs. ``first`` is the oldest kept one, if it changes.

    Raises
    ------
    ConflictError : somebody else published after ``base``; reload, check again and retry.
    """
    number = base.number + 1
    stay = {name: entry for name, entry in base.entries.items() if name not in remove}
    after = stay | {name: replace(entry, added=number) for name, entry in add.items()} if state is None else state
    checkpoint = after if state is not None or number % CHECKPOINT_EVERY == 0 else None
    first = max(first, base.first)
    packed = any(entry.first for entry in after.values())
    document = _document(number, base.digest, operation, add, remove, checkpoint, first, packed)
    try:
        _publish_file(log, number, document)
    except FileExistsError:
        raise ConflictError(log.parent, f"another writer published snapshot {number} first", hint="try again") from None
    return Snapshot(number, document["digest"], after, first)


def _document(
    number: int,
    parent: str,
    operation: str,
    add: Mapping[str, Entry],
    remove: tuple[str, ...],
    checkpoint: Mapping[str, Entry] | None,
    first: int = 0,
    packed: bool = False,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "format": FORMAT if packed else 1,
        "number": number,
        "parent": parent,
        "operation": operation,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "add": {name: tree_of(entry) for name, entry in add.items()},
        "remove": list(remove),
        "checkpoint": None if checkpoint is None else {name: tree_of(entry) for name, entry in checkpoint.items()},
    }
    if first:
        document["first"] = first
    document = json.loads(json.dumps(document))  # as it will be read: JSON turns number keys into text
    return document | {"digest": _digest(document)}


def _publish_file(log: Path, number: int, document: dict[str, Any]) -> None:
    temporary = log / f".{number:08d}-{secrets.token_hex(4)}.tmp"
    try:
        with naming(temporary), temporary.open("x") as file:
            # to be read by people, but for checkpoints: an indent is written ten times slower
            file.write(json.dumps(document, indent=None if document["checkpoint"] else 1))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, _file(log, number))
        sync(log)
    finally:
        temporary.unlink(missing_ok=True)


def _file(log: Path, number: int) -> Path:
    return log / f"{number:08d}.json"


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
