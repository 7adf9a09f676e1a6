"""Killed anywhere and started again, killed again and started again: what was published is as it was, and all ends
as if nobody had been killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.faults import ROOT

# What is cheap is killed more often.
QUICK = {"ingest": 5, "compact": 2}
LONG = [
    {"ingest": 120, "rollback": 40, "compact": 40},
    {"fit": 40, "score": 15, "predict": 30},
    {"refit": 15, "daily": 20},
    {"repair": 20},
]
EVERY = ("open", "write", "fsync", "os.rename", "os.link", "os.mkdir")


def killed(seed: int, scenes: dict[str, int]) -> list[str]:
    """The points at which processes were killed, in a process of its own."""
    command = [sys.executable, "-m", "tests.kills.laps", str(seed), *(f"{s}={n}" for s, n in scenes.items())]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    points = done.stdout.splitlines()
    assert Counter(point.split()[0] for point in points) == scenes
    return points


def test_a_few_kills():
    killed(1, QUICK)


@pytest.mark.slow
def test_more_kills_of_every_verb():
    killed(3, {scene: 4 for scenes in LONG for scene in scenes})


@pytest.mark.long
@pytest.mark.parametrize("scenes", LONG, ids=" ".join)
def test_three_hundred_kills(scenes):
    points = killed(2, scenes)
    if "ingest" in scenes:
        assert {point.split()[2] for point in points} >= set(EVERY)
