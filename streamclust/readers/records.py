"""CSV records one after the other, with the byte and the line at which each ends, so that a block is read alone."""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from streamclust.errors import InputError
from streamclust.readers.files import open_regular

_MAX_LINE = 1 << 20


def ascii_compatible(encoding: str) -> str:
    """The canonical name of an encoding in which commas, quotes and line ends are the bytes that they are in ASCII."""
    where, expected = f"--path-encoding {encoding}", "such as utf-8, latin-1, cp1252, gb18030 or shift_jis"
    try:
        name = codecs.lookup(encoding).name.removesuffix("-sig")
        fits = '\r\n,"0'.encode(name) == b'\r\n,"0' and "\n".encode(name) == b"\n"
    except (LookupError, ValueError) as error:
        raise InputError(where, "is no text encoding", expected) from error
    if not fits:
        raise InputError(where, "does not keep ASCII as it is", expected)
    return name


class Records:
    """Iterates over the non-empty records of an open CSV file from its present position.

    ``offset`` and ``line`` say how much was consumed when the last record was handed out: reading ahead never happens.
    Errors: InputError with the line number, for bytes that are not text and for text that is not CSV.
    """

    def __init__(self, path: Path, file: BinaryIO, encoding: str, *, offset: int, line: int) -> None:
        self.path, self.encoding, self.offset, self.line = path, encoding, offset, line
        self._file = file
        self._rows = filter(None, csv.reader(self._lines(), strict=True))
        file.seek(offset)

    def take(self, count: int) -> list[list[str]]:
        """The next ``count`` records, or as many as are left."""
        try:
            return list(islice(self._rows, count))
        except csv.Error as error:
            raise InputError(
                f"{self.path} line {self.line}", f"is not CSV ({error})", "comma-separated rows"
            ) from error

    def _lines(self) -> Iterator[str]:
        while raw := self._file.readline(_MAX_LINE):
            self.line += 1
            self.offset += len(raw)
            if len(raw) == _MAX_LINE:
                raise InputError(f"{self.path} line {self.line}", f"is longer than {_MAX_LINE:,} bytes", "a CSV file")
            try:
                yield raw.decode(self.encoding)
            except UnicodeDecodeError as error:
                hint = "name its encoding, such as --path-encoding latin-1"
                raise InputError(f"{self.path} line {self.line}", f"is not {self.encoding}", hint=hint) from error


@contextmanager
def open_csv(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for buffered reading in this thread alone."""
    with open_regular(path) as fd, os.fdopen(fd, "rb", buffering=1 << 18, closefd=False) as file:
        yield file


def first_byte(file: BinaryIO, encoding: str) -> int:
    """Where the text begins: after the byte order mark, if there is one."""
    file.seek(0)
    return 3 if encoding == "utf-8" and file.read(3) == codecs.BOM_UTF8 else 0
