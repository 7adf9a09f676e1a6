"""Workers and schedulers that die amid a pass, and workers without the memory they need: it goes on, or says so."""

from __future__ import annotations

import signal

import distributed
import psutil
import pytest

from streamclust.store.store import open_store
from tests.distributed.cluster import cluster, finish, run, start, until
from tests.distributed.conftest import PRELOAD
from tests.distributed.preload import TASKS
from tests.distributed.test_scheduler import clients
from tests.faults import contents
from tests.kills.disks import fill, small_disk
from tests.stages.test_laws import exports

MODES = ("sys.exit", "graceful", "segfault")  # every way of distributed.chaos.KillWorker
NAMES = [where.removeprefix("streamclust.") for where in TASKS]
# Every pass beyond the first, with the ways in turn; the first pass is quick enough for all of them.
LATER = [(name, MODES[i % len(MODES)]) for i, name in enumerate(NAMES[1:])]


@pytest.mark.parametrize("mode", [MODES[0], *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[1:])])
def test_ingest_outlives_a_worker(running, orders, case, toml, ingested, tmp_path, mode):
    with orders.given("ingest:take_block", mode) as followed:
        code, _, err = run(tmp_path, "ingest", "s", case, *toml, "--scheduler", running.address, "--quiet")
        assert (code, err) == (0, "")
        assert followed.exists()
    assert contents(open_store(tmp_path / "s")) == ingested


@pytest.mark.slow
@pytest.mark.parametrize(("task", "mode"), LATER)
def test_every_pass_outlives_a_worker(running, orders, case, toml, finished, tmp_path, task, mode):
    with orders.given(task, mode) as followed:
        code, _, err = run(tmp_path, "run", "s", case, *toml, "--scheduler", running.address, "--quiet")
        assert (code, err) == (0, "")
        assert followed.exists()
    assert contents(open_store(tmp_path / "s")) == finished[0]
    assert exports(tmp_path / "s") == finished[1]


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["worker", "nanny"])
def test_a_worker_that_is_terminated_amid_a_task_costs_time_only(tmp_path, orders, case, toml, ingested, whom):
    """As a batch system or an operator ends it; its task goes to the other one."""
    with (
        cluster(tmp_path / "c", 2, *PRELOAD, env=orders.env) as shared,
        orders.given("ingest:take_block", "hold") as followed,
    ):
        process = start(tmp_path, "ingest", "s", case, *toml, "--scheduler", shared.address, "--quiet")
        until(followed.exists, "the task")
        call = next(path for path in orders.folder.glob("call-*") if path.samefile(followed))
        worker = psutil.Process(int(call.name.removeprefix("call-")))
        (worker if whom == "worker" else worker.parent()).terminate()
        code, _, err = finish(process)
    assert (code, err) == (0, "")
    assert contents(open_store(tmp_path / "s")) == ingested


@pytest.mark.slow
def test_a_worker_that_runs_out_of_memory_once_costs_time_only(tmp_path, orders, case, toml, ingested):
    with (
        cluster(tmp_path / "c", 2, *PRELOAD, memory="400MB", env=orders.env) as small,
        orders.given("ingest:take_block", "memory") as followed,
    ):
        code, _, err = run(tmp_path, "ingest", "s", case, *toml, "--scheduler", small.address, "--quiet")
        assert followed.exists()
        assert "Restarting" in small.logs()
    assert (code, err) == (0, "")
    assert contents(open_store(tmp_path / "s")) == ingested


@pytest.mark.slow
def test_a_task_that_kills_every_worker_ends_in_one_line(running, orders, case, toml, ingested, tmp_path):
    words = ("ingest", "s", case, *toml, "--scheduler", running.address, "--quiet")
    with orders.given("ingest:take_block", "segfault", times=2):
        code, out, err = run(tmp_path, *words)
    assert (code, out) == (1, "")
    assert f"--scheduler {running.address}: 2 workers in turn did not survive a task, the last of them tcp://" in err
    assert "run the same command again to carry on" in err
    assert len(err.splitlines()) == 1
    code, _, err = run(tmp_path, *words[:-1])
    assert code == 0, err
    assert contents(open_store(tmp_path / "s")) == ingested


@pytest.mark.slow
def test_a_worker_out_of_memory_is_named_for_it(tmp_path, orders, case, toml):
    with (
        cluster(tmp_path / "c", 2, *PRELOAD, memory="400MB", env=orders.env) as small,
        orders.given("ingest:take_block", "memory", times=2),
    ):
        code, _, err = run(tmp_path, "ingest", "s", case, *toml, "--scheduler", small.address, "--quiet")
    assert code == 1
    assert "too much for its memory limit; give each worker more" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_workers_whose_spill_disk_is_full_carry_on(tmp_path, case, toml, orders, finished):
    """Every result is larger than what they shall hold in memory, and has no room on the disk either."""
    spill = orders.env | {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "1e-9"}
    with small_disk(tmp_path / "disk") as disk:
        local = ("--local-directory", str(disk))
        with cluster(tmp_path / "c", 2, *PRELOAD, *local, env=spill) as shared:
            until(lambda: shared.logs().count("Registered to") == 2, "both workers")
            fill(disk, 0, 0)
            code, _, err = run(tmp_path, "run", "s", case, *toml, "--scheduler", shared.address, "--quiet")
            assert "Spill to disk failed" in shared.logs()
    assert (code, err) == (0, "")
    assert contents(open_store(tmp_path / "s")) == finished[0]
    assert exports(tmp_path / "s") == finished[1]


@pytest.mark.slow
@pytest.mark.parametrize("task", [NAMES[0], "stages.sweep:add_lloyd"])
def test_without_its_scheduler_a_run_ends_clearly_and_resumes(tmp_path, orders, case, toml, finished, task):
    words = ("run", "s", case, *toml)
    with cluster(tmp_path / "c", 2, *PRELOAD, env=orders.env) as lost, orders.given(task, "hold") as followed:
        process = start(tmp_path, *words, "--scheduler", lost.address, "--quiet")
        until(followed.exists, "the task")
        lost.kill_scheduler()
        code, out, err = finish(process)
    assert (code, out) == (1, "")
    assert "the scheduler went away; run the same command again to carry on" in err
    assert len(err.splitlines()) == 1
    code, _, err = run(tmp_path, *words, "--quiet")
    assert (code, err) == (0, "")
    assert contents(open_store(tmp_path / "s")) == finished[0]
    assert exports(tmp_path / "s") == finished[1]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "sent"), [(NAMES[0], signal.SIGINT), ("stages.sweep:add_lloyd", signal.SIGTERM)])
def test_a_run_that_is_stopped_takes_leave_of_its_cluster_and_resumes(
    tmp_path, orders, case, toml, finished, task, sent
):
    words = ("run", "s", case, *toml)
    with cluster(tmp_path / "c", 2, *PRELOAD, env=orders.env) as shared, orders.given(task, "hold") as followed:
        process = start(tmp_path, *words, "--scheduler", shared.address, "--quiet")
        until(followed.exists, "the task")
        process.send_signal(sent)
        code, out, err = finish(process)
        with distributed.Client(shared.address, set_as_default=False) as other:
            assert len(other.run_on_scheduler(clients)) == 1
    assert (code, out, len(err.splitlines())) == (128 + sent, "", 1)
    assert err.endswith("; run the same command again to carry on\n")
    code, _, err = run(tmp_path, *words, "--quiet")
    assert (code, err) == (0, "")
    assert contents(open_store(tmp_path / "s")) == finished[0]
    assert exports(tmp_path / "s") == finished[1]
