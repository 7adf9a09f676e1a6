"""Plans: more memory never gives fewer workers, more rows never cost less, a refusal names step and bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import planning
from streamclust.config import Settings, load_settings
from streamclust.errors import BudgetError
from streamclust.planning import Shape
from tests.cases import clustered, small_toml, write_case
from tests.faults import ROOT

shapes = st.builds(Shape, st.integers(1, 10**8), st.integers(1, 5000), st.sampled_from([2, 4, 8]))


@given(
    shape=shapes, budgets=st.lists(st.integers(6 * 10**8, 10**11), min_size=2, max_size=6), workers=st.integers(1, 32)
)
@settings(deadline=None)
def test_more_memory_never_gives_fewer_workers(shape, budgets, workers):
    counts = []
    for budget in sorted(budgets):
        try:
            found = planning.within({"a": shape}, load_settings(None, {"memory": f"{budget}B"}), workers)
        except BudgetError:
            counts.append(0)
            continue
        assert found.peak.peak_bytes <= budget
        counts.append(found.workers)
    assert all(a <= b for a, b in pairwise(counts))
    assert planning.within({"a": shape}, Settings(), workers).workers == workers


@given(shape=shapes, more=st.integers(0, 10**8), workers=st.integers(1, 16))
@settings(deadline=None)
def test_bytes_are_monotone_in_rows(shape, more, workers):
    few = planning.plan({"a": shape}, Settings(), workers)
    many = planning.plan({"a": Shape(shape.n + more, shape.d, shape.itemsize)}, Settings(), workers)
    assert few.disk_bytes <= many.disk_bytes
    for a, b in zip(few.steps, many.steps, strict=True):
        assert a.name == b.name
        assert (a.bytes_read, a.bytes_written, a.peak_bytes) <= (b.bytes_read, b.bytes_written, b.peak_bytes)


@given(n=st.integers(1, 10**9), row_bytes=st.integers(1, 10**6))
def test_chunks_are_powers_of_two_within_bounds(n, row_bytes):
    rows = planning.chunk_rows(n, row_bytes)
    assert 1 <= rows <= min(n, planning.LABEL_ROWS)
    assert rows == n or rows & (rows - 1) == 0
    assert rows == 1 or rows * row_bytes <= planning.CHUNK_BYTES


def test_a_budget_that_cannot_hold_names_step_bytes_and_what_would():
    asked = load_settings(None, {"memory": "700MB"})
    with pytest.raises(BudgetError) as error:
        planning.within({"a": Shape(10**6, 512), "b": Shape(10**6, 4000)}, asked, 4)
    text = str(error.value)
    assert text.startswith("--memory 700MB: b: ")
    enough = text.rsplit("at least ", 1)[1]
    assert planning.within({"b": Shape(10**6, 4000)}, load_settings(None, {"memory": enough}), 4).workers == 1


MEASURE = """
import sys
from pathlib import Path
from streamclust.config import load_settings
from streamclust.pipeline import plan_for, run
settings = load_settings(Path(sys.argv[3]))
result = run(sys.argv[1], sys.argv[2], settings)
print(plan_for(Path(sys.argv[2]), settings).peak.peak_bytes, result.summary()["peak_bytes"])
"""


@pytest.mark.slow
def test_the_measured_peak_is_within_the_projection(tmp_path):
    case = write_case(
        tmp_path / "case", {"a": clustered(1, 60_000, 128), "b": clustered(2, 60_000, 64).astype(np.float16)}
    )
    args = [tmp_path / "s", case, small_toml(tmp_path, cluster__fine_k=100, workers=2)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    projected, measured = map(int, done.stdout.split())
    assert measured <= projected
