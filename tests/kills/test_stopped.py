"""Ctrl-C and SIGTERM at a named point: one line, the code of the signal, no lock left; the same again carries on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from streamclust.daily import daily
from streamclust.reporting import day, days
from streamclust.store import draft
from streamclust.store.store import open_store
from tests.cases import matrices, small, small_toml, spoil, work, write_case
from tests.faults import ROOT, chunk_bytes, contents, no_fsync
from tests.kills.scenes import BLOCKS, page
from tests.kills.stopped import NEVER

SAYS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}
AGAIN = "; run the same command again to carry on\n"
DAY = "2026-01-02"
# Where it stands: in a chunk by a task, in what the coordinator writes, before and after what publishes.
POINTS = [
    ("write .*/descriptors/a/c/2", signal.SIGTERM),
    ("write .*/descriptors/a/c/2", signal.SIGINT),
    ("os.link /log/00000001", signal.SIGTERM),
    ("write .*/reduced/.*/Z/c/", signal.SIGTERM),
    ("open .*/models/.*sweep", signal.SIGINT),
    ("write .*/labels/.*/c/", signal.SIGTERM),
    ("open .*/models/a-map", signal.SIGTERM),
]


def start(store: Path, name: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kills.stopped", *map(str, (store, name, *words))]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | one_thread, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def stop_and_start_again(store: Path, name: str, sent: signal.Signals, *words: object) -> str:
    """What the second process says."""
    process = start(store, name, *words, "--quiet")
    point = process.stdout.readline()
    assert point, process.stderr.read()
    process.send_signal(sent)
    out, err = process.communicate("x", timeout=120)
    assert (process.returncode, out, err) == (128 + sent, "", f"streamclust: {SAYS[sent]}{AGAIN}"), point
    assert not any(alive for _, _, alive in draft.records(store)), point
    again = start(store, NEVER, *words)
    _, said = again.communicate(timeout=120)
    assert again.returncode in {0, 4}, said  # 4: done, with alarms
    return said


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Cases, settings, the store of a run that nobody stopped, and the same store after a day."""
    folder = tmp_path_factory.mktemp("stopped")
    write_case(folder / "case", {"a": spoil(matrices(1, 128, {"a": 5})["a"], [3])})
    write_case(folder / "drop" / DAY, matrices(2, 64, {"a": 5}))
    small_toml(folder, workers=2, daily__settle=0)
    with chunk_bytes(BLOCKS), no_fsync():
        work(folder / "whole", folder / "case")
        shutil.copytree(folder / "whole", folder / "grown")
        with mock.patch.object(day, "write_day", page), mock.patch.object(days, "write_days", page):
            daily(folder / "grown", folder / "drop", small(daily__settle=0))
    return folder


@pytest.mark.parametrize(("name", "sent"), POINTS[:3] + [pytest.param(*p, marks=pytest.mark.slow) for p in POINTS[3:]])
def test_a_run_that_is_stopped_says_so_and_carries_on(place, tmp_path, name, sent):
    store = tmp_path / "s"
    said = stop_and_start_again(store, name, sent, "run", store, place / "case", "--config", place / "small.toml")
    assert contents(open_store(store)) == contents(open_store(place / "whole"))
    if "descriptors" in name:
        assert "resumed: " in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["write .*/batches/000002.*/c/", "os.link /log/", "write .*/labels/.*/c/"])
def test_a_day_that_is_stopped_says_so_and_carries_on(place, tmp_path, name):
    store = shutil.copytree(place / "whole", tmp_path / "s")
    words = ("daily", store, place / "drop", "--config", place / "small.toml")
    stop_and_start_again(store, name, signal.SIGTERM, *words)
    assert contents(open_store(store)) == contents(open_store(place / "grown"))
    assert "ended: Terminated()" in (store / "daily.log").read_text()
