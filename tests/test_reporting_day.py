"""A day's page from a store: its own rows only, exact counts, what is missing, alarms with pictures; and all days."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from streamclust import pipeline
from streamclust.ingest import ingest
from streamclust.job import Job
from streamclust.readers.case import open_case
from streamclust.reporting import day, days
from streamclust.reporting.album import Album
from streamclust.reporting.day_clusters import clusters_of
from streamclust.stages import grids
from streamclust.stages.labels import labels_name
from streamclust.stages.watch import acknowledge, watch
from streamclust.store.store import Batch, Store
from tests.cases import job_on, matrices, metadata, spoil, work, write_case
from tests.render.test_report import Page

N, M = 300, 160
BAD, BURST = (3, 40), 120


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A reference and two days: an ordinary one with two invalid rows, and one with a burst and without ``b``."""
    tmp = tmp_path_factory.mktemp("days")
    of = matrices(7, N + 2 * M, {"a": 8, "b": 5})
    job = work(tmp / "s", write_case(tmp / "base", {d: X[:N] for d, X in of.items()}, metadata(N), "zip"))
    first = {d: X[N : N + M] for d, X in of.items()} | {"a": spoil(of["a"][N : N + M], BAD)}
    stuck = of["a"][N + M :].copy()
    stuck[20 : 20 + BURST] = stuck[20] + 9
    live(job, write_case(tmp / "d1", first, metadata(M), "zip"))
    live(job, write_case(tmp / "d2", {"a": stuck}, metadata(M), "zip", broken=(21,)))
    return tmp / "s"


def live(job: Job, case: Path) -> None:
    """A day's work."""
    name = ingest(job, open_case(case))
    pipeline.predict(job)
    watch(job, name)
    newest = job.store.snapshot.newest
    for d in job.store.descriptors:
        grids.grids(job, newest("model", f"{d}/map"), newest("model", f"{d}/kmeans"), newest("model", "outliers"))
    day.write_day(job, name)


@pytest.fixture
def job(store) -> Job:
    """To read from only."""
    return job_on(store)


@pytest.fixture
def own(store, tmp_path) -> Job:
    """A store to write to."""
    return job_on(Path(shutil.copytree(store, tmp_path / "s")))


def batch_of(job: Job, name: str) -> Batch:
    return next(batch for batch in job.store.batches if batch.id == name)


def collected(job: Job, name: str):
    return day.collect_day(job, batch_of(job, name), Album(job.store, 32, 1))


def test_only_the_rows_of_the_day_are_read(job, monkeypatch):
    """Of other batches nothing is read but what was published of them as a day."""
    seen, real = [], Store.array
    monkeypatch.setattr(Store, "array", lambda self, name, array: seen.append((name, array)) or real(self, name, array))
    collected(job, "d2")
    entries = job.store.snapshot.entries
    mine = batch_of(job, "d2").name
    assert seen
    for name, array in seen:
        owner = entries[name].attributes.get("batch", name if entries[name].kind == "batch" else mine)
        assert owner == mine, (name, array)


def test_counts_are_those_of_the_table(job):
    table = job.store.labels().compute()
    for name in ("d1", "d2"):
        mine, found = table[table.batch == name].reset_index(drop=True), collected(job, name)
        assert (found.images, found.judged, found.flagged) == (len(mine), len(mine), mine.outlier.sum())
        top = mine.outlier_score.sort_values(ascending=False, kind="stable").index[: len(found.strangest)]
        assert [x.thumb.path for x in found.strangest] == mine.path[top].tolist()
        assert [x.reason for x in found.strangest] == mine.outlier_reason[top].tolist()
        for descriptor in found.descriptors:
            counted = mine[f"{descriptor.name}_kmeans"].dropna().value_counts()
            assert {c.id: c.rows for c in descriptor.clusters if c.rows} == counted.to_dict()
            assert descriptor.rows == counted.sum()
            nearest = mine.groupby(f"{descriptor.name}_kmeans")[f"{descriptor.name}_distance"].idxmin()
            typical = {c.id: c.typical.path for c in descriptor.clusters if c.typical}
            assert typical == {int(c): mine.path[row] for c, row in nearest.items()}
        assert {c.name: c.rows for c in found.cameras.cameras} == mine.camera.value_counts().to_dict()


