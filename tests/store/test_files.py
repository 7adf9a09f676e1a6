"""A pipe, a device or a folder in place of a file of the store is named at once; what is read and written in bits, or
not at all, is whole or an error.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import socket
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

from streamclust import daily
from streamclust.blocks import Serial
from streamclust.cli import app
from streamclust.errors import DamageError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store import arrays, files
from streamclust.store import draft as drafts
from streamclust.store.pruning import prune
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.cases import job_on, matrices, write_case
from tests.faults import no_fsync

KINDS = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": lambda path: path.mkdir()}
COMMANDS = [
    "info {s}",
    "history {s}",
    "plan {s} --for fit",
    "export {s} {o}",
    "fit {s}",
    "compact {s}",
    "prune {s} --keep 1",
    "withdraw {s} x --reason none",
    "rollback {s} 2",
    "forget {s} --before 2030-01-01",
    "ingest {s} {c}",
    "run {s} {c}",
    "verify {s} --quick",
    "verify {s} --repair",
]
READING = {
    "descriptors/a/c/0/0": ["fit {s}", "compact {s}", "verify {s} --quick", "verify {s} --repair"],
    "descriptors/a/zarr.json": ["fit {s}", "compact {s}", "verify {s} --quick", "verify {s}"],
    "images/path/c/0": ["export {s} {o}", "forget {s} --before 2030-01-01", "compact {s}", "verify {s} --repair"],
    "images/path/zarr.json": ["export {s} {o}", "forget {s} --before 2030-01-01", "compact {s}", "verify {s}"],
}
WAIT = pytest.mark.timeout(60)  # what waits for a pipe waits for good


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two batches in a store, of which the log begins with the second; and a case to come."""
    place = tmp_path_factory.mktemp("place")
    for i, name in enumerate("xyz"):
        write_case(place / name, matrices(i, 40, {"a": 5}), {"time": [f"2026-01-0{i + 1}"] * 40})
    for name in "xy":
        ingest(job_on(place / "s"), open_case(place / name))
    prune(open_store(place / "s"), 1)
    return place


@pytest.fixture
def store(place, tmp_path):
    shutil.copytree(place / "s", tmp_path / "s")
    arrays.forget_open_arrays()
    return tmp_path / "s"


def run(command, place, store):
    words = command.format(s=store, c=place / "z", o=store.parent / "out.csv").split()
    return CliRunner().invoke(app, words)


def put(kind, path):
    """Something else in the place of a file."""
    path.unlink(missing_ok=True)
    KINDS[kind](path)


@WAIT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["00000003.json", "00000002.json", "first.json"])
def test_in_place_of_a_manifest(place, store, kind, name):
    put(kind, store / "log" / name)
    before = sorted(store.rglob("*"))
    for command in COMMANDS if name != "00000002.json" else COMMANDS[-2:]:
        done = run(command, place, store)
        assert done.exit_code == 3, (command, done.output, done.exception)
        assert name in done.output
        assert "is no regular file" in done.output
        assert sorted(store.rglob("*")) == before


@WAIT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READING)
def test_in_place_of_a_chunk_or_of_metadata(place, store, kind, name):
    opened = open_store(store)
    batch = opened.batches[0]
    file = store / "data" / batch.entry.path / name
    put(kind, file)
    with pytest.raises(DamageError, match=name):
        opened.read(batch.name, name.split("/c/")[0].removesuffix("/zarr.json"))
    for command in READING[name]:
        done = run(command, place, store)
        assert done.exit_code == 3, (command, done.output, done.exception)
        assert str(file.relative_to(store)) in done.output
    if file.name == "zarr.json":  # which is made again, but never in place of a folder
        assert run("verify {s} --repair", place, store).exit_code == (3 if kind == "folder" else 0)


@WAIT
@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_a_record(place, store, kind):
    """It does no more harm than a broken one: it is an orphan, and what is written gets in beside it."""
    put(kind, store / "drafts" / "0badf00d.json")
    assert verify(store, Serial()).orphans == ("drafts/0badf00d.json",)
    assert run("ingest {s} {c}", place, store).exit_code == 0
    assert open_store(store).sweep() == 0
    assert (store / "drafts" / "0badf00d.json").exists() == (kind == "folder")
    assert verify(store, Serial()).damage == ()


