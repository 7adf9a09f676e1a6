"""The charts of the days' pages as SVG: bars in a table, the course over all days, cluster shares over days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from streamclust.render.day_data import DayRow, Days, Shares
from streamclust.render.density import cluster_colours

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, LEFT, RIGHT = 1000, 52, 8
RED, GREEN, BLUE, PALE, INK, MUTED, RULE = "#d55e00", "#009e73", "#0072b2", "#b9cfe2", "#1b1e24", "#5d6470", "#e3e6ea"
COLUMNS = 250
"""Shares of more days than this are pooled: thinner columns could not be told apart."""
LAYERS = 14
OTHERS = "#d4d8de"
LABEL_PX = 78  # what a day's name takes below a chart


def meter(value: float, most: float, colour: str) -> Markup:
    """A bar of ``value`` on a scale that ends at ``most``."""
    return Markup(
        '<svg width="100%" height="8" aria-hidden="true"><rect width="100%" height="8" rx="4" fill="#eef0f3"></rect>'
        '<rect width="{:.2f}%" height="8" rx="4" fill="{}"></rect></svg>'
    ).format(_part(value, most), colour)


def share_bar(value: float, reference: float, most: float, colour: str) -> Markup:
    """A bar of today's share with a mark where the reference's ends."""
    return Markup(
        '<svg width="100%" height="18" aria-hidden="true"><rect y="4" width="99%" height="10" rx="3" fill="#f2f4f6">'
        '</rect><rect y="4" width="{:.2f}%" height="10" rx="3" fill="{}"></rect>'
        '<rect x="{:.2f}%" width="2.5" height="18" fill="#1b1e24"></rect></svg>'
    ).format(0.99 * _part(value, most), colour, 0.99 * _part(reference, most))


def _part(value: float, most: float) -> float:
    return 100 * min(1.0, max(0.0, value / most)) if most > 0 else 0.0


def course(data: Days) -> Markup:
    """Images and outlier rate by day, oldest left, under a lane of alarms; every column leads to its day's page."""
    days, n = data.days, len(data.days)
    step, lane, tall, gap = (WIDTH - LEFT - RIGHT) / n, 34, 120, 40
    tops = (lane + 14, lane + 14 + tall + gap)
    height = tops[1] + tall + 26
    images = [float(d.images) for d in days]
    rates = [d.rate for d in days]
    body = [
        _panel("images", images, tops[0], tall, step, PALE, lambda v: f"{v:,.0f}"),
        _panel("flagged", rates, tops[1], tall, step, PALE, lambda v: f"{100 * v:.3g}%", data.budget),
        *(_alarm_marks(i, day, step, lane, height - 26) for i, day in enumerate(days) if day.alarms),
        *_day_names([d.name for d in days], step, LEFT, WIDTH - RIGHT, height - 8),
        *(_hover(i, day, step, height) for i, day in enumerate(days)),
    ]
    return _svg(height, body, "Images, outlier rate and alarms by day")


def _panel(
    title: str,
    values: Sequence[float | None],
    top: float,
    tall: float,
    step: float,
    colour: str,
    words: Any,
    line: float | None = None,
) -> Markup:
    known = [v for v in values if v is not None]
    most = nice_top(max([*known, line or 0.0], default=0.0))
    width = max(step * (0.82 if step > 3 else 1.0), 0.6)
    bars = "".join(
        f"M{LEFT + i * step:.1f} {top + tall:.1f}v{-tall * v / most:.1f}h{width:.2f}v{tall * v / most:.1f}z"
        for i, v in enumerate(values)
        if v
    )
    out = [Markup('<text x="{}" y="{}" font-weight="600" fill="{}">{}</text>').format(LEFT, top - 8, INK, title)]
    for share in (0.0, 0.5, 1.0):
        y = top + tall * (1 - share)
        out.append(
            Markup(
                '<path d="M{} {:.1f}H{}" stroke="{}"></path>'
                '<text x="{}" y="{:.1f}" text-anchor="end" fill="{}">{}</text>'
            ).format(LEFT, y, WIDTH - RIGHT, RULE, LEFT - 8, y + 4, MUTED, words(share * most))
        )
    out.append(Markup('<path d="{}" fill="{}"></path>').format(bars, colour))
    if line is not None:
        out.append(
            Markup('<path d="M{} {:.1f}H{}" stroke="{}" stroke-dasharray="5 4"></path>').format(
                LEFT, top + tall * (1 - line / most), WIDTH - RIGHT, INK
            )
        )
    return Markup("").join(out)


