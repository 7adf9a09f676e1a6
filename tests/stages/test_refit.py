"""Refits: ids and names stay on their rows, nothing is in force before it is accepted, killed ones carry on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from itertools import count as counter
from pathlib import Path

import numpy as np
import pytest

import streamclust
from streamclust import pipeline
from streamclust.blocks import Dask
from streamclust.config import Settings
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import clusters, reduced
from streamclust.stages.labels import labels_name
from streamclust.stages.names import cluster_ids, name_cluster, names
from streamclust.stages.refit import accept, propose, waiting
from streamclust.stages.refit_tables import SHOWN
from streamclust.store import manifest
from tests.cases import clustered, job_on, small, spoil, write_case
from tests.conftest import shared_data
from tests.faults import ROOT, assert_tidy, chunk_bytes, contents, no_fsync

D = 8
SETTINGS = small(cluster__k_max=5)
THIN = 20  # rows; fewer than four per feature keep no scatter


def bring(job, folder, days):
    """Ingest each day of {id: {descriptor: matrix}}."""
    for day, of in days.items():
        ingest(job, open_case(write_case(folder / day, of)))


def ids_of_rows(store, descriptor="a", level="label"):
    """The stable id of every row under the newest model, -2 where there is none."""
    model = store.snapshot.newest("model", f"{descriptor}/kmeans")
    ids = np.array([*cluster_ids(store, model, level), -2])
    found = [labels_name(model, batch.name) for batch in store.batches]
    return np.concatenate([ids[np.maximum(store.read(name, level), -1)] for name in found])


def events(change, kind):
    return [event for event in change.label.events if event.kind == kind]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A store fitted on one day and labelled on three more, one of them thin; four kinds of rows."""
    folder = tmp_path_factory.mktemp("fitted")
    X = spoil(clustered(2, 700, D), range(0, 700, 90))
    cuts = dict(zip(["mon", "tue", "wed", "thin"], np.split(X, [400, 540, 700 - THIN]), strict=True))
    with no_fsync():
        job = job_on(folder / "s", SETTINGS)
        bring(job, folder, {"mon": {"a": cuts.pop("mon")}})
        pipeline.fit(job)
        bring(job, folder, {day: {"a": part} for day, part in cuts.items()})
        pipeline.predict(job)
    return job


@pytest.fixture
def grown(fitted, tmp_path):
    """A copy of it to change."""
    shutil.copytree(fitted.store.path, tmp_path / "s")
    with no_fsync():
        yield job_on(tmp_path / "s", SETTINGS)


def test_ids_and_names_stay_on_their_rows_as_data_grows(grown):
    store = grown.store
    before, model = ids_of_rows(store), store.snapshot.newest("model", "a/kmeans")
    assert cluster_ids(store, model) == (0, 1, 2, 3)
    name_cluster(store, "a", 2, " rear view, dark ")
    proposal = propose(grown)
    change = proposal.changes["a"]
    assert proposal.days == ("mon", "tue", "wed", "thin")
    assert (change.before, set(change.label.ids), change.label.events) == (model, {0, 1, 2, 3}, ())
    assert change.label.shared == (before >= 0).sum() == 692
    assert accept(grown) == {"a": change.model}
    after = ids_of_rows(store)
    assert (before != after).sum() == change.label.changed == sum(move[2] for move in change.moves)
    assert change.label.changed < 0.005 * len(before)
    assert names(store, "a") == {2: "rear view, dark"}
    assert_tidy(store)


def test_positions_differ_where_sizes_do_and_ids_do_not(grown, tmp_path):
    """The smallest kind becomes the largest, so the positions turn round."""
    store, before = grown.store, ids_of_rows(grown.store)
    smallest = np.bincount(before[:400][before[:400] >= 0]).argmin()
    row = np.concatenate([store.read(batch.name, "descriptors/a") for batch in store.batches])[before == smallest]
    rush = np.repeat(row, 6, axis=0) + np.float32(0.1) * np.random.default_rng(0).normal(size=(6 * len(row), D))
    bring(grown, tmp_path, {"rush": {"a": rush.astype(np.float32)}})
    pipeline.predict(grown)
    propose(grown)
    model = accept(grown)["a"]
    assert cluster_ids(store, model)[0] == smallest
    np.testing.assert_array_equal(ids_of_rows(store)[: len(before)], before)


