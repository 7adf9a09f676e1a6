"""The refit job, run as a scheduler runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import streamclust
from streamclust import pipeline
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages.names import name_cluster, names
from tests.cases import matrices, small_toml, work, write_case
from tests.conftest import ROOT

REFIT = ROOT / "jobs" / "refit.py"
DIMS = {"shape": 12, "colour": 8}


def refit(*arguments):
    command = [sys.executable, "-W", "error", str(REFIT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_refit_proposes_and_accepts_when_told(tmp_path):
    of = matrices(5, 500, DIMS)
    job = work(tmp_path / "cars.store", write_case(tmp_path / "mon", {d: X[:300] for d, X in of.items()}))
    store = job.store
    ingest(job, open_case(write_case(tmp_path / "tue", {d: X[300:] for d, X in of.items()})))
    pipeline.predict(job)
    name_cluster(store, "shape", 1, "lorries")
    seen, toml = store.labels().compute(), small_toml(tmp_path)

    proposed = refit(store.path, "--config", toml)
    assert proposed.returncode == 0, proposed.stderr
    first, *changes, page = proposed.stdout.splitlines()
    assert page == f"comparison: {store.path / 'report' / 'refit.html'}"
    assert "Refit, proposed" in (store.path / "report" / "refit.html").read_text()
    assert first == "fitted on 2 batches"
    assert [line.split(":")[0] for line in changes] == ["colour", "shape"]
    assert all("would change" in line for line in changes)
    assert streamclust.open(store.path).labels().compute().equals(seen)

    accepted = refit(store.path, "--config", toml, "--accept")
    assert accepted.returncode == 0, accepted.stderr
    assert accepted.stdout.startswith(proposed.stdout)
    assert accepted.stdout.splitlines()[-1] == f"report: {store.path / 'report' / 'index.html'}"
    assert "Refit, accepted" in (store.path / "report" / "refit.html").read_text()
    opened = streamclust.open(store.path)
    assert opened.labels().compute()["outlier_score"].notna().all()
    assert names(opened, "shape") == {1: "lorries"}

    again = refit(store.path, "--config", toml, "--accept")
    assert again.returncode == 0, again.stderr
    assert "nothing would change" in again.stdout
    assert streamclust.open(store.path).snapshot.number == opened.snapshot.number


@pytest.mark.slow
def test_refit_refuses_what_it_cannot_do_in_one_line(tmp_path):
    found = refit(tmp_path / "nowhere")
    assert found.returncode == 2
    assert found.stderr.startswith("refit: ")
    assert "no such store" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    usage = refit(tmp_path, "--last", "some")
    assert usage.returncode == 2
    assert "invalid int value" in usage.stderr