def nice_top(value: float) -> float:
    """The smallest of 1, 2, 4, 5, 6, 8 or 10 times a power of ten that is at least ``value``, 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(min(m * power for m in (1, 2, 4, 5, 6, 8, 10) if m * power >= value * (1 - 1e-9)))


def _alarm_marks(i: int, day: DayRow, step: float, lane: float, bottom: float) -> Markup:
    open_ = [a for a in day.alarms if a.acknowledged is None]
    colour, x = RED if open_ else GREEN, LEFT + (i + 0.41) * step
    return Markup(
        '<path d="M{0:.1f} {1}V{2}" stroke="{3}" stroke-width="1" opacity=".45"></path>'
        '<circle cx="{0:.1f}" cy="{4}" r="{5}" fill="{6}" stroke="{3}" stroke-width="2"></circle>'
    ).format(x, lane - 8, bottom, colour, lane - 14, 5 if step > 6 else 3.5, colour if open_ else "#fff")


def _hover(i: int, day: DayRow, step: float, height: float) -> Markup:
    rate = "" if day.rate is None else f", {day.flagged:,} flagged ({day.rate:.1%})"
    words = f"{day.name}: {day.images:,} images{rate}" + "".join(f"; {a.kind}" for a in day.alarms)
    column = Markup('<rect x="{:.1f}" width="{:.2f}" height="{}" fill="transparent"><title>{}</title></rect>').format(
        LEFT + i * step, step, height - 22, words
    )
    return Markup('<a href="{}">{}</a>').format(day.page, column) if day.page else column


def _day_names(names: Sequence[str], step: float, left: float, right: float, y: float) -> Iterator[Markup]:
    every = max(1, int(np.ceil(LABEL_PX / step)))
    for i in range(0, len(names), every):
        x = left + i * step
        if x <= right - LABEL_PX or i == 0:
            name = names[i] if len(names[i]) <= 12 else names[i][:11] + "…"
            yield Markup('<text x="{:.1f}" y="{}" fill="{}">{}</text>').format(x, y, MUTED, name)


def pool(data: Days, shares: Shares) -> tuple[NDArray[np.float64], list[str], int]:
    """Shares in at most COLUMNS columns, weighed by images: (columns, k), NaN without rows; names; days in each."""
    days = -(-len(data.days) // COLUMNS)
    k = len(shares.clusters)
    values = np.array([row if row is not None else [np.nan] * k for row in shares.shares]).reshape(-1, k)
    weight = np.where(np.isnan(values).any(axis=1), 0.0, [day.images for day in data.days])
    starts = np.arange(0, len(values), days)
    total = np.add.reduceat(weight, starts)
    summed = np.add.reduceat(np.nan_to_num(values) * weight[:, None], starts, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return summed / total[:, None], [data.days[i].name for i in starts], days


def stack(data: Days, shares: Shares) -> Markup:
    """Cluster shares over the days, largest cluster at the bottom, with a legend; the reference stands on the left."""
    columns, names, _ = pool(data, shares)
    order = np.argsort(-np.array(shares.reference), kind="stable")
    kept, rest = order[:LAYERS], order[LAYERS:]
    layers = [*((columns[:, c], shares.reference[c]) for c in kept)]
    keys = [f"{i} {name}".strip() for i, name in (shares.clusters[c] for c in kept)]
    colours = cluster_colours([shares.clusters[c][0] for c in kept])
    if len(rest):
        layers.append((columns[:, rest].sum(axis=1), sum(shares.reference[c] for c in rest)))
        keys, colours = [*keys, f"{len(rest)} others"], [*colours, OTHERS]
    tall, top, panel, first = 250, 10, 170, 34
    step = (WIDTH - LEFT - panel - first) / len(columns)
    body: list[Markup] = []
    low, base = np.where(np.isnan(columns[:, 0]), np.nan, 0.0), 0.0
    for (values, reference), colour, key in zip(layers, colours, keys, strict=True):
        path = _steps(low, low + values, step, LEFT + first, top, tall)
        body.append(
            Markup(
                '<rect x="{}" y="{:.1f}" width="{}" height="{:.1f}" fill="{}"></rect>'
                '<path d="{}" fill="{}" stroke="#fff" stroke-width=".6"><title>{}</title></path>'
            ).format(LEFT, top + tall * (1 - base - reference), first - 10, tall * reference, colour, path, colour, key)
        )
        low, base = low + values, base + reference
    body += [_axis(top, tall), *_legend(keys, colours, WIDTH - panel + 14, top)]
    body += _day_names(names, step, LEFT + first, WIDTH - panel, top + tall + 20)
    return _svg(max(top + tall + 28, top + 18 * len(keys) + 10), body, f"Cluster shares of {shares.descriptor} by day")


def _steps(low: NDArray[np.float64], high: NDArray[np.float64], step: float, x: float, top: float, tall: float) -> str:
    """The outline of one layer, column by column; a day without a share is a gap."""
    known = np.flatnonzero(np.isfinite(high))
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []
    path = []
    for run in runs:
        upper = "".join(f"V{top + tall * (1 - high[i]):.1f}H{x + (i + 1) * step:.1f}" for i in run)
        lower = "".join(f"V{top + tall * (1 - low[i]):.1f}H{x + i * step:.1f}" for i in run[::-1])
        path.append(f"M{x + run[0] * step:.1f} {top + tall * (1 - low[run[0]]):.1f}{upper}{lower}z")
    return "".join(path)


def _axis(top: float, tall: float) -> Markup:
    return Markup("").join(
        Markup('<text x="{}" y="{:.1f}" text-anchor="end" fill="{}">{:.0f}%</text>').format(
            LEFT - 8, top + tall * (1 - share) + 4, MUTED, 100 * share
        )
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )


def _legend(keys: Sequence[str], colours: Sequence[str], x: float, top: float) -> Iterator[Markup]:
    """In the layers' order, the lowest last."""
    for i, (key, colour) in enumerate(zip(reversed(keys), reversed(colours), strict=True)):
        words = key if len(key) <= 20 else key[:19] + "…"
        yield Markup(
            '<rect x="{}" y="{}" width="12" height="12" rx="3" fill="{}"></rect><text x="{}" y="{}" fill="{}">{}</text>'
        ).format(x, top + 18 * i, colour, x + 18, top + 18 * i + 10, INK, words)


def _svg(height: float, body: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("").join(body)
    )
