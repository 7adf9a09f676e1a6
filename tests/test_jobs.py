"""The jobs that a scheduler starts, run as it starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import streamclust
from tests.cases import matrices, small_toml, write_case
from tests.conftest import ROOT

BACKFILL = ROOT / "jobs" / "backfill.py"
DIMS = {"shape": 12, "colour": 8}


def backfill(*arguments):
    command = [sys.executable, "-W", "error", str(BACKFILL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_backfill_takes_every_case_oldest_first_and_reports_once(tmp_path):
    history, store = tmp_path / "history", tmp_path / "cars.store"
    for age, (name, n) in enumerate({"newer": 260, "older": 240}.items()):
        case = write_case(history / name, matrices(age, n, DIMS))
        os.utime(case / "descriptors", (2e9 - 100 * age,) * 2)
    (history / "notes").mkdir()
    toml = small_toml(tmp_path)
    first = backfill(store, history, "--config", toml)
    assert first.returncode == 0, first.stderr
    opened = streamclust.open(store)
    assert [batch.id for batch in opened.batches] == ["older", "newer"]
    assert first.stdout.splitlines()[-1] == f"report: {store / 'report' / 'index.html'}"
    labels = opened.labels().compute()
    assert len(labels) == 500
    assert labels["outlier_score"].notna().all()
    assert labels["shape_kmeans"].notna().all()

    again = backfill(store, history, "--config", toml)
    assert again.returncode == 0, again.stderr
    assert streamclust.open(store).snapshot.number == opened.snapshot.number


def test_backfill_refuses_a_folder_without_cases_in_one_line(tmp_path):
    found = backfill(tmp_path / "cars.store", tmp_path)
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith("backfill.py: error:")
    assert "no case in it" in found.stderr
    assert not (tmp_path / "cars.store").exists()


def test_what_the_system_refuses_is_one_line(tmp_path):
    write_case(tmp_path / "history" / "day", matrices(0, 60, DIMS))
    found = backfill("/proc/none/cars.store", tmp_path / "history")
    assert found.returncode in {1, 2}
    assert found.stderr.startswith("backfill: /proc/none")
    assert found.stderr.count("\n") == 1


def test_backfill_says_what_is_wrong_with_a_case(tmp_path):
    case = write_case(tmp_path / "history" / "day", matrices(0, 60, DIMS))
    (case / "descriptors" / "shape.pickle").write_bytes(b"no pickle")
    found = backfill(tmp_path / "cars.store", tmp_path / "history")
    assert found.returncode == 2
    assert found.stderr.startswith("backfill: ")
    assert "shape.pickle" in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("job", ["backfill", "daily", "refit", "density"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_stopped_says_so_in_a_line(tmp_path, job, sent):
    """The signal comes where the work would begin."""
    (tmp_path / "x" / "descriptors").mkdir(parents=True)
    stopped = f"lambda *a, **k: signal.raise_signal({int(sent)})"
    code = f"""
import runpy, signal, sys, streamclust.pipeline as p, streamclust.daily as d
signal.signal(signal.SIGINT, signal.default_int_handler)
p.ingest_case = p.on_store = d.daily = {stopped}
sys.argv[1:] = ["s", "."][: 1 + ({job!r} != "refit")]
runpy.run_path({str(ROOT / "jobs" / job)!r} + ".py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + sent, done.stderr
    assert done.stderr.startswith(f"{job}: ")
    assert done.stderr.endswith("; run the same command again to carry on\n")
    assert done.stderr.count("\n") == 1
