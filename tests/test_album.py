"""Pictures that were shown once are shown again when their zip is gone; those of withdrawn batches are not."""

from __future__ import annotations

import shutil

import pytest

from streamclust.errors import InputError
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.reporting.album import Album
from streamclust.store.places import relocate
from streamclust.store.retention import restore, withdraw
from streamclust.store.store import open_store
from tests.cases import job_on, matrices, write_case
from tests.faults import no_fsync

N = 30


@pytest.fixture(autouse=True)
def _fast():
    with no_fsync():
        yield


@pytest.fixture
def job(tmp_path):
    job = job_on(tmp_path / "s")
    for seed, day in enumerate(("one", "two")):
        ingest(job, open_case(write_case(tmp_path / day, matrices(seed, N, {"a": 4}), pictures="zip", broken=[2])))
    return job


def shown(store, ids, size=32):
    album = Album(store, size, 2)
    rows = album.rows_of(ids)
    album.fetch(rows)
    return album, {row: album.thumb(row) for row in rows}


def test_a_picture_outlives_its_zip(job, tmp_path):
    album, before = shown(job.store, [0, 1, 2, N + 3])
    album.keep()
    number = job.store.snapshot.number
    album.keep()
    assert job.store.snapshot.number == number
    shutil.rmtree(tmp_path / "one" / "row_data")
    album, after = shown(open_store(job.store.path), [0, 1, 2, 3, N + 3, N + 4])
    first, second = (batch.name for batch in job.store.batches)
    assert {row: after[row] for row in before} == before
    assert [after[first, row].problem for row in range(4)] == ["no picture"] * 2 + ["broken picture"] * 2
    assert [after[first, row].image is not None for row in range(4)] == [True, True, False, False]
    assert after[second, 4].image is not None
    album.keep()
    assert len(open_store(job.store.path).snapshot.of_kind("thumbs")) == 3


def test_a_larger_thumbnail_is_read_while_it_can_be(job, tmp_path):
    album, small = shown(job.store, [0])
    album.keep()
    album = shown(job.store, [0], size=64)[0]
    assert album._read
    shutil.rmtree(tmp_path / "one")
    album, kept = shown(job.store, [0], size=64)
    assert kept == small
    assert not album._read


def test_a_picture_is_found_where_its_zip_went(job, tmp_path):
    (tmp_path / "one" / "row_data").rename(tmp_path / "moved")
    assert shown(job.store, [0])[1].popitem()[1].problem == "broken picture"
    relocate(job.store, "one", tmp_path / "moved")
    assert shown(job.store, [0])[1].popitem()[1].image is not None
    with pytest.raises(InputError):
        relocate(job.store, "two", tmp_path)


def test_rows_of_a_withdrawn_batch_are_left_out(job):
    withdraw(job.store, "one", "foggy")
    second = job.store.every_batch[1].name
    found = shown(job.store, [-1, 3, N, N + 1, 2 * N - 1])[1]
    assert list(found) == [(second, 0), (second, 1), (second, N - 1)]
    restore(job.store, "one")
    assert len(shown(job.store, [-1, 3, N])[1]) == 2
