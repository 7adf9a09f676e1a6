"""The charts of a report as PNG bytes, and the 3-D map as HTML, in Okabe and Ito's colour-blind-safe colours."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from streamclust.errors import InputError
from streamclust.render.canvas import DARK
from streamclust.render.density import cluster_colours

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

BLUE, GREEN, VERMILION, PURPLE, BROWN = "#0072b2", "#009e73", "#d55e00", "#9a4f80", "#b07a00"
GREY = "#767c86"
INK, RULE = "#1b1e24", "#e3e6ea"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b4bac3",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "text.color": INK,
    "xtick.color": "#4d535d",
    "ytick.color": "#4d535d",
    "figure.facecolor": "white",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
DPI = 160
_ROOM = 66  # characters under the bars, a gap after each number included


def cluster_sizes(sizes: ArrayLike, ids: Sequence[int]) -> bytes:
    """Rows per cluster, largest first; ``sizes`` and ``ids`` are (k,) counts and numbers of the clusters.

    A bar bears the number of its cluster while there is room for it. Beyond 60 clusters a line stands for the bars.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    order = np.argsort(-counts, kind="stable")
    ordered, rank = counts[order], np.arange(1, len(order) + 1)
    named = sum(len(f"{number} ") for number in ids) <= _ROOM
    with drawing(6, 2.7) as figure:
        axes = figure.add_subplot()
        if len(ordered) <= 60:
            axes.bar(rank, ordered, width=0.78, color=BLUE)
        else:
            axes.fill_between(rank, ordered, step="mid", color=BLUE, alpha=0.25, linewidth=0)
            axes.step(rank, ordered, where="mid", color=BLUE, linewidth=1.6)
        axes.margins(x=0.01)
        if named:
            axes.set_xticks(rank, [str(ids[at]) for at in order])
        else:
            _whole_ticks(axes)
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
        axes.set_title(f"Rows in each of {len(ordered):,} clusters" if len(ordered) > 1 else "Rows in the only cluster")
        axes.set_xlabel("cluster, largest first" if named else "clusters, largest first")
        axes.set_ylabel("rows")
        thousands(axes)
        return as_png(figure)


def variance_curve(explained_ratio: ArrayLike, chosen: int) -> bytes:
    """Cumulative share of variance against the number of components, with the chosen number marked."""
    total = np.cumsum(np.asarray(explained_ratio, dtype=np.float64))
    kept = float(total[chosen - 1])
    with drawing(6, 2.7) as figure:
        axes = figure.add_subplot()
        components = np.arange(1, len(total) + 1)
        axes.plot(components, 100 * total, color=BLUE, linewidth=2, marker="o" if len(total) < 12 else "")
        axes.fill_between(components[:chosen], 100 * total[:chosen], color=BLUE, alpha=0.14, linewidth=0)
        axes.plot([chosen], [100 * kept], marker="o", markersize=9, color=BLUE, markerfacecolor="white", mew=2)
        axes.axvline(chosen, color=GREY, linestyle=(0, (3, 3)), linewidth=1.2)
        left, keep = chosen < 0.6 * len(total), "components keep" if chosen > 1 else "component keeps"
        axes.annotate(
            f"{chosen} {keep} {100 * kept:.1f}%", (chosen, 10), xytext=(8 if left else -8, 0),
            textcoords="offset points", ha="left" if left else "right", va="center",
        )  # fmt: skip
        axes.set_ylim(0, 104)
        _whole_ticks(axes)
        axes.set_title("Variance kept")
        axes.set_xlabel("components")
        axes.set_ylabel("share of variance (%)")
        return as_png(figure)


