"""Objects being written: under a name no manifest mentions, held by a lock, adopted or swept when their writer died."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamclust.errors import DamageError
from streamclust.store import arrays, metadata
from streamclust.store.entries import ArrayEntry, Entry
from streamclust.store.files import naming, read_file, sync, sync_tree

Named = Callable[[], Collection[str]]  # every path that any manifest ever named, read when it is called


@dataclass
class Draft:
    """One unpublished object, a Zarr group at ``root/data/path``.

    Its writer holds ``root/drafts/<nonce>.json`` by flock until it publishes, gives up or dies.
    """

    root: Path
    name: str
    kind: str
    path: str
    fingerprint: str
    adopted: bool
    _lock: int = field(repr=False)

    @classmethod
    def open(cls, root: Path, name: str, kind: str, fingerprint: str, named: Named) -> Self:
        """A draft for ``name`` made from the inputs that ``fingerprint`` names.

        One that a dead writer left for the same inputs is adopted, and its sound chunks need not be written again.
        """
        facts = {"name": name, "kind": kind, "fingerprint": fingerprint, "version": version("streamclust")}
        for record, lock in _abandoned(root):
            path = record.pop("path")
            # The log is read once the lock is ours: its writer may have published just before it died.
            if record == facts and _whole(root / "data" / path) and path not in named():
                _tidy(root / "data", path)
                return cls(root, name, kind, path, fingerprint, adopted=True, _lock=lock)
            os.close(lock)
        nonce = secrets.token_hex(4)
        path = f"{name}-{nonce}"
        lock = _new_record(root / "drafts" / f"{nonce}.json", facts | {"path": path})
        draft = cls(root, name, kind, path, fingerprint, adopted=False, _lock=lock)
        arrays.create_parents(root / "data", draft.folder)
        arrays.create_group(draft.folder)
        return draft

    def __post_init__(self) -> None:
        # Whoever drops a draft in an error lets go of it: a long-lived process can then adopt or sweep it.
        self._unlock = weakref.finalize(self, os.close, self._lock)

    @property
    def folder(self) -> Path:
        """Where the group lies."""
        return self.root / "data" / self.path

    @property
    def scratch(self) -> Path:
        """A folder for files that tasks leave for one another; it goes with the draft."""
        return self._record.with_suffix("")

    @property
    def _record(self) -> Path:
        return self.root / "drafts" / f"{self.path.rsplit('-', 1)[1]}.json"

    def create(
        self,
        array: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        rows: int | None = None,
        *,
        compress: bool = False,
        inner: int = 0,
    ) -> Path:
        """Create an array, or keep an adopted one; returns its path."""
        path = self.folder / array
        if not (path / "zarr.json").is_file():
            arrays.create_parents(self.folder, path)
            arrays.create_array(path, shape, dtype, rows, compress=compress, inner=inner)
        return path

    def write(self, array: str, values: NDArray[Any], *, compress: bool = False) -> None:
        """Create an array and write it whole."""
        values = np.atleast_1d(np.asarray(values))
        path = self.create(array, values.shape, values.dtype, compress=compress)
        step = arrays.rows_per_chunk(path)
        for start in range(0, len(values), step):
            arrays.write_rows(path, start, values[start : start + step])

    def entry(self, attributes: Mapping[str, Any], digests: Mapping[str, str]) -> Entry:
        """What the manifest shall say, and the group's own attributes; ``digests`` by array name where known."""
        attributes = dict(attributes) | {"fingerprint": self.fingerprint}
        arrays.create_group(self.folder, attributes)
        described = {}
        for meta in sorted(self.folder.rglob("zarr.json")):
            if about := metadata.describe(meta.parent):
                name = meta.parent.relative_to(self.folder).as_posix()
                described[name] = ArrayEntry(*about, digests.get(name, ""))
        return Entry(self.path, self.kind, attributes, described)

    def sync(self) -> None:
        """Take everything that was written, and the groups above it, to the disk."""
        sync_tree(self.folder)
        for parent in list(self.folder.parents)[: len(Path(self.path).parts)]:
            sync(parent / "zarr.json")
            sync(parent)

    def release(self) -> None:
        """Forget the draft after it was published."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._record.unlink(missing_ok=True)
        self._unlock()

    def abandon(self) -> None:
        """Let go of what was written, for the next try to adopt or a sweep to remove."""
        self._unlock()

    def discard(self) -> None:
        """Remove what was written, unless it was published. The record stays, for a sweep to follow:
        a task of a failed run may still be writing.
        """
        if self._unlock.alive:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.rmtree(self.scratch, ignore_errors=True)
        self._unlock()


def _whole(folder: Path) -> bool:
    """Whether all metadata in a dead writer's folder can be read."""
    try:
        for meta in folder.rglob("zarr.json"):
            metadata.describe(meta.parent)
    except DamageError:
        return False
    return folder.is_dir()


