"""HDF5 equals what was written; links, other files' numbers and foreign filters are refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest

from streamclust.errors import HostileFileError, InputError
from streamclust.readers import foreign
from tests.readers.opening import matrices, readable
from tests.readers.test_arrays import some_array

LAYOUTS = {
    "contiguous": {},
    "rows": {"chunks": (7, 12), "compression": "gzip", "shuffle": True},
    "tiles": {"chunks": (16, 5), "compression": "lzf"},
    "columns": {"chunks": (50, 1), "fletcher32": True},
    "compact": {"chunks": (1, 1)},
}


def test_layouts_and_dtypes(tmp_path: Path) -> None:
    """Every dataset of a file is read by its name; what is no matrix is passed over."""
    path, rng = tmp_path / "x.h5", np.random.default_rng(0)
    dtypes = itertools.cycle(["<f2", ">f4", "<f8", "i1", ">u8"])
    wanted = {f"deep/{layout}": some_array(rng, 50, 12, next(dtypes)) for layout in LAYOUTS}
    with h5py.File(path, "w") as file:
        for name, x in wanted.items():
            file.create_dataset(name, data=x, **LAYOUTS[name.removeprefix("deep/")])
        file["alias"] = h5py.SoftLink("/deep/rows")
        file["paths"] = ["a", "b"]
        file["cube"] = np.zeros((2, 2, 2))
        file["nothing"] = h5py.Empty("f4")
    found = matrices(path)
    assert sorted(found) == sorted(wanted)
    for name, x in wanted.items():
        stored = np.float16 if x.dtype.str == "<f2" else np.float32
        assert found[name].dtype == stored
        with np.errstate(over="ignore"):
            for start, stop in ((0, 50), (3, 29), (49, 50), (7, 7)):
                np.testing.assert_array_equal(found[name].read(start, stop), x[start:stop].astype(stored))


def test_bands_of_tall_chunks(tmp_path: Path) -> None:
    """Chunks over all rows are read by columns."""
    x = np.random.default_rng(0).normal(size=(60_000, 450)).astype(np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(60_000, 50))
    source = readable(tmp_path / "x.h5")
    assert source.fortran
    np.testing.assert_array_equal(source.read(100, 5000), x[100:5000])


def spoil(path: Path, what: str) -> None:
    x = np.ones((4, 3), np.float32)
    with h5py.File(path, "w") as file:
        match what:
            case "external link":
                file["x"] = x
                file["y"] = h5py.ExternalLink("/etc/passwd", "/x")
            case "external storage":
                file.create_dataset("x", (4, 3), "f4", external=[(path.with_suffix(".raw"), 0, 48)])[:] = x
            case "virtual":
                layout = h5py.VirtualLayout((4, 3), "f4")
                layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "x", (4, 3))
                file.create_virtual_dataset("x", layout)
            case "filter":
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_chunk((4, 3))
                plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
                space = h5py.h5s.create_simple((4, 3))
                h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plist)
            case "holes":
                file.create_dataset("x", (4, 3), "f4", chunks=(1, 3))[:2] = 1
            case "never written":
                file.create_dataset("x", (4, 3), "f4")
            case "huge and never written":
                file.create_dataset("x", (2**40, 2**20), "f4", chunks=(1, 1024))
            case "enum":
                file.create_dataset("x", (4, 3), h5py.enum_dtype({"a": 0}))[:] = 0
            case "nothing":
                pass
            case "large chunks":
                data = np.zeros((30_000, 1000), np.float32)
                file.create_dataset("x", data=data, chunks=(30_000, 1000), compression="gzip")
            case "a loop":
                file["x"] = x[0]
                file["g/loop"] = file["/"]


SPOILT = {
    "external link": (HostileFileError, "leads to another file"),
    "external storage": (HostileFileError, "numbers in another file"),
    "virtual": (HostileFileError, "numbers in another file"),
    "filter": (InputError, "the filter 32015"),
    "holes": (InputError, "never written"),
    "never written": (InputError, "never written"),
    "huge and never written": (InputError, "never written"),
    "enum": (InputError, "structured"),
    "nothing": (InputError, "holds 0 arrays"),
    "large chunks": (InputError, "chunks of 30,000 x 1,000"),
    "a loop": (InputError, "1-D"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_files(tmp_path: Path, what: str) -> None:
    spoil(tmp_path / "x.h5", what)
    kind, words = SPOILT[what]
    with pytest.raises(InputError, match=words) as caught:
        matrices(tmp_path / "x.h5")
    assert isinstance(caught.value, HostileFileError) == (kind is HostileFileError)
    assert "\n" not in str(caught.value)


def test_a_library_that_dies_is_one_line(tmp_path: Path, monkeypatch) -> None:
    """As a broken file may make it."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.ones((4, 3))
    monkeypatch.setenv("PYTHONFAULTHANDLER", "0")
    monkeypatch.setattr(foreign, "MEMORY_BYTES", 1 << 20)  # not enough to load the library
    with pytest.raises(InputError) as caught:
        matrices(tmp_path / "x.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"chunks": (1000, 500), "compression": "lzf"}])
def test_memory_does_not_follow_the_rows(tmp_path: Path, monkeypatch, how: dict) -> None:
    """160 MB by a process that may allocate 130 MiB, of which the libraries take most."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).normal(size=(80_000, 500)).astype(np.float32), **how)
    monkeypatch.setattr(foreign, "MEMORY_BYTES", 130 << 20)
    source = readable(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(source.read(70_000, 80_000), file["x"][70_000:])
