"""Folders under a drop folder: their order, whether they are complete, whether they changed."""

from __future__ import annotations

import os
import time

import pytest

from streamclust.errors import InputError
from streamclust.readers.arrivals import READY, arrivals, listing_of


def folder(drop, name, content=b"x"):
    path = drop / name
    (path / "descriptors").mkdir(parents=True)
    (path / "descriptors" / "a.npy").write_bytes(content)
    (path / "images_paths.csv").write_text("path\na.jpg\n")
    return path


def test_oldest_first_by_the_date_in_the_name_then_by_name(tmp_path):
    for name in ("2026-01-10", "cam2-20260103", "b 2026-01-04 late", "a 2026-01-04", "2025-12-31"):
        folder(tmp_path, name)
    names = [found.path.name for found in arrivals(tmp_path)]
    assert names == ["2025-12-31", "cam2-20260103", "a 2026-01-04", "b 2026-01-04 late", "2026-01-10"]


def test_a_name_without_a_date_counts_by_when_it_changed(tmp_path):
    folder(tmp_path, "2999-01-01")
    folder(tmp_path, "today")
    folder(tmp_path, "99999999")  # no date of any calendar
    folder(tmp_path, "2000-01-01")
    assert [found.path.name for found in arrivals(tmp_path)] == ["2000-01-01", "99999999", "today", "2999-01-01"]


def test_hidden_folders_and_files_are_not_cases(tmp_path):
    folder(tmp_path, ".incoming")
    folder(tmp_path, "_done")
    (tmp_path / "notes.txt").write_text("hello")
    assert arrivals(tmp_path) == []


def test_a_file_that_is_still_written_is_seen_though_its_time_was_set_back(tmp_path):
    path = folder(tmp_path, "day")
    os.utime(path / "descriptors" / "a.npy", (1, 1))  # as a copy that keeps times does
    assert arrivals(tmp_path)[0].quiet < 60
    (path / READY).touch()
    assert arrivals(tmp_path)[0].quiet == float("inf")


def test_the_listing_follows_names_sizes_and_times(tmp_path):
    path = folder(tmp_path, "day")
    seen = {listing_of(path)}
    (path / READY).touch()
    assert listing_of(path) in seen  # the marker is no content
    (path / "row_data").mkdir()
    (path / "row_data" / "0001.jpg").write_bytes(b"picture")
    assert listing_of(path) in seen  # nor are loose pictures
    (path / "row_data" / "images.zip").write_bytes(b"zip")
    seen.add(listing_of(path))
    (path / "descriptors" / "b.npy").write_bytes(b"y")
    seen.add(listing_of(path))
    (path / "descriptors" / "b.npy").write_bytes(b"yy")
    seen.add(listing_of(path))
    os.utime(path / "images_paths.csv", (time.time(), 12345))
    seen.add(listing_of(path))
    (path / "descriptors" / "parts" / "c").mkdir(parents=True)
    (path / "descriptors" / "parts" / "c" / "0").write_bytes(b"y")  # a part, or a chunk
    seen.add(listing_of(path))
    assert len(seen) == 6


def test_no_drop_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist; expected a folder with a case folder for each day"):
        arrivals(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        arrivals(tmp_path / "file")
