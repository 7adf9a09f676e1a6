"""Which column of a table of images is which, and whether a column holds numbers or texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError

_PATH_NAMES = ("path", "paths", "image", "images", "image_path", "filename", "file")
_PICTURE = re.compile(r"\.(?:jpe?g|jfif|png|webp|bmp|dib|tiff?|gif)\s*\Z", re.IGNORECASE)
_UNNAMED = re.compile(r"(?:Unnamed: \d+)?")
_NAME = re.compile(r"[A-Za-z0-9_]+")

# Digits that a number would lose make a text: leading zeros, more than 18 digits, and above 15 digits beside fractions.
_INT = re.compile(r"-?(?:0|[1-9]\d{0,17})", re.ASCII)
_FLOAT = re.compile(r"(?:-?(?:0|[1-9]\d{0,14})(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|nan|NaN|-?inf)?", re.ASCII)


@dataclass(frozen=True)
class Layout:
    """Where each wanted column stands in a file's rows.

    Parameters
    ----------
    header : whether the first row names the columns.
    width : cells in each row.
    positions : wanted name -> cell; ``path`` is always there.
    """

    header: bool
    width: int
    positions: dict[str, int]


def find_columns(path: Path, first: list[str], wanted: Mapping[str, str]) -> Layout:
    """Understand the first row of a table.

    A first row with the name of a picture in it is no header: its columns are then called column_0, column_1 and so on.
    Unnamed columns are dropped (as is a first column that counts from 0 or 1, where there is no header). Names become
    [A-Za-z0-9_]; a name of which nothing is left becomes column_i.
    Errors: InputError where no column, or more than one, is what is wanted; it lists the columns found.
    """
    header = not any(_PICTURE.search(cell[-8:]) for cell in first)
    cells = [cell.strip() for cell in first]
    names = cells if header else [f"column_{i}" for i in range(len(first))]
    kept = {i: name for i, name in enumerate(names) if not _UNNAMED.fullmatch(name)}
    if not header and len(first) > 1 and cells[0] in {"0", "1"} and "column_0" not in wanted.values():
        del kept[0]
    positions = _wanted_positions(path, kept, wanted)
    if "path" not in positions:
        positions["path"] = _path_position(path, kept, None if header else cells, set(positions.values()))
    for i, name in kept.items():
        if i not in positions.values():
            clean = re.sub(r"[^A-Za-z0-9_]+", "_", name)
            clean = clean if clean.strip("_") else f"column_{i}"
            if clean in positions:
                hint = f"give one of them another name, such as --columns other={name}"
                raise InputError(path, f"two columns would be called {clean!r}", f"each of {_list(kept)} once", hint)
            positions[clean] = i
    return Layout(header, len(first), positions)


def _wanted_positions(path: Path, kept: dict[int, str], wanted: Mapping[str, str]) -> dict[str, int]:
    positions = {}
    for name, column in wanted.items():
        if not _NAME.fullmatch(name):
            raise InputError(f"--columns {name}={column}", f"{name!r} is not a name", "letters, digits and underscores")
        found = [i for i, other in kept.items() if other == column]
        if len(found) != 1:
            trouble = "comes twice" if found else "is not there"
            raise InputError(path, f"column {column!r} {trouble}", f"one of {_list(kept)}", "see --columns")
        positions[name] = found[0]
    return positions


def _path_position(path: Path, kept: dict[int, str], cells: list[str] | None, taken: set[int]) -> int:
    """By a picture's name where there is no header, else by the column's name, else because it is the only one."""
    free = {i: name for i, name in kept.items() if i not in taken}
    if cells is not None:
        return next(i for i, cell in enumerate(cells) if _PICTURE.search(cell[-8:]))
    for name in _PATH_NAMES:
        for i, other in free.items():
            if other.lower() == name:
                return i
    if len(free) == 1:
        if mark := re.search(r"[;\t]", next(iter(free.values()))):
            raise _other_separator(path, mark[0], kept)
        return next(iter(free))
    hint = "say which with --columns path=COL"
    raise InputError(path, f"no path column among {_list(kept)}", "comma-separated columns, one of paths", hint)


def _other_separator(path: Path, mark: str, kept: dict[int, str]) -> InputError:
    found = f"its columns are separated by {'semicolons' if mark == ';' else 'tabs'} ({_list(kept)})"
    command = f"pandas.read_csv({str(path)!r}, sep={mark!r}, dtype=str).to_csv('commas.csv', index=False)"
    return InputError(
        path, found, "commas", f"write it with commas and put that in its place, such as by Python's {command}"
    )


def _list(kept: dict[int, str]) -> str:
    return ", ".join(name[:40] for name in list(kept.values())[:20]) or "no named column"


class NumberKinds:
    """Narrows, block by block, what the columns can be: the result does not depend on where blocks begin."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._int = set(self.names)
        self._float = set(self.names)
        self._filled: set[str] = set()

    def add(self, name: str, values: list[str]) -> None:
        """Take note of a block of a column's cells."""
        if name in self._int and not all(map(_INT.fullmatch, values)):
            self._int.discard(name)
        if name in self._float and not all(map(_FLOAT.fullmatch, values)):
            self._float.discard(name)
        if name in self._float and any(values):
            self._filled.add(name)

    def found(self) -> dict[str, str]:
        """``int64``, ``float64`` (an empty cell is NaN) or ``string`` for each column."""
        numbers = self._float & self._filled
        return {n: "int64" if n in self._int else "float64" if n in numbers else "string" for n in self.names}


def convert(values: list[str], kind: str) -> NDArray[Any]:
    """A column's cells as an array of int64, float64 or StringDType."""
    if kind == "int64":
        return np.array([int(value) for value in values], dtype=np.int64)
    if kind == "float64":
        return np.array([float(value) if value else np.nan for value in values], dtype=np.float64)
    return np.array(values, dtype=np.dtypes.StringDType())
