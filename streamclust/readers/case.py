"""A case folder as it arrives: its descriptors, its paths and its pictures, opened and checked against each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streamclust.errors import InputError
from streamclust.readers.arrays import data_files, is_packed, matching_files, name_of, open_descriptors, open_parts
from streamclust.readers.pictures import PictureSource, find_pictures
from streamclust.readers.sources import Source
from streamclust.readers.tables import PathsTable, open_paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_EXAMPLES = 100
_LAYOUT = "a folder with descriptors/NAME.pickle (or .npy, .npz, .parquet, ...) and images_paths.csv"


@dataclass(frozen=True)
class Case:
    """An opened case. Nothing but headers and the CSV file was read.

    Parameters
    ----------
    folder : where it is.
    name : the folder's own name.
    descriptors : matrix of each descriptor, sorted by name; all have as many rows as ``paths``.
    paths : the rows' pictures and metadata.
    pictures : where the pictures lie, if they came along.
    """

    folder: Path
    name: str
    descriptors: dict[str, Source]
    paths: PathsTable
    pictures: PictureSource | None


def open_case(
    folder: Path,
    *,
    pictures: Path | None = None,
    columns: Mapping[str, str] | None = None,
    path_encoding: str = "utf-8",
    parts: Mapping[str, str] | None = None,
) -> Case:
    """Open a case folder. For ``columns`` and ``path_encoding`` see `open_paths`, for ``pictures`` `find_pictures`.

    ``parts`` gives names to patterns: the files below descriptors/ that fit one are the parts of that descriptor.

    Errors: InputError where a part is missing, unreadable or ambiguous, and where row counts differ.
    """
    if not folder.is_dir():
        raise InputError(folder, "is not a folder" if folder.exists() else "does not exist", _LAYOUT)
    descriptors = _descriptors(folder, parts or {})
    places = [folder / "images_paths.csv", folder / "row_data" / "images_paths.csv"]
    csv = next((path for path in places if path.exists()), None)
    if csv is None:
        raise InputError(folder, "has no images_paths.csv", _LAYOUT)
    paths = open_paths(csv, columns, path_encoding)
    _refuse_other_counts(folder, descriptors, paths)
    examples = [str(path) for path in paths.read(0, min(paths.n, _EXAMPLES))["path"]]
    return Case(folder, folder.resolve().name, descriptors, paths, find_pictures(folder, pictures, examples))


def _descriptors(folder: Path, parts: Mapping[str, str]) -> dict[str, Source]:
    place = folder / "descriptors"
    if not place.is_dir():
        raise InputError(folder, "has no folder 'descriptors'", _LAYOUT)
    found, taken = dict[str, Source](), dict[Path, str]()
    for name, pattern in parts.items():
        _refuse_odd_name(place / pattern, name)
        files = matching_files(place, pattern)
        for path in files:
            if path in taken:
                raise InputError(path, f"is a part of {taken[path]} and of {name}", "patterns that share no file")
            taken[path] = name
        found[name] = open_parts(place / pattern, files)
    above = {parent for path in taken for parent in path.parents}
    for path in data_files(place):
        if path in taken or path in above:
            continue
        for name, source in _named(path).items():
            _refuse_odd_name(path, name)
            if name in found:
                other = found[name].path.name
                raise InputError(path, f"and {other} are the same descriptor", "one for each", "move one of them away")
            found[name] = source
    if not found:
        raise InputError(place, "is empty", "a file for each descriptor, NAME.pickle or NAME.npy")
    return dict(sorted(found.items()))


def _refuse_odd_name(path: Path, name: str) -> None:
    if not _NAME.fullmatch(name):
        expected = "letters, digits, '_', '.' and '-', beginning with a letter or digit"
        raise InputError(path, f"{name!r} cannot be the name of a descriptor", expected, "rename it")


def _named(path: Path) -> dict[str, Source]:
    """A file's only matrix has the file's name; of several each has NAME.KEY. A folder is one matrix in parts."""
    if path.is_dir() and not is_packed(path):
        return {name_of(path): open_parts(path, data_files(path))}
    found = open_descriptors(path)
    if len(found) == 1:
        return {path.stem: next(iter(found.values()))}
    return {f"{path.stem}.{key.replace('/', '.')}": source for key, source in found.items()}


def _refuse_other_counts(folder: Path, descriptors: dict[str, Source], paths: PathsTable) -> None:
    several = Counter(source.path for source in descriptors.values())
    counts = {
        source.path.name if several[source.path] == 1 else f"{source.path.name} ({name})": source.shape[0]
        for name, source in descriptors.items()
    } | {paths.path.name: paths.n}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise InputError(folder, f"its files have different numbers of rows: {found}", "one row per image in each")