def test_a_new_kind_gets_a_cluster_and_an_id_of_its_own(grown, tmp_path):
    """Though far fewer rows are of it than of any other; without it k stays, and no old id goes to it."""
    store, before = grown.store, ids_of_rows(grown.store)
    X = np.concatenate([store.read(batch.name, "descriptors/a") for batch in store.batches])
    rng = np.random.default_rng(5)
    first = X[before == 0]
    kind = rng.permutation(first)[:60] + np.float32(0.4) * (first.mean(axis=0) - X[before == 1].mean(axis=0))
    usual = X[(before >= 0) & (rng.random(len(X)) < 0.3)]
    bring(grown, tmp_path, {"new": {"a": np.concatenate([kind, usual])}})
    pipeline.predict(grown)
    change = propose(grown).changes["a"]
    assert events(change, "birth")[0].new == (4,)
    model = accept(grown)["a"]
    assert sorted(cluster_ids(store, model)) == [0, 1, 2, 3, 4]
    assert "1 more for kinds of images that came since" in store.snapshot.entries[model].attributes["reason"]
    after = ids_of_rows(store)
    assert (after[len(before) : len(before) + 60] == 4).all()
    assert (after[: len(before)] == before).mean() > 0.99


@pytest.mark.parametrize("checkpoints", [1, 100])
def test_nothing_is_in_force_before_it_is_accepted(grown, monkeypatch, checkpoints):
    """Nor with checkpoints, which write down the whole state."""
    monkeypatch.setattr(manifest, "CHECKPOINT_EVERY", checkpoints)
    store, seen = grown.store, grown.store.labels().compute()
    model = store.snapshot.newest("model", "a/kmeans")
    change = propose(grown).changes["a"]
    assert store.snapshot.newest("model", "a/kmeans") == model != change.model
    assert streamclust.open(store.path).labels().compute().equals(seen)
    assert pipeline.predict(grown) == {"a labels": "up to date"}
    number = store.snapshot.number
    accept(grown)
    assert store.snapshot.number == number + 1
    assert store.snapshot.newest("model", "a/kmeans") == change.model
    assert waiting(store) is None
    with pytest.raises(InputError, match="no refit is proposed"):
        accept(grown)


def test_the_same_again_is_a_no_op_and_other_days_replace_it(grown):
    store, model = grown.store, grown.store.snapshot.newest("model", "a/kmeans")
    first = propose(grown, 2)
    number = store.snapshot.number
    assert propose(grown, ["thin", "wed"]) == first == waiting(store)
    assert store.snapshot.number == number
    other = propose(grown)
    assert other.changes["a"].model != first.changes["a"].model
    assert first.changes["a"].model not in store.snapshot.entries
    assert propose(grown, ["mon"]).changes == {}  # what is in force is of that day
    assert waiting(store) is None
    assert not [e for e in store.snapshot.entries.values() if e.kind.startswith("proposed")]
    assert store.snapshot.newest("model", "a/kmeans") == model
    np.testing.assert_equal(contents_of(store, propose(grown, 2)), contents_of(store, first))


def contents_of(store, proposal):
    """What a proposal says, but for the numbers in its models' names."""
    return proposal.days, {d: replace(change, model="") for d, change in proposal.changes.items()}


