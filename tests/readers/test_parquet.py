"""Parquet in its three layouts, read in a process of its own, equals what was written."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamclust.errors import InputError
from streamclust.readers import foreign
from streamclust.readers.arrays import data_files, open_descriptors, open_parts
from streamclust.readers.foreign.helper import together
from streamclust.readers.sources import addressable
from tests.readers.opening import matrices, readable
from tests.readers.test_arrays import some_array


def lists(x: np.ndarray, kind: str) -> pa.Array:
    flat = pa.array(x.ravel())
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    offsets = np.arange(len(x) + 1) * x.shape[1]
    if kind == "large":
        return pa.LargeListArray.from_arrays(offsets.astype(np.int64), flat)
    return pa.ListArray.from_arrays(offsets.astype(np.int32), flat)


def columns(x: np.ndarray) -> pa.Table:
    return pa.table({f"f{i}": x[:, i] for i in range(x.shape[1])})


@pytest.mark.parametrize(
    "dtype", ["f4", *(pytest.param(d, marks=pytest.mark.slow) for d in ("f2", "f8", "i1", "u8", "?"))]
)
def test_three_layouts(tmp_path: Path, dtype: str) -> None:
    """Lists beside other columns, several row groups, every block."""
    x = some_array(np.random.default_rng(0), 50, 7, dtype)
    stored = np.float16 if dtype == "f2" else np.float32
    with np.errstate(over="ignore"):
        expected = x.astype(stored)
    text = pa.array([f"a/{i}.jpg" for i in range(50)])
    nested = pa.array([{"x": 1, "y": [1, 2]}] * 50)
    several = pa.table({"path": text, "n": nested} | {k: lists(x, k) for k in ("list", "large", "fixed")})
    pq.write_table(several, tmp_path / "a.parquet", row_group_size=20, compression="zstd")
    found = matrices(tmp_path / "a.parquet")
    assert list(found) == ["list", "large", "fixed"]
    flat = columns(x).append_column("path", text)
    pq.write_table(flat, tmp_path / "b.parquet", row_group_size=20, use_dictionary=False)
    for source in [*found.values(), readable(tmp_path / "b.parquet")]:
        assert source.shape == x.shape
        assert source.dtype == stored
        for start, stop in itertools.combinations(range(0, 51, 10), 2):
            np.testing.assert_array_equal(source.read(start, stop), expected[start:stop])


def test_from_pandas(tmp_path: Path) -> None:
    """Its index is no feature, a missing number is NaN."""
    x = np.arange(12, dtype=np.float64).reshape(4, 3)
    frame = pd.DataFrame(x, columns=["a", "b", "c"], index=[5, 3, 9, 7])
    frame.loc[3, "b"] = np.nan
    frame["flag"] = pd.array([True, None, False, True], dtype="boolean")
    frame.to_parquet(tmp_path / "x.parquet")
    x[1, 1] = np.nan
    expected = np.concatenate([x, [[1], [np.nan], [0], [1]]], axis=1)
    np.testing.assert_array_equal(readable(tmp_path / "x.parquet").read(0, 4), expected.astype(np.float32))
    pd.DataFrame({"path": list("abcd"), "osnet": list(x)}).to_parquet(tmp_path / "y.parquet")
    np.testing.assert_array_equal(readable(tmp_path / "y.parquet").read(0, 4), x.astype(np.float32))


LISTS = pa.list_(pa.float32())
REFUSED = {
    "several lengths": (pa.table({"a": pa.array([[1, 2], [3]], LISTS)}), "lists of several lengths"),
    "hidden lengths": (pa.table({"a": pa.array([[1, 2], [3], [4, 5, 6]], LISTS)}), "has 1 numbers in row 1"),
    "a missing list": (pa.table({"a": pa.array([[1], None], LISTS)}), "no list in row 1"),
    "texts": (pa.table({"a": ["x"], "b": [["y"]]}), "lists of string"),
    "no numbers": (pa.table({"a": ["x"]}), "no column of numbers"),
    "no rows": (pa.table({"a": pa.array([], LISTS)}), "is empty"),
    "no numbers in the lists": (pa.table({"a": pa.array([[], []], LISTS)}), "is empty|several lengths|has 0 numbers"),
    "twice": (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "two columns 'a'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(tmp_path: Path, what: str) -> None:
    table, words = REFUSED[what]
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=words) as caught:
        matrices(tmp_path / "x.parquet")
    assert "\n" not in str(caught.value)


def test_broken_files(tmp_path: Path) -> None:
    path, x = tmp_path / "x.parquet", np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    pq.write_table(pa.table({"a": lists(x, "fixed")}), path)
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2], b"text" * 100):
        path.write_bytes(data)
        with pytest.raises(InputError, match="cannot be read"):
            matrices(path)
    with pytest.raises(InputError, match="No such file"):
        matrices(tmp_path / "none.parquet")


@pytest.mark.slow
def test_a_page_that_inflates_to_more_than_a_reader_may_take(tmp_path: Path) -> None:
    """A gigabyte of zeros in one page of some kilobytes."""
    flat = pa.array(np.zeros(2**28, np.float32))
    table = pa.table({"a": pa.FixedSizeListArray.from_arrays(flat, 2**14)})
    options = {"data_page_size": 2**31 - 1, "use_dictionary": False, "compression": "zstd", "write_batch_size": 2**28}
    pq.write_table(table, tmp_path / "x.parquet", **options)
    del table, flat
    with pytest.raises(InputError, match=r"needs more than 768 MiB at once|cannot be read"):
        matrices(tmp_path / "x.parquet")


def parts_of(folder: Path, x: np.ndarray, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"part-{i}.parquet" for i in range(count)]
    for path, rows in zip(paths, np.array_split(x, count), strict=True):
        pq.write_table(pa.table({"a": lists(rows, "fixed")}), path)
    return paths


def test_parts_are_read_by_one_process(tmp_path: Path, monkeypatch) -> None:
    """One to describe them, one to pour them; each part by a fork with limits of its own."""
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    parts_of(tmp_path / "a", x, 12)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: started.append(popen(*args, **more)) or started[-1])
    source = addressable(open_parts(tmp_path / "a", data_files(tmp_path / "a")), tmp_path / "unpacked.npy")
    np.testing.assert_array_equal(source.read(0, 60), x)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_a_broken_part_fails_alone_and_by_its_name(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    paths = parts_of(tmp_path / "a", x, 6)
    whole = paths[3].read_bytes()
    paths[3].write_bytes(b"PAR1" + bytes(len(whole) - 8) + b"PAR1")
    with pytest.raises(InputError, match=r"part-3\.parquet.*cannot be read") as caught:
        open_parts(tmp_path / "a", data_files(tmp_path / "a"))
    assert "\n" not in str(caught.value)
    with together():
        found = []
        for path in paths:
            with contextlib.suppress(InputError):
                found.append(open_descriptors(path)["a"].path)
        assert found == paths[:3] + paths[4:]
        half, other = (open_descriptors(path)["a"].pour() for path in paths[:2])
        whole = [next(half), next(half), next(other), *other]  # one at work, another beside it
        half.close()
        assert b"".join(whole[2:])[-320:] == x[10:20].tobytes()
        assert open_descriptors(paths[4])["a"].shape == (10, 8)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["fixed", "columns"])
def test_memory_does_not_follow_the_row_group(tmp_path: Path, monkeypatch, layout: str) -> None:
    """120 MB in one row group, where the reading process needs 140 to 160 MiB for 10 MB already."""
    x = np.random.default_rng(0).normal(size=(60_000, 500)).astype(np.float32)
    table = columns(x) if layout == "columns" else pa.table({"a": lists(x, "fixed")})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=60_000)
    del table
    monkeypatch.setattr(foreign, "MEMORY_BYTES", 170 << 20)
    tracemalloc.start()
    try:
        source = readable(tmp_path / "x.parquet")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(source.read(0, 60_000), x)
