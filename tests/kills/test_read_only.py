"""A store that cannot be written: what only reads does so; what writes says it in a line and leaves nothing."""

from __future__ import annotations

import subprocess

import pytest
from typer.testing import CliRunner

from streamclust import pipeline
from streamclust.cli import app
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store import arrays
from streamclust.store.retention import withdraw
from streamclust.store.store import open_store
from tests.cases import job_on, matrices, small_toml, write_case
from tests.faults import contents, no_fsync
from tests.kills.scenes import SETTINGS

READING = [
    "info {s}",
    "info {s} --at 1",
    "history {s}",
    "alarms {s}",
    "plan {s} --for fit",
    "export {s} {t}/out.csv",
    "export {s} {t}/out.parquet --at 2",
    "verify {s}",
    "verify {s} --quick",
    "verify {s} --repair",  # of a sound store
]
WRITING = [
    "run {s} {t}/z --config {t}/small.toml",
    "ingest {s} {t}/z",
    "fit {s} --k 2 --config {t}/small.toml",
    "predict {s}",
    "outliers {s} --config {t}/small.toml",
    "map {s} --config {t}/small.toml",
    "render {s} --config {t}/small.toml",
    "report {s} --config {t}/small.toml",
    "daily {s} {t}/drop",
    "refit {s} --config {t}/small.toml",
    "name {s} a 0 front",
    "withdraw {s} x --reason none",
    "restore {s} w",
    "forget {s} --before 2030-01-01",
    "compact {s}",
    "prune {s} --keep 1",
    "rollback {s} 1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A fitted store that is mounted to be read only, and cases to come."""
    place = tmp_path_factory.mktemp("place")
    with no_fsync():
        job = job_on(place / "made", SETTINGS)
        for i, name in enumerate("wxyz"):
            case = write_case(place / name, matrices(i, 64, {"a": 5}), {"time": [f"2026-01-0{i + 1}"] * 64})
            if name in "wx":
                ingest(job, open_case(case))
        pipeline.fit(job)
        ingest(job, open_case(place / "y"))
        withdraw(job.store, "w", "none")
        job.store.sweep()
    small_toml(place)
    write_case(place / "drop" / "2026-01-05", matrices(5, 64, {"a": 5}))
    (place / "s").mkdir()
    made = [["mount", "--bind", place / "made", place / "s"], ["mount", "-o", "remount,ro,bind", place / "s"]]
    if any(subprocess.run(words, capture_output=True, check=False).returncode for words in made):
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place / "s"], check=True)


def state(place):
    arrays.forget_open_arrays()
    return contents(open_store(place / "made")), sorted((place / "made").rglob("*"))


def run(command, place, tmp_path):
    for name in ("z", "small.toml", "drop"):
        (tmp_path / name).symlink_to(place / name)
    return CliRunner().invoke(app, command.format(s=place / "s", t=tmp_path).split())


@pytest.mark.parametrize("command", READING)
def test_what_only_reads(place, tmp_path, command):
    before = state(place)
    done = run(command, place, tmp_path)
    assert done.exit_code == 0, (done.output, done.exception)
    assert state(place) == before


@pytest.mark.parametrize("command", WRITING)
def test_what_writes_says_so(place, tmp_path, command):
    before = state(place)
    done = run(command, place, tmp_path)
    said = done.stderr.splitlines()[-1]
    assert done.exit_code == 2, (done.output, done.exception)
    assert said.startswith(f"streamclust: {place / 's'}"), said
    assert said.endswith(": Read-only file system; expected a place where you may read and write"), said
    assert "Traceback" not in done.output
    assert state(place) == before
