"""Who is killed while withdrawing or forgetting leaves a store that opens, and does the rest when asked again."""

from __future__ import annotations

import json
import shutil
import signal
from functools import cache

import numpy as np
import pytest

from streamclust.blocks import Serial
from streamclust.errors import ConflictError
from streamclust.store import arrays
from streamclust.store.compaction import compact
from streamclust.store.retention import withdraw
from streamclust.store.store import open_store
from streamclust.store.verify import verify
from tests.faults import assert_tidy, no_fsync
from tests.store.doomed import run, work

POINTS = {
    "withdraw": [("link", 0.0, "before"), ("link", 0.0, "after"), ("replace", 0.0, "after")],
    "forget": [
        ("link", 0.0, "before"),
        ("link", 0.0, "after"),
        *[("replace", share, "before") for share in (0.1, 0.3, 0.6, 0.95)],
        ("fsync", 0.5, "after"),
        ("link", 1.0, "before"),
        ("link", 1.0, "after"),
    ],
    "forget a day": [("rename", share, when) for share in (0.1, 0.5, 0.9) for when in ("before", "after")],
}
PACKED = {  # fewer of them where what is erased lies in packs
    "withdraw": [("link", 0.0, "after")],
    "forget": [("link", 0.0, "after"), ("replace", 0.2, "before"), ("replace", 0.7, "after"), ("link", 1.0, "before")],
    "forget a day": [("rename", 0.5, "before"), ("rename", 0.9, "after")],
}
QUICK = {("plain", "forget a day", "rename", 0.5, "after")}
CASES = [
    pytest.param(home, what, *point, marks=() if (home, what, *point) in QUICK else pytest.mark.slow)
    for home, of in (("plain", POINTS), ("packed", PACKED))
    for what, points in of.items()
    for point in points
]


@pytest.fixture(scope="module")
def homes(made, tmp_path_factory):
    """A store with objects of its own, and one that was compacted."""
    packed = tmp_path_factory.mktemp("packed") / "s"
    shutil.copytree(made, packed)
    with no_fsync():
        assert compact(open_store(packed), Serial()).packs
    return {"plain": made, "packed": packed}


@pytest.fixture(scope="module")
def uninterrupted(homes, tmp_path_factory):
    """What each of them ends as, and how often it makes each call."""

    @cache
    def ends(home, what):
        folder = tmp_path_factory.mktemp("ends")
        store, said = folder / "s", folder / "counts.json"
        shutil.copytree(homes[home], store)
        assert run(store, what, said) == 0
        return state(store), json.loads(said.read_text())

    return ends


def state(path):
    """What the newest snapshot says and holds, but times, nonces and who resumed what."""
    arrays.forget_open_arrays()
    store, found = open_store(path), {}
    for name, entry in store.snapshot.entries.items():
        values = {array: arrays.digest(store.read(name, array)) for array in entry.arrays}
        changing = {"time", "fingerprint"} | ({"files"} if entry.kind == "forgotten" else set())
        found[name] = entry.kind, {k: v for k, v in entry.attributes.items() if k not in changing}, values
    return found, [batch.id for batch in store.batches]


@pytest.mark.parametrize(("home", "what", "call", "share", "when"), CASES)
def test_killed_and_asked_again(homes, uninterrupted, tmp_path, home, what, call, share, when):
    wanted, counts = uninterrupted(home, what)
    store = tmp_path / "s"
    shutil.copytree(homes[home], store)
    count = 1 + round(share * (counts[call] - 1))
    assert run(store, what, tmp_path / "counts.json", call, count, when) == -signal.SIGKILL
    opened = open_store(store)
    for k in range(opened.snapshot.number + 1):
        assert open_store(store, k).snapshot.number == k
    assert verify(store, Serial()).damage == ()
    with no_fsync():
        work(store, what)
        assert state(store) == wanted
        assert verify(store, Serial()).damage == ()
        open_store(store).sweep()
        assert_tidy(open_store(store))
    assert not (store / "forgetting").exists()


@pytest.mark.slow
def test_while_rows_are_being_forgotten_nobody_writes_and_all_can_read(copied, uninterrupted, tmp_path):
    wanted, counts = uninterrupted("plain", "forget")
    run(copied, "forget", tmp_path / "counts.json", "replace", counts["replace"] // 2)
    store = open_store(copied)
    with pytest.raises(ConflictError, match="forget STORE --resume"):
        store.draft("models/x", "model", "x")
    for batch in store.batches:
        assert np.isfinite(store.read(batch.name, "descriptors/a")).any()
    with no_fsync():
        work(copied, "resume")
    assert state(copied) == wanted
    with no_fsync():
        withdraw(open_store(copied), "2026-01-02", "goes on")