@pytest.mark.parametrize("days", [2, ["wed", "thin"], ["thin"]])
def test_fitted_on_the_last_or_the_chosen_days(grown, days):
    """Also on a thin one alone, which keeps no scatter and is read again; every batch is labelled."""
    store = grown.store
    thin = store.batches[-1].entry
    assert "moments/a/mean" in thin.arrays
    assert "moments/a/scatter" not in thin.arrays
    proposal = propose(grown, days)
    chosen = [batch for batch in store.batches if batch.id in proposal.days]
    assert [batch.id for batch in chosen] == (["thin"] if days == ["thin"] else ["wed", "thin"])
    model = accept(grown)["a"]
    projection = store.snapshot.entries[store.snapshot.entries[model].attributes["parents"][0]].attributes
    assert projection["batches"] == [batch.name for batch in chosen]
    assert projection["rows"] == sum(batch.entry.attributes["descriptors"]["a"]["valid"] for batch in chosen)
    raw = np.concatenate([store.read(batch.name, "descriptors/a") for batch in chosen])
    raw = raw[np.isfinite(raw).all(axis=1)]
    np.testing.assert_allclose(store.read(projection_name(store, model), "center"), raw.mean(axis=0), rtol=1e-4)
    labels = ids_of_rows(store)
    assert len(labels) == 700
    assert (labels >= 0).sum() == 692


def test_a_name_stays_with_what_it_was_given_to_also_after_a_new_kind_was_fitted_together_with_it(tmp_path):
    """The new kind has twice the rows, and is told apart only by the second refit."""
    which = np.r_[np.arange(600) % 4, np.full(300, 4)]
    X = clustered(5, 900, D, k=5, which=which)
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k=4))
        bring(job, tmp_path, {"mon": {"a": X[:600]}})
        pipeline.fit(job)
        before = ids_of_rows(job.store)
        bring(job, tmp_path, {"tue": {"a": X[600:]}})
        pipeline.predict(job)
        propose(job)
        accept(job)
        assert len(set(ids_of_rows(job.store)[600:])) == 1
        propose(replace(job, settings=small(cluster__k=5)))
        accept(job)
    after = ids_of_rows(job.store)
    assert (before == after[:600]).mean() > 0.99
    assert (after[600:] == 4).mean() > 0.99


def test_strangeness_is_that_of_the_chosen_days(grown, tmp_path):
    """Their rows score as in a store that holds nothing else; the others are scored by the same model."""
    propose(grown, ["mon", "tue"])
    accept(grown)
    pipeline.score(grown)
    alone = job_on(tmp_path / "alone", SETTINGS)
    raw = {b.id: grown.store.read(b.name, "descriptors/a") for b in grown.store.batches[:2]}
    bring(alone, tmp_path / "again", {day: {"a": X} for day, X in raw.items()})
    pipeline.fit(alone)
    pipeline.score(alone)
    for array in ("score", "hdbscan", "optics", "hdbscan_noise", "optics_noise", "near_duplicates"):
        ours, theirs = scores_of(grown.store, array), scores_of(alone.store, array)
        assert list(ours)[:2] == list(theirs)
        for day, values in theirs.items():
            np.testing.assert_array_equal(ours[day], values, err_msg=f"{array} of {day}")
    assert np.isfinite(scores_of(grown.store, "score")["wed"]).sum() > 100


def scores_of(store, array):
    model = store.snapshot.newest("model", "a/strangeness")
    return {b.id: store.read(labels_name(model, b.name), array) for b in store.batches}


def projection_name(store, model):
    return store.snapshot.entries[model].attributes["parents"][0]


def test_a_new_kind_of_row_is_born(tmp_path):
    which = np.arange(900) // 180
    X = clustered(5, 900, D, k=5, which=which)
    old, new = X[which < 4], X[-150:]
    rng = np.random.default_rng(1)
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k=4))
        bring(job, tmp_path, {"mon": {"a": rng.permutation(old)}})
        pipeline.fit(job)
        bring(job, tmp_path, {"tue": {"a": new}})
        pipeline.predict(job)
        before = ids_of_rows(job.store)
        change = propose(replace(job, settings=small(cluster__k=5))).changes["a"]
        accept(job)
    assert [e.new for e in events(change, "birth")] == [(4,)]
    assert not events(change, "death")
    after = ids_of_rows(job.store)
    np.testing.assert_array_equal(after[: len(old)], before[: len(old)])
    assert (after[len(old) :] == 4).sum() >= 148
    assert change.label.changed == (before != after).sum()
    assert list(change.rows) == [4]
    assert len(change.rows[4]) == SHOWN
    assert min(change.rows[4]) >= len(old)


