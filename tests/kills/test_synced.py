"""What a manifest names is on the disk as it is, before the manifest is.

A kill keeps the page cache, and cannot show it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from streamclust import pipeline
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store.compaction import compact
from streamclust.store.store import create
from tests.cases import job_on, matrices, write_case
from tests.faults import chunk_bytes
from tests.kills.scenes import SETTINGS


def state(path: Path) -> str:
    """What a sync of a file or of a folder takes to the disk: its bytes, or the names in it."""
    if path.is_dir():
        return "\n".join(sorted(p.name for p in path.iterdir() if not p.name.endswith((".partial", ".tmp"))))
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Disk:
    """What was synced, as it was then; and what was not, or changed since, when a manifest is linked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
        self.store, self.synced, self.links, self.missing = store, dict[Path, str](), 0, list[str]()
        self.link = os.link
        monkeypatch.setattr(os, "fsync", self.note_sync)
        monkeypatch.setattr(os, "link", self.note_link)

    def note_sync(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.exists():
            self.synced[path] = state(path)

    def note_link(self, source: Path, target: Path) -> None:
        self.links += 1
        named = [self.store / "data" / e for e in paths_in(source)]
        within = [p for folder in named for p in (folder, *folder.rglob("*"))]
        above = [p for folder in named for p in folder.parents if p.is_relative_to(self.store / "data")]
        above += [p / "zarr.json" for p in above]
        for path in [*within, *above, source]:
            if self.synced.get(path) != state(path):
                self.missing.append(f"{target.name}: {path}")
        self.link(source, target)


def paths_in(manifest: Path) -> list[str]:
    """Of the objects that a manifest adds."""
    return [entry["path"] for entry in json.loads(manifest.read_bytes())["add"].values()]


def test_every_file_and_folder_of_every_object_is_synced_as_it_is_before_its_manifest(tmp_path, monkeypatch):
    case = write_case(tmp_path / "case", {"a": matrices(1, 64, {"a": 5})["a"]})
    disk = Disk(monkeypatch, create(tmp_path / "s").path)
    job = job_on(disk.store, SETTINGS)
    with chunk_bytes(640):
        ingest(job, open_case(case))
        other = write_case(tmp_path / "other", {"a": matrices(2, 64, {"a": 5})["a"]})
        ingest(job, open_case(other))
    pipeline.fit(job)
    assert compact(job.store, job.executor).packs
    assert disk.links == job.store.snapshot.number > 3
    assert not disk.missing
    assert disk.synced[disk.store / "log"] == state(disk.store / "log")
