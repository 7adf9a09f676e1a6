"""Every clustering at every k against every other: as scikit-learn counts them, over any blocks and by any executor."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

import streamclust
from streamclust import pipeline
from streamclust.blocks import Dask
from streamclust.cluster import joint
from streamclust.cluster.assign import assign
from streamclust.cluster.hierarchy import agglomerate, cut
from streamclust.cluster.joint import table_of
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.reporting.every_k import describe_every_k
from streamclust.stages import every_k
from streamclust.stages.compare import clusterings, table_key
from streamclust.stages.labels import NO_VALUE, labels_name
from streamclust.stages.sources import reduced_name
from tests.cases import job_on, matrices, small, spoil, write_case
from tests.conftest import shared_data
from tests.faults import chunk_bytes, no_fsync

N = 500
BOTH = {"algorithms__also": ["mixture", "agglomerative"], "algorithms__k": "own"}


def fit_on(folder, executor=None, blocks=1024, **settings):
    """Two batches, the second without vdc and both with rows that are not valid, fitted together."""
    of = matrices(4, N, {"osnet": 12, "vdc": 8})
    of["osnet"], of["vdc"] = spoil(of["osnet"], range(0, N, 70)), spoil(of["vdc"], range(5, N, 90))
    with chunk_bytes(blocks), no_fsync():
        job = job_on(folder / "s", small(**(BOTH | settings)), executor)
        ingest(job, open_case(write_case(folder / "mon", {name: X[:350] for name, X in of.items()})))
        ingest(job, open_case(write_case(folder / "tue", {"osnet": of["osnet"][350:]})))
        models = pipeline.fit(job)
    return job, models


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return fit_on(tmp_path_factory.mktemp("every_k"))


def compared(job):
    """The attributes of what was compared, its sizes, and its joint counts."""
    name = job.store.snapshot.newest("comparison", "agreement")
    about = job.store.snapshot.entries[name].attributes
    return about, [size for _, _, size in about["clusterings"]], job.store.read(name, "joint")


def over_all(job, read, n=None):
    """What ``read`` says of each batch's rows, NO_VALUE for a batch that lacks it."""
    parts = [read(batch) for batch in job.store.batches]
    return np.concatenate(
        [np.full(b.n, NO_VALUE) if p is None else p for b, p in zip(job.store.batches, parts, strict=True)]
    )


def predicted(job, models, name, k):
    """Labels of every row at one k by `assign` alone: nearest centre, cut of a tree grown anew, or as stored."""
    store, (descriptor, algorithm) = job.store, name.split("/")
    model = clusterings(job, models)[name]
    projection = store.snapshot.entries[models[descriptor]].attributes["parents"][0]

    def labels(batch):
        if (reduced := reduced_name(projection, batch)) not in store.snapshot.entries:
            return None
        if algorithm == "mixture":
            return store.read(labels_name(model, batch.name), "label")
        Z = store.read(reduced, "Z")
        valid, found = np.isfinite(Z).all(axis=1), np.full(len(Z), NO_VALUE)
        if algorithm == "kmeans":
            found[valid] = assign(Z[valid], store.read(model, f"sweep/{k:05d}/centers"))[0]
        else:
            micro, counts = store.read(model, "micro/centers"), store.read(model, "micro/counts")
            found[valid] = cut(agglomerate(micro, counts, neighbors=None), k)[assign(Z[valid], micro)[0]]
        return found

    return over_all(job, labels)