def test_merges_deaths_splits_and_births_are_recorded_and_dead_ids_stay_dead(grown):
    store = grown.store
    for cluster in range(4):
        name_cluster(store, "a", cluster, f"kind {cluster}")
    before = ids_of_rows(store)
    merged = propose(replace(grown, settings=small(cluster__k=3))).changes["a"]
    accept(grown)
    (merge,), (death,) = events(merged, "merge"), events(merged, "death")
    assert death.old[0] in merge.old
    assert len(merge.old) == 2
    assert merge.new[0] in merge.old
    assert merged.label.next_id == 4
    dead = (before == death.old[0]).sum()
    assert merged.moves[0][:2] == (death.old[0], merge.new[0])
    assert merged.moves[0][2] >= 0.98 * dead
    assert dead <= merged.label.changed <= 1.02 * dead
    split = propose(replace(grown, settings=small(cluster__k=4))).changes["a"]
    model = accept(grown)["a"]
    assert events(split, "split")[0].old == merge.new
    assert events(split, "birth")[0].new == (4,)
    assert set(cluster_ids(store, model)) == {4, *range(4)} - set(death.old)
    after = ids_of_rows(store)
    assert np.isin(after[before == death.old[0]], [4, *merge.new]).mean() >= 0.98
    assert names(store, "a") == {i: f"kind {i}" for i in range(4)}  # the dead one's too: nobody else gets its id
    with pytest.raises(InputError, match="there is no such cluster"):
        name_cluster(store, "a", death.old[0], "again")
    fine = ids_of_rows(store, level="fine")
    assert len(np.unique(fine[fine >= 0])) == small().cluster.fine_k


def test_pictures_are_of_rows_that_would_change(grown):
    before = ids_of_rows(grown.store)
    change = propose(replace(grown, settings=small(cluster__k=3))).changes["a"]
    accept(grown)
    after = ids_of_rows(grown.store)
    for cluster, rows in change.rows.items():
        moved = np.flatnonzero((after == cluster) & (before != cluster))
        assert set(rows) <= set(moved)
        assert len(set(rows)) == len(rows) == min(SHOWN, len(moved))
    assert set(change.rows) == {move[1] for move in change.moves}


def test_a_descriptor_without_rows_in_the_days_keeps_its_model_and_a_new_one_gets_its_first(tmp_path):
    X = clustered(3, 400, D)
    with no_fsync():
        job = job_on(tmp_path / "s")
        bring(job, tmp_path, {"mon": {"a": X[:300], "b": X[:300, :5]}})
        models = pipeline.fit(job)
        bring(job, tmp_path, {"tue": {"a": X[300:], "c": X[300:, 2:]}})
        pipeline.predict(job)
        proposal = propose(job, 1)
        assert {d: change.before for d, change in proposal.changes.items()} == {"a": models["a"], "c": None}
        assert proposal.changes["c"].label.ids == tuple(range(len(proposal.changes["c"].label.ids)))
        assert proposal.changes["c"].moves == ()
        accept(job)
        assert job.store.snapshot.newest("model", "b/kmeans") == models["b"]
        pipeline.predict(job)
        assert pipeline.score(job)["scored"] == 400
        table = job.store.labels().compute()
    assert table["a_kmeans"].notna().all()
    assert table["c_kmeans"].notna().sum() == 100


def test_batches_that_came_since_are_labelled_when_it_is_accepted(grown, tmp_path):
    propose(grown)
    with no_fsync():
        bring(grown, tmp_path, {"late": {"a": clustered(2, 60, D)}})
        pipeline.predict(grown)
        accept(grown)
    assert (ids_of_rows(grown.store)[-60:] >= 0).all()
    assert pipeline.predict(grown) == {"a labels": "up to date"}


