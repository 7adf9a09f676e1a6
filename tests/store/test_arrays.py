"""Arrays: what was written is read, and what was damaged is an error that names the file."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamclust.errors import DamageError
from streamclust.store import arrays, metadata
from streamclust.store.rows import leaves
from tests.faults import assert_tidy, job_on, no_fsync, random_rows, write_case

TEXT = np.dtypes.StringDType()
DTYPES = st.sampled_from(["float32", "float16", "float64", "int64", "int32", "uint8", "bool", "uint64"])


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


@st.composite
def values(draw: st.DrawFn) -> np.ndarray:
    if draw(st.integers(0, 4)) == 0:
        text = draw(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=20))
        return np.array(text, TEXT)
    shape = draw(st.tuples(st.integers(1, 40)) | st.tuples(st.integers(1, 40), st.integers(1, 4)))
    return draw(hnp.arrays(draw(DTYPES), shape, fill=st.just(0)))


@given(X=values(), rows=st.integers(1, 50), compress=st.booleans(), data=st.data())
@settings(max_examples=60)
def test_any_rows_read_back_whatever_the_blocks(X, rows, compress, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        arrays.create_array(path, X.shape, X.dtype, rows, compress=compress)
        grid = list(leaves("", 0, len(X), arrays.rows_per_chunk(path), {"a": path}))
        for block in data.draw(st.permutations(grid)):
            assert not block.written("a")
            assert block.write("a", X[block.start : block.stop]) == block.digest("a")
            assert block.written("a")
        start = data.draw(st.integers(0, len(X)))
        stop = data.draw(st.integers(start, len(X)))
        assert arrays.read_rows(path, start, stop).tobytes() == X[start:stop].tobytes() or X.dtype == TEXT
        np.testing.assert_array_equal(arrays.read_rows(path, start, stop), X[start:stop])
        assert arrays.digest(arrays.read_rows(path)) == arrays.digest(X)
        assert len(arrays.chunk_files(path)) == len(grid)
        codecs = json.loads((path / "zarr.json").read_text())["codecs"]
        assert codecs[-1]["name"] == "crc32c"


@pytest.mark.parametrize(
    "X", [np.zeros((9, 3), np.float32), np.zeros(9, bool), np.full(9, np.nan), np.array([""] * 9, TEXT)]
)
def test_chunks_of_fill_values_have_files(tmp_path, X):
    """Also through a handle that was opened later: a missing chunk must never be a way to say zero."""
    path = tmp_path / "a"
    arrays.create_array(path, X.shape, X.dtype, 4)
    arrays.forget_open_arrays()
    for start in range(0, 9, 4):
        arrays.write_rows(path, start, X[start : start + 4])
    assert all(chunk.is_file() for chunk in arrays.chunk_files(path))
    np.testing.assert_array_equal(arrays.read_rows(path), X)


def damaged(path: Path, chunk: Path, content: bytes | None) -> None:
    """Whole reads fail and name the chunk; reads of other chunks do not care; the chunk does not count as written."""
    before = arrays.read_rows(path, 0, 4)
    if content is None:
        chunk.unlink()
    else:
        chunk.write_bytes(content)
    with pytest.raises(DamageError) as caught:
        arrays.read_rows(path)
    assert str(chunk) in str(caught.value)
    with pytest.raises(DamageError):
        arrays.read_rows(path, 5, 6)
    assert not arrays.has_rows(path, 4, 8)
    np.testing.assert_array_equal(arrays.read_rows(path, 0, 4), before)


@pytest.fixture(scope="module")
def three_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    kinds = {
        "float": (rng.normal(size=(10, 3)).astype(np.float32), False),
        "zeros": (np.zeros((10, 5), np.int64), True),
        "text": (np.array([f"bild/{i}/é.jpg" for i in range(10)], TEXT), False),
    }
    for name, (X, compress) in kinds.items():
        arrays.create_array(folder / name, X.shape, X.dtype, 4, compress=compress)
        for start in range(0, 10, 4):
            arrays.write_rows(folder / name, start, X[start : start + 4])
    return folder


@given(
    kind=st.sampled_from(["float", "zeros", "text"]),
    how=st.sampled_from(["flip", "cut", "grow", "gone"]),
    data=st.data(),
)
@settings(max_examples=120)
def test_a_damaged_chunk_is_an_error_never_fill_values(three_kinds, kind, how, data):
    path = three_kinds / kind
    chunk = arrays.chunk_files(path, 4, 8)[0]
    whole = chunk.read_bytes()
    content = bytearray(whole)
    if how == "flip":
        content[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del content[data.draw(st.integers(0, len(whole) - 1)) :]
    elif how == "grow":
        content += data.draw(st.binary(min_size=1, max_size=8))
    try:
        damaged(path, chunk, None if how == "gone" else bytes(content))
    finally:
        chunk.write_bytes(whole)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    from streamclust.ingest import ingest
    from streamclust.readers.case import open_case

    folder = tmp_path_factory.mktemp("store")
    job = job_on(folder / "s")
    ingest(job, open_case(write_case(folder / "case", {"osnet": random_rows(0, 60, 5)})))
    return job.store


@given(data=st.data())
@settings(max_examples=60)
def test_altered_metadata_is_found_or_changes_nothing(ingested, data):
    """Metadata has no checksum: the manifest holds what it must say."""
    [name] = ingested.snapshot.entries
    array = data.draw(st.sampled_from(["descriptors/osnet", "valid/osnet", "images/path", "moments/osnet/mean"]))
    before = ingested.read(name, array)
    file = ingested.array(name, array) / "zarr.json"
    whole = file.read_bytes()
    content = bytearray(whole)
    content[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    arrays.forget_open_arrays()
    try:
        with contextlib.suppress(DamageError):
            np.testing.assert_array_equal(ingested.read(name, array), before)
    finally:
        file.write_bytes(whole)
        arrays.forget_open_arrays()


def test_metadata_that_is_gone_or_another_arrays_is_damage(ingested, tmp_path):
    [name] = ingested.snapshot.entries
    folder = ingested.array(name, "descriptors/osnet")
    shutil.copy(folder / "zarr.json", tmp_path / "kept")
    try:
        shutil.copy(ingested.array(name, "valid/osnet") / "zarr.json", folder / "zarr.json")
        with pytest.raises(DamageError, match="manifest"):
            ingested.read(name, "descriptors/osnet")
        (folder / "zarr.json").unlink()
        with pytest.raises(DamageError, match="cannot be read"):
            ingested.read(name, "descriptors/osnet")
    finally:
        shutil.copy(tmp_path / "kept", folder / "zarr.json")


@pytest.mark.parametrize("part", [False, True])
def test_metadata_that_changes_after_it_was_read_is_noticed(tmp_path, part):
    path = tmp_path / "a"
    arrays.create_array(path, (40, 2), np.float32, 16)
    where, shape = (arrays.Part(path, 16, 20, 10), (20, 2)) if part else (path, (40, 2))
    form = shape, "float32", (16, 2)
    assert arrays.is_as_said(where, *form)
    text = (path / "zarr.json").read_text()
    time.sleep(0.02)  # a tick of the file system's clock
    (path / "zarr.json").write_text(text.replace("float32", "float64"))
    assert not arrays.is_as_said(where, *form)
    (path / "zarr.json").unlink()
    for _ in range(2):
        with pytest.raises(DamageError, match="cannot be read"):
            arrays.is_as_said(where, *form)
    (path / "zarr.json").write_text(text)
    assert arrays.is_as_said(where, *form)


@pytest.mark.parametrize(("X", "compress"), [(np.array(["x", "y", "z"], TEXT), False), (np.arange(1, 5), True)])
def test_one_bit_that_has_chunks_sought_elsewhere_is_damage_and_never_fill_values(tmp_path, X, compress):
    arrays.create_array(tmp_path / "a", X.shape, X.dtype, 2, compress=compress)
    arrays.write_rows(tmp_path / "a", 0, X)
    file = tmp_path / "a" / "zarr.json"
    assert ord("/") ^ ord(".") == 1
    file.write_text(file.read_text().replace('"separator": "/"', '"separator": "."'))
    arrays.forget_open_arrays()
    for look in (metadata.describe, arrays.read_rows, arrays.shape_of):
        with pytest.raises(DamageError, match=r"zarr\.json"):
            look(tmp_path / "a")


@pytest.mark.parametrize("compress", [False, True])
def test_metadata_with_another_byte_order_is_damage_and_never_other_numbers(tmp_path, compress):
    arrays.create_array(tmp_path / "a", (4,), np.float32, 2, compress=compress)
    arrays.write_rows(tmp_path / "a", 0, np.arange(1, 5, dtype=np.float32))
    file = tmp_path / "a" / "zarr.json"
    changed = file.read_text().replace('"little"', '"big"')
    assert changed != file.read_text()
    file.write_text(changed)
    arrays.forget_open_arrays()
    for look in (metadata.describe, arrays.read_rows, arrays.shape_of):
        with pytest.raises(DamageError, match=r"zarr\.json"):
            look(tmp_path / "a")


def test_a_stranger_with_zarr_sees_no_warning_at_any_stage(tmp_path):
    from streamclust.ingest import ingest
    from streamclust.readers.case import open_case
    from streamclust.stages.reduced import reduce

    job = job_on(tmp_path / "s")
    assert_tidy(job.store)
    ingest(job, open_case(write_case(tmp_path / "case", {"osnet": random_rows(0, 60, 5)})))
    assert_tidy(job.store)
    reduce(job, ["osnet"])
    assert_tidy(job.store)
