"""The heat map of how far all clusterings agree, each at every k: blocks of descriptor and algorithm, k along axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamclust.errors import InputError
from streamclust.render.plots import INK, RULE, VERMILION, as_png, drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

_INCHES = 7.6  # of the map's side
_ROOM = 0.16  # inches of a number along an axis
_LETTER, _SHARE = 0.085, 0.95  # inches of a letter, and the part of a block that its name may fill
_LEAST = 0.24  # inches of a block that is alone, as a mixture's
_TICKS = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)


@dataclass(frozen=True)
class Block:
    """The clusterings of one descriptor and algorithm: their k, and which of these was chosen."""

    name: str
    ks: tuple[int, ...]
    chosen: int


def agreement_chart(blocks: Sequence[Block], matrix: ArrayLike, title: str = "") -> bytes:
    """Agreement of all clusterings : (m, m), in the order of the blocks, as PNG bytes; NaN is left blank.

    Chosen k are bold, and framed where they meet. Colours spread low values, where descriptors differ.
    """
    from matplotlib.colors import PowerNorm

    values = np.asarray(matrix, dtype=np.float64)
    m = sum(len(block.ks) for block in blocks)
    if values.shape != (m, m):
        raise InputError("agreement_chart", f"a matrix of shape {values.shape}", f"({m}, {m}), one row per k")
    edges, longest = _edges(blocks), max(len(block.name) for block in blocks)
    slanted = any(len(block.name) * _LETTER > _SHARE * _INCHES * len(block.ks) / m for block in blocks)
    with drawing(_INCHES + 1.4 + _LETTER * longest, _INCHES + 0.8 + slanted * _LETTER * longest / 2) as figure:
        axes = figure.add_subplot()
        axes.set_facecolor(RULE)
        norm, shown = PowerNorm(0.6, vmin=0, vmax=1, clip=True), np.ma.masked_invalid(values)
        mesh = axes.pcolormesh(edges, edges, shown, cmap="viridis", norm=norm)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        _name_ks(axes, blocks, edges)
        _name_blocks(axes, blocks, edges, slanted=slanted)
        axes.set_title(title)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02, aspect=34, ticks=_TICKS)
        bar.outline.set_visible(False)
        bar.set_label("adjusted Rand index")
        return as_png(figure)


def _edges(blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Where cells end along an axis : (m + 1,), as wide as each other but for a block of too few to be seen."""
    least = _LEAST / _INCHES * sum(len(block.ks) for block in blocks)
    widths = [max(1.0, least / len(block.ks)) for block in blocks for _ in block.ks]
    return np.cumsum([0.0, *widths])


def _name_ks(axes: Axes, blocks: Sequence[Block], edges: NDArray[np.float64]) -> None:
    """Ticks of k where there is room; the chosen ones always and bold, with a frame where two meet."""
    middles, room = (edges[1:] + edges[:-1]) / 2, _ROOM / _INCHES * edges[-1]
    ks = [(k, k == block.chosen) for block in blocks for k in block.ks]
    chosen = middles[[is_chosen for _, is_chosen in ks]]
    places, last = list[int](), -np.inf
    for i, (_, is_chosen) in enumerate(ks):
        if is_chosen or (np.abs(middles[i] - chosen).min() >= room and middles[i] - last >= room):
            places.append(i)
            last = middles[i]
    labels = [str(ks[i][0]) for i in places]
    axes.set_xticks(middles[places], labels)
    axes.set_yticks(middles[places], labels)
    axes.tick_params(length=0, pad=3, labelsize=7.5)
    for i, *ticks in zip(places, axes.get_xticklabels(), axes.get_yticklabels(), strict=True):
        if ks[i][1]:
            for tick in ticks:
                tick.set(fontweight="bold", color=VERMILION)
    x, y = np.meshgrid(chosen, chosen)
    side = 72 * _INCHES / edges[-1]  # points
    axes.scatter(
        x, y, s=max(side, 4) ** 2, marker="s", facecolors="none", edgecolors=VERMILION, linewidths=1.4, zorder=3
    )


def _name_blocks(axes: Axes, blocks: Sequence[Block], edges: NDArray[np.float64], *, slanted: bool) -> None:
    """A name beside and below each block, and lines between them."""
    style: Any = {"textcoords": "offset points", "color": INK}
    below: Any = {"ha": "right", "rotation": 30, "rotation_mode": "anchor"} if slanted else {"ha": "center"}
    at = 0
    for block in blocks:
        start, at = at, at + len(block.ks)
        middle = (edges[start] + edges[at]) / 2
        if start:
            axes.axhline(edges[start], color="white", linewidth=2.2)
            axes.axvline(edges[start], color="white", linewidth=2.2)
        side: Any = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center"}
        axes.annotate(block.name, (0, middle), xytext=(-20, 0), **side, **style)
        axes.annotate(
            block.name, (middle, 0), xycoords=("data", "axes fraction"), xytext=(0, -18), va="top", **below, **style
        )
