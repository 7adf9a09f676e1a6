"""Self-contained HTML of a refit: what would change, with pictures, in the report's look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamclust.render import day_charts as charts
from streamclust.render.day import render_page
from streamclust.render.report import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from streamclust.render.refit_data import Refit


def write_refit(data: Refit, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, render_refit(data).encode())


def render_refit(data: Refit) -> str:
    """The page as text. The same data give the same text."""
    return render_page("refit.html", data, headline=headline(data), meter=charts.meter)


def headline(data: Refit) -> str:
    """How much changes, in one sentence."""
    parts = [f"{d.changed / max(d.shared, 1):.1%} of {d.name}" for d in data.descriptors if d.changed]
    new = [d.name for d in data.descriptors if not d.before]
    verb = "changed" if data.accepted else "would change"
    said = f"{', '.join(parts)} {verb} cluster" if parts else f"No image {verb} cluster"
    return said + (f"; first clusters of {', '.join(new)}." if new else ".")
