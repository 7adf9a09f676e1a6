"""The command line at the address of a real scheduler with several workers: the same bytes as without one."""

from __future__ import annotations

import dask
import pytest

from streamclust.blocks import executor
from streamclust.errors import StreamclustError
from streamclust.store.store import open_store
from tests.distributed.cluster import cluster, run, until
from tests.distributed.conftest import PRELOAD
from tests.faults import contents
from tests.stages.test_laws import exports


def name_of(address: int, prefix: str) -> str:
    return f"{prefix}-{address}"


def clients(dask_scheduler):
    return [name for name in dask_scheduler.clients if name.startswith("Client-")]


@pytest.mark.slow
def test_a_run_on_a_cluster_gives_the_same_bytes(running, case, toml, finished, tmp_path):
    store = tmp_path / "s"
    code, out, err = run(tmp_path, "run", store, case, *toml, "--scheduler", running.address, "--quiet")
    assert (code, err) == (0, ""), err
    assert str(store) in out
    assert contents(open_store(store)) == finished[0]
    assert exports(store) == finished[1]


@pytest.mark.slow
def test_relative_paths_and_workers_in_another_folder(running, case, toml, ingested, tmp_path):
    (tmp_path / "case").symlink_to(case)
    code, _, err = run(tmp_path, "ingest", "s", "case", *toml, "--scheduler", running.address, "--quiet")
    assert (code, err) == (0, "")
    found = contents(open_store(tmp_path / "s"))
    assert {name: entry[3:] for name, entry in found.items()} == {name: e[3:] for name, e in ingested.items()}


def test_the_client_takes_leave_and_progress_is_seen(running):
    seen = []
    found = executor(running.address, None, lambda done, total: seen.append((done, total)))
    with found.remote.client.__class__(running.address, set_as_default=False) as other:
        assert len(other.run_on_scheduler(clients)) == 2
        found.map(name_of, list(range(20)), "x")
        found.close()
        found.close()
        assert len(other.run_on_scheduler(clients)) == 1


def test_an_address_without_a_port_is_one_line(tmp_path, case):
    code, out, err = run(tmp_path, "ingest", tmp_path / "s", case, "--scheduler", "127.0.0.1", "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("streamclust: --scheduler 127.0.0.1: no address of a scheduler (missing port number")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_other_versions_are_refused_before_a_store_is_made(tmp_path, case, orders):
    other = orders.env | {"STREAMCLUST_TESTS_NUMPY": "1.26.4"}
    with cluster(tmp_path / "c", 1, *PRELOAD, env=other) as old:
        until(lambda: "Registered to" in old.logs(), "the worker")
        code, _, err = run(tmp_path, "ingest", tmp_path / "s", case, "--scheduler", old.address, "--quiet")
    assert code == 1
    assert f"{old.address}: the worker tcp://127.0.0.1:" in err
    assert " has numpy 1.26.4; expected numpy 2." in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_a_scheduler_without_workers_is_given_up_after_a_stated_time(tmp_path):
    patience = dask.config.set({"distributed.scheduler.no-workers-timeout": "1s"})
    with patience, cluster(tmp_path / "c", 0) as empty:
        alone = executor(empty.address, None)
        with pytest.raises(
            StreamclustError, match=r"no worker for 1 s; start one with: dask worker tcp://.*to carry on"
        ):
            alone.map(name_of, [1, 2], "x")
        alone.close()
