"""A case folder as it arrives: its descriptors, its paths and its pictures, opened and checked against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streamclust.errors import InputError
from streamclust.readers.arrays import ArraySource, open_descriptor
from streamclust.readers.pictures import PictureSource, find_pictures
from streamclust.readers.tables import PathsTable, open_paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOTES = frozenset({".txt", ".md", ".json", ".log"})  # what people leave beside their data
_EXAMPLES = 100
_LAYOUT = "a folder with descriptors/NAME.pickle (or .npy) and images_paths.csv"


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
    descriptors: dict[str, ArraySource]
    paths: PathsTable
    pictures: PictureSource | None


def open_case(
    folder: Path,
    *,
    pictures: Path | None = None,
    columns: Mapping[str, str] | None = None,
    path_encoding: str = "utf-8",
) -> Case:
    """Open a case folder. For ``columns`` and ``path_encoding`` see `open_paths`, for ``pictures`` `find_pictures`.

    Errors: InputError where a part is missing, unreadable or ambiguous, and where row counts differ.
    """
    if not folder.is_dir():
        raise InputError(folder, "is not a folder" if folder.exists() else "does not exist", _LAYOUT)
    descriptors = {name: open_descriptor(path) for name, path in _descriptor_files(folder).items()}
    places = [folder / "images_paths.csv", folder / "row_data" / "images_paths.csv"]
    csv = next((path for path in places if path.exists()), None)
    if csv is None:
        raise InputError(folder, "has no images_paths.csv", _LAYOUT)
    paths = open_paths(csv, columns, path_encoding)
    _refuse_other_counts(folder, descriptors, paths)
    examples = [str(path) for path in paths.read(0, min(paths.n, _EXAMPLES))["path"]]
    return Case(folder, folder.resolve().name, descriptors, paths, find_pictures(folder, pictures, examples))


def _descriptor_files(folder: Path) -> dict[str, Path]:
    place = folder / "descriptors"
    if not place.is_dir():
        raise InputError(folder, "has no folder 'descriptors'", _LAYOUT)
    files: dict[str, Path] = {}
    for path in sorted(place.iterdir(), key=lambda path: (path.stem, path.name)):
        if path.name.startswith(".") or path.suffix.lower() in _NOTES:
            continue
        if not _NAME.fullmatch(path.stem):
            expected = "letters, digits, '_', '.' and '-', beginning with a letter or digit"
            raise InputError(path, f"{path.stem!r} cannot be the name of a descriptor", expected, "rename the file")
        if path.stem in files:
            other = files[path.stem].name
            raise InputError(path, f"and {other} are the same descriptor", "one file for each", "move one of them away")
        files[path.stem] = path
    if not files:
        raise InputError(place, "is empty", "a file for each descriptor, NAME.pickle or NAME.npy")
    return files


def _refuse_other_counts(folder: Path, descriptors: dict[str, ArraySource], paths: PathsTable) -> None:
    counts = {source.path.name: source.shape[0] for source in descriptors.values()} | {paths.path.name: paths.n}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise InputError(folder, f"its files have different numbers of rows: {found}", "one row per image in each")
