"""The last merges of an agglomerative clustering, as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.render.plots import BLUE, GREY, as_png, drawing

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = 40  # leaves


def dendrogram(linkage: NDArray[np.float64], chosen: int) -> bytes:
    """The top of a tree : (m - 1, 4) in scipy's form, cut into ``chosen`` clusters by a dashed line."""
    from scipy.cluster.hierarchy import dendrogram as layout

    m = len(linkage) + 1
    drawn = layout(linkage, p=SHOWN, truncate_mode="lastp", no_plot=True)
    sizes = [text[1:-1] if text.startswith("(") else "1" for text in drawn["ivl"]]
    cut = float(np.mean(linkage[max(0, m - chosen - 1) : m - chosen + 1, 2]))
    with drawing(11, 3.6) as figure:
        axes = figure.add_subplot()
        for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
            axes.plot(x, y, color=GREY if y[1] > cut else BLUE, linewidth=1.3)
        axes.axhline(cut, color=GREY, linestyle=(0, (3, 3)), linewidth=1.2)
        axes.set_xticks([10 * i + 5 for i in range(len(sizes))], sizes)
        axes.tick_params(axis="x", labelsize=8, length=0)
        axes.grid(visible=False, axis="x")
        axes.set_title(f"The last {len(drawn['icoord'])} merges")
        axes.set_xlabel("leaves under each branch")
        axes.set_ylabel("distance when merged")
        axes.set_ylim(0)
        return as_png(figure)
