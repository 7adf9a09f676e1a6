"""Real files of every format, mutated: they are read or refused in one line, in bounded time and memory."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamclust.errors import InputError
from streamclust.readers.tables import open_paths
from tests.readers.opening import matrices

X = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
ROWS = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 8)
SECONDS = 60.0  # generous: a machine may have other work


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=X, chunks=(16, 8), compression="gzip", shuffle=True)
        file["b/c"] = X.astype(">f8")


def _zarr(path: Path) -> None:
    zarr.create_array(path / "a", shape=X.shape, chunks=(16, 8), dtype="f4")[:] = X
    zarr.create_array(path / "b", shape=X.shape, chunks=(4, 8), shards=(16, 8), dtype="f4")[:] = X


HERE: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"pickle {p}": ("x.pickle", lambda path, p=p: path.write_bytes(pickle.dumps({"a": X, "b": [X, X]}, p)))
       for p in range(6)},
    "joblib": ("x.joblib", lambda path: joblib.dump([X, X], path)),
    "npy": ("x.npy", lambda path: np.save(path, X)),
    "npz": ("x.npz", lambda path: np.savez(path, X, b=X)),
    "npz deflated": ("x.npz", lambda path: np.savez_compressed(path, X, b=X)),
}  # fmt: skip
ELSEWHERE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "parquet": ("x.parquet", lambda path: pq.write_table(pa.table({"a": ROWS, "p": ["x"] * 60}), path)),
    "parquet columns": (
        "x.parquet",
        lambda path: pq.write_table(pa.table({f"f{i}": X[:, i] for i in range(8)}), path, compression="zstd"),
    ),
    "hdf5": ("x.h5", _hdf5),
    "zarr": ("x.zarr", _zarr),
}

LINES = [f"a/{i}.jpg,{i % 7},{i * 0.37:.3f},2026-01-{i % 28 + 1:02}" for i in range(40)]
QUOTED = "".join(f'"b, {i}/""q"".jpg","two\nlines"\r\n' for i in range(30))
TABLES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "csv": ("x.csv", lambda path: path.write_text("\n".join(["path,camera,speed,day", *LINES, ""]))),
    "csv without a header": ("x.csv", lambda path: path.write_bytes("\r\n".join(LINES).encode())),
    "csv quoted": ("x.csv", lambda path: path.write_text(f"path,note\r\n{QUOTED}", "utf-8-sig", newline="")),
    "csv in Latin-1": ("latin.csv", lambda path: path.write_text("\n".join(f"ü{i}.png" for i in range(30)), "latin-1")),
}


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Where, as a share of the file, and what: bytes put over, put in, taken out, repeated, or the rest cut off."""
    what = st.sampled_from(["over", "over", "in", "out", "repeat", "cut"])
    data = st.binary(min_size=1, max_size=8) | st.sampled_from(
        [b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"-1", b"9" * 18]
    )
    return draw(st.lists(st.tuples(what, st.floats(0, 1), data), min_size=1, max_size=4))


def mutate(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for what, share, new in changes:
        at, size = int(share * len(data)), len(new)
        match what:
            case "over":
                data = data[:at] + new + data[at + size :]
            case "in":
                data = data[:at] + new + data[at:]
            case "out":
                data = data[:at] + data[at + size :]
            case "repeat":
                data = data[:at] + data[at : at + 64 * size] * 2 + data[at + 64 * size :]
            case "cut":
                data = data[:at]
    return data


def read_matrices(path: Path) -> None:
    for source in matrices(path).values():
        source.read(0, min(source.shape[0], 1000))


def read_table(path: Path) -> None:
    table = open_paths(path, encoding="latin-1" if path.stem == "latin" else "utf-8")
    table.read(0, table.n)


def attack(
    form: tuple[str, Callable[[Path], object]],
    which: int,
    changes: list[tuple[str, float, bytes]],
    read: Callable[[Path], object] = read_matrices,
) -> None:
    """One mutated file: read whole, or refused."""
    name, write = form
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        target = files[which % len(files)]
        target.write_bytes(mutate(target.read_bytes(), changes))
        before = {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")}
        begin = time.monotonic()
        tracemalloc.start()
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - it may as well be read
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert time.monotonic() - begin < SECONDS
        assert peak < 50_000_000
        shutil.rmtree(Path(folder, f".{name}.unpacked"), ignore_errors=True)
        assert {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")} == before


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("form", HERE)
@given(which=st.integers(0, 20), changes=mutations())
@settings(max_examples=60, **QUIET)
def test_a_short_round(form: str, which: int, changes: list[tuple[str, float, bytes]]) -> None:
    attack(HERE[form], which, changes)


@pytest.mark.parametrize("form", TABLES)
@given(which=st.just(0), changes=mutations())
@settings(max_examples=60, **QUIET)
def test_a_short_round_of_tables(form: str, which: int, changes: list[tuple[str, float, bytes]]) -> None:
    attack(TABLES[form], which, changes, read_table)


@pytest.mark.parametrize("form", ELSEWHERE)
@given(which=st.integers(0, 20), changes=mutations())
@settings(max_examples=4, **QUIET)
def test_a_short_round_of_foreign_formats(form: str, which: int, changes: list[tuple[str, float, bytes]]) -> None:
    attack(ELSEWHERE[form], which, changes)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=pytest.mark.long if form in ELSEWHERE else pytest.mark.slow)
        for form in HERE | ELSEWHERE
    ],
)
@given(which=st.integers(0, 20), changes=mutations())
@settings(max_examples=150, **QUIET)
def test_a_long_round(form: str, which: int, changes: list[tuple[str, float, bytes]]) -> None:
    attack((HERE | ELSEWHERE)[form], which, changes)
