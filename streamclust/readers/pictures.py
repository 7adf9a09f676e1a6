"""Where the pictures of a case lie, in a zip or loose, and one of them decoded within bounds."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from streamclust.errors import InputError
from streamclust.readers.files import Fingerprint, fingerprint_of, hash64, open_regular, path_fault, pread_exactly
from streamclust.readers.zips import ZipIndex, entries, find_directory, read_entry

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_BYTES_PER_PIXEL = 4  # RGBA without compression
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class PictureError(InputError):
    """One picture is missing, broken, too large or not what it should be. The others are not concerned."""


@dataclass(frozen=True)
class PictureSource:
    """The pictures of a case. Small and picklable.

    Parameters
    ----------
    root : the zip file, or the folder below which every picture lies.
    kind : ``zip`` or ``loose``.
    strip, lead : a path of the case becomes a name here by losing the folder ``strip`` and gaining the folder ``lead``.
    """

    root: Path
    kind: str
    strip: str = ""
    lead: str = ""

    def name_of(self, path: str) -> str:
        """What the picture of ``path`` is called below `root`; empty where it cannot be there."""
        return self.lead + path[len(self.strip) :] if path.startswith(self.strip) and not path_fault(path) else ""

    def partitions(self) -> int:
        """In how many parts `locate` looks, so that its index stays below about 100 MB: 1 up to 4 million entries."""
        if self.kind == "loose":
            return 1
        with open_regular(self.root) as fd:
            return find_directory(self.root, fd).partitions

    def locate(self, paths: Iterable[str], partition: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each picture lies: (n,) offsets and (n,) sizes in bytes, both -1 where there is none in this partition.

        In a zip: offset of the local header and compressed size; the index of a zip stays in memory until another is
        asked for, so take all paths through one partition before the next, and the maximum over the partitions.
        Loose: 0 and the size of the file.
        """
        names = [self.name_of(path) for path in paths]
        if self.kind == "loose":
            return _locate_loose(self.root, names)
        with open_regular(self.root) as fd:
            seen = fingerprint_of(fd)
        with _INDEX_LOCK:
            index = _zip_index(self.root, seen, partition)
        return index.locate(hash64(names))


_INDEX_LOCK = Lock()


@lru_cache(maxsize=1)
def _zip_index(root: Path, seen: Fingerprint, partition: int) -> ZipIndex:
    with open_regular(root) as fd:
        return ZipIndex(root, fd, partition)


