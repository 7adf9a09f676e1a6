"""Everything a store holds, looked through: the chain of manifests, and every object that any of them names.

Quick: metadata against the manifest, and that every chunk has its file, of its size. Else every chunk is read as well,
and rows are held against the digest that was taken when they were published. Memory is a chunk per worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from streamclust.blocks import Executor
from streamclust.errors import DamageError
from streamclust.store import arrays, floor, manifest, metadata
from streamclust.store.entries import Entry, entry_from, written_key
from streamclust.store.examine import REPAIR, Damage, Known, Piece, altered, check_objects, read_pieces
from streamclust.store.founding import ROOMS
from streamclust.store.orphans import Orphans, find_orphans

_OBJECTS, _PIECES, _BYTES = 32, 256, 2**26  # of a task
_BACKUP = "restore it from a backup"


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes
    ----------
    damage : what is wrong, a thing each. taken_out : the same of objects that a repair took out of the newest state.
    orphans : what dead writers left. writers : drafts that are being written now.
    snapshots, objects, chunks, bytes : how much was looked at; ``bytes`` were read, or only counted if ``quick``.
    """

    damage: tuple[Damage, ...]
    taken_out: tuple[Damage, ...]
    orphans: tuple[str, ...]
    writers: int
    snapshots: int
    objects: int
    chunks: int
    bytes: int
    quick: bool


@dataclass
class Log:
    """What all manifests say together.

    Attributes
    ----------
    number : the highest. damage : manifests that cannot be read, or are not those that the next ones name.
    objects, names : as first published, and in the manifest, by `key_of`.
    taken_out : keys of those that a repair took out.
    first : the oldest that is kept. leaving : paths that a prune has still to remove.
    blanked, blanking : batches of which rows were forgotten, and where that has not ended.
    """

    number: int
    damage: list[Damage] = field(default_factory=list)
    objects: dict[str, Entry] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    taken_out: set[str] = field(default_factory=set)
    blanked: set[str] = field(default_factory=set)
    blanking: set[str] = field(default_factory=set)
    first: int = 0
    leaving: set[str] = field(default_factory=set)

    @property
    def paths(self) -> set[str]:
        """Where objects lie, or lay until a prune that has not ended."""
        return {entry.path for entry in self.objects.values()} | self.leaving

    def batch(self, key: str) -> str:
        """The batch whose rows an object holds, if it is one's."""
        entry = self.objects[key]
        return self.names[key] if entry.kind == "batch" else str(entry.attributes.get("batch", ""))


def verify(root: Path, executor: Executor, *, quick: bool = False, only: Collection[str] | None = None) -> Verified:
    """Look through a store, whatever state it is in. Writers at work do not disturb it, nor does it disturb them.

    ``only`` are keys of objects (`key_of`), by default all.

    Raises
    ------
    InputError : not a store, or one of a newer format.
    """
    arrays.forget_open_arrays()
    log, data = read_log(root / "log"), root / "data"
    objects = [
        Known(log.names[key], entry, log.batch(key) in log.blanking)
        for key, entry in log.objects.items()
        if only is None or key in only
    ]
    groups = [objects[i : i + _OBJECTS] for i in range(0, len(objects), _OBJECTS)]
    looked = [found for group in executor.map(check_objects, groups, data) for found in group]
    pieces = [piece for found in looked for piece in found.pieces]
    strays = find_orphans(root, log.paths, lambda: read_log(root / "log").paths | log.leaving)
    damage = [*log.damage, *_rooms(data, log.objects), *(_lost(strays) if not log.damage else ())]
    damage += [one for found in looked for one in found.damage]
    if not quick:
        damage += _read(executor, pieces, data, log)
    return Verified(
        damage=tuple(d for d in damage if d.path not in log.taken_out),
        taken_out=tuple(d for d in damage if d.path in log.taken_out),
        orphans=strays.dead,
        writers=strays.alive,
        snapshots=log.number + 1 - log.first,
        objects=len(objects),
        chunks=len(pieces),
        bytes=sum(found.bytes for found in looked),
        quick=quick,
    )


