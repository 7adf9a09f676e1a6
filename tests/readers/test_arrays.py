"""Blocks of rows read from a file equal the array that was written, in bounded memory, or the error says why not."""

from __future__ import annotations

import itertools
import os
import pickle
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.errors import HostileFileError, InputError
from tests.conftest import shared_data
from tests.readers.opening import only, readable

DTYPES = ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i2", ">u2", "<i4", ">i4", "<u8", ">i8", "?"]
FORMATS = ["npy", "joblib", 0, 1, 2, 3, 4, 5]


def save(path: Path, x: np.ndarray, form: str | int) -> Path:
    """Write ``x`` as .npy, by joblib, or as a pickle of the protocol ``form``."""
    path = path.with_suffix(f".{form}" if isinstance(form, str) else ".pickle")
    if form == "npy":
        np.save(path, x, allow_pickle=True)
    elif form == "joblib":
        joblib.dump(x, path)
    else:
        path.write_bytes(pickle.dumps(x, protocol=form))
    return path


def some_array(rng: np.random.Generator, n: int, d: int, dtype: str) -> np.ndarray:
    """Values over the whole range of a dtype, with what is not finite."""
    x = np.dtype(dtype)
    if x.kind in "iu":
        info = np.iinfo(x)
        return rng.integers(info.min, info.max, (n, d), endpoint=True, dtype=x.newbyteorder("=")).astype(x)
    if x.kind == "b":
        return rng.random((n, d)) < 0.5
    values = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-4, 4, (n, d))
    values[rng.random((n, d)) < 0.1] = np.nan
    values[rng.random((n, d)) < 0.1] = -np.inf
    return values.astype(x)


@settings(max_examples=150)
@given(data=st.data())
def test_round_trip(data: st.DataObject) -> None:
    n, d, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 40)), data.draw(st.integers(0, 2**32))
    dtype, form, order = (data.draw(st.sampled_from(values)) for values in (DTYPES, FORMATS, "CF"))
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    x = np.asarray(some_array(np.random.default_rng(seed), n, d, dtype), order=order)
    with tempfile.TemporaryDirectory() as folder:
        source = only(save(Path(folder, "x"), x, form))
        assert source.shape == (n, d)
        assert pickle.loads(pickle.dumps(source)) == source
        source = readable(source.path)
        source = pickle.loads(pickle.dumps(source))
        block = source.read(start, stop)
    stored = np.float16 if dtype[1:] == "f2" else np.float32
    assert source.shape == (n, d)
    assert source.dtype == block.dtype == stored
    assert block.flags.c_contiguous
    assert block.flags.aligned
    assert block.dtype.isnative
    np.testing.assert_array_equal(block, x[start:stop].astype(stored))


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_pieces_larger_than_a_buffer(tmp_path: Path, dtype: str, order: str) -> None:
    """Many rows and many columns, so that every loop over pieces goes round more than once."""
    rng = np.random.default_rng(0)
    for shape in ((40_000, 33), (3, 300_000)):
        x = np.asarray(rng.normal(size=shape).astype(dtype), order=order)
        source = readable(save(tmp_path / "x", x, 4))
        np.testing.assert_array_equal(source.read(1, shape[0]), x[1:].astype(np.float32))


def test_strided_and_transposed_arrays(tmp_path: Path) -> None:
    x = np.arange(120, dtype=np.float32).reshape(10, 12)
    for view, form in itertools.product((x[::2, 1::3], x.T, x[::-1]), FORMATS):
        np.testing.assert_array_equal(readable(save(tmp_path / "x", view, form)).read(0, len(view)), view)


def test_float64_beyond_float32_becomes_infinite(tmp_path: Path) -> None:
    x = np.array([[1e300, -1e300, 1e-300, 1.0]])
    for order in "CF":
        source = readable(save(tmp_path / "x", np.asarray(x, order=order), 4))
        np.testing.assert_array_equal(source.read(0, 1), np.array([[np.inf, -np.inf, 0, 1]], np.float32))


