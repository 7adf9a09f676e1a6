"""A disk that is full at any write ends in one line; what was published stays, and with room the work carries on."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from streamclust.blocks import Serial
from streamclust.cli import app
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store import arrays, chunks
from streamclust.store.history import rollback
from streamclust.store.store import create, open_store
from streamclust.store.verify import verify
from tests.cases import matrices, write_case
from tests.faults import assert_tidy, chunk_bytes, contents, job_on, no_fsync
from tests.kills.disks import INODES, fill, free, small_disk

BLOCKS = 640


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as place:
        yield place


@pytest.fixture
def cases(tmp_path):
    of = matrices(1, 96, {"a": 5})["a"]
    return [write_case(tmp_path / name, {"a": of[rows]}) for name, rows in (("x", slice(48)), ("y", slice(48, 96)))]


def take(store: Path, case: Path) -> None:
    arrays.forget_open_arrays()
    with chunk_bytes(BLOCKS), no_fsync():
        ingest(job_on(store), open_case(case))


def filled_up(disk: Path, cases: list[Path], place: Path, room: tuple[int, int]) -> bool:
    """Ingest with so much room, then with enough; whether it was too little."""
    store = disk / "s"
    take(store, cases[0])
    before, failed = contents(open_store(store)), False
    fill(disk, *room)
    try:
        take(store, cases[1])
    except OSError as error:
        failed = error.errno == errno.ENOSPC
        if not failed:
            raise
    arrays.forget_open_arrays()
    now = contents(open_store(store))
    assert {name: now[name] for name in before} == before, room
    assert verify(store, Serial()).damage == (), room
    free(disk)
    take(store, cases[1])
    straight = place / "straight"
    if not straight.exists():
        for case in cases:
            take(straight, case)
    assert contents(open_store(store)) == contents(open_store(straight)), room
    open_store(store).sweep()
    assert_tidy(open_store(store))
    shutil.rmtree(store)
    return failed


QUICK = [(0, -1), (30, -1), (400, 0), (400, 8)]


@pytest.mark.parametrize("room", QUICK)
def test_a_full_disk(disk, cases, tmp_path, room):
    assert filled_up(disk, cases, tmp_path, room)


@pytest.mark.long
def test_a_disk_that_fills_up_at_any_file_and_any_page(disk, cases, tmp_path):
    """One file or one page more each time, until there is room for all."""
    for rooms in (((k, -1) for k in range(INODES)), ((INODES, k) for k in range(1024))):
        tried = 0
        while filled_up(disk, cases, tmp_path, next(rooms)):
            tried += 1
        assert tried > 20


def command(*args: str | Path) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", "from streamclust.cli import main; main()", *map(str, args)]
    return subprocess.run(run, capture_output=True, text=True, check=False)


def test_the_command_says_it_in_a_line_and_carries_on(disk, cases):
    take(disk / "s", cases[0])
    fill(disk, 20, -1)
    done = command("ingest", disk / "s", cases[1], "--quiet")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(f"streamclust: {disk / 's'}/"), done.stderr
    assert done.stderr.endswith(": No space left on device; make room, then run the same command again\n"), done.stderr
    free(disk)
    assert command("ingest", disk / "s", cases[1], "--quiet").returncode == 0
    assert [batch.id for batch in open_store(disk / "s").batches] == ["x", "y"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT])
def test_an_error_of_the_disk_in_the_midst_of_a_chunk(cases, tmp_path, monkeypatch, code):
    """Half a chunk is written and the disk fails: nothing half is taken for a chunk afterwards."""
    store, real, calls = create(tmp_path / "s").path, chunks._checksum, iter(range(1000))

    def fail(data):
        if next(calls) == 3:
            raise OSError(code, os.strerror(code))
        return real(data)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_checksum", fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            take(store, cases[0])
    assert not list(store.rglob("*.partial"))
    assert open_store(store).snapshot.number == 0
    take(store, cases[0])
    assert verify(store, Serial()).damage == ()


class Bits(io.FileIO):
    """A file that takes no more than 100 bytes at once, and after so many of them nothing but an error."""

    left, code = sys.maxsize, 0

    def write(self, data):
        part = memoryview(data).cast("B")[: min(100, Bits.left)]
        if not part:
            raise OSError(Bits.code, os.strerror(Bits.code))
        Bits.left -= len(part)
        return super().write(part)


@contextlib.contextmanager
def in_bits(store: Path, left: int = sys.maxsize, code: int = 0) -> Iterator[None]:
    """Whatever is written below the store is written so."""
    real = io.open

    def opened(file, mode="r", buffering=-1, *args, **options):
        if not set(mode) & set("wxa") or not str(file).startswith(str(store)):
            return real(file, mode, buffering, *args, **options)
        raw = Bits(file, mode.replace("b", "").replace("t", ""))
        binary = raw if buffering == 0 else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, "utf-8", line_buffering=buffering == 1)

    with (
        mock.patch.object(io, "open", opened),
        mock.patch.object(Bits, "left", left),
        mock.patch.object(Bits, "code", code),
    ):
        yield


def test_what_the_disk_takes_in_bits_is_stored_whole(cases, tmp_path):
    with in_bits(tmp_path / "s"):
        take(tmp_path / "s", cases[0])
        rollback(open_store(tmp_path / "s"), 0)
    take(tmp_path / "straight", cases[0])
    assert contents(open_store(tmp_path / "s", 1)) == contents(open_store(tmp_path / "straight"))
    assert open_store(tmp_path / "s").n == 0
    assert verify(tmp_path / "s", Serial()).damage == ()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("left", [0, 150, 1000, 3000, 10000])
def test_an_error_after_a_part_was_written_is_a_line_and_nothing_is_lost(cases, tmp_path, code, left):
    """A quota ends as a full disk does."""
    store = tmp_path / "s"
    take(store, cases[0])
    before = contents(open_store(store))
    with chunk_bytes(BLOCKS), in_bits(store, left, code):
        done = CliRunner().invoke(app, ["ingest", str(store), str(cases[1]), "--quiet"])
    said = done.stderr
    assert (done.exit_code, said.count("\n")) == (1, 1), (said, done.exception)
    assert said.startswith(f"streamclust: {store}/"), said
    assert os.strerror(code) in said
    assert said.endswith("; make room, then run the same command again\n") == (code != errno.EIO)
    assert contents(open_store(store)) == before
    assert verify(store, Serial()).damage == ()
    assert not [*store.rglob("*.partial"), *store.rglob("*.tmp")]
    take(store, cases[1])
    assert [batch.id for batch in open_store(store).batches] == ["x", "y"]
    assert verify(store, Serial()).damage == ()
