"""Watching days in a store: what is cried with which rows, once, whatever the blocks; what is acknowledged is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from streamclust import pipeline
from streamclust.blocks import Dask, Serial
from streamclust.config import Settings
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import watch as watching
from streamclust.stages.watch import acknowledge, alarms, watch
from streamclust.store.store import open_store
from tests.cases import clustered, job_on, small, spoil, write_case
from tests.conftest import shared_data
from tests.faults import chunk_bytes, contents, no_fsync

DIMS = {"osnet": 12, "vdc": 6}
N = 200


def matrices(seed, n, which=None):
    """Rows of the same four clusters in each descriptor's space, others for each seed."""
    which = np.random.default_rng(seed).integers(0, 4, n) if which is None else which
    found = {}
    for i, (name, d) in enumerate(DIMS.items()):
        centers = clustered(100 + i, 4, d, which=np.arange(4))
        found[name] = (centers[which] + np.random.default_rng([seed, i]).normal(size=(n, d))).astype(np.float32)
    return found


def cameras(n, names="ab"):
    return {"camera": [f"cam-{names[i % len(names)]}" for i in range(n)]}


def stuck(seed, frame=7, m=90):
    """An ordinary day, and one picture over and over."""
    rng, frames = np.random.default_rng(seed), matrices(50, N)
    return {
        name: np.vstack([X, frames[name][frame] + 0.01 * rng.normal(size=(m, X.shape[1]))]).astype(np.float32)
        for name, X in matrices(seed, N).items()
    }


def new_kind(seed, m=62):
    rng = np.random.default_rng(seed)
    far = {name: 12 * np.ones(d) for name, d in DIMS.items()}
    return {
        name: np.vstack([X, far[name] + 0.5 * rng.normal(size=(m, X.shape[1]))]).astype(np.float32)
        for name, X in matrices(seed, N).items()
    }


def fitted(folder, executor=None, store="s"):
    job = job_on(folder / store, small(), executor or Serial())
    base = matrices(0, 1200)
    if not (folder / "base").exists():
        write_case(folder / "base", base | {"vdc": spoil(base["vdc"], [5])}, cameras(1200))
    ingest(job, open_case(folder / "base"))
    pipeline.fit(job)
    pipeline.score(job)
    return job


def take(job, folder, name, of):
    if not (folder / name).exists():
        write_case(folder / name, of, cameras(len(next(iter(of.values())))))
    batch = ingest(job, open_case(folder / name))
    pipeline.predict(job)
    return batch, watch(job, batch)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """A store with quiet days, a thin one, a stuck camera, a new kind that stays, and days without a descriptor."""
    folder, found = tmp_path_factory.mktemp("days"), {}
    with no_fsync():
        job = fitted(folder)
        plan = {f"quiet-{i}": matrices(i + 1, N) for i in range(3)}
        plan |= {"thin": matrices(9, 3), "stuck": stuck(10), "quiet-3": matrices(11, N)}
        plan |= {"new-1": new_kind(12), "new-2": new_kind(13), "quiet-4": matrices(14, N)}
        plan |= {f"gone-{i}": {"osnet": matrices(15 + i, N)["osnet"]} for i in range(2)}
        for name, of in plan.items():
            found[name] = take(job, folder, name, of)
    return job, folder, found


def test_each_cause_is_cried_once_on_its_day(days):
    _, _, found = days
    kinds = {name: [a.kind for a in cried] for name, (_, cried) in found.items()}
    expected = {"stuck": ["stuck camera"], "new-1": ["new kind of image"], "gone-0": ["descriptor missing"]}
    assert kinds == {name: expected.get(name, []) for name in found}


def test_alarms_show_the_rows_they_are_about(days):
    _, _, found = days
    (alarm,) = found["stuck"][1]
    assert alarm.id == "stuck/stuck-camera"
    assert len(alarm.rows) == 12
    assert all(row >= N for row in alarm.rows)
    assert alarm.value == pytest.approx(90 / (N + 90))
    assert "only large effects" in alarm.sentence
    (alarm,) = found["new-1"][1]
    assert all(row >= N for row in alarm.rows)
    assert alarm.proposal["medoid"] >= N
    assert alarm.proposal["size"] == pytest.approx(62, abs=6)
    assert "close to one another" in alarm.sentence
    (alarm,) = found["gone-0"][1]
    assert (alarm.id, alarm.descriptor, alarm.rows) == ("gone-0/descriptor-missing-vdc", "vdc", ())


def test_a_day_is_one_entry_and_watched_once(days):
    job, _, found = days
    entries = job.store.snapshot.of_kind("day")
    assert [e.attributes["role"] for e in entries.values()] == [batch for batch, _ in found.values()]
    assert list(entries) == [f"days/{batch.split('/')[1]}" for batch, _ in found.values()]
    assert len(job.store.snapshot.of_kind("reference")) == 1
    number = job.store.snapshot.number
    for batch, cried in found.values():
        assert watch(job, batch) == cried
    assert job.store.snapshot.number == number
    for entry in entries.values():
        json.dumps(entry.attributes)