@pytest.mark.parametrize("rows", [7, 32])
def test_blocks_change_nothing(job, monkeypatch, rows):
    whole = clusters_of(job, batch_of(job, "d1"), "a", ())
    strange = day.strangest(job, batch_of(job, "d1"), 9)
    for module in ("day", "day_clusters"):
        monkeypatch.setattr(f"streamclust.reporting.{module}.LABEL_ROWS", rows)
    found = clusters_of(job, batch_of(job, "d1"), "a", ())
    np.testing.assert_array_equal(found.rows, whole.rows)
    np.testing.assert_array_equal(found.typical, whole.typical)
    assert day.strangest(job, batch_of(job, "d1"), 9) == strange


def test_what_is_missing_is_said(job):
    first, second = collected(job, "d1"), collected(job, "d2")
    assert first.missing == (f"a: {len(BAD)} of {M} rows hold no finite numbers, and have no score.",)
    assert second.missing == ("The descriptor b did not come with this day.",)
    assert [d.name for d in first.descriptors] == ["a", "b"]
    assert [d.name for d in second.descriptors] == ["a"]
    assert second.previous == ("d1", "d1.html")


def test_the_burst_is_on_its_page_with_its_pictures(job):
    found = collected(job, "d2")
    stuck = next(alarm for alarm in found.alarms if alarm.kind == "stuck camera")
    shown = {thumb.path for thumb in stuck.pictures}
    assert shown
    assert shown <= {f"pictures/{i:05d}.jpg" for i in range(20, 60)}
    text = Page(day.page_of(job, "d2").read_text()).text
    assert f"streamclust alarms {job.store.path} --ack {stuck.id}" in text


def test_the_density_is_that_of_all_other_images(job):
    """Today's images are taken off the grid that has them already."""
    for name in ("d1", "d2"):
        figure = collected(job, name).descriptors[0].map
        others = sum(b.n for b in job.store.batches if b.id != name)
        invalid = len(BAD) if name != "d1" else 0
        assert f"{others - invalid:,} other images" in figure.caption


def test_a_day_before_its_labels_says_so(tmp_path, own):
    """A page can be made of a batch that no model has seen: it says what came in, and no more."""
    name = ingest(own, open_case(write_case(tmp_path / "d3", {"a": matrices(1, 5, {"a": 8})["a"]})))
    batch = next(b for b in own.store.batches if b.name == name)
    found = day.collect_day(own, batch, Album(own.store, 32, 1))
    assert (found.images, found.judged, found.strangest, found.descriptors) == (5, 0, (), ())
    assert "No pictures came with this day." in found.missing
    assert labels_name(own.store.snapshot.newest("model", "a/kmeans"), name) not in own.store.snapshot.entries
    Page(day.write_day(own, name).read_text())


def test_a_batch_called_index_leaves_the_page_over_all_days_alone(own):
    assert day.page_of(own, "index") != days.write_days(own)
    assert day.page_of(own, "index").parent == days.write_days(own).parent


def test_all_days_agree_with_each_day(job):
    found = days.collect_days(job)
    assert [row.name for row in found.days] == ["d1", "d2"]
    for row in found.days:
        one = collected(job, row.name)
        assert (row.images, row.judged) == (one.images, M - BURST * (row.name == "d2"))
        assert row.flagged == one.flagged - (one.images - row.judged) * (row.name == "d2")
        assert [a.id for a in row.alarms] == [a.id for a in one.alarms]
    first = {d.name: {c.id: c.share for c in d.clusters} for d in collected(job, "d1").descriptors}
    for shares in found.shares:
        given = dict(zip((c for c, _ in shares.clusters), shares.shares[0], strict=True))
        assert given == pytest.approx(first[shares.descriptor], abs=1e-6)
        assert (shares.shares[1] is None) == (shares.descriptor == "b")
    assert found.days[1].missing == ("b",)


def test_an_acknowledged_alarm_reads_so_on_both_pages(own):
    alarm = collected(own, "d2").alarms[0]
    acknowledge(own.store, alarm.id, reason="lens cleaned", who="anna")
    assert collected(own, "d2").alarms[0].acknowledged.reason == "lens cleaned"
    row = days.collect_days(own).days[1]
    assert next(a for a in row.alarms if a.id == alarm.id).acknowledged.by == "anna"
    assert "anna looked at this" in Page(day.write_day(own, batch_of(own, "d2").name).read_text()).text


def test_all_days_read_no_rows(job, monkeypatch):
    seen, real = [], Store.array
    monkeypatch.setattr(Store, "array", lambda self, name, array: seen.append(name) or real(self, name, array))
    begin = time.monotonic()
    days.collect_days(job)
    assert time.monotonic() - begin < 2
    kinds = {job.store.snapshot.entries[name].kind for name in seen}
    assert kinds <= {"day", "model"}
