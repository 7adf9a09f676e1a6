"""The report: well-formed, self-contained, safe with hostile strings, small enough, and complete with little to say."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from streamclust.errors import InputError
from streamclust.render import report, report_format
from streamclust.render.parts import Figure, Section, Table, Thumb
from streamclust.render.report_data import Fine, FineCluster, Incoming, ReportData
from tests.render.sample import HOSTILE, make_report, png

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text, and a check that every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def data():
    return make_report(("osnet", "vdc_mid"), size=300, k=5)


@pytest.fixture(scope="module")
def page(data):
    return Page(report.render_report(data, "report_files"))


def test_nothing_is_fetched(page):
    assert all(image["src"].startswith("data:image/") for image in page.all("img") if "src" in image)
    assert not page.all("link")
    assert not any(value and value.startswith(("http", "//")) for _, attrs in page.elements for value in attrs.values())
    assert all(link["href"].startswith(("#", "report_files/")) for link in page.all("a"))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_only_script_is_ours_and_the_policy_names_it(data):
    html = report.render_report(data, "f")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == html.lower().count("<script") == 1
    assert f"'sha256-{base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()}'" in html


def test_hostile_strings_stay_text(data, page):
    assert HOSTILE in page.text
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    hostile = dataclasses.replace(
        data,
        title=HOSTILE,
        case=HOSTILE,
        descriptors=(dataclasses.replace(data.descriptors[0], name=HOSTILE, maps=()),),
        settings=((HOSTILE, "'\"><img src=x onerror=alert(1)>"),),
    )
    other = Page(report.render_report(hostile, "f"))
    assert len(other.all("script")) == 1
    assert not any("onerror" in attrs for attrs in other.all("img"))
    assert HOSTILE in other.text


def test_links_within_the_page_lead_somewhere(page):
    ids = [attrs["id"] for _, attrs in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= set(ids)


def test_written_files_are_those_that_the_page_links_to(data, tmp_path):
    written = report.write_report(data, tmp_path / "new" / "week 1.html")
    assert sorted(written) == sorted(p for p in tmp_path.rglob("*") if p.is_file())
    links = [a["href"] for a in Page(written[0].read_text()).all("a") if not a["href"].startswith("#")]
    assert links
    assert all((tmp_path / "new" / link).is_file() for link in links)
    full = Image.open(tmp_path / "new" / "week 1_files" / "osnet-density.png")
    assert full.height > 300
    full.close()
    three = (tmp_path / "new" / "week 1_files" / "osnet-3d.html").read_text()
    assert 'src="plotly.min.js"' in three
    assert "</script><b>" not in three


def test_the_same_data_give_the_same_bytes(data):
    assert report.render_report(data, "f") == report.render_report(data, "f")


def test_no_pictures_one_descriptor_one_cluster():
    data = make_report(("osnet",), pictures=False, size=300, k=1)
    page = Page(report.render_report(data, "f"))
    assert "No pictures were given" in page.text
    assert "single cluster" in page.text
    assert "agreement" not in {attrs.get("id") for _, attrs in page.elements}
    assert not [image for image in page.all("img") if image.get("class") == "thumb"]


def test_the_least_report():
    incoming = Incoming(rows=0, batches=(), descriptors=())
    data = ReportData(title="t", store="s", case="c", created="today", incoming=incoming, descriptors=())
    assert "What came in" in Page(report.render_report(data, "f")).text


def test_precision_is_unaudited_until_somebody_audits(data, page):
    assert page.text.count("unaudited") >= 3
    rows = tuple(dataclasses.replace(p, precision=0.75, audited_rows=40) for p in data.outliers.precision)
    audited = dataclasses.replace(data, outliers=dataclasses.replace(data.outliers, precision=rows))
    text = Page(report.render_report(audited, "f")).text
    assert "75.0%" in text
    assert "unaudited" not in text


def test_too_many_pictures_shrink_until_the_page_fits(data, monkeypatch):
    full = len(report.render_report(data, "f"))
    limit = round(0.85 * full)  # figures do not shrink, and with made-up pictures they are most of the page
    monkeypatch.setattr(report, "PAGE_BYTES", limit)
    small = report.render_report(data, "f")
    assert len(small) <= limit
    assert len(Page(small).all("img")) == len(Page(report.render_report(data, "f")).all("img"))


def test_large_maps_become_narrow_jpegs():
    figure = Figure(title="m", image=png(Image.effect_noise((2600, 2300), 60)))
    uri, width = report._on_page(figure)
    assert uri.startswith("data:image/jpeg")
    assert width == report.FIGURE_WIDTH


def test_fine_clusters_beyond_sixty_are_folded(data):
    medoid = data.descriptors[0].fine.clusters[0].medoid
    clusters = tuple(FineCluster(id=i, size=9, medoid=medoid) for i in range(61))
    more = dataclasses.replace(data.descriptors[0], fine=Fine(k=61, clusters=clusters))
    less = dataclasses.replace(data.descriptors[0], fine=Fine(k=60, clusters=clusters[:60]))
    texts = [Page(report.render_report(dataclasses.replace(data, descriptors=(d,)), "f")).text for d in (more, less)]
    assert "Show 1 more" in texts[0]
    assert "Show" not in texts[1]


@pytest.mark.parametrize("name", ["../x.png", "a/b.png", "x.html", ".png", "a b.png"])
def test_file_names_that_are_not_plain_are_refused(data, name, tmp_path):
    figure = dataclasses.replace(data.descriptors[0].maps[0], file_name=name)
    bad = dataclasses.replace(data, descriptors=(dataclasses.replace(data.descriptors[0], maps=(figure,)),))
    with pytest.raises(InputError, match="figure file name"):
        report.write_report(bad, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x.csv", "agreement.png", "a b.csv"])
def test_the_file_of_a_table_has_a_plain_name_of_its_own(data, name, tmp_path):
    table = Table(title="t", columns=("a",), rows=(), file_name=name)
    bad = dataclasses.replace(data, sections=(Section(title="s", tables=(table,)),))
    with pytest.raises(InputError, match="table file name"):
        report.write_report(bad, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_no_picture_are_refused(data):
    top = (dataclasses.replace(data.outliers.top[0], thumb=Thumb(path="p", image=b"<svg onload=alert(1)>")),)
    bad = dataclasses.replace(data, outliers=dataclasses.replace(data.outliers, top=top))
    with pytest.raises(InputError, match="report picture"):
        report.render_report(bad, "f")


@given(share=st.floats(0, 1))
def test_only_none_and_all_print_as_such(share):
    assert (report_format.percent(share) == "0.0%") == (share == 0)
    assert (report_format.percent(share) == "100.0%") == (share == 1)


@given(value=st.floats(0, 1e15))
def test_sizes_round_to_within_a_twentieth(value):
    number, unit = report_format.size(value).split()
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(float(number) * scale - value) <= max(0.5, 0.051 * scale, 0.05 * value)


@pytest.mark.parametrize(
    ("value", "words"), [(0.44, "0.4 s"), (59.9, "1 min 0 s"), (3599.7, "1 h 0 min"), (7500, "2 h 5 min"), (None, "–")]
)
def test_seconds_carry_over(value, words):
    assert report_format.seconds(value) == words


def test_cells_follow_their_format():
    table = Table(title="", columns=("a", "b", "c"), rows=((1234, 0.5, None),), formats=("text", "percent", "bytes"))
    assert [report_format.cell(v, table, i) for i, v in enumerate(table.rows[0])] == ["1234", "50.0%", "–"]
    plain = dataclasses.replace(table, formats=())
    assert [report_format.cell(v, plain, i) for i, v in enumerate(table.rows[0])] == ["1,234", "0.5", "–"]
    assert [report_format.is_numeric(table, i) for i in range(3)] == [True, True, False]
