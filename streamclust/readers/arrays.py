"""Descriptor files as matrices that are read block by block, whatever their format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from streamclust.errors import InputError
from streamclust.readers.foreign import open_foreign
from streamclust.readers.foreign.helper import together
from streamclust.readers.npy import open_npy
from streamclust.readers.npz import open_npz
from streamclust.readers.pickles import open_pickle
from streamclust.readers.sources import Source, join

_OPENERS: dict[str, Callable[[Path], dict[str, Source]]] = {
    ".pickle": open_pickle,
    ".pkl": open_pickle,
    ".joblib": open_pickle,
    ".npz": open_npz,
    ".npy": lambda path: {"": open_npy(path)},
    ".parquet": lambda path: {**open_foreign(path, "parquet")},
    ".zarr": lambda path: {**open_foreign(path, "zarr")},
    ".h5": lambda path: {**open_foreign(path, "hdf5")},
    ".hdf5": lambda path: {**open_foreign(path, "hdf5")},
}
_NOTES = frozenset({".txt", ".md", ".json", ".log", ".crc"})  # what people and programs leave beside their data
_MAX_PARTS = 4096


def open_descriptors(path: Path) -> dict[str, Source]:
    """The matrices of a descriptor file, opened by its suffix, by their names within it; no row is read.

    Where there is but one its name may be empty.
    Errors: InputError for a format that is not read, or contents without a 2-D array of numbers.
    """
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        expected, hint = " or ".join(sorted(_OPENERS)), "convert it, such as by numpy.save to .npy"
        raise InputError(path, f"has the unknown suffix {suffix!r}", expected, hint)
    return _OPENERS[suffix](path)


def is_packed(folder: Path) -> bool:
    """Whether a folder is to be opened as one file would be, rather than as parts."""
    return folder.suffix.lower() == ".zarr"


def name_of(path: Path) -> str:
    """What the only matrix of a file or a folder is called: as the file, without a suffix that is known."""
    return path.stem if path.suffix.lower() in _OPENERS else path.name


def open_parts(path: Path, files: Sequence[Path]) -> Source:
    """Files one below the other as one matrix, which is called as ``path``.

    Errors: InputError where there is no file, a part has several matrices or another width than the first.
    """
    if not files:
        found = "is empty" if path.is_dir() else "no file is there"
        raise InputError(path, found, "a file for each part, such as part-0.npy")
    if len(files) > _MAX_PARTS:
        raise InputError(path, f"has {len(files):,} files", f"at most {_MAX_PARTS:,} parts", "join some of them")
    with together():
        return join(path, [_part(file) for file in files])


def _part(path: Path) -> Source:
    found = open_descriptors(path)
    if len(found) > 1:
        raise InputError(path, f"holds {len(found)} matrices ({', '.join(sorted(found))[:80]})", "one in each part")
    return next(iter(found.values()))


def data_files(folder: Path) -> list[Path]:
    """What lies in a folder but hidden files and notes, in the natural order of their names (9 before 10)."""
    return _in_order(folder, folder.iterdir())


def matching_files(folder: Path, pattern: str) -> list[Path]:
    """What below a folder fits a pattern such as ``osnet-*.npy`` or ``*/osnet.npy``, in natural order.

    Errors: InputError for a pattern that leads out of the folder.
    """
    if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise InputError(f"parts {pattern!r}", "leads out of the case", f"a pattern below {folder}")
    return _in_order(folder, folder.glob(pattern))


def _in_order(folder: Path, paths: Iterable[Path]) -> list[Path]:
    found = [p for p in paths if not p.name.startswith((".", "_")) and p.suffix.lower() not in _NOTES]
    return sorted(found, key=lambda path: _natural(path.relative_to(folder).as_posix()))


def _natural(name: str) -> tuple[list[str | int], str]:
    words = re.split(r"([0-9]+)", name)
    return [int(word) if i % 2 else word for i, word in enumerate(words)], name