def assert_as_scikit_learn(job, models):
    about, sizes, counts = compared(job)
    labels = [predicted(job, models, name, k) for name, k, _ in about["clusterings"]]
    frame = every_k.agreement(job.store).set_index(["a", "k_a", "b", "k_b"])
    for i, one in enumerate(about["clusterings"]):
        for j in range(i + 1, len(sizes)):
            both = (labels[i] >= 0) & (labels[j] >= 0)
            a, b = labels[i][both], labels[j][both]
            table = table_of(counts, sizes, i, j)
            there = table[np.ix_(table.any(axis=1), table.any(axis=0))]
            np.testing.assert_array_equal(there, contingency_matrix(a, b))
            row = frame.loc[(*one[:2], *about["clusterings"][j][:2])]
            assert row["rows"] == both.sum()
            assert row["adjusted_rand"] == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
            assert row["adjusted_mutual_info"] == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-8)


def test_every_pair_is_counted_as_scikit_learn_does_over_the_rows_that_both_label(fitted):
    job, models = fitted
    about, _, _ = compared(job)
    own = {name: k for name, k in about["chosen"].items() if name.endswith("mixture")}
    assert [(name, k) for name, k, _ in about["clusterings"]] == [
        (f"{d}/{algorithm}", k)
        for d in ("osnet", "vdc")
        for algorithm in ("kmeans", "mixture", "agglomerative")
        for k in ([own[f"{d}/mixture"]] if algorithm == "mixture" else [2, 3, 4])
    ]
    assert_as_scikit_learn(job, models)
    rows = every_k.agreement(job.store).set_index(["a", "b"])["rows"]
    assert set(rows.loc[("osnet/kmeans", "osnet/agglomerative")]) == {N - 8}
    assert set(rows.loc[("osnet/kmeans", "vdc/kmeans")]) == {350 - 5 - 4}


def test_at_the_chosen_k_it_is_the_comparison_of_the_stored_labels(fitted):
    job, _ = fitted
    about, sizes, counts = compared(job)
    comparison = job.store.snapshot.newest("comparison", "comparison")
    at = {name: i for i, (name, k, _) in enumerate(about["clusterings"]) if k == about["chosen"][name]}
    for a, b in job.store.snapshot.entries[comparison].attributes["label"]:
        stored = job.store.read(comparison, table_key("label", (a, b)))
        np.testing.assert_array_equal(table_of(counts, sizes, at[a], at[b]), stored)


@pytest.mark.parametrize(("executor", "blocks"), [(Dask(3), 1024), (None, 48 * 2**20)], ids=["threads", "one block"])
def test_the_same_counts_by_threads_and_over_any_blocks(fitted, executor, blocks):
    job, models = fitted
    asked = every_k._asked(job.store, clusterings(job, models))
    labelers = {d: every_k._labeler(job.store, d, asked) for d in sorted(models)}
    addresses = every_k._addresses(job.store, asked, models)
    assert len(addresses) > 4
    if blocks > 1024:
        addresses = [job.store.rows(b, b.n, addresses[0 if b.base == 0 else -1].arrays) for b in job.store.batches]
        addresses = [rows for each in addresses for rows in each]
        assert len(addresses) == 2
    _, sizes, counts = compared(job)
    with_it = executor or job.executor
    np.testing.assert_array_equal(with_it.fold(every_k.add_joint, addresses, np.add, labelers, sizes), counts)


def test_it_is_made_once_and_anew_after_a_refit(tmp_path):
    job, models = fit_on(tmp_path, algorithms__also=[])
    first, number = job.store.snapshot.newest("comparison", "agreement"), job.store.snapshot.number
    with no_fsync():
        assert every_k.compare_every_k(job, models) == first
        assert job.store.snapshot.number == number
        assert "agreement: up to date" in job.journal.notes
        of = matrices(5, 200, {"osnet": 12, "vdc": 8})
        ingest(job, open_case(write_case(tmp_path / "wed", of)))
        models = pipeline.fit(job)
    assert job.store.snapshot.newest("comparison", "agreement") != first
    assert_as_scikit_learn(job, models)


