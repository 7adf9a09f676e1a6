"""Ingest: the same bytes whoever runs it, every row kept, the same case once, and nothing half done."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
import zarr.storage._local as zarr_files
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamclust import costs
from streamclust.blocks import Dask, Serial, one_blas_thread
from streamclust.config import Settings
from streamclust.errors import BudgetError, ConflictError, InputError
from streamclust.ingest import ingest
from streamclust.planning import Shape
from streamclust.readers.case import open_case
from streamclust.readers.encoded import EncodedArray
from streamclust.readers.raw import RawArray
from streamclust.readers.tables import open_paths
from streamclust.sampling import batch_key, row_hashes
from streamclust.stages.projections import load_moments
from streamclust.stages.reduced import reduce
from streamclust.store import chunks
from streamclust.store.store import create, open_store
from tests.conftest import shared_data
from tests.faults import (
    Deadly,
    assert_tidy,
    child,
    chunk_bytes,
    contents,
    finish,
    job_on,
    no_fsync,
    random_rows,
    write_case,
)


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


@pytest.fixture
def case(tmp_path):
    return open_case(write_case(tmp_path / "case", {"osnet": random_rows(1, 90, 6, 0.1), "vdc": random_rows(2, 90, 3)}))


def ingested(folder, case, size, executor=None, **kwargs):
    with chunk_bytes(size):
        job = job_on(folder, executor, **kwargs)
        name = ingest(job, case)
    return job, name


@given(n=st.integers(1, 80), d=st.integers(1, 9), rows=st.integers(4, 64), seed=st.integers(0, 99), bad=st.booleans())
@settings(max_examples=20)
def test_every_row_is_kept_and_the_moments_are_those_of_the_finite_ones(n, d, rows, seed, bad):
    X = random_rows(seed, n, d, 0.2 if bad else 0.0)
    assume(np.isfinite(X).all(axis=1).any())  # a descriptor without one valid row is refused
    with tempfile.TemporaryDirectory() as folder:
        case = open_case(write_case(Path(folder) / "case", {"osnet": X}))
        job, name = ingested(Path(folder) / "s", case, rows * 4 * d)
        store, [batch] = job.store, job.store.batches
        np.testing.assert_array_equal(store.read(name, "descriptors/osnet"), X)
        valid = np.isfinite(X).all(axis=1)
        np.testing.assert_array_equal(store.read(name, "valid/osnet"), valid)
        assert batch.entry.attributes["descriptors"]["osnet"]["valid"] == valid.sum()
        assert store.read(name, "images/path").tolist() == [f"a/{i:05d}.jpg" for i in range(n)]
        moments, F = load_moments(store, "osnet", batch), X[valid].astype(np.float64)
        assert moments.n == len(F)
        assert (moments.scatter is None) == (n < 4 * d)
        if not len(F):
            return
        np.testing.assert_array_equal(moments.min, F.min(axis=0))
        np.testing.assert_array_equal(moments.max, F.max(axis=0))
        # Deviations are rounded to float32: a few units of eps32 of the largest, in each product and the means.
        spread = np.abs(F - F.mean(axis=0)).max(initial=1e-30)
        np.testing.assert_allclose(moments.mean, F.mean(axis=0), rtol=1e-12, atol=1e-12 * np.abs(F).max())
        scatter = (F - F.mean(axis=0)).T @ (F - F.mean(axis=0))
        eps = np.finfo(np.float32).eps * len(F) * 4 * spread * (spread + np.abs(F).max())
        np.testing.assert_allclose(moments.m2, np.diag(scatter), atol=eps)
        if moments.scatter is not None:
            np.testing.assert_allclose(np.tril(moments.scatter), np.tril(scatter), atol=eps)


@given(n=st.integers(1, 300), rows=st.integers(16, 64), size=st.integers(100, 200), seed=st.integers(0, 9))
@settings(max_examples=12)
def test_the_sample_is_the_smallest_hashes_whatever_the_blocks(n, rows, size, seed):
    X = random_rows(seed, n, 3, 0.1)
    assume(np.isfinite(X).all(axis=1).any())
    with tempfile.TemporaryDirectory() as folder:
        case = open_case(write_case(Path(folder) / "monday", {"osnet": X}))
        job, name = ingested(Path(folder) / "s", case, rows * 12, seed=seed, ingest={"sample_rows": size})
        hashes = row_hashes(batch_key("monday", seed), 0, n)
        wanted = np.sort(np.argsort(hashes)[:size])
        np.testing.assert_array_equal(job.store.read(name, "sample/rows"), wanted)
        np.testing.assert_array_equal(job.store.read(name, "sample/hashes"), hashes[wanted])
        np.testing.assert_array_equal(job.store.read(name, "sample/osnet"), X[wanted])


@given(seed=st.integers(0, 99), rows=st.sampled_from([16, 32, 64]), workers=st.integers(1, 4))
@settings(max_examples=6)
def test_threads_store_the_same_bytes_as_one_after_another(seed, rows, workers):
    with tempfile.TemporaryDirectory() as folder:
        X = {"osnet": random_rows(seed, 130, 24, 0.05), "vdc": random_rows(seed + 1, 130, 5)}
        case = open_case(write_case(Path(folder) / "case", X))
        found = []
        for executor in (Serial(), Dask(workers)):
            job, _ = ingested(Path(folder) / f"s{len(found)}", case, rows * 96, executor)
            for descriptor in X:
                reduce(job, [descriptor])
            found.append(contents(job.store))
        assert found[0] == found[1]


def test_a_cluster_and_larger_blocks_store_the_same_bytes(tmp_path, cluster):
    """Blocks large enough for BLAS to share them out among threads, if it were let."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9000, 192)).astype(np.float32)
    X[rng.integers(0, 9000, 20), 3] = np.nan
    case = open_case(write_case(tmp_path / "case", {"osnet": X}))
    found = []
    for executor, limit in ((Serial(), one_blas_thread), (Dask(2), nullcontext), (Dask(client=cluster), nullcontext)):
        with limit():
            job, _ = ingested(tmp_path / f"s{len(found)}", case, 2**11 * 192 * 4, executor)
        with one_blas_thread():
            reduce(job, ["osnet"])
        found.append(contents(job.store))
    assert found[0] == found[1]
    assert found[0] == found[2]


