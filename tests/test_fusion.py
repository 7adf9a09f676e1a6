"""Laws of fusing descriptors and of the evidence in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamclust import evidence as ev
from streamclust import fusion, quantiles
from streamclust.errors import InputError


def tails_of(scores: np.ndarray) -> np.ndarray:
    return np.column_stack([quantiles.tail_of(quantiles.sketch_block(column), column) for column in scores.T])


def some_scores(seed: int, n: int, d: int) -> np.ndarray:
    """Every descriptor sees the same strange tenth, the last one nothing but noise; some values are missing."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, d))
    scores[: n // 10, : max(d - 1, 1)] += 4
    scores[rng.random((n, d)) < 0.1] = np.nan
    return scores


def fitted(tails: np.ndarray) -> fusion.Fusion:
    weights = fusion.overlap_weights(fusion.overlap_block(tails))
    return fusion.finish_fusion(weights, fusion.fused_block(tails, weights))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6), st.lists(st.integers(0, 300), max_size=4))
def test_states_of_any_blocks_merge_to_the_state_of_the_whole(seed, d, cuts):
    tails = tails_of(some_scores(seed, 300, d))
    blocks = np.split(tails, sorted(cuts))
    overlap = fusion.overlap_identity(d)
    for block in blocks:
        overlap = fusion.merge_overlap(overlap, fusion.overlap_block(block))
    whole = fusion.overlap_block(tails)
    assert all(np.array_equal(getattr(overlap, f), getattr(whole, f)) for f in ("rows", "top", "both"))
    weights = fusion.overlap_weights(whole)
    assert weights.sum() == pytest.approx(1)
    merged = fusion.fused_identity(d)
    for block in blocks:
        merged = fusion.merge_fused(merged, fusion.fused_block(block, weights))
    for mask, sketch in fusion.fused_block(tails, weights).items():
        assert np.array_equal(sketch.top, merged[mask].top)
        assert sketch.count == merged[mask].count


def test_a_descriptor_that_agrees_with_no_other_weighs_little_and_equal_where_none_do():
    weights = fusion.overlap_weights(fusion.overlap_block(tails_of(some_scores(0, 5000, 4))))
    assert weights[:3].min() > 5 * weights[3]
    apart = np.tile(1.0, (300, 3))
    for i in range(3):
        apart[i * 3 : i * 3 + 3, i] = 0.001
    np.testing.assert_allclose(fusion.overlap_weights(fusion.overlap_block(apart)), 1 / 3)
    assert fusion.overlap_weights(fusion.overlap_block(apart[:, :1])) == pytest.approx([1])


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_scores_rise_with_every_tail_and_rank_the_rows(seed, d):
    tails = tails_of(some_scores(seed, 400, d))
    model = fitted(tails)
    scores = fusion.outlier_scores(model, tails)
    has_any = ~np.isnan(tails).all(1)
    assert np.array_equal(np.isfinite(scores), has_any)
    assert (fusion.outlier_scores(model, tails / 2)[has_any] >= scores[has_any]).all()
    complete = ~np.isnan(tails).any(1)
    if complete.any():
        fused = fusion.fuse(tails[complete], model.weights)
        order = np.argsort(fused)
        assert (np.diff(scores[complete][order]) >= 0).all()


def test_beyond_the_strangest_row_the_order_stays_strict():
    tails = tails_of(some_scores(1, 1000, 3)[:, :3])
    beyond = np.nanmin(tails, axis=0) / np.array([[2.0], [4.0], [1e6]])
    scores = fusion.outlier_scores(fitted(tails), beyond)
    assert (np.diff(scores) > 0).all()
    assert scores[0] > np.nanmax(fusion.outlier_scores(fitted(tails), tails))


def test_a_descriptor_that_fails_tomorrow_has_its_reference():
    rng = np.random.default_rng(2)
    for d in (3, 7):
        tails = tails_of(rng.normal(size=(2000, d)))
        model = fitted(tails)
        for gone in ([0], [0, 1], list(range(1, d))):
            later = tails.copy()
            later[:, gone] = np.nan
            scores = fusion.outlier_scores(model, later)
            # the share of rows above a score of 1 is a tenth, whatever is missing
            assert np.mean(scores > 1) == pytest.approx(0.1, abs=0.01)
    lacks_four = np.full((1, 7), np.nan)
    lacks_four[0, [1, 4, 6]] = 0.001
    assert np.isfinite(fusion.outlier_scores(model, lacks_four)).all()
    with pytest.raises(InputError, match="tails"):
        fusion.outlier_scores(model, tails[:, :2])


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 400), st.floats(0, 0.2))
def test_flags_keep_the_budget_with_ties_included(seed, n, budget):
    tails = tails_of(np.round(some_scores(seed, n, 3), 1))
    scores = fusion.outlier_scores(fitted(tails), tails)
    sketch = quantiles.sketch_block(scores)
    flagged = scores >= quantiles.threshold_above(sketch, budget)
    assert flagged.sum() <= np.floor(budget * sketch.count + 1e-9)


