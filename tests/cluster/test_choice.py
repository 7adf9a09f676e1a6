"""The number of components by BIC: the lowest, whatever the curve, and sentences that say how far the others are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamclust.cluster.choice import lowest_bic, nearly


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=20), st.integers(1, 30))
def test_the_choice_is_the_lowest_bic_and_the_smaller_of_equal_ones(scores, kmeans):
    ks = list(range(2, 2 + len(scores)))
    k, said = lowest_bic(ks, np.array(scores), kmeans)
    bic = [b for b, _ in scores]
    assert k == ks[bic.index(min(bic))]
    assert said.startswith(f"k = {k} of ")
    assert said.endswith(".")
    assert "\n" not in said


def test_the_sentences_say_how_far_k_means_is_what_aic_prefers_and_what_is_nearly_as_good():
    k, said = lowest_bic([2, 3, 4, 5], np.array([[90, 50], [21, 40], [20, 30], [60, 20.0]]), 2)
    assert k == 4
    assert said == (
        "k = 4 of 2 to 5 has the lowest BIC (20); at k-means's k = 2 it is 70 higher; AIC alone would choose k = 5. "
        "Nearly as good as the best: k = 3 to 4 by BIC."
    )


@pytest.mark.parametrize(
    ("scores", "kmeans", "words"),
    [
        ([[9, 9], [1, 1], [5, 5]], 3, "(1), and k-means has as many; AIC alone would choose k = 3."),
        ([[9, 9], [5, 5], [1, 1]], 2, "No larger k was tried"),
        ([[9, 9], [1, 1], [5, 5]], 17, "(1); AIC alone"),  # a k that was not tried is not spoken of
    ],
)
def test_what_else_is_said(scores, kmeans, words):
    assert words in lowest_bic([2, 3, 4], np.array(scores, float), kmeans)[1]


def test_one_k_is_no_choice_that_could_go_further():
    assert lowest_bic([4], np.array([[7.0, 6.0]]), 4) == (
        4,
        "k = 4 of 4 has the lowest BIC (7), and k-means has as many; AIC alone would choose k = 4.",
    )


def test_nothing_is_nearly_as_good_as_a_sharp_best():
    assert nearly([2, 3, 4], {"x": ("high", np.array([1.0, 9, 1])), "y": ("low", np.full(3, np.nan))}) == ""
