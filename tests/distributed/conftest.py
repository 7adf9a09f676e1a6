"""One cluster for the tests of this folder, a small case, and what a serial run makes of it."""

from __future__ import annotations

from contextlib import contextmanager

import distributed
import pytest

from streamclust.blocks import Serial
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from tests.cases import job_on, matrices, metadata, small_toml, spoil, work, write_case
from tests.distributed.cluster import CHUNK_BYTES, cluster
from tests.faults import chunk_bytes, contents, no_fsync
from tests.stages.test_laws import exports

PRELOAD = ("--preload", "tests.distributed.preload")


class Orders:
    """What workers are told to do at a task; see the preload."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    @property
    def env(self):
        # Two workers may die of a task before the task is blamed.
        return {"STREAMCLUST_TESTS": str(self.folder), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}

    @contextmanager
    def given(self, task, mode, times=1):
        """An order; yields the file that says that it was followed."""
        (self.folder / "order").write_text(f"streamclust.{task} {mode} {times}")
        try:
            yield self.folder / "reached-0"
        finally:
            for path in self.folder.iterdir():
                path.unlink()


@pytest.fixture(scope="session")
def orders(tmp_path_factory):
    return Orders(tmp_path_factory.mktemp("orders") / "orders")


@pytest.fixture(scope="session")
def started(tmp_path_factory, orders):
    with cluster(tmp_path_factory.mktemp("cluster"), 0, env=orders.env) as found:
        yield found


@pytest.fixture
def running(started):
    """A scheduler and two workers, or three where a nanny was slow to bring back what died."""
    with distributed.Client(started.address, set_as_default=False) as client:
        for _ in range(2 - len(client.nthreads())):
            started.start_worker(*PRELOAD, memory="600MB")
        client.wait_for_workers(2, timeout=180)
    return started


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    of = matrices(1, 400, {"osnet": 12, "vdc": 6})
    of["osnet"] = spoil(of["osnet"], [3, 200])
    return write_case(tmp_path_factory.mktemp("source") / "case", of, metadata(400))


@pytest.fixture(scope="session")
def toml(tmp_path_factory):
    """The options that make a run quick."""
    return "--config", small_toml(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def ingested(case, tmp_path_factory):
    """What a store holds after a serial ingest."""
    with chunk_bytes(CHUNK_BYTES), no_fsync():
        job = job_on(tmp_path_factory.mktemp("ingested") / "s")
        ingest(job, open_case(case))
    return contents(job.store)


@pytest.fixture(scope="session")
def finished(case, tmp_path_factory):
    """What a store holds after a whole serial run, and its exports."""
    with chunk_bytes(CHUNK_BYTES), no_fsync():
        job = work(tmp_path_factory.mktemp("finished") / "s", case, executor=Serial())
    return contents(job.store), exports(job.store.path)