def _locate_loose(root: Path, names: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = np.full(len(names), -1, np.int64)
    inside: dict[str, bool] = {}  # folders repeat, and resolving one costs more than a look at a file
    base = root.resolve()
    for i, name in enumerate(names):
        folder = name.rpartition("/")[0]
        if folder not in inside:
            inside[folder] = _is_below(base / folder, base)
        if name and inside[folder]:
            sizes[i] = _size_of(f"{base}/{name}", base)
    return np.where(sizes < 0, np.int64(-1), np.int64(0)), sizes


def _size_of(path: str, base: Path) -> int:
    """Bytes of a regular file whose folder is below ``base``, -1 for anything else."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) and _is_below(Path(path), base):
            status = Path(path).stat()
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _is_below(path: Path, base: Path) -> bool:
    """Whether a path stays below the resolved ``base`` once its links are followed; a loop of links does not."""
    try:
        return path.resolve().is_relative_to(base)
    except (OSError, RuntimeError, ValueError):
        return False


def find_pictures(case: Path, pictures: Path | None, examples: Sequence[str]) -> PictureSource | None:
    """The pictures of a case folder, or None where it has none.

    Looks at ``pictures`` (a folder or a zip) if given; else at row_data/images.zip or the only zip in row_data/ or in
    the case; else for one of ``examples`` (the first paths of the case) below row_data/images, images, row_data or the
    case. Where names do not match, a leading folder that only one side has is found by the examples, once.
    Errors: InputError for a broken zip, several zips, or given pictures that hold none of the examples.
    """
    if pictures is not None:
        source = _in_folder([pictures], examples) if pictures.is_dir() else _in_zip(pictures, examples)
        if source is None:
            raise InputError(pictures, f"holds none of the pictures {_some(examples)}", "the pictures of this case")
        return source
    zips = _zips(case)
    if len(zips) == 1:
        return _in_zip(zips[0], examples) or PictureSource(zips[0], "zip")
    source = _in_folder([case / "row_data" / "images", case / "images", case / "row_data", case], examples)
    if source is None and zips:
        names = ", ".join(path.name for path in zips)
        raise InputError(case, f"has several zip files ({names})", "one with the pictures", "say which with --pictures")
    return source


def _some(examples: Sequence[str]) -> str:
    return ", ".join(repr(path[:80]) for path in examples[:2]) + (", ..." if len(examples) > 2 else "")


def _zips(case: Path) -> list[Path]:
    usual = case / "row_data" / "images.zip"
    if usual.exists():
        return [usual]
    for folder in (case / "row_data", case):
        if folder.is_dir():
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".zip" and path.name[0] != ".")
            if found:
                return found
    return []


def _in_folder(roots: Sequence[Path], examples: Sequence[str]) -> PictureSource | None:
    folders = examples[0].split("/")[:-1]
    for depth in range(len(folders) + 1):
        strip = "".join(f"{folder}/" for folder in folders[:depth])
        for root in roots:
            source = PictureSource(root.resolve(), "loose", strip)
            if root.is_dir() and (source.locate(examples)[1] >= 0).any():
                return source
    return None


def _in_zip(root: Path, examples: Sequence[str]) -> PictureSource | None:
    """The zip with the leading folder, on either side, that fits most examples; None where none fits."""
    wanted, last_parts = set(examples), {path.rpartition("/")[2] for path in examples}
    shorter = {path[i + 1 :]: path[: i + 1] for path in reversed(examples) for i in _slashes(path)}
    votes: Counter[tuple[str, str]] = Counter()
    with open_regular(root) as fd:
        for name, _, _ in entries(root, fd, find_directory(root, fd)):
            if name.rpartition("/")[2] not in last_parts:
                continue
            if name in wanted:
                return PictureSource(root.resolve(), "zip")
            rules = [("", name[: i + 1]) for i in _slashes(name) if name[i + 1 :] in wanted]
            if name in shorter:
                rules.append((shorter[name], ""))
            votes.update(rule for rule in rules if rule in votes or len(votes) < 1000)
    best = votes.most_common(2)
    if len(best) == 2 and best[0][1] == best[1][1]:
        folders = " and ".join(repr(strip or lead) for (strip, lead), _ in best)
        hint = "make its names those of images_paths.csv"
        raise InputError(root, f"has pictures of the same names in {folders}", "one picture for each path", hint)
    return PictureSource(root.resolve(), "zip", *best[0][0]) if best else None


def _slashes(path: str) -> list[int]:
    return [i for i, letter in enumerate(path) if letter == "/"]


def read_picture(source: PictureSource, path: str, offset: int, size: int, max_pixels: int = 64_000_000) -> Image.Image:
    """The picture of ``path``, upright, in RGB: first frame, 16 bits scaled to 8, transparency dropped.

    ``offset`` and ``size`` are what `PictureSource.locate` said.
    Errors: PictureError where it is missing, moved, outside its root, broken, of another format than JPEG, PNG, WebP,
    BMP, TIFF or GIF, or has more than ``max_pixels``.
    """
    where = f"{source.root} {path[:200]!r}"
    try:
        data = _read_bytes(source, path, offset, size, max_pixels * _BYTES_PER_PIXEL)
    except InputError as error:
        raise PictureError(*error.__reduce__()[1]) from error
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height <= max_pixels:
                return _upright_rgb(image)
    except UnidentifiedImageError as error:
        raise PictureError(where, "is no picture of a known format", ", ".join(_FORMATS)) from error
    except Exception as error:  # on a stranger's bytes a decoder raises whatever it likes
        raise PictureError(where, f"is a broken picture ({error})", ", ".join(_FORMATS)) from error
    raise PictureError(where, "has too many pixels", f"at most {max_pixels:,}")


def _read_bytes(source: PictureSource, path: str, offset: int, size: int, limit: int) -> bytes:
    name = source.name_of(path)
    where = f"{source.root} {path[:200]!r}"
    if not name or offset < 0 or size < 0:
        raise InputError(where, "is missing", "a picture")
    if source.kind == "zip":
        with open_regular(source.root) as fd:
            return read_entry(source.root, fd, name, offset, size, limit)
    base = source.root.resolve()
    if not _is_below(base / name, base):
        raise InputError(where, "leads out of its folder", "a picture below it")
    full = (base / name).resolve()
    with open_regular(full) as fd:
        now = fingerprint_of(fd)[0]
        if now != size or now > limit:
            raise InputError(where, f"has {now:,} bytes", f"{size:,} as before and at most {limit:,}")
        return pread_exactly(full, fd, size, 0)


def _upright_rgb(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    if image.mode.startswith(("I", "F")):
        rgb = Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    else:
        rgb = (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def _to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of more than 8 bits: integers by their upper 8 of 16 bits, fractions from their least to their greatest."""
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        values = (values - low) / (high - low) * 65535 if high > low else np.zeros_like(values)
    return np.asarray(np.clip(values, 0, 65535) / 257 + 0.5, dtype=np.uint8)
