"""Zarr v2 and v3 as zarr writes them equal what was written; a missing chunk and any lie are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from streamclust.errors import HostileFileError, InputError
from streamclust.readers import foreign
from tests.readers.opening import matrices, readable
from tests.readers.test_arrays import some_array

V3 = {
    "plain": {"chunks": (16, 12), "compressors": None},
    "tiles": {"chunks": (7, 5), "compressors": [ZstdCodec(), Crc32cCodec()]},
    "blosc": {"chunks": (50, 1), "compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle")]},
    "gzip": {"chunks": (60, 20), "compressors": [GzipCodec()]},
    "big": {"chunks": (9, 12), "serializer": BytesCodec(endian="big"), "filters": [TransposeCodec(order=(1, 0))]},
    "sharded": {"chunks": (4, 6), "shards": (16, 12)},
    "v2 keys": {"chunks": (9, 12), "chunk_key_encoding": {"name": "v2", "separator": "."}},
}


def test_version_3(tmp_path: Path) -> None:
    group, rng, wanted = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3), np.random.default_rng(0), {}
    for (layout, how), dtype in zip(V3.items(), ["<f2", "<f4", "<f8", "i1", "<i4", "<u8", "?"], strict=True):
        wanted[layout] = x = some_array(rng, 50, 12, dtype)
        array = group.create_array(f"deep/{layout}", shape=x.shape, dtype=x.dtype, **how)
        array.with_config({"write_empty_chunks": True})[:] = x
    group.create_array("line", shape=(5,), dtype="f4")[:] = 1
    with pytest.warns(UserWarning, match="onsolidated"):
        zarr.consolidate_metadata(tmp_path / "x.zarr")
    check(tmp_path / "x.zarr", {f"deep/{name}": x for name, x in wanted.items()})


def check(path: Path, wanted: dict[str, np.ndarray]) -> None:
    found = matrices(path)
    assert sorted(found) == sorted(wanted)
    for name, x in wanted.items():
        stored = np.float16 if x.dtype.str[1:] == "f2" else np.float32
        assert found[name].dtype == stored
        with np.errstate(over="ignore"):
            for start, stop in ((0, 50), (3, 29), (49, 50), (7, 7)):
                np.testing.assert_array_equal(found[name].read(start, stop), x[start:stop].astype(stored))


def test_version_2(tmp_path: Path) -> None:
    import numcodecs

    group, rng, wanted = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2), np.random.default_rng(0), {}
    layouts = {
        "plain": {"chunks": (16, 12), "compressors": None},
        "blosc": {"chunks": (7, 5), "compressors": numcodecs.Blosc()},
        "zlib": {"chunks": (50, 1), "compressors": numcodecs.Zlib(), "order": "F"},
        "lz4": {
            "chunks": (9, 12),
            "compressors": numcodecs.LZ4(),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        },
    }
    for (layout, how), dtype in zip(layouts.items(), ["<f2", ">f4", "<f8", ">i2"], strict=True):
        wanted[layout] = x = some_array(rng, 50, 12, dtype)
        group.create_array(layout, shape=x.shape, dtype=x.dtype, **how)[:] = x
    check(tmp_path / "x.zarr", wanted)


def test_an_array_at_the_root(tmp_path: Path) -> None:
    for version in (2, 3):
        path = tmp_path / f"x{version}.zarr"
        zarr.create_array(path, shape=(5, 3), dtype="f4", zarr_format=version)[:] = 7
        np.testing.assert_array_equal(readable(path).read(0, 5), np.full((5, 3), 7))


def spoil(path: Path, what: str) -> None:
    array = zarr.create_array(path, shape=(50, 12), chunks=(10, 12), dtype="f4", zarr_format=3)
    array[:] = np.random.default_rng(0).normal(size=(50, 12))
    chunk, meta = path / "c" / "2" / "0", json.loads((path / "zarr.json").read_text())
    match what:
        case "missing":
            chunk.unlink()
        case "cut":
            chunk.write_bytes(chunk.read_bytes()[:-5])
        case "flipped":
            chunk.write_bytes(b"\xff" * 8 + chunk.read_bytes()[8:])
        case "another file":
            (path.parent / "secret").write_bytes(chunk.read_bytes())
            chunk.unlink()
            chunk.symlink_to(path.parent / "secret")
        case "a bomb":
            import numcodecs

            chunk.write_bytes(numcodecs.Zstd().encode(np.zeros(2**27)))
        case "no codec":
            meta["codecs"][-1] = {"name": "numcodecs.pickle", "configuration": {}}
        case "upwards":
            meta["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "/../../"}}
        case "huge chunks":
            meta["chunk_grid"]["configuration"]["chunk_shape"] = [2**40, 12]
        case "huge":
            meta["shape"] = [2**40, 2**40]
        case "negative":
            meta["shape"] = [-5, 12]
        case "deep":
            (path / "zarr.json").write_text('{"a":' + "[" * 100_000 + '"array"')
            return
        case "a giant":
            (path / "zarr.json").write_bytes(b" " * 2_000_000)
            return
    (path / "zarr.json").write_text(json.dumps(meta))


SPOILT = {
    "missing": (InputError, "the chunk is missing"),
    "cut": (InputError, "the chunk is damaged"),
    "flipped": (InputError, "the chunk is damaged"),
    "another file": (HostileFileError, "is no chunk of this folder"),
    "a bomb": (InputError, "needs more than 768 MiB at once"),
    "no codec": (InputError, "the codec 'pickle'"),
    "upwards": (HostileFileError, "chunk keys"),
    "huge chunks": (InputError, "has chunks of 52,"),
    "huge": (InputError, "is stored in chunks|the disk has"),
    "negative": (HostileFileError, "impossible shape"),
    "deep": (InputError, "metadata is damaged"),
    "a giant": (HostileFileError, "no metadata"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_arrays(tmp_path: Path, what: str) -> None:
    spoil(tmp_path / "x.zarr", what)
    kind, words = SPOILT[what]
    with pytest.raises(InputError, match=words) as caught:
        matrices(tmp_path / "x.zarr")
    assert isinstance(caught.value, HostileFileError) == (kind is HostileFileError)
    assert "\n" not in str(caught.value)


def test_what_is_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").write_text("text")
    with pytest.raises(InputError, match="is no folder"):
        matrices(tmp_path / "x.zarr")
    (tmp_path / "y.zarr").mkdir()
    with pytest.raises(InputError, match="holds 0 arrays"):
        matrices(tmp_path / "y.zarr")


@pytest.mark.slow
def test_memory_does_not_follow_the_rows(tmp_path: Path, monkeypatch) -> None:
    """160 MB by a process that may allocate 120 MiB, of which the libraries take most."""
    x = np.random.default_rng(0).normal(size=(80_000, 500)).astype(np.float32)
    zarr.create_array(tmp_path / "x.zarr", shape=x.shape, chunks=(1000, 500), dtype="f4")[:] = x
    monkeypatch.setattr(foreign, "MEMORY_BYTES", 120 << 20)
    np.testing.assert_array_equal(readable(tmp_path / "x.zarr").read(70_000, 80_000), x[70_000:])
