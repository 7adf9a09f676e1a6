"""`images_paths.csv` as blocks of paths and metadata: one pass checks and indexes it, then any block is read alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.readers.columns import Layout, NumberKinds, convert, find_columns
from streamclust.readers.files import Fingerprint, check_unchanged, fingerprint_of, hash64, path_fault
from streamclust.readers.records import Records, ascii_compatible, first_byte, open_csv

_HASHES_AT_ONCE = 8_000_000  # 64 MB of them; a longer table is searched for duplicates in several passes


@dataclass(frozen=True)
class PathsTable:
    """A CSV file of picture paths that was checked once. Small and picklable.

    Parameters
    ----------
    path : the file.
    n : rows.
    columns : type of each metadata column: ``int64``, ``float64`` or ``string``.
    fingerprint : (size, mtime_ns) of the file when it was checked.
    block_rows : `read` starts at multiples of this.
    digest : SHA-256, in hex, of the paths joined by newlines.
    encoding : of its text.
    layout : which column of the file is which.
    starts : byte and line before each block.
    """

    path: Path
    n: int
    columns: dict[str, str]
    fingerprint: Fingerprint
    block_rows: int
    digest: str
    encoding: str
    layout: Layout
    starts: tuple[tuple[int, int], ...]

    def read(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Rows ``start`` to ``stop`` as arrays by column name; ``path`` and texts are of StringDType.

        ``start`` must be a multiple of `block_rows`. Safe to call from several threads.
        Errors: InputError where the file changed since it was checked.
        """
        if not 0 <= start <= stop <= self.n or start % self.block_rows:
            raise ValueError(f"rows {start}:{stop} of {self.n} in blocks of {self.block_rows}")
        rows: list[list[str]] = []
        if stop > start:
            with open_csv(self.path) as file:
                check_unchanged(self.path, file.fileno(), self.fingerprint)
                offset, line = self.starts[start // self.block_rows]
                rows = Records(self.path, file, self.encoding, offset=offset, line=line).take(stop - start)
                check_unchanged(self.path, file.fileno(), self.fingerprint)
        kinds = {"path": "string"} | self.columns
        return {name: convert([row[self.layout.positions[name]] for row in rows], kinds[name]) for name in kinds}

    def line_of(self, row: int) -> int:
        """The line of the file on which a row ends, counted from 1."""
        offset, line = self.starts[row // self.block_rows]
        with open_csv(self.path) as file:
            records = Records(self.path, file, self.encoding, offset=offset, line=line)
            records.take(row % self.block_rows + 1)
            return records.line

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """First row and paths of each block, in order."""
        for start in range(0, self.n, self.block_rows):
            yield start, self.read(start, min(start + self.block_rows, self.n))["path"]


def open_paths(
    path: Path, columns: Mapping[str, str] | None = None, encoding: str = "utf-8", block_rows: int = 65536
) -> PathsTable:
    """Check a CSV file of picture paths in one streaming pass.

    The file may have a header or none, a byte order mark, lines ended by LF or CRLF. ``columns`` maps a wanted name to
    a column of the file, where ``path`` names the column of the paths; ``encoding`` must keep ASCII; ``block_rows`` is
    how many rows a block has when it is read later.
    Errors: InputError, with line numbers, for text that is not CSV or not in ``encoding``, rows of another length, and
    paths that are missing, absolute, lead upwards or come twice. Memory: one block, and 8 bytes for each of at most
    8 million rows (beyond those the file is read once more for each 8 million).
    """
    encoding = ascii_compatible(encoding)
    with open_csv(path) as file:
        seen = fingerprint_of(file.fileno())
        records = Records(path, file, encoding, offset=first_byte(file, encoding), line=0)
        begin = records.offset, records.line
        first = records.take(1)
        if not first:
            raise InputError(path, "is empty", "a row with a path for each image")
        layout = find_columns(path, first[0], columns or {})
        if not layout.header:
            records = Records(path, file, encoding, offset=begin[0], line=begin[1])
        scan = _Scan(path, layout)
        while scan.add(records, block_rows):
            pass
        check_unchanged(path, file.fileno(), seen)
    if not scan.n:
        raise InputError(path, "has a header but no rows", "a row with a path for each image")
    kinds, digest = scan.kinds.found(), scan.digest.hexdigest()
    table = PathsTable(path, scan.n, kinds, seen, block_rows, digest, encoding, layout, tuple(scan.starts))
    _refuse_duplicates(table, scan.hashes)
    return table


class _Scan:
    """What the one pass over the file gathers."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout
        self.n, self.starts, self.digest = 0, list[tuple[int, int]](), sha256()
        self.kinds = NumberKinds(name for name in layout.positions if name != "path")
        self.hashes: list[NDArray[np.uint64]] | None = []

    def add(self, records: Records, block_rows: int) -> bool:
        """Check the next block; False where there is none."""
        start = records.offset, records.line
        rows = records.take(block_rows)
        if not rows:
            return False
        self.check_widths(rows, records, start)
        paths = [row[self.layout.positions["path"]] for row in rows]
        self.check_paths(paths, records, start)
        for name in self.kinds.names:
            self.kinds.add(name, [row[self.layout.positions[name]] for row in rows])
        self.digest.update(("\n" * (self.n > 0) + "\n".join(paths)).encode())
        self.n += len(rows)
        self.starts.append(start)
        if self.n > _HASHES_AT_ONCE:
            self.hashes = None
        if self.hashes is not None:
            self.hashes.append(hash64(paths))
        return True

    def check_widths(self, rows: list[list[str]], records: Records, start: tuple[int, int]) -> None:
        width = self.layout.width
        if any(len(row) != width for row in rows):
            i = next(i for i, row in enumerate(rows) if len(row) != width)
            hint = "put quotes around a path that holds a comma"
            raise InputError(self.where(records, start, i), f"has {len(rows[i])} columns", f"{width} as above", hint)

    def check_paths(self, paths: list[str], records: Records, start: tuple[int, int]) -> None:
        joined = "\n" + "\n".join(paths)
        if all(map(str.strip, paths)) and not any(suspect in joined for suspect in ("..", "\0", "\n/", "\n\\", ":")):
            return  # looking at the whole block at once is ten times faster than at each path
        for i, path in enumerate(paths):
            if fault := path_fault(path):
                found = f"the path {path[:200]!r} {fault}" if path else "the path is empty"
                raise InputError(self.where(records, start, i), found, "a path relative to the folder of the pictures")

    def where(self, records: Records, start: tuple[int, int], row: int) -> str:
        """File and line of a row of the block that begins at ``start``, found by reading it once more."""
        with open_csv(self.path) as file:
            again = Records(self.path, file, records.encoding, offset=start[0], line=start[1])
            again.take(row + 1)
            return f"{self.path} line {again.line}"


def _refuse_duplicates(table: PathsTable, hashes: list[NDArray[np.uint64]] | None) -> None:
    """InputError naming both lines where a path comes twice. Hashes find candidates, the paths themselves decide."""
    parts = -(-table.n // _HASHES_AT_ONCE)
    for part in range(parts):
        if hashes is None or part:
            kept = (hash64(paths) for _, paths in table.blocks())
            hashes = [block[block % np.uint64(parts) == part] for block in kept]
        values = np.sort(np.concatenate(hashes))
        twice = np.unique(values[1:][values[1:] == values[:-1]])[:1000]
        if twice.size:
            _confirm_duplicate(table, twice)


def _confirm_duplicate(table: PathsTable, hashes: NDArray[np.uint64]) -> None:
    rows: dict[str, int] = {}
    for start, paths in table.blocks():
        for i in np.flatnonzero(np.isin(hash64(paths), hashes)):
            path, row = str(paths[i]), start + int(i)
            if path in rows:
                lines = f"lines {table.line_of(rows[path])} and {table.line_of(row)}"
                raise InputError(table.path, f"{lines} have the same path {path[:200]!r}", "each image once")
            rows[path] = row