def test_a_bool_of_any_byte_is_one(tmp_path: Path) -> None:
    path = save(tmp_path / "x", np.zeros((1, 3), bool), "npy")
    path.write_bytes(path.read_bytes()[:-3] + b"\x00\x01\xff")
    np.testing.assert_array_equal(readable(path).read(0, 1), [[0, 1, 1]])


REFUSED = [
    (np.zeros(5, np.float32), "1-D"),
    (np.zeros((2, 2, 2), np.float32), "3-D"),
    (np.array(3, np.float32), "0-D"),
    (np.zeros((0, 4), np.float32), "empty"),
    (np.zeros((4, 0), np.float32), "empty"),
    (np.zeros((2, 2), np.complex64), "complex"),
    (np.zeros((2, 2), object), "Python objects"),
    (np.zeros((2, 2), [("a", "f4"), ("b", "i4")]), "structured"),
    (np.zeros((2, 2), "M8[s]"), "dates"),
    (np.zeros((2, 2), "m8[s]"), "time differences"),
    (np.zeros((2, 2), "S3"), "byte strings"),
    (np.zeros((2, 2), "U3"), "texts"),
    (np.zeros((2, 2), np.longdouble), "unknown dtype"),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("x", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused_arrays(tmp_path: Path, x: np.ndarray, words: str, form: str | int) -> None:
    with pytest.raises(InputError, match=words) as caught:
        readable(save(tmp_path / "x", x, form))
    assert "\n" not in str(caught.value)


def npy(header: str, payload: bytes = b"\0" * 24, version: int = 1) -> bytes:
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(header).to_bytes(2 if version == 1 else 4, "little")
        + (header.encode("latin-1") + payload)
    )


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
BAD_NPY = [
    (b"", InputError, "not a .npy"),
    (b"\x93NUMPY\x09\x00" + bytes(40), InputError, "not a .npy"),
    (npy(GOOD, b""), InputError, "truncated"),
    (npy(GOOD)[:-1], InputError, "truncated"),
    (npy(GOOD)[:40], InputError, "header"),
    (npy(GOOD) + b"x", InputError, "after the array"),
    (npy(GOOD.replace("(2, 3)", "(2, -3)")), InputError, "header"),
    (npy(GOOD.replace("(2, 3)", "(4611686018427387904, 4)")), InputError, "truncated"),
    (npy(GOOD.replace("(2, 3)", f"({'9' * 5000}, 4)")), HostileFileError, "impossible shape"),
    (npy(GOOD.replace("(2, 3)", "(2 3, L)")), HostileFileError, "impossible shape"),
    (npy(GOOD.replace("'<f4'", "__import__('os')")), InputError, "header"),
    (npy(GOOD.replace("<f4", "<f4,<f4")), InputError, "unknown dtype"),
    (npy(GOOD.replace("<f4", "=f4")), InputError, "byte order"),
    (npy(GOOD + " " * 20_000), HostileFileError, "header of 20,0"),
    (npy(GOOD, version=2)[:9] + b"\xff\xff\xff" + bytes(60), HostileFileError, "header of"),
]


@pytest.mark.parametrize(("data", "kind", "words"), BAD_NPY)
def test_bad_npy(tmp_path: Path, data: bytes, kind: type[InputError], words: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        readable(path)
    assert isinstance(caught.value, HostileFileError) == (kind is HostileFileError)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_npy_versions_and_foreign_writers(tmp_path: Path, version: int) -> None:
    x = np.arange(6, dtype="<f4").reshape(2, 3)
    path = tmp_path / "x.npy"
    for header in (GOOD, GOOD.replace(", }", "}"), GOOD.replace("(2, 3)", "(2L, 3L)"), GOOD.replace(" ", "")):
        path.write_bytes(npy(header, x.tobytes(), version))
        np.testing.assert_array_equal(readable(path).read(0, 2), x)


@pytest.mark.parametrize("suffix", [".csv", "", ".gz"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"data")
    with pytest.raises(InputError, match=r"unknown suffix .* convert it, such as by numpy\.save to \.npy"):
        readable(path)


def test_only_regular_files(tmp_path: Path) -> None:
    """A pipe would block whoever opens it, so the call has to come back at once."""
    pipe, link, loop = tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "c.npy"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    (tmp_path / "d.npy").mkdir()
    cases = {pipe: "named pipe", link: "device", loop: "cannot be opened", tmp_path / "d.npy": "folder"}
    for path, words in {**cases, tmp_path / "none.npy": "No such file"}.items():
        with pytest.raises(InputError, match=words):
            readable(path)


def test_a_file_that_changes(tmp_path: Path) -> None:
    x = np.zeros((100, 3), np.float32)
    path = save(tmp_path / "x", x, 4)
    source = readable(path)
    data = path.read_bytes()
    for changed in (data[:-40], data + b"more"):
        path.write_bytes(changed)
        with pytest.raises(InputError, match="changed while"):
            source.read(0, 100)
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed while"):
        source.read(0, 1)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        source.read(0, 1)


def test_rows_outside_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    source = readable(save(tmp_path / "x", np.zeros((5, 2), np.float32), "npy"))
    for start, stop in ((-1, 2), (0, 6), (3, 2)):
        with pytest.raises(ValueError, match="of 5"):
            source.read(start, stop)


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(5000, 20)).astype(np.float32)
    source = readable(save(tmp_path / "x", x, 5))
    barrier = threading.Barrier(8)

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        barrier.wait()
        for _ in range(50):
            start, stop = np.sort(rng.integers(0, 5001, 2))
            if not np.array_equal(source.read(start, stop), x[start:stop]):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def sparse_pickle(path: Path, n: int, d: int, dtype: str, *, fortran: bool) -> None:
    """A protocol 3 pickle of an (n, d) array of zeros whose payload is a hole in the file."""
    small = pickle.dumps(np.zeros((1, 1000), dtype), protocol=3)
    payload = b"B" + (1000 * np.dtype(dtype).itemsize).to_bytes(4, "little")
    head, tail = small.split(payload + bytes(1000 * np.dtype(dtype).itemsize))
    shape = b"J" + n.to_bytes(4, "little") + b"J" + d.to_bytes(4, "little")
    head = head.replace(b"K\x01M\xe8\x03", shape)
    head = head[:-1] + (b"\x88" if fortran else b"\x89")
    size = n * d * np.dtype(dtype).itemsize
    with path.open("wb") as file:
        file.write(head + b"B" + size.to_bytes(4, "little"))
        file.seek(size, os.SEEK_CUR)
        file.write(tail)


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_memory_is_the_block_and_little_more(tmp_path: Path, dtype: str, fortran: bool) -> None:
    path, n, d = tmp_path / "x.pickle", 200_000_000 // 1000 // np.dtype(dtype).itemsize, 1000
    sparse_pickle(path, n, d, dtype, fortran=fortran)
    tracemalloc.start()
    try:
        source = readable(path)
        assert tracemalloc.get_traced_memory()[1] < 200_000
        block = source.read(n // 2, n // 2 + 4000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert source.shape == (n, d)
    assert not block.any()
    assert peak < block.nbytes + 5_000_000


@pytest.mark.parametrize("name", ["osnet", "vdc", "vdc_mid"])
def test_real_descriptors(name: str) -> None:
    path = shared_data(f"vehicles/base/descriptors/{name}.pickle")
    with path.open("rb") as file:
        x = pickle.load(file)
    source = readable(path)
    cuts = [0, 1, 1000, 4097, len(x)]
    blocks = [source.read(a, b) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(blocks), x)
