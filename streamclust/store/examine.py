"""One object against what the manifest says of it, and some of its chunks read: the tasks of a verification."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from streamclust.errors import DamageError
from streamclust.store import arrays, chunks, metadata
from streamclust.store.addresses import address, part
from streamclust.store.entries import ArrayEntry, Entry, key_of

DERIVED = ("projection", "reduced", "model", "labels", "grid", "comparison", "refit", "thumbs", "day", "reference")
PACK = "pack"  # the kind of an object that holds the rows of many
REPAIR = "streamclust verify STORE --repair"


@dataclass(frozen=True)
class Damage:
    """One damaged thing.

    Attributes
    ----------
    file : relative to the store. found : what is wrong. hint : what to do about it. path : of the object below data,
    or what the log knows it by, where it lies in a pack.
    name, array : the object in the manifest and the array in it, where it is of one. rows : first and behind the last.
    """

    file: str
    found: str
    hint: str
    path: str = ""
    name: str = ""
    array: str = ""
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        of = f"{self.name} {self.array}".strip()
        rows = f", rows {self.rows[0]:,} to {self.rows[1]:,}" if self.rows else ""
        where = f"{of}{rows} ({self.file})" if of else self.file
        return f"{where}: {self.found}; {self.hint}"


@dataclass(frozen=True)
class Known:
    """A published object: its name, its entry as first published, and whether rows of it are being forgotten now."""

    name: str
    entry: Entry
    blanking: bool = False

    @property
    def key(self) -> str:
        """What the log knows it by."""
        return key_of(self.name, self.entry)


@dataclass(frozen=True)
class Piece:
    """Rows of an array that share chunk files, of ``bytes`` in memory."""

    known: Known
    array: str
    start: int
    stop: int
    bytes: int


@dataclass(frozen=True)
class Looked:
    """What is wrong with an object by its metadata and its files; pieces to read; their bytes on disk."""

    damage: tuple[Damage, ...]
    pieces: tuple[Piece, ...]
    bytes: int


def check_objects(group: Sequence[Known], data: Path) -> list[Looked]:
    """Metadata of some objects against the manifest, and a file of the right size for every chunk."""
    return [_check(known, data) for known in group]


def _check(known: Known, data: Path) -> Looked:
    if known.entry.first:
        return _check_packed(known, data)
    damage, pieces, size = list(_check_groups(known, data)), list[Piece](), 0
    for array, about in known.entry.arrays.items():
        path, n = data / known.entry.path / array, about.shape[0]
        if known.blanking and not path.exists():
            continue  # it is being replaced as a whole; whoever goes on with that puts it there
        try:
            meta = metadata.read(path)
            if meta["node_type"] == "group" or metadata.shape_in(meta) != (about.shape, about.dtype, about.chunks):
                raise DamageError(path, "is not what the manifest says of it")  # noqa: TRY301 - one way out
        except DamageError as error:
            damage.append(_damage(known, f"{array}/zarr.json", error.found, array, (0, n)))
            continue
        for start, stop in _grid(about):
            files = metadata.sized_files(path, meta, start, stop)
            if known.entry.kind == PACK:
                damage += _check_index(known, array, meta, files, data, (start, stop))
                continue
            wrong = list(_wrong_files(known, array, files, data, (start, stop)))
            damage += wrong
            if not wrong:
                size += sum(file.stat().st_size for file, _ in files)
                pieces.append(Piece(known, array, start, stop, _bytes(about)))
    return Looked(tuple(damage), tuple(pieces), size)


def _check_packed(known: Known, data: Path) -> Looked:
    """Of an object in a pack, the files that its rows lie in; the pack's metadata is looked at with the pack."""
    damage, pieces = list[Damage](), list[Piece]()
    for array, about in known.entry.arrays.items():
        mine = part(data, known.entry, array)
        try:
            meta = metadata.read(mine.path)
        except DamageError:
            continue
        if meta["node_type"] == "group" or not arrays.holds(metadata.shape_in(meta), mine, about.shape, about.dtype):
            continue
        for start, stop in _grid(about):
            files = metadata.sized_files(mine.path, meta, mine.first + start, mine.first + stop)
            wrong = list(_wrong_files(known, array, files, data, (start, stop)))
            damage += wrong
            if not wrong:
                pieces.append(Piece(known, array, start, stop, _bytes(about)))
    return Looked(tuple(damage), tuple(pieces), sum(piece.bytes for piece in pieces))


def _wrong_files(
    known: Known, array: str, files: Sequence[tuple[Path, int | None]], data: Path, rows: tuple[int, int]
) -> Iterator[Damage]:
    for file, exact in files:
        if found := _wrong(file, exact):
            yield _damage(known, file.relative_to(data / known.entry.path), found, array, rows)


