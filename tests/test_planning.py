"""Plans: more memory never gives fewer workers, more rows never cost less, a refusal names step and bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streamclust import costs, planning
from streamclust.config import Settings, load_settings, parse_bytes
from streamclust.errors import BudgetError
from streamclust.planning import Rates, Shape
from tests.cases import clustered, small_toml, write_case
from tests.faults import ROOT


def read_again(n, d):
    """Whether a fit reads all rows, as ingest took no scatter of so few: then more of them may cost less."""
    return d <= planning.WIDE and n < planning.SCATTER_ROWS * d


shapes = st.builds(Shape, st.integers(1, 10**8), st.integers(1, 5000), st.sampled_from([2, 4, 8]))


@given(
    shape=shapes, budgets=st.lists(st.integers(6 * 10**8, 10**11), min_size=2, max_size=6), workers=st.integers(1, 32)
)
def test_more_memory_never_gives_fewer_workers(shape, budgets, workers):
    counts = []
    for budget in sorted(budgets):
        try:
            found = costs.within({"a": shape}, load_settings(None, {"memory": f"{budget}B"}), workers)
        except BudgetError:
            counts.append(0)
            continue
        assert found.peak.peak_bytes <= budget
        counts.append(found.workers)
    assert all(a <= b for a, b in pairwise(counts))
    assert costs.within({"a": shape}, Settings(), workers).workers == workers


@given(shape=shapes, more=st.integers(0, 10**8), workers=st.integers(1, 16))
def test_bytes_are_monotone_in_rows(shape, more, workers):
    assume(read_again(shape.n, shape.d) == read_again(shape.n + more, shape.d))
    few = costs.plan({"a": shape}, Settings(), workers)
    many = costs.plan({"a": Shape(shape.n + more, shape.d, shape.itemsize)}, Settings(), workers)
    assert few.disk_bytes <= many.disk_bytes
    for a, b in zip(few.steps, many.steps, strict=True):
        assert a.name == b.name
        assert (a.bytes_read, a.bytes_written, a.peak_bytes) <= (b.bytes_read, b.bytes_written, b.peak_bytes)


@given(d=st.integers(1, planning.WIDE))
def test_rows_too_few_for_a_scatter_are_read_once_more(d):
    few, enough = (costs.plan({"a": Shape(n, d)}, Settings(), 2) for n in (4 * d - 1, 4 * d))
    reads = [next(step.passes for step in found.steps if step.name == "a: fit PCA") for found in (few, enough)]
    assert reads == [1, 0]


def test_what_has_to_be_unpacked_counts_as_disk():
    plain, packed = (costs.plan({"a": Shape(10**6, 512, unpacked=u)}, Settings(), 2) for u in (0, 10**9))
    assert packed.disk_bytes == plain.disk_bytes + 10**9
    assert packed.steps[0].bytes_read == 2 * 10**9
    assert packed.steps[1:] == plain.steps[1:]


@given(shape=shapes, more=st.integers(1, 10**8), factor=st.floats(1, 100))
def test_more_rows_take_longer_and_a_faster_machine_less_time(shape, more, factor):
    assume(read_again(shape.n, shape.d) == read_again(shape.n + more, shape.d))
    rates, faster = Rates(1e9, 1e8, 1e8), Rates(1e9 * factor, 1e8 * factor, 1e8 * factor)
    few, many = (costs.plan({"a": Shape(n, shape.d)}, Settings(), 2) for n in (shape.n, shape.n + more))
    assert few.seconds(rates) <= many.seconds(rates)
    assert few.seconds(faster) == pytest.approx(few.seconds(rates) / factor)
    one = costs.plan({"a": shape}, Settings(), 1)
    assert few.seconds(rates) <= costs.plan({"a": Shape(shape.n, shape.d)}, Settings(), 1).seconds(rates)
    assert sum(step.seconds(rates) for step in one.steps) == one.seconds(rates) > 0


def test_every_command_has_steps_and_those_of_a_run_are_all_of_its_parts():
    of = {command: costs.plan({"a": Shape(10**6, 512)}, Settings(), 2, command).steps for command in costs.COMMANDS}
    assert all(of.values())
    parts = ("ingest", "fit", "outliers", "map", "report")
    assert set(of["run"]) == {step for command in parts for step in of[command]}
    assert {step.name for step in of["daily"]} & {"a: fit PCA", "a: cluster", "a: fit t-SNE"} == set()


@given(n=st.integers(1, 10**9), row_bytes=st.integers(1, 10**6))
def test_chunks_are_powers_of_two_within_bounds(n, row_bytes):
    rows = planning.chunk_rows(n, row_bytes)
    assert 1 <= rows <= min(n, planning.LABEL_ROWS)
    assert rows == n or rows & (rows - 1) == 0
    assert rows == 1 or rows * row_bytes <= planning.CHUNK_BYTES


@given(
    ks=st.lists(st.integers(1, 400), min_size=1, max_size=30, unique=True).map(sorted),
    p=st.integers(1, 2000),
    covariance=st.sampled_from(["auto", "full", "tied", "diag", "spherical"]),
)
def test_mixtures_share_reads_within_a_bound_and_alone_only_where_one_is_as_large(ks, p, covariance):
    groups = planning.em_groups(ks, p, covariance)
    assert [k for group in groups for k in group] == ks
    held = [sum(planning.mixture_bytes(k, p, covariance) for k in group) for group in groups]
    assert all(len(group) == 1 or size <= planning.EM_BYTES for group, size in zip(groups, held, strict=True))
    for before, after, size in zip(groups, groups[1:], held, strict=False):
        assert before
        assert size + planning.mixture_bytes(after[0], p, covariance) > planning.EM_BYTES


def test_every_k_is_compared_at_the_cost_of_every_leaf_of_the_tree():
    settings, n = load_settings(None, {"algorithms.also": ["agglomerative"]}), 9_000
    found = costs.plan({"a": Shape(n, 64, p=20)}, settings, 2).steps
    compared = next(step for step in found if step.name == "compare every k")
    assert compared.products >= n * n * 20, "so few rows are merged one by one, and each meets all"


def test_every_k_of_a_mixture_costs_reads_and_no_more_memory_than_the_bound():
    one, all_of_them = (
        {
            step.name: step
            for step in costs.plan(
                {"a": Shape(10**6, 1000)}, load_settings(None, {"algorithms.also": ["mixture"], "algorithms.k": k}), 2
            ).steps
        }["a: mixture"]
        for k in ("kmeans", "own")
    )
    assert all_of_them.passes > 2 * one.passes
    assert one.peak_bytes <= all_of_them.peak_bytes <= one.peak_bytes + 11 * planning.EM_BYTES


def test_a_budget_that_cannot_hold_names_step_bytes_and_what_would():
    asked = load_settings(None, {"memory": "700MB"})
    with pytest.raises(BudgetError) as error:
        costs.within({"a": Shape(10**6, 512), "b": Shape(10**6, 4000)}, asked, 4)
    text = str(error.value)
    assert text.startswith("--memory 700MB: b: ")
    enough = text.rsplit("at least ", 1)[1]
    assert costs.within({"b": Shape(10**6, 4000)}, load_settings(None, {"memory": enough}), 4).workers >= 1
    less = f"{parse_bytes(enough) - 10**8}B"
    with pytest.raises(BudgetError):
        costs.within({"b": Shape(10**6, 4000)}, load_settings(None, {"memory": less}), 4)


def test_merging_rows_one_by_one_needs_the_heights_of_all_pairs_and_micro_clusters_do_not():
    def peak(n, **settings):
        asked = load_settings(None, {"algorithms.also": ["agglomerative"], **settings})
        found = costs.plan({"a": Shape(n, 100)}, asked, 2)
        return next(step.peak_bytes for step in found.steps if step.name == "a: agglomerative")

    assert peak(10_000) - peak(5_000) >= 4 * (10_000**2 - 5_000**2)
    assert peak(10_000) - peak(10_000, **{"algorithms.merged_rows": 0}) > 0.9 * 4 * 10_000**2
    assert peak(10_001) < peak(10_000)


MEASURE = """
import json, sys
from pathlib import Path
from streamclust.config import load_settings
from streamclust.budget import plan_for
from streamclust.pipeline import run
settings = load_settings(Path(sys.argv[3]))
projected = {step.name: step.peak_bytes for step in plan_for(Path(sys.argv[2]), settings).steps}
result = run(sys.argv[1], sys.argv[2], settings)
print(json.dumps([projected, {record.name: record.peak_bytes for record in result.journal.stages}]))
"""
STEPS = {
    "fit PCA": "fit PCA",
    "reduce case": "reduce",
    "k-means": "cluster",
    "label": "cluster",
    "mixture": "mixture",
    "agglomerative": "agglomerative",
    "fit outliers": "outliers",
    "score outliers": "outliers",
    "place on the map": "place on the map",
}


@pytest.mark.parametrize(
    ("n", "dims", "workers", "also"),
    [
        pytest.param(60_000, {"a": 128, "b": 64}, 2, [], marks=pytest.mark.slow),
        pytest.param(2_000, {"a": 3}, 1, [], marks=pytest.mark.slow),
        pytest.param(9_000, {"a": 2560}, 2, [], marks=pytest.mark.slow),
        pytest.param(3_000, {"a": 5_000}, 2, [], marks=pytest.mark.slow),
        pytest.param(5_000, {"a": 32, "b": 16, "c": 8}, 4, ["mixture", "agglomerative"], marks=pytest.mark.slow),
    ],
    ids=["two", "small", "large", "wide", "all algorithms"],
)
def test_the_measured_peak_is_within_the_projection_which_is_near(tmp_path, n, dims, workers, also):
    of = {
        name: clustered(i, n, d).astype(np.float16 if name == "b" else np.float32)
        for i, (name, d) in enumerate(dims.items())
    }
    case = write_case(tmp_path / "case", of)
    settings = {"cluster__fine_k": 100, "workers": workers, "algorithms__also": also}
    args = [tmp_path / "s", case, small_toml(tmp_path, **settings)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    projected, measured = json.loads(done.stdout)
    assert max(measured.values()) <= max(projected.values()) <= 1.5 * max(measured.values())
    for stage, peak in measured.items():
        descriptor, _, name = stage.partition(": ")
        assert name not in STEPS or peak <= projected[f"{descriptor}: {STEPS[name]}"], stage
    assert measured["compare every k"] <= projected["compare every k"]
    assert measured["ingest"] <= max(peak for step, peak in projected.items() if step.endswith("ingest"))