def score_histogram(counts: ArrayLike, edges: ArrayLike, threshold: float) -> bytes:
    """Rows per bin of the outlier score on a log scale; bins from ``threshold`` up are orange.

    ``counts`` is (b,) rows and ``edges`` (b + 1,) scores.
    """
    rows, bounds = np.asarray(counts, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    if len(bounds) != len(rows) + 1:
        raise InputError("score_histogram", f"{len(bounds)} edges for {len(rows)} bins", f"{len(rows) + 1} edges")
    with drawing(6, 2.7) as figure:
        axes = figure.add_subplot()
        flagged = bounds[:-1] >= threshold
        colours = [VERMILION if f else "#8fa3b8" for f in flagged]
        axes.bar(
            bounds[:-1], rows, width=np.diff(bounds), align="edge", color=colours, edgecolor="white", linewidth=0.3
        )
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (3, 3)))
        right = threshold > 0.6 * bounds[-1] + 0.4 * bounds[0]
        axes.annotate(
            f"threshold {threshold:.4g}", (threshold, 0.93), xycoords=("data", "axes fraction"),
            xytext=(-6 if right else 6, 0), textcoords="offset points", ha="right" if right else "left",
        )  # fmt: skip
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(bottom=0.7)
        thousands(axes)
        axes.set_title("Outlier scores of all rows")
        axes.set_xlabel("outlier score (higher is stranger)")
        axes.set_ylabel("rows (log scale)")
        return as_png(figure)


def agreement_heatmap(names: Sequence[str], matrix: ArrayLike, title: str = "") -> bytes:
    """A square matrix of agreements (ARI or AMI) with its values written in; 1 is the same clustering, 0 is chance."""
    values = np.asarray(matrix, dtype=np.float64)
    d = len(names)
    if values.shape != (d, d):
        raise InputError("agreement_heatmap", f"a matrix of shape {values.shape}", f"({d}, {d}), one row per name")
    longest = max(map(len, names), default=0)
    side = min(0.7 * max(d, 2), 12.0)
    with drawing(side + 1.3 + 0.1 * longest, side + 0.5 + 0.05 * longest) as figure:
        axes = figure.add_subplot()
        shown = axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_xticks(range(d), names, rotation=30 if longest > 8 else 0, ha="right" if longest > 8 else "center")
        axes.set_yticks(range(d), names)
        size = 15 * side / max(d, 2)
        for i, j in np.ndindex(d, d):
            said, ink = f"{values[i, j]:.2f}", "white" if values[i, j] < 0.55 else "black"
            axes.text(j, i, said.replace("nan", "–"), ha="center", va="center", color=ink, fontsize=size)
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.04)
        bar.outline.set_visible(False)
        return as_png(figure)


def map3d_html(xyz: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], names: Sequence[str]) -> str:
    """A plotly <div> of a 3-D map coloured by cluster, without plotly's script, which the page around it has to load.

    ``xyz`` is (n, 3), ``labels`` (n,) with -1 for noise, and ``names[c]`` the name of cluster c.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    found = np.unique(labels).tolist()
    for label, colour in zip(found, cluster_colours(found), strict=True):
        name = "noise" if label < 0 else f"{label} {names[label]}".strip()
        marker = {"size": 2.4, "color": colour, "opacity": 0.4 if label < 0 else 0.9}
        x, y, z = (xyz[labels == label, axis].astype(float).round(3).tolist() for axis in range(3))
        figure.add_trace(
            go.Scatter3d(x=x, y=y, z=z, mode="markers", name=_escaped(name), marker=marker, hoverinfo="name")
        )
    axis = {"showticklabels": False, "title": "", "backgroundcolor": DARK.background, "gridcolor": DARK.rule}
    axis |= {"zeroline": False, "showspikes": False}
    figure.update_layout(
        scene={"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "data"},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor=DARK.background,
        font={"color": DARK.text},
        legend={"itemsizing": "constant"},
    )
    # Without its bar and server the page has no button that would send the data to plotly.
    config = {"displayModeBar": False, "plotlyServerURL": "", "responsive": True}
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id="map3d", default_height="100%", config=config
    )
    return html


def _escaped(name: str) -> str:
    """Plotly reads a few tags in trace names; a name is text."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An Agg figure in inches under this module's style; no global state of matplotlib survives it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def as_png(figure: Figure) -> bytes:
    out = io.BytesIO()
    # Software carries matplotlib's version, which would change the bytes and say nothing of the data.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))


def thousands(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter

    largest = max((abs(v) for v in axes.get_ylim()), default=0)
    plain = FuncFormatter(lambda v, _: f"{v:,.0f}" if largest >= 10 else f"{v:.3g}")
    axes.yaxis.set_major_formatter(EngFormatter(sep="") if largest >= 1e5 else plain)