def test_a_proposal_that_was_overtaken_is_refused(grown):
    propose(grown, 1)
    clusters.cluster(grown, reduced.reduce(grown, ["a"])["a"])
    with pytest.raises(InputError, match="a was fitted anew since"):
        accept(grown)
    assert propose(grown, 1).changes["a"].before == grown.store.snapshot.newest("model", "a/kmeans")
    accept(grown)


@pytest.mark.parametrize(
    ("days", "said"), [(0, "at least 1"), (-1, "at least 1"), (["mon", "fri"], "no batch 'fri'"), ([], "no batch to")]
)
def test_days_that_are_not_there_are_refused(fitted, days, said):
    with pytest.raises(InputError, match=said):
        propose(fitted, days)


@pytest.mark.parametrize(
    ("descriptor", "cluster", "text", "said"),
    [
        ("b", 0, "x", "no descriptor 'b'"),
        ("a", 4, "x", "there is no such cluster; expected one of 0, 1, 2, 3"),
        ("a", -1, "x", "there is no such cluster"),
        ("a", 0, " \n", "is empty"),
        ("a", 0, "x" * 81, "has 81 characters"),
        ("a", 0, "rear\nview", "cannot be shown"),
        ("a", 0, "\u202erear", "cannot be shown"),
    ],
)
def test_what_is_no_name_is_refused_in_one_line(fitted, descriptor, cluster, text, said):
    with pytest.raises(InputError, match=said) as error:
        name_cluster(fitted.store, descriptor, cluster, text)
    assert len(str(error.value).splitlines()) == 1


def test_the_last_name_counts_and_the_same_again_is_a_no_op(grown):
    store = grown.store
    name_cluster(store, "a", 1, "side")
    assert name_cluster(store, "a", 1, "Seite, hell") == "Seite, hell"
    number = store.snapshot.number
    name_cluster(store, "a", 1, "Seite, hell ")
    assert (names(store, "a"), store.snapshot.number) == ({1: "Seite, hell"}, number)
    assert names(store, "b") == {}


def test_names_need_a_fitted_store(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s")
        bring(job, tmp_path, {"mon": {"a": clustered(0, 60, D)}})
    with pytest.raises(InputError, match="was not clustered yet"):
        name_cluster(job.store, "a", 0, "x")


@pytest.mark.slow
def test_everything_shown_bears_the_ids_that_stay(grown):
    """Exports, the report and its sheets; and a fit on a fitted store is a refit."""
    store = grown.store
    name_cluster(store, "a", 3, "vans")
    for k in (3, 5):
        grown.settings = small(cluster__k=k)
        pipeline.fit(grown)
    assert cluster_ids(store, store.snapshot.newest("model", "a/kmeans")) != tuple(range(5))
    pipeline.score(grown)
    pipeline.place(grown)
    exported = store.labels().compute()
    np.testing.assert_array_equal(exported["a_kmeans"].fillna(-2).to_numpy(), ids_of_rows(store))
    np.testing.assert_array_equal(exported["a_fine"].fillna(-2).to_numpy(), ids_of_rows(store, level="fine"))
    assert pipeline.report(grown).is_file()


def test_a_refit_starts_at_the_clusters_before(tmp_path):
    """Rows without structure have many clusterings of nearly the same worth: started anew, most rows would change."""
    X = np.random.default_rng(0).normal(size=(1300, 6)).astype(np.float32)
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__fine_k=40))
        bring(job, tmp_path, {"mon": {"a": X[:1000]}})
        pipeline.fit(job)
        bring(job, tmp_path, {"tue": {"a": X[1000:]}})
        pipeline.predict(job)
        change = propose(job).changes["a"]
    assert change.fine.changed < 0.2 * change.fine.shared
    assert change.label.changed < 0.05 * change.label.shared
    assert set(change.fine.ids) == set(range(40))