class Twice(Serial):
    """Every task runs again after it finished, as when a worker is lost before it could say so."""

    def map(self, task, addresses, *args):
        super().map(task, addresses, *args)
        return super().map(task, addresses, *args)

    def fold(self, task, addresses, merge, *args, run=8):
        super().fold(task, addresses, merge, *args, run=run)
        return super().fold(task, addresses, merge, *args, run=run)


def test_tasks_that_run_twice_do_no_harm(tmp_path, case):
    found = []
    for executor in (Serial(), Twice()):
        job, _ = ingested(tmp_path / f"s{len(found)}", case, 300, executor)
        reduce(job, ["osnet"])
        found.append(contents(job.store))
        assert not job.journal.notes
    assert found[0] == found[1]


class TornTwice(Serial):
    """A task runs again after it finished, on a worker that dies when half of its sample rows are written."""

    def fold(self, task, addresses, merge, *args, run=8):
        found, save = super().fold(task, addresses, merge, *args, run=run), np.save

        def half(file, values):
            save(whole := io.BytesIO(), values)
            with file if hasattr(file, "write") else Path(file).open("wb") as out:
                out.write(whole.getvalue()[: whole.tell() // 2])
            raise InterruptedError

        with mock.patch.object(np, "save", half), suppress(InterruptedError):
            super().fold(task, addresses, merge, *args, run=run)
        return found


def test_a_task_that_dies_when_it_runs_again_does_no_harm(tmp_path, case):
    straight, _ = ingested(tmp_path / "t", case, 300)
    job, _ = ingested(tmp_path / "s", case, 300, TornTwice())
    assert contents(job.store) == contents(straight.store)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_that_is_killed_in_mid_pass_changes_nothing(tmp_path, case):
    from distributed import Client, LocalCluster

    straight, _ = ingested(tmp_path / "t", case, 300)
    deadly = {name: Deadly(source, tmp_path / "killed") for name, source in case.descriptors.items()}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as processes,
        Client(processes, set_as_default=False) as client,
    ):
        job, _ = ingested(tmp_path / "s", replace(case, descriptors=deadly), 300, Dask(client=client))
    assert (tmp_path / "killed").exists()
    assert contents(job.store) == contents(straight.store)


def test_metadata_and_pictures(tmp_path):
    n = 150
    columns = {"camera": [f"k{i % 3}" for i in range(n)], "speed": [i / 4 for i in range(n)], "lane": list(range(n))}
    folder = write_case(tmp_path / "case", {"osnet": random_rows(0, n, 4)}, columns)
    (folder / "images" / "a").mkdir(parents=True)
    for i in range(0, n, 2):
        (folder / "images" / "a" / f"{i:05d}.jpg").write_bytes(b"x" * (i + 1))
    case = open_case(folder)
    case = replace(case, paths=open_paths(folder / "images_paths.csv", block_rows=32))
    job, name = ingested(tmp_path / "s", case, 32 * 16, Dask(2))
    read = job.store.read
    assert read(name, "images/camera").tolist() == columns["camera"]
    assert read(name, "images/speed").tolist() == columns["speed"]
    assert read(name, "images/lane").tolist() == columns["lane"]
    sizes = np.where(np.arange(n) % 2, -1, np.arange(n) + 1)
    np.testing.assert_array_equal(read(name, "images/picture_size"), sizes)
    np.testing.assert_array_equal(read(name, "images/picture_offset"), np.where(sizes < 0, -1, 0))
    assert job.journal.warnings == ["75 of 150 pictures were not found; their rows have no picture"]
    assert_tidy(job.store)


def test_a_case_without_pictures_says_so_for_each_row(tmp_path, case):
    job, name = ingested(tmp_path / "s", case, 100)
    assert job.store.batches[0].entry.attributes["pictures"] is None
    for array in ("picture_offset", "picture_size"):
        assert set(job.store.read(name, f"images/{array}").tolist()) == {-1}
    assert not job.journal.warnings


def test_a_column_called_like_one_of_ours_is_refused(tmp_path):
    folder = write_case(tmp_path / "case", {"osnet": random_rows(0, 5, 2)}, {"picture_size": ["big"] * 5})
    job = job_on(tmp_path / "s")
    with pytest.raises(InputError, match="picture_size"):
        ingest(job, open_case(folder))


def files_of(store):
    return {p: p.stat().st_mtime_ns for p in store.path.rglob("*") if p.is_file()}


def test_the_same_case_twice_is_once(tmp_path, case):
    job, name = ingested(tmp_path / "s", case, 100)
    before = files_of(job.store)
    assert ingested(tmp_path / "s", case, 100)[1] == name
    assert files_of(job.store) == before


def test_the_same_rows_under_another_name_or_in_another_container_are_once(tmp_path, case):
    job, name = ingested(tmp_path / "s", case, 100)
    before = contents(job.store)
    matrices = {k: source.read(0, 90) for k, source in case.descriptors.items()}
    again = {k: np.asfortranarray(X.astype(np.float64)) for k, X in matrices.items()}
    other = open_case(write_case(tmp_path / "tuesday", again))
    later, same = ingested(tmp_path / "s", other, 100)
    assert same == name
    assert later.journal.notes == [f"these rows are stored already as {name}: nothing to do"]
    later.store.sweep()
    assert contents(open_store(job.store.path)) == before
    assert open_store(job.store.path).snapshot.number == 1
    assert_tidy(later.store)


@pytest.mark.parametrize("suffix", ["npz", "parquet", "h5", "zarr"])
def test_other_formats_are_the_same_batch(tmp_path, case, suffix):
    X = case.descriptors["osnet"].read(0, 90)
    folder = write_case(tmp_path / "other", {"osnet": X, "vdc": case.descriptors["vdc"].read(0, 90)})
    path = folder / "descriptors" / "osnet.npy"
    path.unlink()
    path = path.with_suffix(f".{suffix}")
    match suffix:
        case "npz":
            np.savez_compressed(path, X)
        case "parquet":
            pq.write_table(pa.table({f"f{i}": X[:, i] for i in range(6)}), path)
        case "h5":
            with h5py.File(path, "w") as file:
                file["x"] = X
        case "zarr":
            zarr.create_array(path, shape=X.shape, chunks=(16, 6), dtype="f4")[:] = X
    job, name = ingested(tmp_path / "s", open_case(folder), 200)
    assert ingested(tmp_path / "s", case, 200)[1] == name
    assert ingested(tmp_path / "s", open_case(folder), 200)[1] == name
    job.store.sweep()
    assert_tidy(job.store)


@pytest.mark.parametrize("change", ["row", "paths", "descriptor"])
def test_the_same_name_with_other_content_is_refused(tmp_path, case, change):
    job, _ = ingested(tmp_path / "s", case, 100)
    before = contents(job.store)
    matrices = {k: source.read(0, 90) for k, source in case.descriptors.items()}
    matrices["osnet"][80, 1] += change == "row"
    if change == "descriptor":
        del matrices["vdc"]
    other = {"path": [f"b/{i}.jpg" for i in range(90)]} if change == "paths" else {}
    folder = write_case(tmp_path / "elsewhere" / "case", matrices, other)
    again = job_on(job.store)
    with chunk_bytes(100), pytest.raises(InputError, match="already stored with other content"):
        ingest(again, open_case(folder))
    again.store.sweep()
    assert contents(open_store(job.store.path)) == before
    assert_tidy(job.store)


@pytest.mark.parametrize("batch", ["../up", "a/b", ".hidden", "x" * 101])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, case, batch):
    with pytest.raises(InputError, match="--batch"):
        ingest(job_on(tmp_path / "s"), case, batch)


