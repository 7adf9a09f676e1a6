"""One self-contained HTML page from ``ReportData``: opens from a file, makes no request, reads on paper and phones."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamclust.errors import InputError
from streamclust.render import report_format as text
from streamclust.render.contact_sheets import thumbnail
from streamclust.render.parts import Figure, Table, Thumb
from streamclust.render.plots import DPI as CHART_DPI
from streamclust.render.report_data import DescriptorReport, ReportData

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATES = Path(__file__).parent / "templates"
PAGE_BYTES = 14 * 10**6
"""Above this a page is slow to open and to mail; thumbnails shrink until it holds."""
THUMB_SIZES = (0, 128, 104, 84, 64, 48)
FIGURE_WIDTH = 1300
FINE_SHOWN = 60


def write_report(data: ReportData, path: Path | str) -> list[Path]:
    """Write the page at ``path`` and what it links to in ``<stem>_files/`` beside it; return every path written.

    The folder has the full-size figures and whole tables that carry a ``file_name``, and a page per 3-D map with
    plotly's script beside it. The page itself needs none of them. The same data give the same bytes.

    Raises InputError for a file name that is not plain, and for pictures that are neither JPEG nor PNG.
    """
    page = Path(path)
    folder = page.with_name(f"{page.stem}_files")
    files = _linked_files(data)
    html = render_report(data, folder.name)
    (folder if files else page.parent).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace_file(folder / name, content)
    replace_file(page, html.encode())
    return [page, *(folder / name for name in files)]


def render_report(data: ReportData, folder: str) -> str:
    """The page as text; ``folder`` is the relative folder that its links point into."""
    found = list(_walk(data, Figure))
    with ThreadPoolExecutor(2) as pool:  # Pillow works without the interpreter's lock
        figures = dict(zip(map(id, found), pool.map(_on_page, found), strict=True))
    page = dressed("report.css")
    page.globals.update(
        figure_uri=lambda figure: figures[id(figure)][0],
        figure_width=lambda figure: figures[id(figure)][1],
        thumb_uri=partial(_thumb_uri, size=_thumb_size(data, sum(len(uri) for uri, _ in figures.values()))),
        anchor=anchor,
        page_3d=_page_3d,
        folder=folder,
        fine_shown=FINE_SHOWN,
    )
    html: str = page.get_template("report.html").render(data=data)
    return html


def dressed(*styles: str) -> Any:
    """An environment with the pages' script and those style sheets."""
    from markupsafe import Markup

    page = environment()
    css, script = (
        "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in files) for files in (styles, ["report.js"])
    )
    page.globals.update(
        css=Markup(css),  # noqa: S704 -- ours, no data in it
        script=Markup(script),  # noqa: S704 -- ours, no data in it
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return page


def environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=text.count,
        percent=text.percent,
        number=text.number,
        seconds=text.seconds,
        size=text.size,
        cell=text.cell,
        is_numeric=text.is_numeric,
    )
    return environment


def _walk(value: Any, kind: type[Any]) -> Iterator[Any]:
    """Every dataclass of ``kind`` in a tree of dataclasses and tuples."""
    if isinstance(value, kind):
        yield value
    if isinstance(value, tuple):
        for item in value:
            yield from _walk(item, kind)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _walk(getattr(value, field.name), kind)


def _thumb_size(data: ReportData, used: int) -> int:
    """The largest thumbnail size with which the page stays below its limit; 0 keeps them as given."""
    images = [thumb.image for thumb in _walk(data, Thumb) if thumb.image]
    for size in THUMB_SIZES:
        if used + sum(len(_thumb_uri(image, size)) for image in images) <= PAGE_BYTES:
            return size
    return THUMB_SIZES[-1]


def _thumb_uri(image: bytes, size: int) -> str:
    from PIL import Image

    if not size:
        return data_uri(image)
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        return data_uri(thumbnail(picture, size, quality=72))


def _on_page(figure: Figure) -> tuple[str, int]:
    """The image of a figure and its width in CSS pixels: a chart as it is, a map as a JPEG narrow enough for a page."""
    from PIL import Image

    with Image.open(io.BytesIO(figure.image), formats=("JPEG", "PNG")) as picture:
        if picture.width <= 1.5 * FIGURE_WIDTH:
            return data_uri(figure.image), round(picture.width * 96 / CHART_DPI)
        height = round(picture.height * FIGURE_WIDTH / picture.width)
        small = picture.convert("RGB").resize((FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=80, optimize=True, subsampling=1)
    return data_uri(out.getvalue()), FIGURE_WIDTH


def data_uri(image: bytes) -> str:
    kinds = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}
    if image[:3] not in kinds:
        raise InputError("report picture", f"bytes that start {image[:8]!r}", "JPEG or PNG")
    return f"data:image/{kinds[image[:3]]};base64,{base64.b64encode(image).decode()}"


def _linked_files(data: ReportData) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    named = [("figure", ".png", figure.file_name, figure.image) for figure in _walk(data, Figure)]
    named += [("table", ".csv", table.file_name, table.content) for table in _walk(data, Table)]
    for what, ending, name, content in named:
        if name:
            if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9_.@-]*\{ending}", name) or name in files:
                raise InputError(f"{what} file name", repr(name), f"a plain {ending} name, each once")
            files[name] = content
    template = environment().get_template("map3d.html")
    for descriptor in data.descriptors:
        if descriptor.map_3d:
            files[_page_3d(descriptor)] = template.render(descriptor=descriptor).encode()
    if any(descriptor.map_3d for descriptor in data.descriptors):
        from plotly.offline import get_plotlyjs

        files["plotly.min.js"] = get_plotlyjs().encode()
    return files


def anchor(name: str) -> str:
    """A name as an element id and a file name: its plain characters, and a digest where it has others."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-").lower()
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _page_3d(descriptor: DescriptorReport) -> str:
    return f"{anchor(descriptor.name)}-3d.html"


def replace_file(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a reader never sees half a page."""
    partial_file = path.with_name(f".{path.name}.partial")
    partial_file.write_bytes(content)
    partial_file.replace(path)
