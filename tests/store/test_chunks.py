"""What is written past Zarr's pipeline is to the byte what Zarr writes, and Zarr reads it."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.store import arrays, chunks, metadata


@given(
    n=st.integers(1, 50),
    d=st.integers(0, 4),
    step=st.integers(1, 20),
    dtype=st.sampled_from(["f2", "f4", "f8", "i4", "i8", "u1", "?"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_same_bytes_as_zarr(tmp_path_factory, n, d, step, dtype, seed):
    folder = tmp_path_factory.mktemp("chunks")
    shape = (n, d) if d else (n,)
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    arrays.create_group(folder)
    for name in ("ours", "theirs"):
        arrays.create_array(folder / name, shape, dtype, step)
    for start in range(0, n, min(step, n)):
        arrays.write_rows(folder / "ours", start, values[start : start + min(step, n)])
    theirs = zarr.open_array(folder / "theirs", mode="r+").with_config({"write_empty_chunks": True})
    assert chunks.plain(metadata.read(folder / "theirs")) is not None
    theirs[:] = values
    np.testing.assert_array_equal(zarr.open_array(folder / "ours", mode="r")[:], values)
    np.testing.assert_array_equal(arrays.read_rows(folder / "theirs"), values)
    for ours in arrays.chunk_files(folder / "ours"):
        assert ours.read_bytes() == (folder / "theirs" / ours.relative_to(folder / "ours")).read_bytes()


def test_any_range_reads_the_rows_it_names(tmp_path):
    values = np.arange(70, dtype=np.float32).reshape(35, 2)
    arrays.create_group(tmp_path)
    arrays.create_array(tmp_path / "x", values.shape, "f4", 8)
    arrays.write_rows(tmp_path / "x", 0, values)
    for start in range(36):
        for stop in range(start, 36):
            np.testing.assert_array_equal(arrays.read_rows(tmp_path / "x", start, stop), values[start:stop])


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    arrays.create_group(tmp_path)
    arrays.create_array(tmp_path / "x", (10,), "f4")

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chunks, "_checksum", full)
    with pytest.raises(OSError, match="No space"):
        arrays.write_rows(tmp_path / "x", 0, np.zeros(10, np.float32))
    assert not [p for p in (tmp_path / "x").rglob("*") if p.is_file() and p.name != "zarr.json"]
