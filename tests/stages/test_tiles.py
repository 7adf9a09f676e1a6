"""Tile counts in a store and tiles in a folder: any split, order and kill give the same; only what changed is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamclust import tiling
from streamclust.blocks import Dask, Serial
from streamclust.errors import InputError
from streamclust.job import Job
from streamclust.reporting import tile_drawing, tile_map
from streamclust.reporting.tile_map import Asked, draw_all
from streamclust.reporting.tile_style import Style, sheet_of
from streamclust.stages import tile_chunks, tiles
from streamclust.stages.tile_chunks import chunks
from streamclust.stages.tile_windows import overview
from streamclust.stages.tiles import count_tiles, rows_of
from streamclust.store.store import open_store
from tests.benchmarks.density import add_day, fitted_store, points
from tests.cases import small
from tests.conftest import shared_data
from tests.faults import no_fsync

EXTENT = [-150, 150, -150, 150]


@pytest.fixture(autouse=True)
def _quick():
    with no_fsync():
        yield


@pytest.fixture
def tiny(monkeypatch):
    """Blocks, parts and chunks of some hundred rows, so that small stores have many."""
    monkeypatch.setattr(tiles, "BLOCK", 2048)
    monkeypatch.setattr(tiles, "SCRATCH", 1024)
    monkeypatch.setattr(tile_chunks, "PART", 1024)


def job_of(store, executor=None):
    return Job(open_store(store.path), small(), executor or Serial())


def store_of(path, *days):
    """A store with a day for each table of rows."""
    store = fitted_store(path, EXTENT, 20)
    for i, rows in enumerate(days):
        add_day(store, f"day{i}", rows)
    return store


def whole(store, sources, level=tiling.DEPTH):
    return tiling.add([chunk.read() for chunk in chunks(store, sources, level)])


def reference(*days):
    """What the days count, without a store."""
    columns = [np.concatenate([rows[name] for rows in days]) for name in ("x", "y", "label", "outlier")]
    return tiling.count_keys(tiling.block_keys(*columns, tiling.square(EXTENT)))


def same(a, b):
    return np.array_equal(a.keys, b.keys) and np.array_equal(a.counts, b.counts)


def withdraw(store, batch):
    draft = store.draft(f"names/withdrawal-{batch.split('/')[1]}", "withdrawal", batch)
    store.publish("withdraw", {draft.name: (draft, draft.entry({"role": batch}, {}))})


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def spoiled(rows):
    """Some rows without a place, some outside."""
    rows = {name: values.copy() for name, values in rows.items()}
    rows["x"][3::50], rows["y"][5::100] = np.nan, 1000
    return rows


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("executor", [Serial(), Dask(3)], ids=["serial", "threads"])
def test_a_store_counts_every_row_in_many_blocks_and_parts(tmp_path, executor):
    rows = spoiled(points(1, 9000))
    job = job_of(store_of(tmp_path / "s", rows), executor)
    cover = count_tiles(job, "osnet")
    about = job.store.snapshot.entries[cover.sources[0][0]]
    assert about.arrays["keys8"].shape[0] // about.arrays["keys8"].chunks[0] > 3
    for level in tiling.STORED:
        assert same(whole(job.store, cover.sources, level), tiling.coarser(reference(rows), tiling.DEPTH - level))
    inside = int(reference(rows).counts.sum())
    assert rows_of(job.store, cover.sources) == (inside, 9000 - inside)
    assert not list((tmp_path / "s" / "data" / "grids").glob("*sorted*"))
    before = job.store.snapshot.number
    assert count_tiles(job, "osnet") == cover
    assert job.store.snapshot.number == before


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_few_objects_hold_many_days_in_any_order(tmp_path):
    days = [points(i, n) for i, n in enumerate((3000, 5, 700, 1, 90, 90, 90, 90, 400, 30))]
    store = store_of(tmp_path / "s", *days[:4])
    cover = count_tiles(job_of(store), "osnet")
    for i, rows in enumerate(days[4:]):
        store.refresh()
        add_day(store, f"later{i}", rows)
        job = job_of(store)
        cover = count_tiles(job, "osnet")
    assert same(whole(job.store, cover.sources), reference(*days[::-1]))
    assert len(cover.sources) <= 6
    at_once = job_of(store_of(tmp_path / "t", *days))
    assert same(whole(at_once.store, count_tiles(at_once, "osnet").sources), reference(*days))


@pytest.mark.usefixtures("tiny")
def test_a_withdrawn_day_is_taken_off_and_comes_off_for_good_when_its_run_is_merged(tmp_path):
    days = [points(i, 600) for i in range(4)]
    store = store_of(tmp_path / "s", *days)
    job = job_of(store)
    assert len(count_tiles(job, "osnet").sources) == 1
    withdraw(job.store, job.store.batches[1].name)
    cover = count_tiles(job, "osnet")
    assert [sign for _, sign in cover.sources] == [1, -1]
    left = reference(days[0], *days[2:])
    assert same(whole(job.store, cover.sources), left)
    assert rows_of(job.store, cover.sources)[0] == left.counts.sum()
    add_day(job.store, "more", points(9, 3000))
    cover = count_tiles(job, "osnet")
    assert same(whole(job.store, cover.sources), reference(days[0], *days[2:], points(9, 3000)))
    assert [sign for _, sign in cover.sources] == [1]


@pytest.mark.usefixtures("tiny")
def test_counting_that_was_killed_goes_on(tmp_path, monkeypatch):
    rows = points(2, 9000)
    store, work = store_of(tmp_path / "s", rows), tiles.sort_block
    done = []

    def dies(address, *args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(address)
        return work(address, *args)

    monkeypatch.setattr(tiles, "sort_block", dies)
    with pytest.raises(KeyboardInterrupt):
        count_tiles(job_of(store), "osnet")
    counted = []
    monkeypatch.setattr(tiles, "sort_block", work)
    monkeypatch.setattr(tiling, "count_keys", lambda keys, count=tiling.count_keys: counted.append(1) or count(keys))
    job = job_of(store)
    assert same(whole(job.store, count_tiles(job, "osnet").sources), reference(rows))
    assert len(counted) == 2 + 1  # two blocks that were left, and the reference


def test_a_day_draws_only_what_it_touches_and_the_same_as_all_of_it(tmp_path):
    first, day = points(1, 10_000), points(2, 20)
    store = store_of(tmp_path / "s", first)
    job, out = job_of(store), tmp_path / "map"
    drawn = tile_map.tile_map(job, out, "osnet", Asked(zoom=3))
    assert drawn.reason
    before = {p: p.stat().st_mtime_ns for p in (out / "tiles").rglob("*.png")}
    assert drawn.written == len(before)
    add_day(store, "today", day)
    job = job_of(store)
    again = tile_map.tile_map(job, out, "osnet", Asked())
    assert not again.reason
    after = {p: p.stat().st_mtime_ns for p in (out / "tiles").rglob("*.png")}
    changed = {p for p, when in after.items() if before.get(p) != when}
    assert 0 < len(changed) == again.written < len(after)
    cover = count_tiles(job, "osnet")
    style = Style.of(tile_map._read_index(out, "osnet")["style"])
    sheet = sheet_of(job, cover, style)
    draw_all(job, tmp_path / "all", [cover.sources], overview(job, cover.sources), sheet, style.zoom)
    assert pictures(out / "tiles") == pictures(tmp_path / "all")
    radii = {scale.radius for scale in style.scales}
    for name, deep in (("density", 3), ("outliers", 3)):
        reach = max(radii) if name == "density" else max(style.marks)
        part = reference(day)
        flagged = part.codes[part.layers % 2 == 1] if name == "outliers" else part.codes
        allowed = set(tiling.touched(flagged, deep, tiling.DEPTH, reach).tolist())
        xy = [(int(p.parent.name), int(p.stem)) for p in changed if p.parts[-4:-2] == (name, str(deep))]
        assert {int(tiling.morton(np.array([x]), np.array([y]))[0]) for x, y in xy} <= allowed
    assert tile_map.tile_map(job, out, "osnet", Asked()).written == 0


def test_a_withdrawn_day_leaves_the_tiles_as_if_it_had_never_come(tmp_path):
    stays, goes = points(1, 6000), points(2, 1000)
    goes["x"][:5], goes["y"][:5] = -149, -149  # where nothing else is
    store = store_of(tmp_path / "s", stays)
    tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked(zoom=2))
    before = pictures(tmp_path / "map")
    name = add_day(store, "bad", goes)
    assert tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked()).written
    assert pictures(tmp_path / "map").keys() > before.keys()
    store.refresh()
    withdraw(store, name)
    gone = tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked())
    assert not gone.reason
    assert gone.removed > 0
    assert pictures(tmp_path / "map") == before


@pytest.mark.parametrize("changed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["all", "changed"])
def test_drawing_that_was_killed_goes_on(tmp_path, monkeypatch, changed):
    store = store_of(tmp_path / "s", points(1, 4000))
    out, expected, asked = tmp_path / "map", tmp_path / "expected", Asked(zoom=3)
    if changed:
        for folder in (out, expected):
            tile_map.tile_map(job_of(store), folder, "osnet", asked)
        add_day(store, "today", points(2, 200))
    tile_map.tile_map(job_of(store), expected, "osnet", asked)
    work, done = tile_drawing.draw_window, []

    def dies(task, sheet):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task)
        return work(task, sheet)

    monkeypatch.setattr(tile_drawing, "draw_window", dies)
    with pytest.raises(KeyboardInterrupt):
        tile_map.tile_map(job_of(store), out, "osnet", asked)
    drawn = []
    monkeypatch.setattr(tile_drawing, "draw_window", work)
    monkeypatch.setattr(
        tile_drawing, "read_unit", lambda unit, read=tile_drawing.read_unit: drawn.append(unit) or read(unit)
    )
    tile_map.tile_map(job_of(store), out, "osnet", asked)
    assert pictures(out) == pictures(expected)
    here = [unit.window for unit in drawn]
    assert not {task.sides[0].window for task in done} & set(here[len(here) // 2 :] if not changed else here)
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.suffix in {".next", ".partial"}]


@pytest.mark.parametrize(
    "executor", [Dask(3), pytest.param("cluster", marks=pytest.mark.slow)], ids=["threads", "processes"]
)
def test_the_same_tiles_on_every_executor(tmp_path, executor, request):
    if executor == "cluster":
        executor = Dask(client=request.getfixturevalue("cluster"))
    store = store_of(tmp_path / "s", points(1, 5000), points(2, 3000))
    asked = Asked(zoom=2, days=("day1",), differences=(("day0", "day1"),))
    for folder, how in (("a", Serial()), ("b", executor)):
        tile_map.tile_map(job_of(store, how), tmp_path / folder, "osnet", asked)
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    for name in ("index.html", "index.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_colours_are_made_anew_when_rows_have_doubled(tmp_path):
    store = store_of(tmp_path / "s", points(1, 4000))
    tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked())
    add_day(store, "some", points(2, 3000))
    assert not tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked()).reason
    add_day(store, "many", points(3, 3000))
    drawn = tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked())
    assert "2 times" in drawn.reason
    assert "10,000 rows of snapshot" in (tmp_path / "map" / "index.html").read_text()


def test_days_and_differences_stay_until_their_day_is_withdrawn(tmp_path):
    store = store_of(tmp_path / "s", points(1, 4000), points(2, 900), points(3, 900))
    out = tmp_path / "map"
    job = job_of(store)
    tile_map.tile_map(job, out, "osnet", Asked(days=("day1",), differences=(("day1", "day2"),)))
    assert (
        len(list(out.glob("days/*/density/0/0/0.png")))
        == len(list(out.glob("differences/*/difference/0/0/0.png")))
        == 1
    )
    written = tile_map.tile_map(job, out, "osnet", Asked(days=("day2",))).written
    assert written == len([name for name in pictures(out / "days") if "day2" in name]) > 0
    page = (out / "index.html").read_text()
    assert all(words in page for words in ("Day day1", "Day day2", "day1 \\u2212 day2"))
    with pytest.raises(InputError, match=r"day nope: is not on the map"):
        tile_map.tile_map(job, out, "osnet", Asked(days=("nope",)))
    withdraw(job.store, job.store.batches[1].name)
    tile_map.tile_map(job, out, "osnet", Asked())
    assert [p.name.split("-")[1] for p in out.glob("days/*")] == ["day2"]
    assert not list(out.glob("differences/*"))


def test_other_things_in_the_folder_are_left_alone(tmp_path):
    store = store_of(tmp_path / "s", points(1, 1000))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="other things in it"):
        tile_map.tile_map(job_of(store), tmp_path / "mine", "osnet", Asked())
    tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked(zoom=0))
    with pytest.raises(InputError, match="the map of osnet; expected one of vdc"):
        tile_map.tile_map(job_of(store), tmp_path / "map", "vdc", Asked())
    with pytest.raises(InputError, match="no descriptor 'vdc'"):
        tile_map.tile_map(job_of(store), tmp_path / "other", "vdc", Asked())


@pytest.mark.parametrize("n", [1, 3])
def test_the_smallest_maps(tmp_path, n):
    rows = points(1, n)
    nowhere = rows | {"x": np.full(n, np.nan, np.float32)}
    job = job_of(store_of(tmp_path / "s", rows, nowhere))
    tile_map.tile_map(job, tmp_path / "map", "osnet", Asked())
    with Image.open(tmp_path / "map" / "tiles" / "density" / "0" / "0" / "0.png") as image:
        assert np.asarray(image.convert("RGBA"))[..., 3].any()


@pytest.mark.slow
def test_a_real_map_shows_its_rows_where_they_are(tmp_path):
    X = np.load(shared_data("maps/arxiv_ml.npz"))["X"]
    low, high = X.min(axis=0).tolist(), X.max(axis=0).tolist()
    store = fitted_store(tmp_path / "s", [low[0], high[0], low[1], high[1]], 20)
    label = np.zeros(len(X), np.int32)
    add_day(store, "base", {"x": X[:, 0], "y": X[:, 1], "label": label, "outlier": label > 0})
    drawn = tile_map.tile_map(job_of(store), tmp_path / "map", "osnet", Asked())
    assert drawn.rows == len(X)
    frame = tiling.square([low[0], high[0], low[1], high[1]])
    with Image.open(tmp_path / "map" / "density.png") as image:
        lit = np.asarray(image).astype(int).sum(axis=2) > 40
    column = ((X[:, 0] - frame.left) / frame.side * len(lit)).astype(int)
    row = ((frame.top - X[:, 1]) / frame.side * len(lit)).astype(int)
    assert lit[row, column].all()
    assert 0.02 < lit.mean() < 0.6
