"""What pages share: pictures, charts, tables, flagged rows and sections of them, as plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass

Cell = str | int | float | None
"""One value of a table; ``None`` prints as a dash."""


@dataclass(frozen=True, kw_only=True)
class Thumb:
    """One picture as a report shows it; ``image`` is JPEG or PNG bytes, or None with the ``problem`` said in words."""

    path: str
    image: bytes | None = None
    caption: str = ""
    problem: str = "no picture"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart or map. ``image`` is PNG bytes at full size: the page carries a smaller copy.

    With a ``file_name`` (a plain name such as ``osnet-density.png``) the full image is written beside the page, linked.
    """

    title: str
    image: bytes
    caption: str = ""
    file_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under ``columns``. ``formats`` has one word per column: text, count, percent, number, seconds, bytes.

    Empty means text for strings, count for ints and number for floats. percent takes a share (0..1).

    With a ``file_name`` (a plain name such as ``agreement.csv``) ``content``, all of it, is written beside the page,
    linked.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    formats: tuple[str, ...] = ()
    caption: str = ""
    file_name: str = ""
    content: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """One flagged or highest-scoring row. ``detail`` holds further pairs such as ("camera", "north-3")."""

    rank: int
    thumb: Thumb
    score: float
    reason: str
    batch: str = ""
    detail: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A few pictures under a heading."""

    heading: str
    thumbs: tuple[Thumb, ...]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of one group of images, such as a cluster, in strips side by side."""

    name: str
    note: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A further section, e.g. what changed since yesterday: paragraphs, then figures, tables and pictures."""

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    groups: tuple[Pictures, ...] = ()