@WAIT
def test_among_files_of_nobody(place, store):
    """In a folder that no manifest names, beside everything else, and among what a writer is about to publish."""
    lost = store / "data" / "models" / "x-000001-0badf00d"
    lost.mkdir(parents=True)
    os.mkfifo(lost / "zarr.json")
    assert verify(store, Serial()).damage == ()
    shutil.rmtree(lost)
    os.mkfifo(store / "notes")
    assert run("forget {s} --before 2030-01-01", place, store).exit_code == 0
    draft = open_store(store).draft("models/y", "model", "y")
    os.mkfifo(draft.folder / "pipe")
    draft.sync()


@contextlib.contextmanager
def broken(file, code):
    """Every way of reading one file fails."""
    refused = OSError(code, os.strerror(code))

    def checked(call):
        def wrapped(handle, *args):
            if Path(f"/proc/self/fd/{handle}").readlink() == file:
                raise refused
            return call(handle, *args)

        return wrapped

    def opened(path, *args, real=io.open, **options):
        if str(path) == str(file):
            raise refused
        return real(path, *args, **options)

    with contextlib.ExitStack() as stack:
        for name in ("read", "pread", "preadv"):
            stack.enter_context(mock.patch.object(os, name, checked(getattr(os, name))))
        stack.enter_context(mock.patch.object(io, "open", opened))
        yield


@pytest.mark.parametrize("name", [*READING, "log/00000003.json", "log/first.json"])
def test_what_the_disk_cannot_read_is_named(place, store, name):
    """And the others are looked at all the same; once it can, all is as it was."""
    file = store / name if name.startswith("log") else store / "data" / open_store(store).batches[0].entry.path / name
    with broken(file, errno.EIO):
        for command in READING.get(name, COMMANDS[-1:]):
            arrays.forget_open_arrays()
            done = run(command.split(" --repair")[0].split(" --quick")[0], place, store)
            assert (done.exit_code, name in done.output) == (3, True), (command, done.output, done.exception)
            assert "verify" in command or "Input/output error" in done.output
    assert verify(store, Serial()).damage == ()


def test_files_that_are_read_in_bits_are_read_whole(place, store):
    """Manifests and metadata are; of a chunk a part is an error, never rows."""
    read, preadv = os.read, os.preadv
    known = open_store(store).snapshot
    with mock.patch.object(os, "read", lambda handle, size: read(handle, min(size, 7))):
        opened = open_store(store)
        batch = opened.batches[0]
        X = opened.read(batch.name, "descriptors/a")
    assert opened.snapshot == known
    for short in (lambda h, into, at: preadv(h, [into[0][:8]], at), lambda h, into, at: preadv(h, into[:1], at)):
        arrays.forget_open_arrays()
        with (
            mock.patch.object(os, "preadv", short),
            pytest.raises(DamageError, match=r"\d bytes could be read instead"),
        ):
            opened.read(batch.name, "descriptors/a")
    np.testing.assert_array_equal(opened.read(batch.name, "descriptors/a"), X)


@WAIT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "opening"), [("drafts/daily.lock", daily._alone), ("daily.log", daily._log)])
def test_in_place_of_what_a_day_writes_to(store, kind, name, opening):
    put(kind, store / name)
    with pytest.raises(DamageError, match=rf"{name}: is no regular file"), opening(store):
        pass


def test_a_record_that_cannot_be_read_is_swept_as_a_broken_one(store):
    draft = open_store(store).draft("models/m", "model", "print")
    draft.abandon()
    record = draft._record
    with mock.patch.object(drafts, "read_file", side_effect=DamageError(record, "cannot be read")):
        open_store(store).sweep()
    assert not record.exists()


@WAIT
def test_a_socket_is_no_regular_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.json")
        for opening in (files.open_file, files.append_to):
            with pytest.raises(DamageError, match="is no regular file"):
                opening(Path("s.json"))
