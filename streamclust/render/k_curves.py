"""What every index says of every number of clusters, with the chosen one and those that are nearly as good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from streamclust.errors import InputError
from streamclust.metrics import PLATEAU, plateau
from streamclust.render.plots import GREY, INK, as_png, drawing, thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

Best = Literal["high", "low", ""]

_COLUMNS = 3
_WIDTH, _HEIGHT = 3.7, 3.1  # inches of a panel


@dataclass(frozen=True, eq=False)
class Curve:
    """One index: ``values`` (ks,), NaN where it is not defined; maybe the ``band`` (ks, 2) that it may be off by.

    best : which values are better, if any are.
    """

    name: str
    unit: str
    values: ArrayLike
    colour: str
    best: Best = ""
    band: NDArray[np.float64] | None = None


def k_curves(ks: Sequence[int], curves: Sequence[Curve], chosen: int) -> bytes:
    """A panel for each curve against k, as PNG bytes. The chosen k is marked, plateaus are shaded."""
    k = np.asarray(ks, dtype=np.float64)
    rows = -(-len(curves) // _COLUMNS)
    with drawing(_WIDTH * _COLUMNS, _HEIGHT * rows) as figure:
        cells = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
        for axes, curve in zip(cells, curves, strict=False):
            _panel(axes, k, curve, chosen)
        if len(cells) > len(curves):
            _key(cells[len(curves)], chosen)
        else:
            said = f"chosen k = {chosen}"
            cells[0].set_title(said, loc="right", fontsize=9.5, fontweight="normal", color="#4d535d")
        for axes in cells[len(curves) + 1 :]:
            axes.set_axis_off()
        return as_png(figure)


def _panel(axes: Axes, k: NDArray[np.float64], curve: Curve, chosen: int) -> None:
    values = np.asarray(curve.values, dtype=np.float64)
    if values.shape != k.shape:
        raise InputError("k_curves", f"{values.size} scores of {curve.name}", f"one for each of {k.size} values of k")
    axes.axvline(chosen, color=GREY, linestyle=(0, (3, 3)), linewidth=1.2)
    if curve.best and (flat := plateau(values, high=curve.best == "high")):
        first, last = k[flat[0]], k[flat[1]]
        axes.axvspan(first - 0.35, last + 0.35, color=curve.colour, alpha=0.10, linewidth=0)
    axes.plot(k, values, color=curve.colour, marker="o", markersize=4.5, linewidth=1.8)
    at = k == chosen
    axes.plot(k[at], values[at], color=curve.colour, marker="o", markersize=10, markerfacecolor="white", mew=2)
    if curve.band is not None:
        axes.fill_between(k, curve.band[:, 0], curve.band[:, 1], color=curve.colour, alpha=0.22, linewidth=0)
        axes.set_ylim(0, 1.02)
    axes.set_title(curve.name)
    axes.set_ylabel(curve.unit)
    axes.set_xlabel("clusters k")
    _k_axis(axes, k)
    thousands(axes)


def _key(axes: Axes, chosen: int) -> None:
    axes.set_axis_off()
    shaded = f"shaded: nearly as good as the best,\nwithin {PLATEAU:.0%} of the curve's range"
    for i, words in enumerate((f"ring: the chosen k = {chosen}", shaded)):
        axes.text(0.04, 0.86 - 0.17 * i, words, transform=axes.transAxes, color=INK, va="top")


def _k_axis(axes: Axes, k: NDArray[np.float64]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    if len(k) and k.max() > 12 * k.min():
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
    picks = k if len(k) <= 8 else k[np.unique(np.linspace(0, len(k) - 1, 8).round().astype(int))]
    axes.xaxis.set_major_locator(FixedLocator(picks.tolist()))
