"""The day's work: what is taken in, left, set aside, known already; unattended, killed, and beside another run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.daily import main as job
from streamclust import pipeline
from streamclust.blocks import Serial
from streamclust.daily import LOG, daily
from streamclust.errors import ConflictError, InputError
from streamclust.stages import watch as watching
from streamclust.store.history import history, rollback
from streamclust.store.store import Store, open_store
from streamclust.store.verify import verify
from tests.cases import matrices, small, small_toml, work, write_case

DAYS = ("2026-01-02", "2026-01-03", "2026-01-04")
PARTS = {"a": 8, "b": 5}
N, M = 400, 60
SETTINGS = small(daily__settle=0)


def fresh(n):
    """Rows of the same kinds that no other day has."""
    return {d: X[N + M * len(DAYS) :][:n] for d, X in matrices(3, 1000, PARTS).items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A fitted store, and three days under a drop folder."""
    folder = tmp_path_factory.mktemp("daily")
    of = matrices(3, N + M * len(DAYS), PARTS)
    work(folder / "s", write_case(folder / "base", {d: X[:N] for d, X in of.items()}))
    for i, day in enumerate(DAYS):
        rows = slice(N + i * M, N + (i + 1) * M)
        write_case(folder / "drop" / day, {d: X[rows] for d, X in of.items()})
    return folder


@pytest.fixture
def place(base, tmp_path):
    """A store and a drop folder of one's own."""
    shutil.copytree(base / "s", tmp_path / "s")
    shutil.copytree(base / "drop", tmp_path / "drop")
    return tmp_path / "s", tmp_path / "drop"


def ids(store: Path) -> list[str]:
    return [batch.id for batch in open_store(store).batches]


def lines(store: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in (store / LOG).read_text().splitlines()]


def test_new_folders_are_taken_in_oldest_first_and_once(place):
    store, drop = place
    found = daily(store, drop, SETTINGS)
    assert [day.batch for day in found.taken] == list(DAYS)
    assert ids(store) == ["base", *DAYS]
    table = open_store(store).labels().compute()
    assert table["outlier_score"].notna().all()
    assert table["a_x"].notna().all()
    assert all(day.page.is_file() for day in found.taken)
    assert found.page.is_file()
    snapshot = open_store(store).snapshot.number
    again = daily(store, drop, SETTINGS)
    assert again.taken == []
    assert again.known == list(DAYS)
    assert open_store(store).snapshot.number == snapshot
    assert "nothing new; 3 folders were taken in before" in again.text()


@pytest.mark.slow
def test_a_folder_that_was_only_copied_anew_is_known(place):
    store, drop = place
    daily(store, drop, SETTINGS)
    for file in (drop / DAYS[0]).rglob("*.*"):
        file.touch()
    found = daily(store, drop, SETTINGS)
    assert found.known == list(DAYS)
    assert ids(store) == ["base", *DAYS]


def test_a_folder_still_being_written_is_left_for_next_time(place):
    store, drop = place
    (drop / DAYS[1] / "_READY").touch()
    found = daily(store, drop, small(daily__settle=3600))
    assert [day.batch for day in found.taken] == [DAYS[1]]
    assert set(found.waiting) == {DAYS[0], DAYS[2]}
    assert "left for next time" in found.waiting[DAYS[0]]
    assert [day.batch for day in daily(store, drop, SETTINGS).taken] == [DAYS[0], DAYS[2]]


def test_a_bad_folder_is_set_aside_until_it_changes_and_the_others_go_on(place):
    store, drop = place
    pickled = drop / DAYS[1] / "descriptors" / "a.pickle"
    whole = pickled.read_bytes()
    pickled.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    found = daily(store, drop, SETTINGS)
    assert [day.batch for day in found.taken] == [DAYS[0], DAYS[2]]
    assert list(found.aside) == [DAYS[1]]
    assert "a.pickle" in found.aside[DAYS[1]]
    again = daily(store, drop, SETTINGS)
    assert again.aside == found.aside
    assert sum("set aside" in line for line in lines(store)) == 1
    pickled.write_bytes(whole)
    assert [day.batch for day in daily(store, drop, SETTINGS).taken] == [DAYS[1]]
    assert daily(store, drop, SETTINGS).aside == {}


