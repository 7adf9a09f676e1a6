"""Kept thumbnails come back as they were put in, by row, the newest first; pictures are found where they lie now."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.store.places import pictures_of, relocate
from streamclust.store.store import create, open_store
from streamclust.store.thumbs import keep, load
from tests.cases import job_on, matrices, write_case
from tests.faults import no_fsync

JPEGS = st.binary(max_size=40).map(lambda data: b"\xff\xd8" + data)
SHOWN = st.dictionaries(
    st.tuples(st.sampled_from(["batches/1-a", "batches/2-b"]), st.integers(0, 30)), JPEGS, max_size=8
)


@pytest.fixture(scope="module", autouse=True)
def _fast():
    with no_fsync():
        yield


@given(rounds=st.lists(st.tuples(SHOWN, st.sampled_from([80, 160])), max_size=4))
@settings(max_examples=20)
def test_what_was_kept_last_is_what_comes_back(rounds):
    with tempfile.TemporaryDirectory() as folder:
        store, model = create(Path(folder) / "s"), {}
        for pictures, size in rounds:
            keep(store, pictures, size)
            model |= {row: (data, size) for row, data in pictures.items()}
        wanted = [(batch, row) for batch in ("batches/1-a", "batches/2-b", "batches/3-c") for row in range(31)]
        assert load(store, wanted) == {row: data for row, (data, _) in model.items()}
        large = {}
        for pictures, size in rounds:
            large |= pictures if size == 160 else {}
        assert load(store, wanted, 160) == large
        assert load(store, wanted[3:4]) == {row: data for row, (data, _) in model.items() if row == wanted[3]}


def with_pictures(tmp_path, kind, n=40):
    """A store of one batch, and its case."""
    case = write_case(tmp_path / "day", matrices(1, n, {"a": 4}), pictures=kind)
    job = job_on(tmp_path / "s")
    ingest(job, open_case(case))
    return job.store, case / "row_data"


def test_a_zip_that_moved_is_found_and_another_one_is_refused(tmp_path):
    store, folder = with_pictures(tmp_path, "zip")
    moved = tmp_path / "archive" / "2026"
    moved.parent.mkdir()
    folder.rename(moved)
    (batch,) = store.batches
    assert relocate(store, "day", moved) == moved / "images.zip"
    assert pictures_of(store)[batch.name].root == moved / "images.zip"
    assert pictures_of(open_store(store.path, 1))[batch.name].root == folder / "images.zip"
    number = store.snapshot.number
    relocate(store, "day", moved / "images.zip")
    assert store.snapshot.number == number
    for name, some in {"other.zip": [*range(1, 40), 0], "short.zip": range(9), "none.zip": []}.items():
        with zipfile.ZipFile(moved / "images.zip") as old, zipfile.ZipFile(moved / name, "w") as new:
            for member in (old.namelist()[i] for i in some):
                new.writestr(member, old.read(member))
        with pytest.raises(InputError, match=r"the same zip that was .*images\.zip"):
            relocate(store, "day", moved / name)
    (moved / "cut.zip").write_bytes((moved / "images.zip").read_bytes()[:-40])
    with pytest.raises(InputError, match="not a complete zip"):
        relocate(store, "day", moved / "cut.zip")
    with pytest.raises(InputError, match="cannot be opened"):
        relocate(store, "day", tmp_path / "nowhere.zip")
    assert store.snapshot.number == number


def test_a_folder_that_moved_is_found_and_another_one_is_refused(tmp_path):
    store, folder = with_pictures(tmp_path, "loose")
    moved = tmp_path / "archive"
    shutil.copytree(folder, moved)
    assert relocate(store, "day", moved) == moved
    (moved / "pictures" / "00000.jpg").write_bytes(b"other")
    with pytest.raises(InputError, match=r"00000\.jpg' has 5 bytes instead of"):
        relocate(store, "day", moved)
    (moved / "pictures" / "00000.jpg").unlink()
    with pytest.raises(InputError, match=r"00000\.jpg' is missing"):
        relocate(store, "day", moved)
    with pytest.raises(InputError, match="is no folder"):
        relocate(store, "day", folder / "pictures" / "00001.jpg")
    relocate(store, "day", folder)
    assert pictures_of(store)[store.batches[0].name].root == folder


def test_a_batch_without_pictures_cannot_move(tmp_path):
    job = job_on(tmp_path / "s")
    ingest(job, open_case(write_case(tmp_path / "bare", matrices(1, 20, {"a": 4}))))
    with pytest.raises(InputError, match="came without pictures"):
        relocate(job.store, "bare", tmp_path)
    with pytest.raises(InputError, match="no batch 'x'"):
        relocate(job.store, "x", tmp_path)
    assert pictures_of(job.store) == {}
