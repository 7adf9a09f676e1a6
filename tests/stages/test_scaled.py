"""Descriptors under further scalers: the same rows, read once, clustered and compared."""

from __future__ import annotations

import numpy as np
import pytest

from streamclust import costs, pipeline
from streamclust.blocks import Dask, Serial
from streamclust.config import Settings, load_settings
from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.job import fingerprint
from streamclust.planning import Shape
from streamclust.readers.case import open_case
from streamclust.reporting.scalers import describe_scalers
from streamclust.stages import reduced, refit
from streamclust.stages.names import name_cluster, names
from streamclust.stages.watch import watch
from streamclust.store import arrays
from streamclust.store.trial import proposed
from tests.cases import job_on, matrices, small, spoil, work, write_case
from tests.faults import chunk_bytes, contents, no_fsync

N, M = 300, 80
DIMS = {"a": 19, "b": 6}
ALSO = ("none", "robust", "min-max")
SETTINGS = small(
    reduce__also=ALSO, algorithms__also=["mixture", "agglomerative"], algorithms__consensus=True, cluster__halves=3
)


def case_of(folder, rows=slice(None), seed=4, dims=DIMS):
    of = {d: X * (1 + np.arange(X.shape[1])) ** 2 for d, X in matrices(seed, N + M, dims).items()}
    of["a"] = spoil(of["a"], [3, N + 4])
    return write_case(folder, {d: X[rows] for d, X in of.items()})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with no_fsync(), chunk_bytes(2048):
        return work(
            tmp_path_factory.mktemp("scaled") / "s",
            case_of(tmp_path_factory.mktemp("cases") / "mon", slice(N)),
            SETTINGS,
        )


def reduced_by(tmp_path, also=(), executor=None, **settings):
    """What rows are reduced to, by descriptor, with the digests; and every read of a stored descriptor."""
    job = job_on(
        tmp_path / "s",
        small(reduce__also=also, reduce__components=None, reduce__variance=0.98, **settings),
        executor or Serial(),
    )
    ingest(job, open_case(case_of(tmp_path / "mon", slice(N))))
    read, reads = arrays.read_rows, []

    def counted(where, *ends):
        reads.append(str(where))
        return read(where, *ends)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "read_rows", counted)
        found = reduced.reduce(job, reduced.asked(job))
    Z = {d: reduced.reduced_name(name, job.store.batches[0]) for d, name in found.items()}
    rows = {d: job.store.read(name, "Z") for d, name in Z.items()}
    digests = {d: job.store.snapshot.entries[name].arrays["Z"].digest for d, name in Z.items()}
    return rows, digests, [path.rpartition("/descriptors/")[2] for path in reads if "/descriptors/" in path]


@pytest.mark.parametrize("executor", [Serial(), Dask(2)])
def test_each_is_to_the_bit_what_that_scaler_gives_alone_and_all_share_a_read(tmp_path, executor):
    """Components differ from scaler to scaler, and so do chunks."""
    with no_fsync(), chunk_bytes(2048):
        together, digests, reads = reduced_by(tmp_path / "all", ALSO, executor)
        for scaler in ("standard", *ALSO):
            alone, wanted, once = reduced_by(tmp_path / scaler, (), executor, reduce__scaler=scaler)
            for d in DIMS:
                name = d if scaler == "standard" else f"{d}@{scaler}"
                np.testing.assert_array_equal(together[name], alone[d])
                assert digests[name] == wanted[d]
            assert sorted(reads) == sorted(once)
    assert len({Z.shape[1] for Z in together.values()}) > 3, "else chunks would be alike"
    assert len(once) > 4


def test_a_day_is_read_once_beside_a_mix_too(tmp_path):
    with no_fsync(), chunk_bytes(2048):
        job = job_on(tmp_path / "s", small(reduce__also=["none"], mix__of=["a", "b"]))
        ingest(job, open_case(case_of(tmp_path / "mon", slice(N))))
        projections = reduced.reduce(job, reduced.asked(job)).values()
        ingest(job, open_case(case_of(tmp_path / "tue", slice(N, None))))
        read, reads = arrays.read_rows, []

        def counted(where, *ends):
            reads.append((str(where), *ends))
            return read(where, *ends)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrays, "read_rows", counted)
            reduced.extend(job, projections)
    of_rows = [each for each in reads if "/descriptors/" in each[0]]
    assert len(of_rows) == len(set(of_rows)) > 2
    assert {
        reduced.reduced_name(name, job.store.batches[1]) for name in projections
    } <= job.store.snapshot.entries.keys()


def test_they_are_clustered_compared_and_exported(fitted):
    store, names = fitted.store, {d + at for d in DIMS for at in ("", *(f"@{scaler}" for scaler in ALSO))}
    table = store.labels().compute()
    for name in names:
        assert table[f"{name}_kmeans"].notna().sum() == N - name.startswith("a")
        assert {f"{name}_mixture", f"{name}_agglomerative", f"{name}_fine"} <= set(table)
    assert pipeline.describe(store)["clusters"].keys() == names
    comparison = store.snapshot.entries[store.snapshot.newest("comparison", "comparison")]
    assert ["a/kmeans", "a@robust/mixture"] in comparison.attributes["label"]