def _check_index(
    known: Known,
    array: str,
    meta: dict[str, Any],
    files: Sequence[tuple[Path, int | None]],
    data: Path,
    rows: tuple[int, int],
) -> Iterator[Damage]:
    """Of a pack's file only what lies behind the rows; these are looked at as those of the objects in it."""
    for file, exact in files:
        if not _wrong(file, exact) and not metadata.index_fits(data / known.entry.path / array, meta, rows[0]):
            found = "the index for other programs is damaged"
            yield _damage(known, file.relative_to(data / known.entry.path), found, array, rows)


def _check_groups(known: Known, data: Path) -> Iterator[Damage]:
    """The object's own group, whose attributes the manifest has too, and those between it and its arrays."""
    inner = {parent.as_posix() for array in known.entry.arrays for parent in PurePosixPath(array).parents}
    for group in sorted(inner | {"."}):
        try:
            meta = metadata.read(data / known.entry.path / group)
            # What waited as a proposal when it was published has its key in the manifest alone.
            said = {k: v for k, v in known.entry.attributes.items() if k != "proposal"} if group == "." else {}
            if meta["node_type"] != "group" or _text(meta.get("attributes", {})) != _text(said):
                raise DamageError(data, "is not what the manifest says of it")  # noqa: TRY301 - one way out
        except DamageError as error:
            yield _damage(known, PurePosixPath(group, "zarr.json"), error.found)


def _text(attributes: Any) -> str:
    return json.dumps(attributes, sort_keys=True)


def _grid(about: ArrayEntry) -> Iterator[tuple[int, int]]:
    n, step = about.shape[0], about.chunks[0]
    return ((start, min(n, start + step)) for start in range(0, n, step))


def _bytes(about: ArrayEntry) -> int:
    """Of the rows of one chunk in memory; of text, a guess."""
    return about.chunks[0] * metadata.row_bytes(about.shape, about.dtype)


def _wrong(file: Path, exact: int | None) -> str:
    """What is wrong with a chunk's file from outside, if anything is."""
    try:
        size = file.stat().st_size
    except OSError:
        return "the chunk is missing"
    if exact is not None and size != exact:
        return f"the chunk has {size:,} bytes instead of {exact:,}"
    return "" if size > chunks.CRC_BYTES else f"the chunk has {size} bytes"


def read_pieces(pieces: Sequence[Piece], data: Path) -> list[tuple[Damage | None, str]]:
    """Read every chunk; for each piece what is wrong with it, and where the manifest has a digest, that of its rows."""
    return [_read(piece, data) for piece in pieces]


def _read(piece: Piece, data: Path) -> tuple[Damage | None, str]:
    folder = data / piece.known.entry.path
    try:
        values = arrays.read_rows(address(data, piece.known.entry, piece.array), piece.start, piece.stop)
    except DamageError as error:
        file, rows = Path(error.where).relative_to(folder), (piece.start, piece.stop)
        if file.name == "zarr.json":
            rows = (0, piece.known.entry.arrays[piece.array].shape[0])
        return _damage(piece.known, file, error.found, piece.array, rows), ""
    return None, arrays.digest(values) if piece.known.entry.arrays[piece.array].digest else ""


def altered(known: Known, array: str) -> Damage:
    """Chunks are sound one by one, but their rows are not those that were published."""
    rows = (0, known.entry.arrays[array].shape[0])
    return _damage(known, array, "its rows are not those that were published", array, rows)


def _damage(
    known: Known, file: Path | PurePosixPath | str, found: str, array: str = "", rows: tuple[int, int] | None = None
) -> Damage:
    where = PurePosixPath("data", known.entry.path, file)
    hint = advice(known.entry, array, where.name == "zarr.json")
    return Damage(where.as_posix(), found, hint, known.key, known.name, array, rows)


def kind_of(entry: Entry) -> str:
    """Its kind, also of what was first published as a proposal."""
    return entry.kind.rsplit(" ", 1)[-1]


def made_of_rows(array: str) -> bool:
    """Whether an array of a batch can be made again from its descriptors."""
    room, _, rest = array.partition("/")
    return room in {"moments", "valid"} or (room == "sample" and rest not in {"rows", "hashes"})


def advice(entry: Entry, array: str, of_metadata: bool) -> str:
    """What to do about a damaged file of an object."""
    again = entry.kind == "batch" and made_of_rows(array)
    if of_metadata or again or kind_of(entry) in {*DERIVED, PACK}:
        return REPAIR
    backup = "restore the file from a backup"
    return f"{backup}, or streamclust withdraw STORE {entry.attributes['id']}" if entry.kind == "batch" else backup
