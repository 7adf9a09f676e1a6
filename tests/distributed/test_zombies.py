"""A client is killed and its workers go on: whenever one writes what it was asked for, the same command started again
ends as if nobody had been killed.
"""

from __future__ import annotations

import pytest

from streamclust.blocks import Serial
from streamclust.store import arrays, draft
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.distributed.cluster import cluster, finish, run, start, until
from tests.distributed.conftest import PRELOAD
from tests.faults import assert_tidy, contents

# Tasks that write what is published, and where each stands meanwhile: before its first write, or amid it.
TASKS = [
    ("ingest:take_block", "late"),
    ("ingest:take_block", "renaming"),
    ("stages.reduced:reduce_block", "late"),
    ("stages.clusters:add_labels", "renaming"),
    ("stages.maps:place_block", "late"),
]


class Undead:
    """A cluster; `kill` leaves a worker of it amid a task of a client that is no more, until `wake`."""

    def __init__(self, cluster, folder):
        self.address, self.folder = cluster.address, folder

    def kill(self, client):
        until((self.folder / "reached-0").exists, "the task")
        client.kill()
        finish(client)

    def wake(self):
        (self.folder / "go").touch()
        until((self.folder / "went").exists, "the worker")
        arrays.forget_open_arrays()


@pytest.fixture
def undead(tmp_path, orders):
    with cluster(tmp_path / "c", 2, *PRELOAD, env=orders.env) as shared:
        yield Undead(shared, orders.folder)


@pytest.fixture
def words(case, toml):
    return "run", "s", case, *toml, "--quiet"


def assert_as_if_nothing_was(store, finished):
    assert contents(open_store(store)) == finished[0]
    open_store(store).sweep()
    assert_tidy(open_store(store))
    found = verify(store, Serial())
    assert (found.damage, found.orphans, found.writers) == ((), (), 0), found


@pytest.mark.slow
@pytest.mark.parametrize(("task", "mode"), TASKS)
def test_what_is_written_after_it_was_published_is_the_same(undead, orders, words, finished, tmp_path, task, mode):
    with orders.given(task, mode):
        undead.kill(start(tmp_path, *words, "--scheduler", undead.address))
        code, _, err = run(tmp_path, *words)
        assert (code, err) == (0, "")
        undead.wake()
    assert_as_if_nothing_was(tmp_path / "s", finished)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["late", "renaming"])
def test_what_is_written_while_its_draft_is_adopted_is_the_same(undead, orders, words, finished, tmp_path, mode):
    """The next client is on the same cluster and waits for the worker, with the draft in its hands."""
    with orders.given("ingest:take_block", mode):
        undead.kill(start(tmp_path, *words, "--scheduler", undead.address))
        again = start(tmp_path, *words, "--scheduler", undead.address)
        until(lambda: [alive for *_, alive in draft.records(tmp_path / "s")] == [True], "the next client")
        undead.wake()
        code, _, err = finish(again)
    assert (code, err) == (0, "")
    assert_as_if_nothing_was(tmp_path / "s", finished)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ingest:take_block", "stages.sight:look_block"])
def test_what_is_written_after_its_draft_was_swept_leaves_nothing(undead, orders, words, tmp_path, task):
    """The next client has other settings, and removes what it has no use for."""
    with orders.given(task, "late"):
        undead.kill(start(tmp_path, *words, "--scheduler", undead.address))
        code, _, err = run(tmp_path, *words, "--seed", "7")
        assert (code, err) == (0, "")
        open_store(tmp_path / "s").sweep()
        undead.wake()
    found = verify(tmp_path / "s", Serial())
    assert (found.damage, found.orphans, found.writers) == ((), (), 0), found
    assert_tidy(open_store(tmp_path / "s"))