def test_outliers_maps_and_the_consensus_are_of_the_scaler_that_is_set(fitted):
    newest, entries = fitted.store.snapshot.newest, fitted.store.snapshot.entries
    assert entries[newest("model", "outliers")].attributes["weights"].keys() == set(DIMS)
    assert {name.split("/")[0] for name in entries[newest("model", "consensus")].attributes["clusterings"]} == set(DIMS)
    assert newest("model", "a@robust/map") is newest("model", "a@robust/strangeness") is None


@pytest.mark.slow
def test_the_page_says_under_which_scaler_halves_agree_most(fitted):
    page = pipeline.report(fitted).read_text()
    assert "Which scaler?" in page
    assert page.count("halves of its rows agree most under") == len(DIMS)


@pytest.mark.slow
def test_a_day_and_a_refit(tmp_path):
    """A day that lacks a descriptor lacks it under every scaler, and that is one alarm."""
    with no_fsync():
        job = work(tmp_path / "s", case_of(tmp_path / "mon", slice(N)), SETTINGS)
        name_cluster(job.store, "a@robust", 1, "lorries")
        ingest(job, open_case(case_of(tmp_path / "tue", slice(N, None))))
        ingest(job, open_case(case_of(tmp_path / "wed", slice(N, None), seed=5, dims={"a": 19})))
        said = pipeline.predict(job)
        assert said["b@none labels"] == "batches/000002-tue"
        cried = [alarm for name in ("batches/000002-tue", "batches/000003-wed") for alarm in watch(job, name)]
        assert [a.descriptor for a in cried if a.kind == "descriptor missing"] == ["b"]
        before = job.store.snapshot.newest("model", "a@robust/kmeans")
        models = pipeline.fit(job)
        assert models["a@robust"] != before
        assert names(job.store, "a@robust") == {1: "lorries"}


def test_later_ones_leave_the_others_as_they_are(tmp_path):
    with no_fsync():
        job = work(tmp_path / "s", case_of(tmp_path / "mon", slice(N)), small())
        before, were = contents(job.store), {d: job.store.snapshot.newest("model", f"{d}/kmeans") for d in DIMS}
        job.settings = small(reduce__also=["none"])
        models = pipeline.fit(job)
    assert models.keys() == {"a", "b", "a@none", "b@none"}
    assert were.items() <= models.items()
    assert before.items() <= contents(job.store).items()


def test_a_refit_that_waits_is_known_by_the_same_key_as_before_there_were_further_scalers(tmp_path):
    """Else what an earlier version proposed would be fitted once more."""
    with no_fsync():
        job = job_on(tmp_path / "s", small())
        ingest(job, open_case(case_of(tmp_path / "mon", slice(N))))
        before = dict.fromkeys(DIMS)
        refit.propose(job)
    settings = [getattr(small(), name).model_dump() for name in ("reduce", "mix", "cluster")]
    del settings[0]["also"]
    key = fingerprint([batch.name for batch in job.store.batches], before, settings, 0)
    assert {entry.attributes["proposal"] for entry in proposed(job.store.snapshot).values()} == {key}


def test_another_scaler_in_force_leaves_further_ones_as_they_are(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s", small(reduce__also=["none"]))
        ingest(job, open_case(case_of(tmp_path / "mon", slice(N))))
        before = reduced.reduce(job, reduced.asked(job))
        job.settings = small(reduce__also=["none"], reduce__scaler="robust")
        after = reduced.reduce(job, reduced.asked(job))
    assert {d for d in before if before[d] == after[d]} == {"a@none", "b@none"}


def test_one_scaler_by_two_names_is_no_choice(tmp_path):
    with no_fsync():
        job = job_on(tmp_path / "s", small(reduce__scaler="auto", reduce__also=["standard"]))
        ingest(job, open_case(case_of(tmp_path / "mon", slice(N))))
        assert list(describe_scalers(job, pipeline.fit(job))) == [], "auto stands for standard here"


def test_a_plan_knows_them():
    shapes, settings = {"a": Shape(10_000, 200)}, load_settings(None, {"reduce.also": ["none", "robust"]})
    one, all_of_them = costs.plan(shapes, Settings(), 2), costs.plan(shapes, settings, 2)
    read = {step.name: step.bytes_read for step in all_of_them.steps}
    assert {"a: fit PCA", "a@none: fit PCA", "a@robust: cluster"} <= read.keys()
    assert read["a: reduce"] == next(step.bytes_read for step in one.steps if step.name == "a: reduce")
    assert "a@none: reduce" not in read
    assert {"a@none: outliers", "a@none: fit t-SNE", "a@none: place on the map"}.isdisjoint(read)
    day = {step.name for step in costs.plan(shapes, settings, 2, "daily").steps if "@" in step.name}
    assert day == {"a@none: label", "a@robust: label"}
    assert all_of_them.disk_bytes > one.disk_bytes


@pytest.mark.parametrize("also", [["none", "none"], ["standard"], ["whitened"], ["auto"]])
def test_a_scaler_twice_or_unknown_is_one_line(also):
    with pytest.raises(InputError) as caught:
        load_settings(None, {"reduce.also": also})
    assert "also" in str(caught.value)
    assert "\n" not in str(caught.value)
