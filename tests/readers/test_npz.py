"""Archives of arrays: stored and deflated members read as numpy reads them, bombs and lies refused."""

from __future__ import annotations

import io
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.errors import HostileFileError, InputError
from streamclust.readers.sources import Stream
from tests.readers.opening import matrices, only, readable
from tests.readers.test_arrays import DTYPES, some_array

X = np.arange(12, dtype=np.float32).reshape(4, 3)


@given(data=st.data())
@settings(max_examples=60)
def test_round_trip(data: st.DataObject) -> None:
    n, d, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 40)), data.draw(st.integers(0, 2**32))
    dtype, order, save = (data.draw(st.sampled_from(v)) for v in (DTYPES, "CF", [np.savez, np.savez_compressed]))
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    x = np.asarray(some_array(np.random.default_rng(seed), n, d, dtype), order=order)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npz")
        save(path, osnet=x, other=np.arange(3), vdc=X)
        assert {name: source.shape for name, source in matrices(path).items()} == {"osnet": (n, d), "vdc": X.shape}
        source = matrices(path)["osnet"]
        stored = np.float16 if dtype[1:] == "f2" else np.float32
        assert source.dtype == stored
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(source.read(start, stop), x[start:stop].astype(stored))


def test_a_stored_member_is_not_copied(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X)
    assert not isinstance(only(tmp_path / "x.npz"), Stream)
    np.savez_compressed(tmp_path / "x.npz", X)
    assert isinstance(only(tmp_path / "x.npz"), Stream)


@pytest.mark.parametrize("save", [np.savez, pytest.param(np.savez_compressed, marks=pytest.mark.slow)])
def test_memory_is_little(tmp_path: Path, save) -> None:
    x = np.random.default_rng(0).normal(size=(400_000, 50)).astype(np.float32)
    save(tmp_path / "x.npz", x)
    tracemalloc.start()
    try:
        source = readable(tmp_path / "x.npz")
        block = source.read(200_000, 200_100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000  # of 80 MB
    np.testing.assert_array_equal(block, x[200_000:200_100])


def npy(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def archive(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return path.read_bytes()


def lie(data: bytes, full: int) -> bytes:
    """The directory says another length."""
    at = data.index(b"PK\1\2") + 24
    return data[:at] + struct.pack("<L", full) + data[at + 4 :]


def spoilt(path: Path, what: str) -> bytes:
    good = [("x.npy", npy(X))]
    whole = archive(path, good)
    data = whole.index(b"x.npy") + 5
    match what:
        case "upwards":
            return archive(path, [("../x.npy", npy(X))])
        case "absolute":
            return archive(path, [("/etc/x.npy", npy(X))])
        case "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                return archive(path, good * 2)
        case "a bomb":
            return lie(archive(path, [("x.npy", npy(np.zeros((1000, 1000), np.float32)))]), 2**32 - 2)
        case "a longer array than the directory says":
            return lie(whole, len(npy(X)) - 48)
        case "a shorter array than its header says":
            return archive(path, [("x.npy", npy(X)[:-8])])
        case "a shorter stored one":
            return archive(path, [("x.npy", npy(X)[:-8])], zipfile.ZIP_STORED)
        case "a broken stream":
            return whole[:data] + b"\xff" * 8 + whole[data + 8 :]
        case "a flipped checksum":
            at = whole.index(b"PK\1\2") + 16
            return whole[:at] + b"abcd" + whole[at + 4 :]
        case "an encrypted one":
            at = whole.index(b"PK\1\2") + 8
            return whole[:at] + b"\1" + whole[at + 1 :]
        case "another method":
            return archive(path, good, zipfile.ZIP_LZMA)
        case "no array":
            return archive(path, [("readme", b"text")])
        case "objects":
            return archive(path, [("x.npy", npy(np.array([[{}]])))])
        case "a giant header":
            return archive(path, [("x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 30_000)])
        case "nothing in it":
            return archive(path, [])
        case "no zip":
            return npy(X)
        case "cut":
            return whole[:-30]
        case "many":
            return archive(path, [(f"{i}.npy", npy(X)) for i in range(4100)], zipfile.ZIP_STORED)
    raise KeyError(what)


SPOILT = {
    "upwards": (HostileFileError, "not what numpy.savez writes"),
    "absolute": (HostileFileError, "not what numpy.savez writes"),
    "twice": (HostileFileError, "is there twice"),
    "a bomb": (HostileFileError, "declares 4,294,967,294 bytes"),
    "a longer array than the directory says": (HostileFileError, "needs"),
    "a shorter array than its header says": (HostileFileError, "needs"),
    "a shorter stored one": (InputError, "truncated"),
    "a broken stream": (InputError, "is broken"),
    "a flipped checksum": (InputError, "does not match its length and checksum"),
    "an encrypted one": (HostileFileError, "not what numpy.savez writes"),
    "another method": (HostileFileError, "not what numpy.savez writes"),
    "no array": (InputError, "is no array"),
    "objects": (InputError, "Python objects"),
    "a giant header": (HostileFileError, "declares a header"),
    "nothing in it": (InputError, "holds 0 arrays"),
    "no zip": (InputError, "is not a .npz file"),
    "cut": (InputError, "not a complete zip file"),
    "many": (InputError, "holds more than 4,096 arrays"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_archives(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(spoilt(path, what))
    kind, words = SPOILT[what]
    with pytest.raises(InputError, match=words) as caught:
        matrices(path)
    assert isinstance(caught.value, HostileFileError) == (kind is HostileFileError)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["x.npz"]