def test_a_stored_state_is_the_state(days):
    job, _, found = days
    name = f"days/{found['new-2'][0].split('/')[1]}"
    state = watching._read(job.store, name)
    assert list(state.streams) == sorted(state.streams)
    again = watching._read(open_store(job.store.path), name)
    assert again.streams == state.streams
    for part in (*watching.NUMBERS, "evidence"):
        np.testing.assert_array_equal(getattr(again, part), getattr(state, part))
    readings = job.store.read(name, "readings")
    assert readings.shape == (len(state.streams), 5)
    assert np.isfinite(readings[:, 0]).any()


def test_alarms_are_listed_and_acknowledged(days, tmp_path):
    job, _, found = days
    listed = alarms(job.store)
    assert [a.id for a in listed] == [a.id for _, cried in found.values() for a in cried]
    assert all(a.reason is None for a in listed)
    with pytest.raises(InputError, match="stuck/stuck-camera"):
        acknowledge(job.store, "nothing", "a reason", "me")
    with pytest.raises(InputError, match="empty"):
        acknowledge(job.store, "stuck/stuck-camera", " ", "me")
    done = acknowledge(job.store, "stuck/stuck-camera", "camera a was repaired", "me")
    assert (done.reason, done.who) == ("camera a was repaired", "me")
    assert next(a for a in alarms(job.store) if a.id == done.id) == done
    with no_fsync():
        assert take(job, tmp_path, "stuck-again", stuck(30))[1] == []
        take(job, tmp_path, "quiet-9", matrices(20, N))
        assert [a.kind for a in take(job, tmp_path, "stuck-elsewhere", stuck(31, frame=8))[1]] == ["stuck camera"]


@pytest.mark.slow
def test_the_same_in_any_blocks_on_any_executor(tmp_path):
    found = []
    for i, executor in enumerate((Serial(), Dask(3))):
        with no_fsync(), chunk_bytes(2048):
            job = fitted(tmp_path, executor, f"s{i}")
            cried = take(job, tmp_path, "stuck", stuck(10))[1] + take(job, tmp_path, "new", new_kind(12))[1]
        found.append((contents(job.store), cried))
    assert found[0] == found[1]


def test_tallies_do_not_depend_on_blocks(days, monkeypatch):
    from streamclust.stages import measures, observe

    job, _, found = days
    models = measures.frozen(job.store)
    reference = next(iter(job.store.snapshot.of_kind("reference")))
    by = measures.load_measures(job.store, models, reference)
    batch = next(b for b in job.store.batches if b.name == found["stuck"][0])
    whole = observe.observe(job, batch, models, by)
    monkeypatch.setattr(observe, "LABEL_ROWS", 17)
    parts = observe.observe(job, batch, models, by)
    assert whole.tally.keys() == parts.tally.keys()
    for stream, sums in whole.tally.items():
        np.testing.assert_array_equal(parts.tally[stream], sums)


def test_a_day_without_any_known_descriptor(days, tmp_path):
    job, _, _ = days
    with no_fsync():
        take(job, tmp_path, "whole", matrices(70, N))
        batch = ingest(job, open_case(write_case(tmp_path / "other", {"brand_new": matrices(3, 50)["vdc"]})))
        assert [a.descriptor for a in watch(job, batch)] == ["osnet", "vdc"]


def test_what_cannot_be_watched(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s")
        ingest(job, open_case(write_case(tmp_path / "base", matrices(0, 300))))
        with pytest.raises(InputError, match="no batch"):
            watch(job, "batches/000009-no")
        with pytest.raises(InputError, match="no outliers"):
            watch(job, job.store.batches[0].name)
        pipeline.fit(job)
        pipeline.score(job)
        batch = ingest(job, open_case(write_case(tmp_path / "day", matrices(1, 60))))
        with pytest.raises(InputError, match="not labelled"):
            watch(job, batch)
        assert alarms(job.store) == []
        with pytest.raises(InputError, match="nothing was cried"):
            acknowledge(job.store, "x", "y", "z")


@pytest.mark.slow
def test_the_ten_real_days(tmp_path):
    base, daily = shared_data("vehicles/base"), shared_data("vehicles/daily")
    with no_fsync():
        job = job_on(tmp_path / "s", Settings(), Dask())
        ingest(job, open_case(base))
        pipeline.fit(job)
        pipeline.score(job)
        found = {}
        for folder in sorted(daily.iterdir()):
            batch = ingest(job, open_case(folder))
            pipeline.predict(job)
            found[folder.name] = [a.kind for a in watch(job, batch)]
    assert {day: kinds for day, kinds in found.items() if kinds} == {
        "2026-01-05": ["stuck camera"],
        "2026-01-08": ["new kind of image"],
    }
