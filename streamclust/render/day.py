"""Self-contained HTML of one day, and of all days, in the report's look."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamclust.render import day_charts as charts
from streamclust.render.report import anchor, data_uri, dressed, replace_file

if TYPE_CHECKING:
    from streamclust.render.day_data import Day, DayAlarm, DayRow, Days

DAYS_SHOWN, OPEN_SHOWN = 60, 100


def write_day(data: Day, path: Path) -> None:
    """Write one day's page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, render_day(data).encode())


def write_days(data: Days, path: Path) -> None:
    """Write the page over all days."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, render_days(data).encode())


def render_day(data: Day) -> str:
    """One day's page as text. The same data give the same text."""
    return render_page(
        "day.html",
        data,
        headline=day_headline(data),
        meter=charts.meter,
        share_bar=charts.share_bar,
        data_uri=data_uri,
    )


def render_days(data: Days) -> str:
    """The page over all days as text."""
    open_ = [(row, alarm) for row in reversed(data.days) for alarm in row.alarms if alarm.acknowledged is None]
    each = -(-len(data.days) // charts.COLUMNS)
    return render_page(
        "days.html",
        data,
        headline=days_headline(data, open_),
        open=open_,
        newest=data.days[::-1],
        top_rate=max((row.rate or 0.0 for row in data.days), default=0.0),
        meter=charts.meter,
        course=charts.course(data) if data.days else "",
        stack=partial(charts.stack, data),
        pooled=f"Each column holds {each} days together. " if each > 1 else "",
        days_shown=DAYS_SHOWN,
        open_shown=OPEN_SHOWN,
    )


def day_headline(data: Day) -> str:
    """What came in and how many alarms it raised, in one sentence."""
    came = f"{data.images:,} image{'s' * (data.images != 1)} came in"
    open_ = sum(alarm.acknowledged is None for alarm in data.alarms)
    if not data.alarms:
        return f"{came}; no alarm."
    if not open_:
        return f"{came}; {_alarms(len(data.alarms))}, acknowledged."
    kinds = dict.fromkeys(alarm.kind for alarm in data.alarms if alarm.acknowledged is None)
    return f"{came}; {_alarms(open_)} to look at: {', '.join(kinds)}."


def days_headline(data: Days, open_: list[tuple[DayRow, DayAlarm]]) -> str:
    """How many days, how many images, and what is open, in one sentence."""
    if not data.days:
        return "No day has come in yet."
    came = f"{len(data.days):,} day{'s' * (len(data.days) != 1)}, {sum(row.images for row in data.days):,} images"
    if not open_:
        raised = sum(len(row.alarms) for row in data.days)
        return f"{came}; {_alarms(raised)}, acknowledged." if raised else f"{came}; no alarm."
    return f"{came}; {_alarms(len(open_))} to look at, the newest of {open_[0][0].name}."


def _alarms(count: int) -> str:
    return f"{count:,} alarm{'s' * (count != 1)}"


def render_page(template: str, data: Any, **names: Any) -> str:
    """A template of the days' look with its data and the names it calls, as text."""
    page = dressed("report.css", "day.css")
    page.filters["capitalised"] = lambda words: words[:1].upper() + words[1:]
    page.globals.update(names, anchor=anchor, thumb_uri=data_uri, folder="")
    html: str = page.get_template(template).render(data=data)
    return html
