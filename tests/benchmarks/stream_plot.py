"""One replayed stream as a picture: events and alarms, agreement with the truth, and what each day cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.stream import DIMS
from tests.benchmarks.stream_score import CAUSES, Record, causes, slope

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

GOOD, BAD, INK, QUIET = "#1b7f5c", "#c2322d", "#222222", "#9a9a9a"
COLOURS = {"osnet": "#2b5c9e", "colour": "#d9812e"}


def plot(record: Record, path: Path) -> Path:
    """Draw the record over its days into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((13, 8.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2.4, 1.2, 1.0])
    figure.suptitle(f"stream {record.stream.seed}: {record.stream.days} days", x=0.01, ha="left", color=INK)
    _draw_alarms(top, record)
    _draw_agreement(middle, record)
    _draw_cost(bottom, record)
    for axes in (top, middle, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        for turn in record.turns:
            axes.axvline(turn.day, color=QUIET, lw=0.8, ls=":", zorder=0)
    bottom.set_xlabel("day (dotted: refit accepted)")
    bottom.set_xlim(-2, record.stream.days + 1)
    figure.savefig(path)
    return path


def _draw_alarms(axes: Axes, record: Record) -> None:
    """A row for each kind of event with the days it explains, and one for each kind of alarm below."""
    kinds = sorted({cry.kind for cry in record.cries})
    rows = [*CAUSES, "thin", "no folder", *(f"alarm: {kind}" for kind in kinds)]
    at = {name: len(rows) - 1 - i for i, name in enumerate(rows)}
    axes.axhspan(-0.5, len(kinds) - 0.5, color="#f4f4f4", zorder=-1)
    for event in record.stream.events:
        last = CAUSES[event.kind][2] if event.kind in CAUSES else 0
        axes.barh(at[event.kind], last + 1, left=event.day - 0.5, height=0.5, color="#dfe7f2")
        axes.plot(event.day, at[event.kind], "|", color=INK, ms=12, mew=2)
        if event.descriptor:
            axes.text(event.day + 1.5, at[event.kind], event.descriptor, va="center", size=8, color=INK)
    for cry in record.cries:
        colour = GOOD if causes(record.stream, cry) else BAD
        axes.plot(cry.day, at[f"alarm: {cry.kind}"], "o", color=colour, ms=6, mec="white", mew=0.6)
    axes.set_yticks(list(at.values()), list(at), size=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_title("events and alarms (green: an event explains it, red: none does)", loc="left", size=10)


def _draw_agreement(axes: Axes, record: Record) -> None:
    for name in DIMS:
        found = record.agreement[name]
        axes.plot(list(found), list(found.values()), color=COLOURS[name], lw=1.2, label=name)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="lower left", frameon=False, ncols=len(DIMS), fontsize=9)
    axes.set_title("adjusted Rand index of the day's labels with the truth", loc="left", size=10)


def _draw_cost(axes: Axes, record: Record) -> None:
    days, seconds = np.array(list(record.seconds)), np.array(list(record.seconds.values()))
    axes.plot(days, seconds, ".", color=INK, ms=4)
    if len(days):
        usual, more = slope(record)
        axes.plot(days, usual + more / 100 * (days - np.median(days)), color=BAD, lw=1)
        axes.set_title(f"seconds per day: median {usual:.2f}, {more:+.3f} per 100 days", loc="left", size=10)
        axes.set_ylim(0, 1.1 * np.quantile(seconds, 0.99))