def read_log(folder: Path, upto: int | None = None) -> Log:
    """Every manifest (up to a number), each against its own digest and the one that the next names.

    Raises
    ------
    InputError : not a store, or one of a newer format.
    """
    log, state, before, begins = Log(manifest.newest_number(folder)), dict[str, str](), "", None
    try:
        begins = floor.read(folder)
        log.first = begins.number if begins else 0
    except DamageError as error:
        log.damage.append(Damage(f"log/{floor.NAME}", error.found, _BACKUP))
        log.first = min(int(path.stem) for path in folder.glob("????????.json") if path.stem.isdigit())
    if begins is not None:
        _begin(log, begins, state)
    for number in range(log.first, (log.number if upto is None else upto) + 1):
        try:
            document = manifest.read(folder, number)
        except DamageError as error:
            log.damage.append(_bad_manifest(number, error.found))
            before = ""
            continue
        if before and document["parent"] != before:
            log.damage.append(_bad_manifest(number - 1, "its digest is not what the next manifest names"))
        if begins is not None and number == begins.number and document["digest"] != begins.manifest:
            log.damage.append(_bad_manifest(number, f"its digest is not what {floor.NAME} names"))
        before = document["digest"]
        _take(log, document, state)
    return log


def _begin(log: Log, begins: floor.Floor, state: dict[str, str]) -> None:
    """What pruned manifests had said of objects that are kept."""
    for name, tree in begins.objects:
        _see(log, name, tree)
    log.taken_out |= set(begins.taken_out)
    log.leaving |= set(begins.leaving)
    state.update({name: written_key(name, tree) for name, tree in begins.state.items()})


def _bad_manifest(number: int, found: str) -> Damage:
    return Damage(f"log/{number:08d}.json", found, _BACKUP)


def _take(log: Log, document: Mapping[str, Any], state: dict[str, str]) -> None:
    """Add what one manifest says; ``state`` has the key of each name in force."""
    if document["operation"] == manifest.REPAIR:
        log.taken_out.update(state[name] for name in document["remove"] if name in state)
    # A checkpoint tells of what manifests before it said that cannot be read, and of what moved into packs.
    said = {**(document["checkpoint"] or {}), **document["add"]}
    for name, tree in said.items():
        _see(log, name, tree)
    state.update({name: written_key(name, tree) for name, tree in said.items()})


def _see(log: Log, name: str, tree: Mapping[str, Any]) -> None:
    if (key := written_key(name, tree)) in log.objects:
        return
    entry = entry_from(tree)
    log.objects[key], log.names[key] = entry, name
    if entry.kind == "forgetting":
        log.blanked |= set(entry.attributes["batches"])
        log.blanking |= set(entry.attributes["batches"])
    elif entry.kind == "forgotten":
        log.blanking.clear()  # one ends before another begins


def _rooms(data: Path, objects: Mapping[str, Entry]) -> Iterator[Damage]:
    """The groups above all objects, through which other programs find them."""
    above = {parent for entry in objects.values() for parent in Path(entry.path).parents}
    for room in sorted(above | {Path(), *map(Path, ROOMS)}):
        try:
            metadata.read(data / room)
        except DamageError as error:
            yield Damage((Path("data") / room / "zarr.json").as_posix(), error.found, REPAIR)


def _lost(strays: Orphans) -> Iterator[Damage]:
    for file in strays.unrecorded:
        yield Damage(file, "no manifest names it: the newest manifests may be lost", f"{_BACKUP}: the folder log")


def _read(executor: Executor, pieces: Sequence[Piece], data: Path, log: Log) -> Iterator[Damage]:
    """Every chunk, and the digests of arrays that have one and of which no row was forgotten."""
    tasks = list(_tasks(pieces))
    read = [found for part in executor.map(read_pieces, tasks, data) for found in part]
    yield from dict.fromkeys(damage for damage, _ in read if damage)
    together = zip(pieces, read, strict=True)
    for (known, array), parts in groupby(together, key=lambda pair: (pair[0].known, pair[0].array)):
        about, whole = known.entry.arrays[array], list(parts)
        rows = sum(piece.stop - piece.start for piece, (damage, _) in whole if not damage)
        judged = about.digest and rows == about.shape[0] and log.batch(known.key) not in log.blanked
        if judged and hashlib.sha256("".join(one for _, (_, one) in whole).encode()).hexdigest() != about.digest:
            yield altered(known, array)


def _tasks(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces in the order they lie, as many as make a task worth starting."""
    held, size = list[Piece](), 0
    for piece in pieces:
        held.append(piece)
        size += piece.bytes
        if size >= _BYTES or len(held) == _PIECES:
            yield held
            held, size = [], 0
    if held:
        yield held
