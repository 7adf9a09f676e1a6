"""All labelings against each other: every table, every score and every margin as scikit-learn has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from streamclust.cluster.chance import expected_mutual_info
from streamclust.cluster.joint import SCORES, joint_block, mirrored, score_row, table_of, thin

laws = settings(max_examples=60)


@st.composite
def labelings(draw):
    """(m, n) labels, some negative, of one thing seen more or less well; their numbers of clusters."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    m, n = draw(st.integers(2, 6)), draw(st.integers(0, 200))
    sizes = rng.integers(1, 9, m).tolist()
    truth = rng.integers(0, 9, n)
    labels = [np.where(rng.random(n) < rng.random(), truth % k, rng.integers(0, k, n)) for k in sizes]
    missing = rng.random((m, n)) < draw(st.sampled_from([0.0, 0.2, 1.0]))
    return np.where(missing, -2, np.array(labels).reshape(m, n)).astype(np.int16), sizes, rng


@laws
@given(labelings())
def test_tables_and_scores_equal_scikit_learn(problem):
    labels, sizes, _ = problem
    joint = joint_block(labels, sizes)
    found = mirrored([score_row(i, joint, sizes) for i in range(len(sizes))], joint, sizes)
    assert list(found) == list(SCORES)
    for i, j in np.ndindex(len(sizes), len(sizes)):
        both = (labels[i] >= 0) & (labels[j] >= 0)
        a, b = labels[i][both], labels[j][both]
        assert found["rows"][i, j] == both.sum()
        if not both.any():
            assert np.isnan([found["adjusted_rand"][i, j], found["adjusted_mutual_info"][i, j]]).all()
            continue
        assert found["adjusted_rand"][i, j] == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
        # where entropies barely exceed the expectation, the quotient magnifies the rounding of log-gamma
        assert found["adjusted_mutual_info"][i, j] == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-8)
        if i < j:
            table = table_of(joint, sizes, i, j)
            assert table.shape == (sizes[i], sizes[j])
            there = table[np.ix_(table.any(axis=1), table.any(axis=0))]
            np.testing.assert_array_equal(there, contingency_matrix(a, b))


@laws
@given(labelings())
def test_joint_counts_add_up_in_any_grid_and_order(problem):
    labels, sizes, rng = problem
    cuts = np.sort(rng.integers(0, labels.shape[1] + 1, 3))
    parts = [joint_block(part, sizes) for part in np.split(labels, cuts, axis=1)]
    np.testing.assert_array_equal(sum(parts[i] for i in rng.permutation(4)), joint_block(labels, sizes))


def by_the_law(rows, columns):
    """Every term of every cell."""
    n, total = int(rows.sum()), 0.0
    for a in rows:
        for b in columns:
            x = np.arange(max(1, a + b - n), min(a, b) + 1)
            total += (hypergeom.pmf(x, n, a, b) * x * np.log(n * x / (float(a) * b))).sum()
    return total / n


@pytest.mark.parametrize("n", [2, 30, 700, 5_000, 60_000, 416_314])
@pytest.mark.parametrize("even", [0.2, 5.0])
def test_what_chance_gives_in_few_terms_is_what_all_terms_give(n, even):
    """Narrow cells and wide ones, lopsided and even margins; to the rounding of SciPy's law (1e-9 near 4e5 rows)."""
    rng = np.random.default_rng(n)
    rows, columns = (rng.multinomial(n, rng.dirichlet(np.full(k, even))) for k in (5, 7))
    rows, columns = rows[rows > 0], columns[columns > 0]
    expected = by_the_law(rows, columns)
    assert expected_mutual_info(rows, columns) == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert expected_mutual_info(columns, rows) == pytest.approx(expected_mutual_info(rows, columns), rel=1e-12)


def test_what_chance_gives_of_very_many_rows_is_near_its_limit():
    """(r - 1)(c - 1) / 2n nats, as the statistic G is chi-squared; the next term is smaller by the cells over n."""
    share = np.array([1, 2, 3, 4])
    for n in (10**7, 10**9, 10**11):
        assert expected_mutual_info(share * n // 10, share[:3] * n // 6) == pytest.approx(3 / n, rel=100 / n + 1e-9)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(2, 3000),
    st.randoms(use_true_random=False),
)
def test_thinned_curves_keep_the_chosen_and_the_smallest_within_the_bound(tops, first, most, random):
    curves = {str(i): {k: k for k in range(first, first + top)} for i, top in enumerate(tops)}
    chosen = {name: random.choice(sorted(curve)) for name, curve in curves.items()}
    kept = thin(curves, chosen, most)
    needed = sum(sum({first, k}) for k in chosen.values())
    assert bool(kept) == (needed <= most)
    if kept:
        assert sum(map(sum, kept.values())) <= most
        for name, ks in kept.items():
            assert ks == sorted({*ks, first, chosen[name]})
            assert set(ks) <= set(curves[name])
        if sum(map(sum, curves.values())) <= most:
            assert kept == {name: sorted(curve) for name, curve in curves.items()}


def test_thinned_curves_are_even():
    kept = thin({"a": {k: k for k in range(2, 101)}}, {"a": 7}, 700)["a"]
    gaps = np.diff([k for k in kept if k != 7])
    assert kept[0] == 2
    assert kept[-1] == 100
    assert gaps.max() - gaps.min() <= 1


def test_nothing_to_thin():
    assert thin({}, {}) == {}
