"""Objects being written: under a name no manifest mentions, held by a lock, adopted or swept when their writer died."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamclust.store import arrays
from streamclust.store.manifest import ArrayEntry, Entry, sync


@dataclass
class Draft:
    """One unpublished object, a Zarr group at ``root/data/path``. Its writer holds ``root/drafts/<nonce>`` by flock."""

    root: Path
    name: str
    kind: str
    path: str
    fingerprint: str
    adopted: bool
    _lock: int = field(repr=False)

    @classmethod
    def open(cls, root: Path, name: str, kind: str, fingerprint: str, published: Collection[str]) -> Self:
        """A draft for ``name`` made from the inputs that ``fingerprint`` names.

        One that a dead writer left for the same inputs is adopted, and its sound chunks need not be written again.
        """
        for record, lock in _abandoned(root):
            fits = (record["name"], record["kind"], record["fingerprint"]) == (name, kind, fingerprint)
            if fits and record["path"] not in published and (root / "data" / record["path"]).is_dir():
                return cls(root, name, kind, record["path"], fingerprint, adopted=True, _lock=lock)
            os.close(lock)
        nonce = secrets.token_hex(4)
        path = f"{name}-{nonce}"
        lock = _lock_file(root / "drafts" / f"{nonce}.json", create=True)
        record = {"name": name, "kind": kind, "fingerprint": fingerprint, "path": path}
        os.write(lock, json.dumps(record).encode())
        os.fsync(lock)
        draft = cls(root, name, kind, path, fingerprint, adopted=False, _lock=lock)
        arrays.create_parents(root / "data", draft.folder)
        arrays.create_group(draft.folder)
        return draft

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

    def create(self, array: str, shape: tuple[int, ...], dtype: DTypeLike, rows: int | None = None) -> Path:
        """Create an array, or keep an adopted one; returns its path."""
        path = self.folder / array
        if not (path / "zarr.json").is_file():
            arrays.create_parents(self.folder, path)
            arrays.create_array(path, shape, dtype, rows)
        return path

    def write(self, array: str, values: NDArray[Any]) -> None:
        """Create an array and write it whole."""
        values = np.atleast_1d(np.asarray(values))
        path = self.create(array, values.shape, values.dtype)
        step = arrays.rows_per_chunk(path)
        for start in range(0, len(values), step):
            arrays.write_rows(path, start, values[start : start + step])

    def entry(self, attributes: Mapping[str, Any], digests: Mapping[str, str]) -> Entry:
        """What the manifest shall say, and the group's own attributes; ``digests`` by array name where known."""
        attributes = dict(attributes) | {"fingerprint": self.fingerprint}
        arrays.create_group(self.folder, attributes)
        found = {str(p.parent.relative_to(self.folder)): p.parent for p in sorted(self.folder.rglob("zarr.json"))}
        described = {}
        for name, folder in found.items():
            meta = json.loads((folder / "zarr.json").read_text())
            if meta["node_type"] == "array":
                kind, chunks = meta["data_type"], meta["chunk_grid"]["configuration"]["chunk_shape"]
                described[name] = ArrayEntry(tuple(meta["shape"]), kind, tuple(chunks), digests.get(name, ""))
        return Entry(self.path, self.kind, attributes, described)

    def release(self) -> None:
        """Forget the draft after it was published."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._record.unlink(missing_ok=True)
        os.close(self._lock)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()


def _lock_file(path: Path, *, create: bool) -> int:
    """An exclusive flock on ``path``; raises OSError where somebody holds it or it is gone."""
    handle = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o644)
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
            lock = _lock_file(path, create=False)
        except OSError:
            continue
        try:
            record = json.loads(path.read_bytes())
        except ValueError:
            record = {"name": "", "kind": "", "fingerprint": "", "path": f"drafts-{path.stem}"}
        yield record, lock


def sweep(root: Path, published: Collection[str]) -> int:
    """Remove drafts that nobody holds and no manifest mentions; returns how many."""
    removed = 0
    for record, lock in _abandoned(root):
        folder = root / "data" / record["path"]
        if record["path"] not in published and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        kept = root / "drafts" / record["path"].rsplit("-", 1)[1]
        shutil.rmtree(kept, ignore_errors=True)
        kept.with_suffix(".json").unlink(missing_ok=True)
        os.close(lock)
    sync(root / "drafts")
    return removed