def test_two_at_once(tmp_path, case):
    """Other batches both get in; the same batch gets in once, and the loser says so."""
    jobs = [job_on(create(tmp_path / "s")) for _ in range(3)]
    name = ingest(jobs[0], case)
    assert ingest(jobs[1], case) == name
    assert jobs[1].journal.notes == [f"these rows are stored already as {name}: nothing to do"]
    folder = write_case(tmp_path / "tuesday", {"osnet": random_rows(5, 20, 6), "vdc": random_rows(6, 20, 3)})
    ingest(jobs[2], open_case(folder))
    store = open_store(tmp_path / "s")
    assert [batch.id for batch in store.batches] == ["case", "tuesday"]
    store.sweep()
    assert_tidy(store)
    assert store.read(name, "valid/osnet").shape == (90,)


def test_the_same_name_at_once_with_other_content_is_refused_and_harmless(tmp_path, case):
    jobs = [job_on(create(tmp_path / "s")) for _ in range(2)]
    ingest(jobs[0], case)
    folder = write_case(tmp_path / "elsewhere" / "case", {"osnet": random_rows(5, 90, 6)})
    with pytest.raises(InputError, match="other content") as caught:
        ingest(jobs[1], open_case(folder))
    assert not isinstance(caught.value, ConflictError)
    jobs[0].store.sweep()
    assert_tidy(jobs[0].store)
    assert open_store(tmp_path / "s").n == 90