def _tidy(data: Path, path: str) -> None:
    """Finish for a dead writer: remove what it was about to rename, complete the groups above its folder."""
    folder = data / path
    for above in (data, *(data / parent for parent in Path(path).parents)):
        for partial in above.glob("*.partial"):
            partial.unlink(missing_ok=True)
    for partial in folder.rglob("*.partial"):
        partial.unlink(missing_ok=True)
    arrays.create_parents(data, folder)


def _new_record(path: Path, record: Mapping[str, str]) -> int:
    """Write a record; it appears whole and locked, so that nobody takes it for a dead writer's. Returns the lock."""
    temporary = path.with_name(f".{path.stem}.tmp")
    lock = None
    try:
        with naming(path):
            temporary.write_text(json.dumps(record))
            lock = _lock_file(temporary)
            os.fsync(lock)
        temporary.rename(path)
        sync(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)
        raise
    return lock


def _lock_file(path: Path) -> int:
    """An exclusive flock on ``path``; raises OSError where somebody holds it or it is gone."""
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists():
            raise FileNotFoundError(path)
    except OSError:
        os.close(handle)
        raise
    return handle


def _abandoned(root: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Records of drafts whose writer is gone, each with its lock, now ours; the caller closes it."""
    for path in sorted((root / "drafts").glob("*.json")):
        try:
            lock = _lock_file(path)
        except OSError:
            continue
        try:
            record = json.loads(read_file(path) if path.is_file() else b"")
            whole = record["path"] == f"{record['name']}-{path.stem}" and _is_below(record["path"])
        except (OSError, DamageError, ValueError, KeyError, TypeError):
            whole = False
        yield (record if whole else {"path": f"drafts-{path.stem}"}), lock


def _is_below(path: str) -> bool:
    """Whether it leads nowhere but down: a record from a stranger might name any folder."""
    return not {"", ".", ".."} & set(path.split("/"))


def records(root: Path) -> Iterator[tuple[str, str, bool]]:
    """(record's file name, path below ``data``, whether its writer is alive) of every draft; takes nothing over."""
    for file in sorted((root / "drafts").glob("*.json")):
        try:
            handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        alive = False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path = str(json.loads(read_file(file))["path"])
        except BlockingIOError:
            alive, path = True, str(json.loads(read_file(file))["path"])
        except (OSError, DamageError, ValueError, KeyError, TypeError):
            path = ""
        finally:
            os.close(handle)
        yield file.name, path, alive


def sweep(root: Path, named: Named) -> int:
    """Remove drafts that nobody holds and no manifest mentions; returns how many."""
    removed = 0
    abandoned = list(_abandoned(root))
    if not abandoned:
        return 0
    published = named()  # read once the locks are ours: a writer may have published just before it died
    for record, lock in abandoned:
        folder = root / "data" / record["path"]
        if record["path"] not in published:
            removed += folder.is_dir()
            shutil.rmtree(folder, ignore_errors=True)
            _tidy(root / "data", record["path"])
        kept = root / "drafts" / record["path"].rsplit("-", 1)[1]
        shutil.rmtree(kept, ignore_errors=True)
        if record["path"] in published or not folder.exists():  # else a late task wrote into it: the next sweep follows
            kept.with_suffix(".json").unlink(missing_ok=True)
        os.close(lock)
    sync(root / "drafts")
    return removed
