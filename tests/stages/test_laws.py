"""A whole run: the same bits on every executor, a frozen model on another grid, the same batch twice."""

from __future__ import annotations

import numpy as np
import pytest

from streamclust import pipeline
from streamclust.blocks import Dask, Serial
from streamclust.exporting import export
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store.store import open_store
from tests.cases import job_on, matrices, metadata, small, spoil, work, write_case
from tests.faults import chunk_bytes, contents, no_fsync

N, BLOCKS = 700, 2048  # bytes of a chunk: 64 rows of 8 numbers, eleven blocks and more


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    of = matrices(1, N, {"osnet": 24, "vdc": 8})
    of["osnet"] = spoil(of["osnet"], [*range(16, 32), 500])  # the second block of 16 rows has no valid row at all
    return write_case(tmp_path_factory.mktemp("laws") / "case", of, metadata(N))


@pytest.fixture(scope="module")
def reference(case, tmp_path_factory):
    """The serial run over many blocks: the store and its exports."""
    store = tmp_path_factory.mktemp("serial") / "s"
    with chunk_bytes(BLOCKS), no_fsync():
        job = work(store, case, executor=Serial())
    return job.store, exports(store)


def exports(store):
    """The bytes of both streamed formats."""
    found = {}
    for ending in (".csv", ".parquet"):
        out = store.parent / f"out{ending}"
        export(open_store(store), out)
        found[ending] = out.read_bytes()
    return found


@pytest.mark.parametrize("executor", [Dask(1), Dask(3), "cluster"], ids=["one", "three", "processes"])
def test_bit_equal_on_every_executor(case, reference, tmp_path, executor, request):
    if executor == "cluster":
        executor = Dask(client=request.getfixturevalue("cluster"))
    with chunk_bytes(BLOCKS), no_fsync():
        job = work(tmp_path / "s", case, executor=executor)
    assert contents(job.store) == contents(reference[0])
    assert exports(tmp_path / "s") == reference[1]


def test_the_reference_has_many_blocks(reference):
    assert len(reference[0].snapshot.entries) > 10
    for name, entry in reference[0].snapshot.of_kind("reduced").items():
        assert entry.arrays["Z"].chunks[0] <= N // 5, name


def test_the_same_case_again_is_a_no_op(case, reference):
    store, wanted = reference
    number = store.snapshot.number
    with chunk_bytes(BLOCKS):
        job = work(store.path, case)
    assert job.store.snapshot.number == number
    assert exports(store.path) == wanted
    done = {"comparison", "outliers"} | {f"{d}/{k}" for d in ("osnet", "vdc") for k in ("kmeans", "strangeness", "map")}
    assert set(job.journal.notes) >= {f"{role}: up to date" for role in done}


@pytest.mark.slow
def test_the_newest_settings_are_what_is_read(case, tmp_path):
    with no_fsync():
        for k in (3, 4, 3):
            store = work(tmp_path / "s", case, small(cluster__k=k)).store
            assert pipeline.describe(store)["clusters"] == {"osnet": k, "vdc": k}
            assert store.labels()["osnet_kmeans"].dropna().nunique().compute() == k


def test_a_frozen_model_on_another_grid(case, tmp_path):
    """Counts are exact, and labels differ only where two centres are nearly as near."""
    found = []
    for i, size in enumerate((BLOCKS, 48 * 2**20)):
        with no_fsync():
            job = job_on(tmp_path / str(i))
            ingest(job, open_case(case))
            pipeline.fit(job)
            with chunk_bytes(size):
                extra = matrices(1, 500, {"osnet": 24, "vdc": 8})
                folder = tmp_path / f"case{i}" / "tomorrow"
                ingest(job, open_case(write_case(folder, extra)))
                pipeline.predict(job)
        frame = job.store.labels().compute()
        found.append((job, frame[frame["batch"] == "tomorrow"]))
    (a, one), (_, other) = found
    assert contents(a.store).keys() == contents(found[1][0].store).keys()
    for d in ("osnet", "vdc"):
        np.testing.assert_allclose(one[f"{d}_distance"], other[f"{d}_distance"], rtol=1e-4)
        differ = (one[f"{d}_kmeans"] != other[f"{d}_kmeans"]).to_numpy()
        assert margins(a.store, d, "tomorrow")[differ].max(initial=0) < 1e-4


def margins(store, descriptor, batch):
    """How much farther the second nearest centre is than the nearest, relative to it."""
    model = store.snapshot.newest("model", f"{descriptor}/kmeans")
    about = store.snapshot.entries[model].attributes
    centers = store.read(model, f"sweep/{about['k']:05d}/centers").astype(float)
    name = next(b.name for b in store.batches if b.id == batch)
    reduced = about["parents"][0].replace("projections", "reduced") + "/" + name.split("/")[1]
    Z = store.read(reduced, "Z").astype(float)
    far = np.sort(((Z[:, None] - centers) ** 2).sum(2), axis=1)
    return (far[:, 1] - far[:, 0]) / far[:, 0]
