"""The job that draws maps, run as a scheduler starts it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.benchmarks.density import add_day, fitted_store, points
from tests.conftest import ROOT


def density(*words):
    command = [sys.executable, "-W", "error", str(ROOT / "jobs" / "density.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = fitted_store(tmp_path_factory.mktemp("job") / "cars.store", [-150, 150, -150, 150], 20)
    for i in range(2):
        add_day(opened, f"2026-01-0{i + 1}", points(i, 3000))
    return opened.path


@pytest.mark.slow
def test_a_map_is_drawn_and_brought_up_to_date(store, tmp_path):
    out = tmp_path / "map"
    first = density(store, out, "--day", "2026-01-02", "--difference", "2026-01-01", "2026-01-02")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("6,000 rows, ")
    assert first.stdout.strip().endswith(str(out / "index.html"))
    assert {p.name for p in out.iterdir()} == {
        *("index.html", "index.json", "tiles", "days", "differences", "density.png", "clusters.png", "outliers.png")
    }
    again = density(store, out)
    assert again.stdout.startswith("6,000 rows, 0 tiles written")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--day", "2027-01-01"], "day 2027-01-01: is not on the map of osnet"),
        (["--descriptor", "vdc"], "no descriptor 'vdc'; expected one of osnet"),
        (["--zoom", "12"], "--zoom 12: expected 0 to 8"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(store, tmp_path, words, said):
    found = density(store, tmp_path / "map", *words)
    assert found.returncode == 2
    assert said in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr


def test_a_store_without_a_map_is_told_how_to_get_one(tmp_path):
    found = density(tmp_path / "none.store", tmp_path / "map")
    assert found.returncode == 2
    assert "no such store" in found.stderr
