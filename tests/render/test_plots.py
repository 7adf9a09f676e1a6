"""Charts: the same data give the same bytes, odd data do not break them, and nothing of matplotlib's state changes."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streamclust.errors import InputError
from streamclust.render import plots
from streamclust.render.agreement_chart import Block, agreement_chart
from streamclust.render.k_curves import Curve, k_curves


def curve(values, band=None):
    return Curve("Index", "higher is better", values, plots.BLUE, "high", None if band is None else np.array(band))


HEAT = np.array([[1, 0.3, np.nan], [0.3, 1, -0.1], [np.nan, -0.1, 1]])
BLOCKS = [Block("a", (2, 3, 40), 3), Block("$b_1$ mixture", (7,), 7), Block("b", (1, 2), 1)]
CHARTS = {
    "k_curves in two rows": lambda: k_curves(
        [2, 3], [curve([9, 8])] * 3 + [curve([1, 0.5], [[0.9, 1], [0.2, 0.8]])], 3
    ),
    "k_curves": lambda: k_curves([2, 3, 5], [curve([9, 8, np.nan]), curve([1e6, 5e5, 2e5])], 3),
    "sizes": lambda: plots.cluster_sizes([5, 900, 33], [0, 1, 7]),
    "many sizes": lambda: plots.cluster_sizes(np.arange(1, 401), range(400)),
    "variance": lambda: plots.variance_curve([0.5, 0.3, 0.2], 2),
    "one component": lambda: plots.variance_curve([1.0], 1),
    "histogram": lambda: plots.score_histogram([0, 7, 1000], [0, 1, 2, 3], 2.0),
    "heat map of every k": lambda: agreement_chart(BLOCKS, np.where(np.eye(6) > 0, 1, -0.1), "ARI"),
    "heat map": lambda: plots.agreement_heatmap(["a", "$b_1$", "a_very_long_descriptor"], HEAT, "ARI"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_deterministic_and_leave_no_trace(name):
    before = dict(mpl.rcParams)
    content = CHARTS[name]()
    assert content == CHARTS[name]()
    assert dict(mpl.rcParams) == before
    assert not any(chunk in content for chunk in (b"tIME", b"Software"))
    with Image.open(io.BytesIO(content)) as image:
        assert min(image.size) > 200
        assert len(set(image.convert("L").get_flattened_data())) > 20


def test_a_bar_bears_the_number_of_its_cluster():
    """The same sizes in another order are the same bars under other numbers."""
    one = plots.cluster_sizes([5, 900, 33], [0, 1, 7])
    assert one == plots.cluster_sizes([900, 33, 5], [1, 7, 0])
    assert one != plots.cluster_sizes([5, 900, 33], [0, 1, 8])


@settings(max_examples=8)
@given(
    sizes=st.lists(st.integers(1, 10**8), min_size=1, max_size=90),
    scores=st.lists(st.floats(0, 1e12) | st.just(float("nan")), min_size=1, max_size=12),
)
def test_any_sizes_and_scores_draw(sizes, scores):
    assert plots.cluster_sizes(sizes, range(len(sizes))).startswith(b"\x89PNG")
    ks = list(range(2, 2 + len(scores)))
    assert k_curves(ks, [curve(scores)] * 2, ks[0]).startswith(b"\x89PNG")


def test_lengths_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="2 scores of Index"):
        k_curves([2, 3, 4], [curve([1, 2, 3]), curve([1, 2])], 2)
    with pytest.raises(InputError, match="4 edges"):
        plots.score_histogram([1, 2], [0, 1, 2, 3], 1)
    with pytest.raises(InputError, match=re.escape("(2, 2)")):
        plots.agreement_heatmap(["a", "b"], np.eye(3))
    with pytest.raises(InputError, match=r"\(6, 6\)"):
        agreement_chart(BLOCKS, np.eye(5))


def test_the_3d_map_carries_every_point_and_escapes_names():
    xyz = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    labels = np.arange(50) % 3 - 1
    html = plots.map3d_html(xyz, labels, ["</script><script>alert(1)</script>", ""])
    assert html == plots.map3d_html(xyz, labels, ["</script><script>alert(1)</script>", ""])
    assert html.count("<script") == 1 == html.count("</script")
    assert "http" not in html
    assert '"name":"1"' in html
    assert "noise" in html