def test_ids_stay_when_another_network_s_rows_outnumber_those_they_were_given_to(tmp_path):
    """Fewer clusters for the old rows and more for the new would be better by every figure, and lose names."""
    rng = np.random.default_rng(3)
    X = clustered(5, 3600, D)
    X[600:] = X[600:] @ np.linalg.qr(rng.normal(size=(D, D)))[0] * 1.4 + 10
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k_max=12))
        bring(job, tmp_path, {"mon": {"a": X[:600]}})
        pipeline.fit(job)
        before = ids_of_rows(job.store)
        bring(job, tmp_path, {"tue": {"a": X[600:]}})
        pipeline.predict(job)
        change = propose(job).changes["a"]
        accept(job)
    assert not events(change, "death")
    after = ids_of_rows(job.store)
    assert (after[:600] == before).mean() > 0.99
    assert not set(after[600:]) & set(before)


# Where a child is killed; the publishes are of the projection, two reduced days, clusters, the other two reduced days,
# their labels, the comparison, and the acceptance.
PUBLISH = "streamclust.store.manifest:publish"
KILLS = [("streamclust.stages.clusters:add_labels", 2, "after"), (PUBLISH, 9, "before")]
SLOW = [(PUBLISH, k, when) for k in range(1, 10) for when in ("before", "after") if (PUBLISH, k, when) not in KILLS]
SLOW += [
    ("streamclust.stages.refit_tables:add_tables", 1, "after"),
    ("streamclust.stages.refit_tables:add_changed", 1, "before"),
]


def refit(store: Path) -> dict:
    """Propose and accept, each unless it was done; what the store then holds."""
    with chunk_bytes(1024), no_fsync():
        job = job_on(store, SETTINGS, Dask(2))
        if not job.store.snapshot.of_kind("refit"):
            propose(job, 2)
            accept(job)
    return contents(job.store)


@pytest.fixture(scope="module")
def uninterrupted(fitted, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "s"
    shutil.copytree(fitted.store.path, store)
    number = fitted.store.snapshot.number
    found = refit(store)
    assert len(list((store / "log").glob("*.json"))) == number + 1 + 9
    return found


@pytest.mark.parametrize(
    ("where", "count", "when"), [*KILLS, *(pytest.param(*kill, marks=pytest.mark.slow) for kill in SLOW)]
)
def test_killed_and_started_again(grown, uninterrupted, where, count, when):
    store = grown.store.path
    code = [sys.executable, "-m", "tests.stages.test_refit", str(store), where, str(count), when]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert subprocess.run(code, cwd=ROOT, env=os.environ | threads, check=False).returncode == -signal.SIGKILL
    assert refit(store) == uninterrupted
    grown.store.sweep()
    grown.store.refresh()
    assert_tidy(grown.store)


@pytest.mark.slow
def test_real_days_keep_their_ids(tmp_path):
    """Four more days of the same cameras change few rows, and no id."""
    vehicles = shared_data("vehicles")
    job = job_on(tmp_path / "s", Settings(), Dask(2))
    ingest(job, open_case(vehicles / "base"))
    pipeline.fit(job)
    for day in ("2026-01-02", "2026-01-03", "2026-01-04"):
        ingest(job, open_case(vehicles / "daily" / day))
    pipeline.predict(job)
    proposal = propose(job)
    for descriptor, change in proposal.changes.items():
        assert change.label.changed < 0.05 * change.label.shared, descriptor
        assert not events(change, "death"), descriptor
    number = job.store.snapshot.number
    accept(job)
    assert job.store.snapshot.number == number + 1


def main(store: str, where: str, count: str, when: str) -> None:
    """A refit that is killed at the ``count``-th call of a function."""
    module, name = where.split(":")
    home, calls = import_module(module), counter(1)
    real = getattr(home, name)

    def fatal(*args, **kwargs):
        mine = next(calls) == int(count)
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(home, name, fatal)
    refit(Path(store))


if __name__ == "__main__":
    main(*sys.argv[1:])