@pytest.mark.parametrize("executor", [Serial(), Dask(2)])
@pytest.mark.parametrize("how", ["touched", "cut"])
def test_a_source_that_changes_meanwhile_is_refused(tmp_path, case, monkeypatch, executor, how):
    job, path, read = job_on(tmp_path / "s", executor), case.descriptors["osnet"].path, RawArray.read

    def change(source, start, stop):
        if start >= 40 and source.path == path:
            if how == "cut":
                os.truncate(path, 500)
            else:
                os.utime(path, ns=(1, 1))
        return read(source, start, stop)

    monkeypatch.setattr(RawArray, "read", change)
    with chunk_bytes(200), pytest.raises(InputError, match="changed"):
        ingest(job, case)
    monkeypatch.undo()
    job.store.sweep()
    assert open_store(job.store.path).snapshot.number == 0
    assert_tidy(job.store)


class DiskFull:
    """Writing fails from the ``count``-th call on, until freed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.calls, self.count = 0, count
        writers = [(zarr_files, "_put"), (chunks, "write"), (np, "save"), (Path, "write_text")]
        for module, name in [*writers, (os, "fsync"), (os, "link")]:
            monkeypatch.setattr(module, name, self.wrap(getattr(module, name)))

    def wrap(self, real):
        def maybe(*args, **kwargs):
            self.calls += 1
            if self.calls >= self.count:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return maybe


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write_leaves_the_store_as_it_was(tmp_path):
    """And once there is room the same process ends as if nothing had happened."""
    case = open_case(write_case(tmp_path / "case", {"osnet": random_rows(1, 40, 4)}))
    straight, _ = ingested(tmp_path / "t", case, 256)
    count, failed = 1, True
    while failed:
        job = job_on(tmp_path / f"s{count}", Dask(2) if count % 2 else Serial())
        code = 0
        with pytest.MonkeyPatch.context() as patch, chunk_bytes(256):
            DiskFull(patch, count)
            try:
                ingest(job, case)
            except OSError as error:
                code = error.errno
        if failed := code != 0:
            assert code == errno.ENOSPC
            seen = open_store(job.store.path)  # only the sync of the log comes after the link
            assert not seen.snapshot.entries or contents(seen) == contents(straight.store)
            with chunk_bytes(256):
                ingest(job, case)
        assert contents(job.store) == contents(straight.store)
        job.store.sweep()
        assert_tidy(job.store)
        count += 5  # not every write, to save time
    assert count > 50


def test_a_resumed_ingest_says_so(tmp_path, case, monkeypatch):
    job, read = job_on(tmp_path / "s"), RawArray.read

    def fail(source, start, stop):
        if start >= 64:
            raise KeyboardInterrupt
        return read(source, start, stop)

    with chunk_bytes(16 * 24), monkeypatch.context() as patch:
        patch.setattr(RawArray, "read", fail)
        with pytest.raises(KeyboardInterrupt):
            ingest(job, case)
    with chunk_bytes(16 * 24):
        ingest(job, case)
    assert job.journal.notes == ["resumed: 4 blocks of batch case were written already"]
    straight, _ = ingested(tmp_path / "t", case, 16 * 24)
    assert contents(job.store) == contents(straight.store)
    assert_tidy(job.store)


def streamed_case(folder):
    """The same rows as `case`, where one descriptor can be read from the front only and one has such parts."""
    X, Y = random_rows(1, 90, 6, 0.1), random_rows(2, 90, 3)
    write_case(folder, {"osnet": X, "vdc": Y})
    (folder / "descriptors" / "osnet.npy").unlink()
    (folder / "descriptors" / "vdc.npy").unlink()
    (folder / "descriptors" / "osnet.pickle").write_bytes(pickle.dumps(np.asfortranarray(X), 0))
    (folder / "descriptors" / "vdc").mkdir()
    (folder / "descriptors" / "vdc" / "9.pickle").write_bytes(pickle.dumps(Y[:50], 2))
    np.save(folder / "descriptors" / "vdc" / "10.npy", Y[50:])
    return open_case(folder)


def test_what_must_be_unpacked_is_stored_as_the_same_bytes_and_leaves_nothing(tmp_path, case):
    straight, _ = ingested(tmp_path / "t", case, 100)
    streamed = streamed_case(tmp_path / "s" / "case")
    job, name = ingested(tmp_path / "store", streamed, 100, Dask(2))
    for array in ("descriptors/osnet", "valid/vdc", "sample/osnet", "descriptors/vdc"):
        np.testing.assert_array_equal(job.store.read(name, array), straight.store.read(name, array))
    digests = [j.store.batches[0].entry.attributes["digest"] for j in (job, straight)]
    assert digests[0] == digests[1]
    assert_tidy(job.store)
    before = contents(job.store)
    assert ingested(tmp_path / "store", streamed, 100)[1] == name  # the same again is a no-op
    assert ingested(tmp_path / "store", case, 100)[1] == name  # whatever the container
    job.store.sweep()
    assert contents(open_store(job.store.path)) == before
    assert_tidy(job.store)


def test_what_was_unpacked_is_not_unpacked_again_after_a_kill(tmp_path, case, monkeypatch):
    streamed = streamed_case(tmp_path / "s" / "case")
    job, read, pour, poured = job_on(tmp_path / "store"), RawArray.read, EncodedArray.pour, []

    def fail(source, start, stop):
        if start >= 64:
            raise KeyboardInterrupt
        return read(source, start, stop)

    monkeypatch.setattr(EncodedArray, "pour", lambda source: poured.append(source.path.name) or pour(source))
    with chunk_bytes(16 * 24), monkeypatch.context() as patch:
        patch.setattr(RawArray, "read", fail)
        with pytest.raises(KeyboardInterrupt):
            ingest(job, streamed)
    with chunk_bytes(16 * 24):
        ingest(job, streamed)
    assert sorted(poured) == ["9.pickle", "osnet.pickle"]
    straight, _ = ingested(tmp_path / "t", case, 16 * 24)
    np.testing.assert_array_equal(job.store["osnet"].compute(), straight.store["osnet"].compute())
    assert_tidy(job.store)


def test_no_room_to_unpack_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    streamed = streamed_case(tmp_path / "s" / "case")
    job = job_on(tmp_path / "store")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(BudgetError, match=r"osnet.pickle, unpacked into .*: the disk has 1,000,000 bytes free"):
        ingest(job, streamed)
    job.store.sweep()
    assert_tidy(job.store)


def test_the_real_case(tmp_path):
    case = open_case(shared_data("vehicles") / "base")
    job, name = ingested(tmp_path / "s", case, 2**20, Dask(2))
    assert job.store.n == 6080
    assert job.store.descriptors == {"osnet": 512, "vdc": 128, "vdc_mid": 128}
    assert (job.store.read(name, "images/picture_offset") >= 0).all()
    X = case.descriptors["vdc"].read(0, 6080)
    np.testing.assert_array_equal(job.store["vdc"].compute(), X)
    np.testing.assert_allclose(load_moments(job.store, "vdc", job.store.batches[0]).mean, X.mean(axis=0, dtype=float))


@pytest.mark.slow
def test_peak_memory_is_within_the_plan_and_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for n in (100_000, 300_000):
        folder = write_case(tmp_path / f"case{n}", {"osnet": np.zeros((n, 1), np.float32)})
        X = np.lib.format.open_memmap(folder / "descriptors" / "osnet.npy", "w+", np.float32, (n, 512))
        for start in range(0, n, 10_000):
            X[start : start + 10_000] = np.random.default_rng(start).normal(size=(10_000, 512))
        del X
        code, said = finish(child("memory", tmp_path / f"s{n}", folder))
        assert code == 0
        step = costs.plan({"osnet": Shape(n, 512)}, Settings(), 2).steps[0]
        assert step.name == "osnet: ingest"
        peaks.append(int(said))
        assert peaks[-1] <= step.peak_bytes
    assert peaks[1] <= 1.15 * peaks[0]
