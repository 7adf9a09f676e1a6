"""Algorithms are ranked by what is known of all of them."""

from __future__ import annotations

from dataclasses import replace

from streamclust.render.report_data import Algorithm
from streamclust.reporting.algorithms import ranked

A = Algorithm(name="a", k=3, calinski_harabasz=100.0, davies_bouldin=1.5, stability=(0.9, 0.8, 1.0), seconds=2.0)
B = Algorithm(name="b", k=3, calinski_harabasz=90.0, davies_bouldin=1.2, stability=(0.95, 0.8, 1.0), seconds=1.0)
C = Algorithm(name="c", k=4, calinski_harabasz=80.0, davies_bouldin=1.7, stability=(0.5, 0.4, 0.6), seconds=9.0)


def said(*algorithms):
    return [(a.name, a.rank) for a in ranked(algorithms)]


def test_the_best_mean_rank_is_first():
    assert said(A, B, C) == [("b", 1.25), ("a", 1.75), ("c", 3.0)]


def test_what_is_unknown_of_one_ranks_none():
    assert said(A, replace(B, stability=None, seconds=None), C) == [("a", 1.5), ("b", 1.5), ("c", 3.0)]


def test_equal_ones_share_their_ranks_in_the_order_given():
    assert said(C, replace(A, name="x"), A) == [("x", 1.5), ("a", 1.5), ("c", 3.0)]


def test_nothing_known_is_no_rank():
    bare = [Algorithm(name=name, k=1) for name in "ba"]
    assert said(*bare) == [("b", None), ("a", None)]
