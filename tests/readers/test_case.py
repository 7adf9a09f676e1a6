"""A case folder is opened as a whole, or refused in one line that says which of its files is at fault."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamclust.errors import InputError
from streamclust.readers.case import open_case
from streamclust.readers.pictures import read_picture
from tests.conftest import shared_data

N = 5


def make_case(folder: Path, n: int = N) -> Path:
    """Two descriptors, a table and a zip."""
    (folder / "descriptors").mkdir(parents=True)
    (folder / "row_data").mkdir()
    x = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    np.save(folder / "descriptors" / "colour.npy", x)
    (folder / "descriptors" / "osnet.v2.pickle").write_bytes(pickle.dumps(x.astype(np.float64), protocol=4))
    names = [f"cars/{i}.png" for i in range(n)]
    (folder / "images_paths.csv").write_text("path,camera\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with zipfile.ZipFile(folder / "row_data" / "images.zip", "w") as file:
        for name in names:
            file.writestr(name, picture.getvalue())
    return folder


def test_a_whole_case(tmp_path: Path) -> None:
    case = open_case(make_case(tmp_path / "cars"), columns={"cam": "camera"})
    assert case.name == "cars"
    assert list(case.descriptors) == ["colour", "osnet.v2"]
    assert [source.shape for source in case.descriptors.values()] == [(N, 3), (N, 3)]
    assert case.paths.columns == {"cam": "int64"}
    assert (case.pictures.locate(case.paths.read(0, N)["path"])[0] >= 0).all()
    assert pickle.loads(pickle.dumps(case)) == case


def test_notes_and_hidden_files_are_let_be(tmp_path: Path) -> None:
    folder = make_case(tmp_path / "cars")
    for name in (".DS_Store", "._osnet.pickle", "README.md", "made.txt"):
        (folder / "descriptors" / name).write_text("note")
    assert list(open_case(folder).descriptors) == ["colour", "osnet.v2"]


def test_other_places(tmp_path: Path) -> None:
    folder = make_case(tmp_path / "cars")
    (folder / "images_paths.csv").rename(folder / "row_data" / "images_paths.csv")
    (folder / "descriptors" / "colour.npy").rename(tmp_path / "elsewhere.npy")
    (folder / "descriptors" / "colour.NPY").symlink_to(tmp_path / "elsewhere.npy")
    (folder / "row_data" / "images.zip").rename(tmp_path / "p.zip")
    assert open_case(folder).pictures is None
    case = open_case(folder, pictures=tmp_path / "p.zip")
    assert case.paths.path.parent.name == "row_data"
    assert case.pictures.root == tmp_path / "p.zip"


def test_several_in_one_file(tmp_path: Path) -> None:
    folder = make_case(tmp_path / "cars")
    x = np.arange(N * 2, dtype=np.float16).reshape(N, 2)
    (folder / "descriptors" / "all.pickle").write_bytes(pickle.dumps({"b": x, "a": [x[:2], x[2:]]}, protocol=4))
    (folder / "descriptors" / "one.pickle").write_bytes(pickle.dumps({"features": x}, protocol=4))
    assert list(open_case(folder).descriptors) == ["all.a", "all.b", "colour", "one", "osnet.v2"]


@pytest.mark.parametrize("sizes", [[1, 2, 2], [5], [1] * 5])
def test_a_folder_of_parts_is_one_descriptor_in_natural_order(tmp_path: Path, sizes: list[int]) -> None:
    folder = make_case(tmp_path / "cars")
    place = folder / "descriptors" / "parts.v1"
    place.mkdir()
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    names = ["part-9", "part-10", "part-11.5", "part-100", "part-101"]
    (place / "_SUCCESS").touch()
    (place / "notes.txt").touch()
    for name, rows in zip(names, np.split(x, np.cumsum(sizes)[:-1]), strict=False):
        np.save(place / f"{name}.npy", rows)
    source = open_case(folder).descriptors["parts.v1"]
    assert source.shape == (N, 3)
    for start in range(N + 1):
        for stop in range(start, N + 1):
            np.testing.assert_array_equal(source.read(start, stop), x[start:stop])
    with pytest.raises(ValueError, match="of 5"):
        source.read(3, N + 1)
    before = source.fingerprint
    os.utime(place / "part-9.npy", ns=(1, 1))
    assert open_case(folder).descriptors["parts.v1"].fingerprint != before
    assert open_case(folder).descriptors["parts.v1"].fingerprint[0] == before[0]


@pytest.mark.parametrize("pattern", ["type-*.npy", "2026/*/type.npy"])
def test_files_that_fit_a_pattern_are_one_descriptor_in_natural_order(tmp_path: Path, pattern: str) -> None:
    folder = make_case(tmp_path / "cars")
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    for number, rows in zip((2, 9, 10), np.split(x, [1, 3]), strict=True):
        path = folder / "descriptors" / pattern.replace("*", str(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows)
    case = open_case(folder, parts={"type": pattern})
    assert list(case.descriptors) == ["colour", "osnet.v2", "type"]
    np.testing.assert_array_equal(case.descriptors["type"].read(0, N), x)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"a": "a-*.npy"}, "a-*.npy: no file is there; expected a file for each part"),
        ({"a": "../*"}, "parts '../*': leads out of the case"),
        ({"a": "/etc/*"}, "parts '/etc/*': leads out of the case"),
        ({"a": ""}, "parts '': leads out of the case"),
        ({"a": "*.npy", "b": "colour.*"}, "colour.npy: is a part of a and of b"),
        ({"a b": "*.npy"}, "'a b' cannot be the name of a descriptor"),
        ({"osnet.v2": "*.npy"}, "osnet.v2.pickle: and colour.npy are the same descriptor"),
    ],
)
def test_patterns_that_cannot_be_used(tmp_path: Path, parts: dict[str, str], said: str) -> None:
    folder = make_case(tmp_path / "cars")
    with pytest.raises(InputError) as caught:
        open_case(folder, parts=parts)
    assert said in str(caught.value)


def change(folder: Path, what: str) -> Path:
    """Spoil a good case in one way; the folder to open."""
    descriptors = folder / "descriptors"
    x = np.zeros((N + 1, 2), np.float32)
    match what:
        case "no folder":
            return folder / "none"
        case "a file":
            return folder / "images_paths.csv"
        case "empty":
            shutil.rmtree(folder)
            folder.mkdir()
        case "no descriptors":
            shutil.rmtree(descriptors)
        case "empty descriptors":
            shutil.rmtree(descriptors)
            descriptors.mkdir()
        case "no table":
            (folder / "images_paths.csv").unlink()
        case "two of a name":
            (descriptors / "colour.pkl").write_bytes(pickle.dumps(x, protocol=4))
        case "a bad name" | "a hyphen first":
            np.save(descriptors / {"a bad name": "a b.npy", "a hyphen first": "-rf.npy"}[what], x)
        case "a bad key":
            (descriptors / "more.pickle").write_bytes(pickle.dumps({"a": x[:N], "b c": x[:N]}, protocol=4))
        case "a key of another count":
            (descriptors / "more.pickle").write_bytes(pickle.dumps({"a": x[:N], "b": x}, protocol=4))
        case "an empty folder":
            (descriptors / "more").mkdir()
        case "parts of other widths":
            (descriptors / "more").mkdir()
            np.save(descriptors / "more" / "0.npy", x[:2])
            np.save(descriptors / "more" / "1.npy", x[:2, :1])
        case "a part of several":
            (descriptors / "more").mkdir()
            (descriptors / "more" / "0.pickle").write_bytes(pickle.dumps({"a": x, "b": x}, protocol=4))
        case "an unknown format":
            (descriptors / "more.pickle.gz").write_bytes(b"\x1f\x8b")
        case "a folder":
            (descriptors / "more.npy").mkdir()
        case "another count":
            np.save(descriptors / "type.npy", x)
        case "a hostile pickle":
            (descriptors / "bad.pickle").write_bytes(b"\x80\x03cos\nsystem\nX\x04\0\0\0true\x85R.")
    return folder


SPOILT = {
    "no folder": "none: does not exist",
    "a file": "images_paths.csv: is not a folder",
    "empty": "cars: has no folder 'descriptors'",
    "no descriptors": "cars: has no folder 'descriptors'",
    "empty descriptors": "descriptors: is empty",
    "no table": "cars: has no images_paths.csv",
    "two of a name": "colour.pkl: and colour.npy are the same descriptor",
    "a bad name": "'a b' cannot be the name of a descriptor",
    "a hyphen first": "'-rf' cannot be the name of a descriptor",
    "a bad key": "more.pickle: 'more.b c' cannot be the name",
    "a key of another count": "more.pickle (more.a) 5, more.pickle (more.b) 6",
    "an empty folder": "more: is empty; expected a file for each part",
    "parts of other widths": "1.npy: has 1 columns; expected 2, as the first part has",
    "a part of several": "0.pickle: holds 2 matrices (a, b); expected one in each part",
    "an unknown format": "more.pickle.gz: has the unknown suffix '.gz'",
    "a folder": "more.npy: is empty; expected a file for each part",
    "another count": "different numbers of rows: colour.npy 5, osnet.v2.pickle 5, type.npy 6, images_paths.csv 5",
    "a hostile pickle": "bad.pickle: asks for 'os.system'",
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_cases(tmp_path: Path, what: str) -> None:
    folder = change(make_case(tmp_path / "cars"), what)
    with pytest.raises(InputError) as caught:
        open_case(folder)
    assert SPOILT[what] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_real_case() -> None:
    case = open_case(shared_data("vehicles/base"))
    assert {name: source.shape for name, source in case.descriptors.items()} == {
        "osnet": (6080, 512), "vdc": (6080, 128), "vdc_mid": (6080, 128),
    }  # fmt: skip
    paths = case.paths.read(0, case.paths.n)["path"]
    offsets, sizes = case.pictures.locate(paths)
    assert ((offsets >= 0) & (sizes > 0)).all()
    with zipfile.ZipFile(case.pictures.root) as file:
        for i in range(0, 6080, 304):
            image = read_picture(case.pictures, str(paths[i]), int(offsets[i]), int(sizes[i]))
            expected = Image.open(io.BytesIO(file.read(str(paths[i])))).convert("RGB")
            np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_real_days() -> None:
    for folder in sorted(shared_data("vehicles/daily").iterdir()):
        case = open_case(folder)
        offsets, _ = case.pictures.locate(case.paths.read(0, case.paths.n)["path"])
        assert (offsets >= 0).all()
        assert case.name == folder.name