def test_another_width_is_set_aside(place):
    store, drop = place
    write_case(drop / "2026-01-05", matrices(1, 20, {"a": 9, "b": 5}))
    found = daily(store, drop, SETTINGS)
    assert "9 features; expected 8, as a has in the store" in found.aside["2026-01-05"]
    assert len(found.taken) == 3


@pytest.mark.parametrize("n", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_thin_day(place, n):
    store, drop = place
    write_case(drop / "2026-02-01", fresh(n))
    found = daily(store, drop, SETTINGS)
    assert found.taken[-1].rows == n
    assert found.taken[-1].alarms == []


def test_a_day_may_lack_a_descriptor_or_bring_a_new_one(place):
    store, drop = place
    shutil.rmtree(drop)
    b, new = fresh(50)["b"], matrices(1, 50, {"new": 4})["new"]
    case = write_case(drop / "2026-02-01", {"new": new})
    for i, rows in enumerate(np.split(b, [20])):
        np.save(case / "descriptors" / f"b-{i}.npy", rows)
    found = daily(store, drop, small(daily__settle=0, ingest__parts={"a": "a-*.npy", "b": "b-*.npy"}))
    np.testing.assert_array_equal(open_store(store)["b"][-50:].compute(), b)
    assert [alarm.kind for alarm in found.alarms] == ["descriptor missing"]
    new = open_store(store).labels().compute().query("batch == '2026-02-01'")
    assert new["b_kmeans"].notna().all()
    assert new["a_kmeans"].isna().all()
    assert new["outlier_score"].notna().all()


@pytest.mark.slow
def test_the_same_path_in_two_days_is_two_images(place):
    store, drop = place
    daily(store, drop, SETTINGS)
    paths = open_store(store).labels()["path"].compute()
    assert len(paths) == N + M * len(DAYS)
    assert paths.duplicated().any()


def test_a_stuck_camera_cries_once_and_the_command_hears_it(place, tmp_path):
    store, drop = place
    of = fresh(200)
    rng = np.random.default_rng(0)
    for X in of.values():
        X[:120] = X[0] + 1e-4 * rng.normal(size=(120, X.shape[1]))
    write_case(drop / "2026-01-05", of)
    heard = tmp_path / "heard.py"
    heard.write_text(f"import sys; open({str(tmp_path / 'heard')!r}, 'a').write(sys.stdin.read() + '\\n')")
    found = daily(store, drop, SETTINGS, on_alarm=f"{sys.executable} {heard}")
    assert [alarm.kind for alarm in found.alarms] == ["stuck camera"]
    assert found.taken[-1].alarms == found.alarms
    told = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    assert [alarm["id"] for alarm in told] == [found.alarms[0].id]
    assert any("ALARM" in line for line in lines(store))
    assert daily(store, drop, SETTINGS).alarms == []


def test_a_command_that_fails_is_logged_and_no_more(place):
    store, drop = place
    shutil.rmtree(drop)
    write_case(drop / "2026-02-01", {"b": fresh(50)["b"]})
    daily(store, drop, SETTINGS, on_alarm="/no/such/command")
    assert any("/no/such/command failed" in line for line in lines(store))


@pytest.mark.parametrize("stage", ["predict", *(pytest.param(s, marks=pytest.mark.slow) for s in ("watch", "page"))])
def test_a_day_that_was_cut_short_is_finished_next_time(place, monkeypatch, stage):
    store, drop = place
    home, name = {
        "predict": (pipeline, "predict"),
        "watch": (watching, "watch"),
        "page": (sys.modules["streamclust.daily"].day, "write_day"),
    }[stage]
    with monkeypatch.context() as patch:
        patch.setattr(home, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            daily(store, drop, SETTINGS)
    assert lines(store)[-1] == "ended: KeyboardInterrupt()"
    found = daily(store, drop, SETTINGS)
    assert [day.batch for day in found.taken] == list(DAYS)
    assert len(watching.alarms(open_store(store))) == len(found.alarms)


def test_two_at_once(place, monkeypatch):
    store, drop = place
    seen = []

    def second(*_):
        with pytest.raises(ConflictError, match="another daily run is at work"):
            daily(store, drop, SETTINGS)
        seen.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "predict", second)
    with pytest.raises(KeyboardInterrupt):
        daily(store, drop, SETTINGS)
    assert seen


def test_no_store_no_fit_no_drop(place, tmp_path):
    store, drop = place
    with pytest.raises(InputError, match="no such store"):
        daily(tmp_path / "none", drop, SETTINGS)
    with pytest.raises(InputError, match="does not exist"):
        daily(store, tmp_path / "none", SETTINGS)
    job, _ = pipeline.ingest_case(tmp_path / "bare", drop / DAYS[0], SETTINGS)
    with pytest.raises(InputError, match="nothing was clustered yet"):
        daily(job.store.path, drop, SETTINGS)


def test_a_day_reads_no_rows_of_other_batches(place, monkeypatch):
    """History costs a look at the manifest, no array."""
    store, drop = place
    daily(store, drop, SETTINGS)
    write_case(drop / "2026-02-01", fresh(50))
    touched, real = set(), Store.array

    def recorded(self, name, array):
        touched.add(name)
        return real(self, name, array)

    monkeypatch.setattr(Store, "array", recorded)
    daily(store, drop, SETTINGS)
    batches = {name.split("/")[-1] for name in touched if name.split("/")[0] in {"batches", "labels", "reduced"}}
    assert batches <= {"000005-2026-02-01", "000001-base"}


@pytest.mark.slow
def test_the_job_says_what_it_did(place, capsys):
    store, drop = place
    settings = small_toml(store.parent, daily__settle=0)
    assert job([str(store), str(drop), "--config", str(settings)]) == 0
    assert capsys.readouterr().out.count("60 images in") == 3
    write_case(drop / "2026-02-01", {"b": fresh(50)["b"]})
    assert job([str(store), str(drop), "--config", str(settings)]) == 4
    assert "ALARM 2026-02-01/descriptor-missing-a" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        job([str(store), str(drop / "none")])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize("steps", [0, 3])
def test_after_a_rollback_the_days_come_in_again_as_before(place, days, steps):
    """Rolled back to between two days, or into the middle of one."""
    store, drop = place
    daily(store, drop, SETTINGS)
    table, opened = open_store(store).labels().compute(), open_store(store)
    ingested = [change.number for change in history(opened) if change.operation.startswith("ingest 2026")]
    rollback(opened, ingested[days] - 1 + steps)
    assert ids(store) == ["base", *DAYS[: days + bool(steps)]]
    found = daily(store, drop, SETTINGS)
    assert [day.batch for day in found.taken] == list(DAYS[days:])
    pd.testing.assert_frame_equal(open_store(store).labels().compute(), table)
    assert verify(store, Serial()).damage == ()
    assert daily(store, drop, SETTINGS).taken == []


@pytest.mark.slow
@pytest.mark.parametrize("scaler", ["standard", "robust", "none"])
def test_extreme_values_end_well_without_a_warning(tmp_path, scaler):
    """Rows and cells of 1e30 and more, among the fitted ones and on a day; warnings are errors here."""
    of, extreme = matrices(3, N + M, PARTS), small(daily__settle=0, reduce__scaler=scaler)
    for first in (0, N):
        of["a"][first + 5], of["a"][first + 6], of["a"][first + 7, 2] = 1e30, -1e30, 1e30
        of["b"][first + 8], of["b"][first + 9, 1] = 3e38, -3e38
    case = write_case(tmp_path / "base", {d: X[:N] for d, X in of.items()})
    result = pipeline.run(tmp_path / "s", case, extreme)
    assert result.report.is_file()
    write_case(tmp_path / "drop" / DAYS[0], {d: X[N:] for d, X in of.items()})
    found = daily(tmp_path / "s", tmp_path / "drop", extreme)
    assert [day.batch for day in found.taken] == [DAYS[0]]
    table = open_store(tmp_path / "s").labels().compute()
    for column in ("a_x", "b_x", "a_kmeans", "outlier_score"):
        assert np.isfinite(table[column]).all()
    assert verify(tmp_path / "s", Serial()).damage == ()
