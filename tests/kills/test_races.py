"""Two processes bring different days into one store at once: both are in, or one is told to try again and is then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.faults import ROOT


@pytest.mark.parametrize("rounds", [1, pytest.param(15, marks=pytest.mark.long)])
def test_two_writers_and_a_reader(rounds):
    command = [sys.executable, "-m", "tests.kills.races", "3", str(rounds)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert 0 <= int(done.stdout) <= 2 * rounds