def test_of_too_many_clusters_some_k_are_left_out_and_said(fitted, monkeypatch, tmp_path):
    monkeypatch.setattr(joint.thin, "__defaults__", (14,))
    job, models = fit_on(tmp_path, algorithms__also=[], cluster__k=3)
    about, sizes, _ = compared(job)
    assert about["thinned"]
    assert sum(sizes) <= 14
    assert [k for name, k, _ in about["clusterings"] if name == "vdc/kmeans"] == [2, 3]
    assert_as_scikit_learn(job, models)
    assert "osnet at 2, vdc at 2 of its k" in describe_every_k(job).paragraphs[1]
    monkeypatch.setattr(joint.thin, "__defaults__", (4,))
    assert every_k.compare_every_k(job, models) is None
    assert "not every k was compared" in job.journal.warnings[-1]
    assert describe_every_k(job) is None, "what was compared before is of other clusterings"


def test_one_descriptor_at_one_k_agrees_with_nothing(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k_min=3, cluster__k_max=3))
        ingest(job, open_case(write_case(tmp_path / "case", matrices(4, 200, {"vdc": 8}))))
        pipeline.fit(job)
    assert job.store.snapshot.newest("comparison", "agreement") is None
    assert describe_every_k(job) is None
    with pytest.raises(InputError, match="no clusterings were compared"):
        streamclust.agreement(job.store)


def test_a_single_cluster_on_each_side_is_no_agreement_to_speak_of(tmp_path):
    job, _ = fit_on(tmp_path, algorithms__also=[], cluster__k_min=1)
    frame, section = streamclust.agreement(job.store), describe_every_k(job)
    assert frame[(frame["k_a"] == 1) & (frame["k_b"] == 1)]["adjusted_rand"].tolist() == [1.0]
    assert "k = 1" not in section.paragraphs[0]
    assert not any("k = 1" in words for row in section.tables[0].rows for words in row[:2])


@pytest.mark.parametrize(
    ("also", "words"), [([], "across scalers (adj"), (["agglomerative"], "across algorithms (adj")], ids=["one", "two"]
)
def test_scalers_are_no_algorithms(tmp_path, also, words):
    with no_fsync():
        job = job_on(tmp_path / "s", small(reduce__also=["none"], algorithms__also=also))
        ingest(job, open_case(write_case(tmp_path / "case", matrices(4, 200, {"vdc": 8}))))
        pipeline.fit(job)
    said = describe_every_k(job).paragraphs[0]
    assert words in said
    assert len({name in said for name in ("agglomerative", "kmeans")}) == 1, "both are named, or none"


def test_the_file_has_every_pair_and_the_sentence_the_best(fitted):
    job, _ = fitted
    section = describe_every_k(job)
    frame = streamclust.agreement(job.store)
    table = section.tables[0]
    rows = list(csv.DictReader(io.StringIO(table.content.decode())))
    assert list(rows[0]) == ["a", "k_a", "b", "k_b", "rows", "adjusted_rand", "adjusted_mutual_info"]
    assert len(rows) == len(frame) == 14 * 13 // 2
    across = frame[frame["a"].str.startswith("osnet") & frame["b"].str.startswith("vdc")]
    best = across.loc[across["adjusted_rand"].idxmax()]
    assert section.paragraphs[0].startswith(
        f"{best['a'].replace('/', ' ')} at k = {best['k_a']} and {best['b'].replace('/', ' ')} at k = {best['k_b']} "
        f"agree most across descriptors (adjusted Rand index {best['adjusted_rand']:.2f})"
    )


def test_real_descriptors_agree_more_with_themselves_than_across(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s", small(cluster__k_max=8))
        ingest(job, open_case(shared_data("vehicles/base")))
        models = pipeline.fit(job)
    assert_as_scikit_learn(job, models)
    frame = streamclust.agreement(job.store)
    near = (frame["a"] == frame["b"]) & (frame["k_b"] == frame["k_a"] + 1)
    assert frame[near]["adjusted_rand"].mean() > 0.5 > frame[frame["a"] != frame["b"]]["adjusted_rand"].mean() > 0.1