def measured(n: int = 1000) -> tuple[dict[str, np.ndarray], dict[str, quantiles.QuantileSketch]]:
    rng = np.random.default_rng(3)
    measures = {
        "density": rng.normal(0, 0.2, n),
        "centre_distance": rng.uniform(4, 6, n),
        "reconstruction_error": rng.uniform(1, 3, n),
        "norm": rng.normal(10, 0.5, n),
        "near_duplicates": np.zeros(n),
        "hdbscan_noise": (rng.random(n) < 0.6).astype(float),
        "optics_noise": (rng.random(n) < 0.05).astype(float),
    }
    return measures, {name: quantiles.sketch_block(values) for name, values in measures.items()}


CASES = [
    ("density", np.log(3.2), "osnet: neighbourhood 3.2 times sparser than that of its neighbours"),
    ("centre_distance", 50.0, "times the typical distance to the centre of its cluster"),
    ("reconstruction_error", 9.0, "osnet: reconstruction error 4."),
    ("norm", 30.0, "osnet: vector 3.0"),
    ("norm", 0.01, "osnet: vector 0.00 times as long as the typical one (stranger than 99.9% of images)"),
    ("reconstruction_error", 1e60, "osnet: reconstruction error 340282"),  # as much as float32 holds
    ("near_duplicates", 120.0, "osnet: about 120 other images are nearly identical"),
    ("optics_noise", 1.0, "osnet: OPTICS calls it noise (100% of its votes), as it does 5."),
    ("hdbscan_noise", 1.0, "osnet: HDBSCAN calls it noise (100% of its votes), as it does 6"),
]


@pytest.mark.parametrize(("name", "value", "words"), CASES)
def test_perturbing_one_measure_changes_the_sentence(name, value, words):
    _, sketches = measured()
    row = {key: np.array([quantiles.value_at(sketch, 0.5)]) for key, sketch in sketches.items()}
    row["hdbscan_noise"] = row["optics_noise"] = np.zeros(1)
    yes = np.ones(1, bool)
    before = ev.sentence(*(part[0] for part in ev.evidence(row, sketches, yes, yes)), "osnet")
    row[name] = np.array([value])
    code, told, quantile = (part[0] for part in ev.evidence(row, sketches, yes, yes))
    after = ev.sentence(code, told, quantile, "osnet")
    assert ev.MEASURES[code] == name
    assert words in after
    assert after != before


def test_a_verdict_that_most_rows_get_is_weak_evidence():
    measures, sketches = measured()
    yes = np.ones(1000, bool)
    code, value, quantile = ev.evidence({"hdbscan_noise": measures["hdbscan_noise"]}, sketches, yes, yes)
    share = measures["hdbscan_noise"].mean()
    assert (code == ev.MEASURES.index("hdbscan_noise")).all()
    np.testing.assert_allclose(quantile[value == 1], 1 - share / 2, rtol=1e-6)


def test_rows_without_numbers_say_so_and_the_strongest_descriptor_speaks():
    measures, sketches = measured()
    present, valid = np.ones(1000, bool), np.ones(1000, bool)
    measures["density"][5] = 3.0
    calm = ev.evidence(measures, sketches, present, valid)
    valid[:2] = present[2:4] = False
    broken = ev.evidence(measures, sketches, present, valid)
    assert ev.sentence(broken[0][0], broken[1][0], broken[2][0], "vdc") == "vdc: contains NaN or infinite values"
    assert "no descriptor" in ev.sentence(broken[0][3], broken[1][3], broken[2][3], "vdc")
    which, code, _, quantile = ev.strongest({"osnet": calm, "vdc": broken})
    assert which[0] == 1
    assert code[0] == ev.NOT_VALID
    assert (which[2:] == 0).all()
    assert ev.MEASURES[code[5]] == "density"
    assert quantile[5] > 0.999
    with pytest.raises(InputError, match="measure"):
        ev.evidence({"beauty": np.zeros(1000)}, sketches, present, valid)
