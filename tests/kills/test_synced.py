"""What a manifest names is on the disk as it is, before the manifest is; and what takes a published file's place is,
before it does.

A kill keeps the page cache, and cannot show it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from streamclust import pipeline
from streamclust.blocks import Serial
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.repair import repair
from streamclust.store import arrays
from streamclust.store.compaction import compact
from streamclust.store.forgetting import forget
from streamclust.store.pruning import prune
from streamclust.store.store import create, open_store
from tests.cases import job_on, matrices, write_case
from tests.faults import chunk_bytes, no_fsync
from tests.kills.scenes import SETTINGS


def state(path: Path) -> str:
    """What a sync of a file or of a folder takes to the disk: its bytes, or the names in it and what they stand for."""
    if path.is_dir():
        return "\n".join(
            sorted(f"{p.name} {p.stat().st_ino}" for p in path.iterdir() if not p.name.endswith((".partial", ".tmp")))
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def paths_in(manifest: Path) -> list[str]:
    """Of the objects that a manifest adds."""
    return [entry["path"] for entry in json.loads(manifest.read_bytes())["add"].values()]


class Disk:
    """What was synced, as it was then; and what was not, or changed since, when something is built on it.

    A manifest needs all that it names, and every change of published files before it; what takes the place of a
    published file, its content; rows that go, the hashes to prove it with; objects and manifests that a prune removes,
    the log as it is.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
        self.store, self.synced, self.links, self.missing = store, dict[Path, str](), 0, list[str]()
        self.log, self.replaced, self.moved = store / "log", 0, 0
        self.published = {store / "data" / e for file in self.log.glob("0*.json") for e in paths_in(file)}
        self.changed = set[Path]()  # files and folders that must be on the disk by the next manifest, and at the end
        self.link, self.replace, self.rename, self.unlink = os.link, os.replace, os.rename, os.unlink
        monkeypatch.setattr(os, "fsync", self.note_sync)
        monkeypatch.setattr(os, "link", self.note_link)
        monkeypatch.setattr(os, "replace", self.note_replace)
        monkeypatch.setattr(os, "rename", self.note_rename)
        monkeypatch.setattr(os, "unlink", self.note_unlink)

    def note_sync(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.exists():
            self.synced[path] = state(path)

    def need(self, why: object, *paths: Path) -> None:
        self.missing += [f"{why}: {path}" for path in paths if self.synced.get(path) != state(path)]

    def note_link(self, source: Path, target: Path) -> None:
        self.links += 1
        named = [self.store / "data" / e for e in paths_in(source)]
        within = [p for folder in named for p in (folder, *folder.rglob("*"))]
        above = [p for folder in named for p in folder.parents if p.is_relative_to(self.store / "data")]
        above += [p / "zarr.json" for p in above]
        self.need(target.name, *within, *above, source, *filter(Path.exists, self.changed))
        self.link(source, target)
        self.published.update(named)
        self.changed.add(self.log)

    def is_published(self, path: Path) -> bool:
        """Whether it is of the log, of an object, or of a group above one."""
        of_object = any(path.is_relative_to(folder) for folder in self.published)
        above = path.name == "zarr.json" and any(folder.is_relative_to(path.parent) for folder in self.published)
        return path.parent == self.log or of_object or above

    def note_replace(self, source: Path, target: Path) -> None:
        source, target = Path(source), Path(target)
        if self.is_published(target):
            self.replaced += 1
            self.need(f"before {target}", source, *self.hashes(), *([self.log] if target.parent == self.log else []))
            self.synced[target] = self.synced.get(source, "")
            self.changed |= {target, target.parent}
        self.replace(source, target)

    def note_rename(self, source: Path, target: Path, **within: int) -> None:
        source, target = Path(source), Path(target)
        if not within and self.is_published(target):  # a whole array of a published object
            self.replaced += 1
            self.need(f"before {target}", source, *source.rglob("*"), *self.hashes())
            self.changed.add(target.parent)
        elif not within and source in self.published:  # an object that a prune removes
            self.moved += 1
            self.need(f"before {source} goes", self.log, self.log / "first.json")
            self.changed.add(source.parent)
        self.rename(source, target, **within)

    def note_unlink(self, path: Path, **within: int | None) -> None:
        if not within and Path(path).parent == self.log and Path(path).stem.isdigit():
            self.moved += 1
            self.need(f"before {path} goes", self.log / "first.json")
            self.changed.add(self.log)
        self.unlink(path, **within)

    def hashes(self) -> list[Path]:
        """Those of rows that go, and their folder; the folders to it must have been synced with it in them."""
        folders = list(self.store.glob("forgetting/*/hashes"))
        for folder in folders:
            for path in (folder, *folder.parents[:2]):
                if f"{path.name} {path.stat().st_ino}" not in self.synced.get(path.parent, "").split("\n"):
                    self.missing.append(f"in its folder: {path}")
        return [*folders, *(p for folder in folders for p in folder.iterdir() if p.name != "complete")]

    def settle(self) -> None:
        """Whatever was done is on the disk."""
        self.need("at the end", *filter(Path.exists, self.changed))


@pytest.fixture
def two(tmp_path):
    """A store of two batches, each of several chunks."""
    with no_fsync(), chunk_bytes(640):
        for i, name in enumerate("xy"):
            case = write_case(tmp_path / name, {"a": matrices(i, 64, {"a": 5})["a"]}, {"day": ["2026-01-01"] * 64})
            ingest(job_on(tmp_path / "s", SETTINGS), open_case(case))
    arrays.forget_open_arrays()
    return tmp_path / "s"


def spoil(store: Path, *files: str, at: int = 2) -> None:
    """One bit of each of these files of the first batch, or of the pack that it is in."""
    for file in files:
        where = store / "data" / open_store(store).batches[0].entry.path / file
        content = bytearray(where.read_bytes())
        content[at] ^= 1
        where.write_bytes(content)


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
    disk.settle()
    assert disk.links == job.store.snapshot.number > 3
    assert not disk.missing


def test_what_a_prune_builds_on_is_synced_before_anything_goes(two, monkeypatch):
    store = open_store(two)
    for i in range(2):
        draft = store.draft(f"models/m{i}", "model", str(i))
        draft.write("values", [i])
        store.publish("add", {draft.name: (draft, draft.entry({}, {}))}, remove=(f"models/m{i - 1}",) if i else ())
    disk = Disk(monkeypatch, two)
    assert prune(store, 1).objects == 1
    disk.settle()
    assert (disk.links, disk.replaced, disk.moved) == (1, 1, 5)
    assert not disk.missing


@pytest.mark.parametrize("rows", [range(5), range(64)])
def test_what_takes_the_place_of_forgotten_rows_is_synced_before_and_the_hashes_of_those(two, monkeypatch, rows):
    """Some chunks; and whole arrays of a batch of which nothing stays."""
    disk = Disk(monkeypatch, two)
    assert not forget(open_store(two), [f"pictures/{i:05d}.jpg" for i in rows], batches=["x"]).left
    disk.settle()
    assert (disk.links, disk.replaced > 5) == (2, True)
    assert not disk.missing


def test_what_a_repair_replaces_is_synced_before(two, monkeypatch):
    spoil(two, "zarr.json", "valid/zarr.json", "descriptors/a/zarr.json", "moments/a/mean/c/0", "valid/a/c/1")
    spoil(two, "sample/a/c/0/0")
    shutil.rmtree(two / "data" / "names")
    disk = Disk(monkeypatch, two)
    found, done = repair(two, SETTINGS)
    disk.settle()
    assert (found.damage, len(done), disk.replaced > 8) == ((), 7, True)
    assert f"names {(two / 'data' / 'names').stat().st_ino}" in disk.synced[two / "data"]
    assert not disk.missing


def test_what_a_repair_replaces_in_a_pack_is_synced_before(two, monkeypatch):
    with no_fsync():
        assert compact(open_store(two), Serial()).packs
    arrays.forget_open_arrays()
    spoil(two, "moments/a/mean/c/0")
    spoil(two, "descriptors/a/c/0/0", at=-9)  # in the index behind the rows
    disk = Disk(monkeypatch, two)
    found, done = repair(two, SETTINGS)
    disk.settle()
    assert (found.damage, len(done), disk.replaced) == ((), 2, 2)
    assert not disk.missing
