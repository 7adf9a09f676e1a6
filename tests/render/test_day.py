"""The days' pages: well-formed, self-contained, safe with hostile strings, alarms first, quiet days short, fast."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streamclust.render import day, day_charts
from streamclust.render.day_data import (
    Acknowledgement,
    Alarm,
    Camera,
    Cameras,
    ClusterShare,
    Day,
    DayAlarm,
    DayRow,
    Days,
    DescriptorDay,
    Proposal,
    Shares,
)
from streamclust.render.day_map import day_map, shape_of
from streamclust.render.parts import Figure, Outlier, Thumb
from tests.render.sample import HOSTILE, photos
from tests.render.test_report import Page

EXTENT = (-1.0, 1.0, -0.8, 0.8)
DONE = Acknowledgement(by="anna", on="2026-03-02", reason="the lens was cleaned")


def thumbs(count: int) -> tuple[Thumb, ...]:
    return tuple(Thumb(path=path, image=image) for path, image in photos(40)[:count])


def alarm(i: int, **given_fields) -> Alarm:
    known = {"id": f"a{i}", "kind": "stuck camera", "sentence": f"sentence {i}", "command": f"ack a{i}"}
    return Alarm(**known | {"value": 0.49, "expected": 0.004, "pictures": thumbs(3)} | given_fields)


def descriptor(name: str) -> DescriptorDay:
    shares = [(0, 0.76, 0.5), (1, 0.24, 0.5)]
    clusters = [
        ClusterShare(
            id=i, rows=int(100 * a), share=a, reference=b, name=HOSTILE * i, typical=thumbs(1)[0], alarmed=i > 0
        )
        for i, a, b in shares
    ]
    places = np.zeros(shape_of(EXTENT), np.uint32)
    image = day_map(np.ones((64, 64), np.uint32), places, places)
    figure = Figure(title="today", image=image)
    return DescriptorDay(name=name, rows=100, reference_rows=6000, k=2, clusters=tuple(clusters), map=figure)


def full(alarms: tuple[Alarm, ...] = (alarm(0), alarm(1, acknowledged=DONE))) -> Day:
    top = [Outlier(rank=i + 1, thumb=t, score=4.0 - i, reason=f"reason {i}") for i, t in enumerate(thumbs(4))]
    return Day(
        name="2026-01-05",
        store="cars.store",
        created="today",
        images=243,
        judged=243,
        flagged=62,
        budget=0.01,
        threshold=2.0,
        alarms=alarms,
        strangest=tuple(top),
        descriptors=(descriptor("osnet"), descriptor("vdc mid")),
        cameras=Cameras(column="camera", cameras=(Camera(name=HOSTILE, rows=9, flagged=2, alarmed=True),), total=2),
        missing=("The descriptor vdc did not come with this day.",),
        older_open=2,
        previous=("2026-01-04", "2026-01-04.html"),
    )


def days_of(n: int, k: int = 3, seed: int = 0) -> Days:
    rng = np.random.default_rng(seed)
    rows, shares = [], []
    for i in range(n):
        raised = (DayAlarm(id=f"a{i}", kind="drift", sentence="s", acknowledged=DONE if i % 2 else None),) * (
            i % 20 == 3
        )
        images = int(rng.integers(3, 5000))
        page, flagged = f"day-{i:04d}.html", int(images * 0.01)
        rows.append(
            DayRow(name=f"day-{i:04d}", images=images, judged=images, flagged=flagged, page=page, alarms=raised)
        )
        shares.append(None if i % 11 == 5 else tuple(rng.dirichlet(np.ones(k)).tolist()))
    about = Shares(
        descriptor="osnet",
        clusters=tuple((c, HOSTILE if c == 0 else "") for c in range(k)),
        shares=tuple(shares),
        reference=(1 / k,) * k,
    )
    return Days(store="cars.store", created="today", days=tuple(rows), budget=0.01, shares=(about,), command="ack ID")


@pytest.mark.parametrize("html", [day.render_day(full()), day.render_day(full(())), day.render_days(days_of(30))])
def test_a_page_is_well_formed_and_fetches_nothing(html):
    page = Page(html)
    assert all(image["src"].startswith("data:image/") for image in page.all("img") if "src" in image)
    assert not page.all("link")
    links = [link["href"] for link in page.all("a")]
    assert all(re.fullmatch(r"#[\w-]+|[\w.-]+\.html(#\w+)?", href) for href in links)
    ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert {href[1:] for href in links if href.startswith("#")} <= ids
    assert "<script>alert" not in html
    assert html.lower().count("<script") == 1


def test_alarms_come_first_and_open_ones_before_the_others():
    html = day.render_day(full((alarm(0, acknowledged=DONE), alarm(1))))
    text = Page(html).text
    assert text.index("sentence 1") < text.index("sentence 0") < text.index("reason 0")
    assert "ack a1" in text
    assert "ack a0" not in text
    assert "anna looked at this on 2026-03-02: “the lens was cleaned”" in text


def test_a_proposed_cluster_is_shown():
    proposal = Proposal(rows=37, medoid=thumbs(1)[0])
    assert "37 images like this one" in Page(day.render_day(full((alarm(0, proposal=proposal),)))).text


def test_a_quiet_day_is_short():
    quiet, loud = (Page(day.render_day(full(alarms))) for alarms in ((), (alarm(0),)))
    assert "no alarm." in quiet.text
    assert not any(attrs.get("id") == "alarms" for attrs in quiet.all("section"))
    assert len(quiet.all("details")) == 1 + 2  # the contents, and a folded part for each descriptor
    assert len(loud.all("details")) == 1


def test_a_day_with_next_to_nothing():
    thin = Day(name="d", store="s", created="t", images=1)
    page = Page(day.render_day(thin))
    assert "1 image came in; no alarm." in page.text
    assert len(page.all("section")) == 0
    assert Page(day.render_days(Days(store="s", created="t", days=()))).text.count("No day has come in yet.") == 2


@pytest.mark.parametrize(
    ("alarms", "words"),
    [
        ((), "243 images came in; no alarm."),
        ((alarm(0),), "243 images came in; 1 alarm to look at: stuck camera."),
        ((alarm(0), alarm(1), alarm(2, kind="drift")), "243 images came in; 3 alarms to look at: stuck camera, drift."),
        ((alarm(0, acknowledged=DONE),), "243 images came in; 1 alarm, acknowledged."),
        (
            (alarm(0, kind="drift", acknowledged=DONE), alarm(1)),
            "243 images came in; 1 alarm to look at: stuck camera.",
        ),
    ],
)
def test_the_headline_says_what_came_and_what_is_open(alarms, words):
    assert day.day_headline(full(alarms)) == words


def test_days_stand_newest_first_with_their_alarms():
    data = days_of(30)
    html = day.render_days(data)
    begin = html.index('<section id="days">')
    table = Page(html[begin : html.index("</section>", begin)] + "</section>")
    names = [word.strip() for word in table.words if word.strip().startswith("day-")]
    assert names == [row.name for row in reversed(data.days)]
    assert Page(html).text.count("drift ✓") == sum(a.acknowledged is not None for r in data.days for a in r.alarms) > 0


def test_a_thousand_days_are_quick_and_small():
    data = days_of(1000, k=20)
    begin = time.monotonic()
    html = day.render_days(data)
    assert time.monotonic() - begin < 5
    assert len(html) < 3_000_000
    assert "Each column holds 4 days together." in html
    assert "940 earlier days" in Page(html).text


@settings(max_examples=40)
@given(n=st.integers(1, 700), k=st.integers(1, 5), seed=st.integers(0, 99))
def test_pooled_shares_are_means_over_images(n, k, seed):
    data = days_of(n, k, seed)
    columns, names, each = day_charts.pool(data, data.shares[0])
    assert len(columns) == len(names) == -(-n // each) <= day_charts.COLUMNS
    for i, column in enumerate(columns):
        chunk = slice(i * each, (i + 1) * each)
        known = [(d.images, s) for d, s in zip(data.days[chunk], data.shares[0].shares[chunk], strict=True) if s]
        if known:
            np.testing.assert_allclose(column, np.average([s for _, s in known], axis=0, weights=[w for w, _ in known]))
            assert column.sum() == pytest.approx(1)
        else:
            assert np.isnan(column).all()


@given(st.floats(1e-6, 1e9))
def test_an_axis_ends_at_a_round_number_just_above(value):
    top = day_charts.nice_top(value)
    assert value * (1 - 1e-9) <= top <= 2 * value * (1 + 1e-9)
    assert float(f"{top:.0e}") == pytest.approx(top)


def test_a_day_without_a_descriptor_is_a_gap_and_clusters_beyond_the_palette_are_one_layer():
    data = days_of(12, k=20)
    svg = str(day_charts.stack(data, data.shares[0]))
    assert svg.count("<path") == day_charts.LAYERS + 1
    assert "6 others" in svg
    assert all(path.count("M") == 2 for path in re.findall(r'<path d="([^"]*)"', svg))  # day 5 lacks it


def test_the_map_marks_rows_where_they_lie():
    shape = shape_of(EXTENT)
    today, flagged = np.zeros((2, *shape), np.uint32)
    today[30, 40] = flagged[shape[0] - 50, 300] = today[shape[0] - 50, 300] = 1
    pixels = np.asarray(Image.open(io.BytesIO(day_map(np.ones((512, 512), np.uint32), today, flagged))).convert("RGB"))
    assert pixels.shape[:2] == shape
    red, _, blue = pixels[49, 300].astype(int)  # row 0 of a grid is the lowest y, of a picture the highest
    assert red > blue + 80
    red, _, blue = pixels[shape[0] - 31, 40].astype(int)
    assert blue > red + 80
    plain = pixels[200:400, 400:600].astype(int)
    assert np.ptp(plain, axis=2).max() < 40


@pytest.mark.parametrize("rows", [0, 1, 200_000])
def test_the_map_of_few_and_many(rows):
    rng, shape = np.random.default_rng(0), shape_of((0.0, 1.0, 0.0, 5.0))
    at = rng.integers(0, shape[0], rows), rng.integers(0, shape[1], rows)
    today = np.zeros(shape, np.uint32)
    np.add.at(today, at, 1)
    image = day_map(np.zeros((512, 512), np.uint32), today, np.zeros_like(today))
    assert len(image) < 500_000


def test_the_same_data_give_the_same_page():
    assert day.render_day(full()) == day.render_day(full())
    assert day.render_days(days_of(9)) == day.render_days(replace(days_of(9)))
