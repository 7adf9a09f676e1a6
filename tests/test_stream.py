"""The made-up stream: every day alone and the same every time, and each event is in the rows as its truth says."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust.readers.case import open_case
from tests.benchmarks.stream import (
    BASE_DAYS,
    BRIEF,
    CAMERAS,
    DAYS,
    DEVELOPMENT,
    DIMS,
    HELD_BACK,
    LASTING,
    NEW_CAMERA_SHARE,
    SPACING,
    STUCK,
    Day,
    Stream,
)

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = st.integers(2_000, 3_000)


def event_of(stream: Stream, kind: str) -> int:
    return stream.of(kind)[0].day


def same(a: Day | None, b: Day | None) -> bool:
    return a is not None and b is not None and all(np.array_equal(a.descriptors[d], b.descriptors[d]) for d in DIMS)


def test_seeds_to_look_at_and_seeds_to_measure_with_are_not_the_same():
    assert len(HELD_BACK) == 20
    assert not set(DEVELOPMENT) & set(HELD_BACK)


@given(SEEDS)
@settings(max_examples=25)
def test_every_event_happens_within_the_stream_and_lasting_ones_well_apart(seed: int):
    stream = Stream.draw(seed)
    assert sorted(e.kind for e in stream.events) == sorted([*LASTING, *BRIEF])
    assert all(3 <= e.day < DAYS for e in stream.events)
    lasting = [e.day for e in stream.events if e.kind in LASTING]
    assert min(np.diff(lasting)) >= SPACING
    assert len({e.day for e in stream.events}) == len(stream.events)
    assert len({e.which for kind in ("birth", "death") for e in stream.of(kind)}) == 3


@given(SEEDS, st.integers(-BASE_DAYS, DAYS - 1))
@settings(max_examples=15)
def test_a_day_is_the_same_every_time_and_its_arrays_fit_each_other(seed: int, number: int):
    first, second = Stream.draw(seed).day(number), Stream.draw(seed).without("no folder").day(number)
    assert second is not None
    assert first is None or same_or_missing(first, second)
    n = len(second)
    assert n == 3 or 150 <= n <= 520
    assert {X.shape for X in second.descriptors.values()} <= {(n, d) for d in DIMS.values()}
    assert all(X.dtype == np.float32 and np.isfinite(X).all() for X in second.descriptors.values())
    assert all(len(kinds) == n for kinds in [second.track, *second.truth.values()])


def same_or_missing(a: Day, b: Day) -> bool:
    return list(a.descriptors) == list(b.descriptors) and all(
        np.array_equal(X, b.descriptors[d]) for d, X in a.descriptors.items()
    )


@pytest.mark.parametrize("kind", ["birth", "death", "new camera", "upgrade"])
def test_before_a_lasting_event_nothing_differs_and_after_it_something_does(kind: str):
    stream = Stream.draw(2).without("thin", "no folder", "missing descriptor", "stuck camera")
    day, other = event_of(stream, kind), stream.without(kind)
    assert same(stream.day(day - 1), other.day(day - 1))
    for later in (day + 4, DAYS - 1):
        assert not same(stream.day(later), other.day(later))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_stuck_camera_sends_one_picture_over_and_over(seed: int):
    stream = Stream.draw(seed)
    (event,) = stream.of("stuck camera")
    day, usual = stream.day(event.day), stream.without("stuck camera").day(event.day)
    stuck = day.truth["osnet"] == STUCK
    assert 60 <= stuck.sum() <= 120
    assert set(day.camera[stuck]) == {f"cam-{event.which + 1:02d}"}
    for name, X in day.descriptors.items():
        spread = np.linalg.norm(X - X.mean(0), axis=1)
        burst = np.linalg.norm(X[stuck] - X[stuck].mean(0), axis=1)
        assert burst.max() < 0.1 * np.median(spread)
        np.testing.assert_array_equal(X[~stuck], usual.descriptors[name])


def test_a_new_camera_looks_different_and_takes_its_share():
    stream = Stream.draw(4)
    start, name = event_of(stream, "new camera"), f"cam-{CAMERAS + 1:02d}"
    assert not any(name in day.camera for day in map(stream.day, range(start)) if day)
    later = [day for day in map(stream.day, range(start, start + 20)) if day]
    assert NEW_CAMERA_SHARE / 2 < np.mean([(day.camera == name).mean() for day in later]) < 2 * NEW_CAMERA_SHARE
    joined = np.concatenate([day.camera for day in later]) == name
    view = stream.views["osnet"]
    X = np.concatenate([day.descriptors["osnet"] for day in later if "osnet" in day.descriptors])
    if len(X) == len(joined):
        seen = (X[joined].mean(0) - X[~joined].mean(0)) / view.scale
        expected = view.cameras[-1] @ view.mixing
        assert np.corrcoef(seen, expected)[0, 1] > 0.9


def test_an_upgrade_turns_and_scales_one_descriptor_only():
    stream = Stream.draw(0)
    (event,) = stream.of("upgrade")
    number = event.day + 3
    new, old = stream.day(number), stream.without("upgrade").day(number)
    (other,) = set(DIMS) - {event.descriptor}
    np.testing.assert_array_equal(new.descriptors[other], old.descriptors[other])
    view = stream.views[event.descriptor]
    a, b = ((day.descriptors[event.descriptor] - view.offset) / view.scale for day in (new, old))
    np.testing.assert_allclose(a, b @ view.upgrade, atol=1e-3)
    factor = np.linalg.norm(a) / np.linalg.norm(b)
    assert min(abs(factor - 0.7), abs(factor - 1.4)) < 1e-3


def test_kinds_come_and_go_within_days_and_the_season_is_slow():
    stream = Stream.draw(1)
    birth, death = stream.of("birth")[0], stream.of("death")[0]
    before, after = (stream.shares("osnet", birth.day + d)[birth.which] for d in (-1, 6))
    assert before == 0
    assert after > 0.05
    assert stream.shares("osnet", death.day + 6)[death.which] == 0
    calm = stream.without("birth", "death")
    shares = np.array([calm.shares("osnet", d) for d in range(DAYS)])
    np.testing.assert_allclose(shares.sum(1), 1)
    assert 0.02 < np.ptp(shares, axis=0).max() < 0.2
    assert np.abs(np.diff(shares, axis=0)).max() < 0.003


def test_rows_of_one_day_are_not_independent():
    stream = Stream.draw(3).without("birth", "death", "upgrade", "new camera", "thin", "missing descriptor")
    days = [day for day in map(stream.day, range(30)) if day]
    means = np.array([day.descriptors["osnet"].mean(0) for day in days])
    within = np.mean([day.descriptors["osnet"].var(0) / len(day) for day in days], axis=0)
    assert (means.var(0) > 1.5 * within).mean() > 0.9
    assert np.mean([len(np.unique(day.track)) / len(day) for day in days]) < 0.7


def test_brief_events_are_on_their_day_only():
    stream = Stream.draw(5)
    assert all(stream.day(e.day) is None for e in stream.of("no folder"))
    assert all(len(stream.day(e.day)) == 3 for e in stream.of("thin"))
    (missing,) = stream.of("missing descriptor")
    assert set(DIMS) - set(stream.day(missing.day).descriptors) == {missing.descriptor}
    assert set(stream.day(missing.day - 1).descriptors) == set(DIMS)


@pytest.mark.parametrize("columns", [True, False])
def test_a_case_opens_and_holds_no_truth(tmp_path: Path, columns: bool):
    stream = Stream.draw(6, columns=columns)
    day = stream.base()
    case = open_case(stream.write(tmp_path / day.name, day))
    assert {name: source.shape for name, source in case.descriptors.items()} == {d: (3_000, DIMS[d]) for d in DIMS}
    assert ("camera" in case.paths.columns) is columns
    with (tmp_path / "base" / "images_paths.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == 3_000
    assert not columns or [row["camera"] for row in rows] == day.camera.tolist()
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["colour.npy", "images_paths.csv", "osnet.npy"]
