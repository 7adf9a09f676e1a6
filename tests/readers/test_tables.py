"""The paths table: what is accepted, what is refused on which line, and that blocks read alone equal the whole."""

from __future__ import annotations

import csv
import hashlib
import io
import pickle
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.errors import InputError
from streamclust.readers import tables
from streamclust.readers.tables import PathsTable, open_paths
from tests.conftest import shared_data


def table(folder: Path, data: str | bytes, **options: object) -> PathsTable:
    path = folder / "images_paths.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_paths(path, **options)


def whole(source: PathsTable) -> dict[str, list[object]]:
    """All columns as lists, gathered block by block."""
    out: dict[str, list[object]] = {name: [] for name in ["path", *source.columns]}
    for start in range(0, source.n, source.block_rows):
        for name, values in source.read(start, min(start + source.block_rows, source.n)).items():
            out[name] += values.tolist()
    return out


def refusal(folder: Path, data: str | bytes, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        table(folder, data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


A, B = "cars/a.jpg", "cars/b.jpg"
ACCEPTED = [
    ("with an unnamed index", f",paths\n0,{A}\n1,{B}\n", {}),
    ("with pandas' name for it", f"Unnamed: 0,paths\n0,{A}\n1,{B}\n", {}),
    ("one column", f"paths\n{A}\n{B}\n", {}),
    ("one column of another name", f"picture\n{A}\n{B}\n", {}),
    ("no end of the last line", f"path\n{A}\n{B}", {}),
    ("byte order mark", f"\ufeffpath\n{A}\n{B}\n", {}),
    ("byte order mark, no header", f"\ufeff{A}\n{B}\n", {}),
    ("CRLF", f",paths\r\n0,{A}\r\n1,{B}\r\n", {}),
    ("capitals and spaces", f" Image_Path \n{A}\n{B}\n", {}),
    ("no header", f"{A}\n{B}\n", {}),
    ("no header, with an index", f"0,{A}\n1,{B}\n", {}),
    ("no header, with an index from 1", f"1,{A}\n2,{B}\n", {}),
    ("blank lines", f"\npath\n\n{A}\n\n\n{B}\n\n", {}),
    ("quotes", f'"","paths"\n"0","{A}"\n"1","{B}"\n', {}),
    ("metadata", f"camera,path\n1,{A}\n2,{B}\n", {"camera": [1, 2]}),
    ("no header, metadata", f"{A},north\n{B},south\n", {"column_1": ["north", "south"]}),
    ("names to clean", f"camera id,path,时间\n1,{A},x\n2,{B},y\n", {"camera_id": [1, 2], "column_2": ["x", "y"]}),
    ("path before image", f"image,path\n7,{A}\n8,{B}\n", {"image": [7, 8]}),
]


@pytest.mark.parametrize(("data", "metadata"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
@pytest.mark.parametrize("block_rows", [1, 2, 65536])
def test_accepted(tmp_path: Path, data: str, metadata: dict[str, list[object]], block_rows: int) -> None:
    source = table(tmp_path, data, block_rows=block_rows)
    assert source.n == 2
    assert whole(source) == {"path": [A, B], **metadata}
    assert source.digest == hashlib.sha256(f"{A}\n{B}".encode()).hexdigest()


LINES = f"path\n{A}\n"
REFUSED = [
    ("empty", "", "is empty"),
    ("only blank lines", "\n\n", "is empty"),
    ("only a header", "path\n", "no rows"),
    ("an empty path", ",path\n0,x.jpg\n1,\n", "line 3: the path is empty"),
    ("a path of blanks", LINES + '"  "\n', "line 3: the path '  ' is empty"),
    ("absolute", LINES + "/etc/passwd\n", "line 3: the path '/etc/passwd' is absolute"),
    ("absolute on Windows", LINES + "C:\\a.jpg\n", "line 3: the path 'C:\\\\a.jpg' is absolute"),
    ("a share", LINES + "\\\\host\\a.jpg\n", "is absolute"),
    ("upwards", LINES + "a/../../b.jpg\n", "line 3: the path 'a/../../b.jpg' leads upwards"),
    ("upwards on Windows", LINES + "a\\..\\b.jpg\n", "leads upwards"),
    ("NUL", LINES + "a\0b.jpg\n", "line 3: the path 'a\\x00b.jpg' holds a NUL"),
    ("control characters", LINES + "/\x1b[2J\n", "'/\\x1b[2J' is absolute"),
    ("twice", LINES + f"x.jpg\n{A}\n", f"lines 2 and 4 have the same path '{A}'"),
    ("twice after quoted lines", f'path,note\n{A},"1\n2\n3"\n{A},x\n', "lines 4 and 5 have the same path"),
    ("more columns", LINES + "b.jpg,c.jpg\n", "line 3: has 2 columns; expected 1 as above; put quotes"),
    ("fewer columns", ",path\n0,a.jpg\nb.jpg\n", "line 3: has 1 columns"),
    ("an open quote", LINES + '"b.jpg\nc.jpg\n', "is not CSV"),
    ("an open quote, endless", LINES + '"b.jpg\n' + "c.jpg\n" * 50_000, "is not CSV"),
    ("text after a quote", LINES + '"b".jpg\n', "line 3: is not CSV"),
    ("old line ends", "path\rx.jpg\ry.jpg\r", "line 1: is not CSV"),
    ("a long line", "path\n" + "x" * 2_000_000, "line 2: is longer than"),
    (
        "not UTF-8",
        b"path\nx.jpg\n\xe9.jpg\n",
        "line 3: is not utf-8; name its encoding, such as --path-encoding latin-1",
    ),
    ("UTF-16", "path\nx.jpg\n".encode("utf-16"), "line 1: is not utf-8"),
    ("no path column", "camera,time\n1,2\n", "no path column among camera, time"),
    ("says how to name it", "camera,time\n1,2\n", "--columns path=COL"),
    ("semicolons", "path;camera\nx.jpg;1\n", "its columns are separated by semicolons (path;camera); expected commas"),
    (
        "semicolons without a header",
        "x.jpg;1\n",
        "by semicolons (x.jpg;1); expected commas; write it with commas and put that in its place, such as by",
    ),
    ("tabs", "path\tcamera\nx.jpg\t1\n", "its columns are separated by tabs"),
    ("the same name twice", "path,a b,a_b\nx.jpg,1,2\n", "two columns would be called 'a_b'"),
]


@pytest.mark.parametrize(("data", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
@pytest.mark.parametrize("block_rows", [1, 65536])
def test_refused(tmp_path: Path, data: str | bytes, words: str, block_rows: int) -> None:
    message = refusal(tmp_path, data, block_rows=block_rows)
    assert words in message
    assert "images_paths.csv" in message


def test_columns_can_be_named(tmp_path: Path) -> None:
    data = "cam,img,when\n1,a.jpg,x\n2,b.jpg,y\n"
    source = table(tmp_path, data, columns={"camera": "cam", "path": "img"})
    assert whole(source) == {"path": ["a.jpg", "b.jpg"], "camera": [1, 2], "when": ["x", "y"]}
    for columns, words in [
        ({"camera": "kamera"}, "column 'kamera' is not there; expected one of cam, img, when"),
        ({"a b": "cam", "path": "img"}, "'a b' is not a name"),
        ({"when": "cam", "path": "img"}, "two columns would be called 'when'"),
    ]:
        assert words in refusal(tmp_path, data, columns=columns)
    assert "comes twice" in refusal(tmp_path, "path,a,a\nx.jpg,1,2\n", columns={"b": "a"})


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030", "shift_jis", "utf-8-sig"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    name = {"latin-1": "é", "cp1252": "é", "utf-8-sig": "é"}.get(encoding, "車")
    source = table(tmp_path, f"path\n{name}/1.jpg\n".encode(encoding), encoding=encoding)
    assert source.read(0, 1)["path"].tolist() == [f"{name}/1.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "cp037", "hex", "no such", "undefined", "\0"])
def test_unsuitable_encodings(tmp_path: Path, encoding: str) -> None:
    assert "--path-encoding" in refusal(tmp_path, LINES, encoding=encoding)


KINDS = [
    (["1", "-2", "0"], "int64", [1, -2, 0]),
    (["123456789012345678", "1"], "int64", [123456789012345678, 1]),
    (["1234567890123456789", "1"], "string", None),  # more digits than an int64 surely holds
    (["123456789012345678", ""], "string", None),  # a float64 would lose digits
    (["007", "12"], "string", None),  # leading zeros name something
    (["1", ""], "float64", [1.0, np.nan]),
    (["1", "2.5", "-3e-2", "nan", "-inf"], "float64", [1, 2.5, -0.03, np.nan, -np.inf]),
    (["", ""], "string", None),
    (["1", "north"], "string", None),
    (["1_000", "2"], "string", None),
    (["\u0661", "2"], "string", None),  # a digit, but not an ASCII one
    ([" 1", "2"], "string", None),
    (["+1", "2"], "string", None),
]


@pytest.mark.parametrize(("values", "kind", "expected"), KINDS)
@pytest.mark.parametrize("block_rows", [1, 2, 65536])
def test_types(tmp_path: Path, values: list[str], kind: str, expected: list[float] | None, block_rows: int) -> None:
    data = "path,x\n" + "".join(f"{i}.jpg,{value}\n" for i, value in enumerate(values))
    source = table(tmp_path, data, block_rows=block_rows)
    assert source.columns == {"x": kind}
    found = np.concatenate(
        [source.read(i, i + 1)["x"] for i in range(0, source.n, 1)]
        if block_rows == 1
        else [source.read(0, source.n)["x"]]
    )
    np.testing.assert_array_equal(found, np.array(values, np.dtypes.StringDType()) if expected is None else expected)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=100)
@given(data=st.data())
def test_any_blocks_equal_the_whole(data: st.DataObject) -> None:
    """Against the csv module, over commas, quotes and newlines in paths and any size of block."""
    n, block_rows = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 12))
    rows = [
        (f"{data.draw(texts)}/{i}.jpg".replace(":", "").replace("..", "").lstrip("/\\"), data.draw(texts))
        for i in range(n)
    ]
    ends, mark = data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.sampled_from(["", "\ufeff"]))
    file = io.StringIO()
    csv.writer(file, lineterminator=ends).writerows([("path", "note"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        source = table(Path(folder), mark + file.getvalue(), block_rows=block_rows)
        source = pickle.loads(pickle.dumps(source))
        paths, digest = [path for path, _ in rows], hashlib.sha256("\n".join(path for path, _ in rows).encode())
        assert (source.n, source.digest) == (n, digest.hexdigest())
        assert whole(source)["path"] == paths
        if source.columns["note"] == "string":
            assert whole(source)["note"] == [note for _, note in rows]
        start = data.draw(st.integers(0, (n - 1) // block_rows)) * block_rows
        stop = data.draw(st.integers(start, n))
        assert source.read(start, stop)["path"].tolist() == paths[start:stop]
        with pytest.raises(ValueError, match="in blocks of"):
            source.read(0, n + 1)


def test_a_block_begins_at_a_block(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in blocks of 65536"):
        table(tmp_path, f"path\n{A}\n{B}\n").read(1, 2)


def test_duplicates_are_found_in_several_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i}.jpg" for i in range(5000)]
    for first, second in ((0, 4999), (123, 124), (10, 2500)):
        again = [*names[:second], names[first], *names[second + 1 :]]
        for at_once in (700, 4999, 5000):
            monkeypatch.setattr(tables, "_HASHES_AT_ONCE", at_once)
            message = refusal(tmp_path, "path\n" + "\n".join(again), block_rows=64)
            assert f"lines {first + 2} and {second + 2} have" in message
            assert table(tmp_path, "path\n" + "\n".join(names), block_rows=64).n == 5000


def test_equal_hashes_are_not_equal_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "hash64", lambda paths: np.zeros(len(paths), np.uint64))
    assert table(tmp_path, f"path\n{A}\n{B}\n").n == 2
    assert "lines 2 and 4" in refusal(tmp_path, f"path\n{A}\n{B}\n{A}\n")


def test_a_table_that_changes(tmp_path: Path) -> None:
    source = table(tmp_path, f"path\n{A}\n{B}\n")
    source.path.write_text(f"path\n{A}\nother.jpg\n")
    with pytest.raises(InputError, match="changed while"):
        source.read(0, 2)


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    names = [f"{i}/{i * i}.jpg" for i in range(3000)]
    source = table(tmp_path, "path\n" + "\n".join(names), block_rows=100)
    barrier = threading.Barrier(6)

    def work(seed: int) -> bool:
        barrier.wait()
        starts = np.random.default_rng(seed).permutation(30)[:10] * 100
        return all(source.read(int(s), int(s) + 100)["path"].tolist() == names[s : s + 100] for s in starts)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_memory_is_a_block_and_eight_bytes_per_row(tmp_path: Path) -> None:
    peaks = []
    for n in (20_000, 100_000):
        data = "path,camera\n" + "".join(f"cars/2026-01-01/{i:08d}.jpg,{i % 7}\n" for i in range(n))
        path = tmp_path / "images_paths.csv"
        path.write_text(data)
        tracemalloc.start()
        open_paths(path, block_rows=4096)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 80_000 * 8 * 4  # the hashes, their sorted copy and what compares them


def test_a_real_table() -> None:
    path = shared_data("vehicles/base/images_paths.csv")
    with path.open(newline="") as file:
        expected = [row[1] for row in csv.reader(file)][1:]
    source = open_paths(path, block_rows=1000)
    assert (source.n, source.columns) == (6080, {})
    assert whole(source)["path"] == expected


@pytest.mark.parametrize("mark", [";", "\t"])
def test_what_is_said_of_another_separator_mends_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """The hint is a line of Python that can be copied."""
    said = refusal(tmp_path, f"path{mark}camera\na,1.jpg{mark}007\nb.jpg{mark}08\n")
    monkeypatch.chdir(tmp_path)
    exec(said.partition("Python's ")[2], {"pandas": pd})
    source = open_paths(tmp_path / "commas.csv")
    assert whole(source) == {"path": ["a,1.jpg", "b.jpg"], "camera": ["007", "08"]}
