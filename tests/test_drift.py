"""Detectors on made-up days: how rarely they cry for nothing, how soon for something, and how a cause is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from streamclust import detector
from streamclust.drift import findings, sentence
from streamclust.errors import InputError
from streamclust.streams import NUMBERS, Figure, Reading, Stream, nothing

CLUSTERS = 6
SHARES = np.array([0.3, 0.22, 0.18, 0.14, 0.1, 0.06])


def day(rng, t=0, shares=SHARES, unheld=0.02, rows=None, rank=0.5):
    """The figures of one day: vehicles of one to six pictures, a mood and a slow season that all its rows share."""
    n = int(rng.integers(150, 400)) if rows is None else rows
    tracks = rng.geometric(0.55, n).clip(max=6)
    season = 0.2 * np.sin(2 * np.pi * t / 365 + np.arange(CLUSTERS))
    weights = shares * np.exp(season + rng.normal(0, 0.12, CLUSTERS))
    kinds = np.repeat(rng.choice(CLUSTERS, n, p=weights / weights.sum()), tracks)[:n]
    weather = rng.normal(0, 0.02) + 0.03 * np.sin(2 * np.pi * t / 365)
    ranks = np.repeat(rng.beta(2, 2 * (1 - rank) / rank, n), tracks)[:n] + weather
    found = {Stream("share", "osnet", c): Figure(float((kinds == c).mean()), n) for c in range(CLUSTERS)}
    for figure in ("distance", "error", "norm"):
        found[Stream(figure, "osnet")] = Figure(float(ranks.clip(0, 1).mean()), n)
    strange = np.repeat(rng.random(n) < unheld * np.exp(rng.normal(0, 0.3)), tracks)[:n]
    found[Stream("unheld", "osnet")] = Figure(float(strange.mean()), n)
    found[Stream("burst")] = found[Stream("crowded", "osnet")] = Figure(0.0, n)
    return found


def seen(rng, days=40, **changes):
    """The state after a reference of 3,000 rows and so many quiet days."""
    state, _ = detector.update(nothing(), day(rng, rows=3000))
    for t in range(days):
        state, _ = detector.update(state, day(rng, t, **changes))
    return state


def cries(readings):
    return [r for r in readings if r.cried]


def same(a, b):
    assert a.streams == b.streams
    for name in (*NUMBERS, "evidence"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_an_e_value_has_a_mean_of_one_under_the_tails_it_allows_for():
    for stake, psi in zip(detector.STAKES, detector._psi(), strict=True):

        def mean(law, stake=stake, psi=psi):
            x = np.linspace(-60, 60, 1_200_001)
            return np.trapezoid(np.exp(stake * np.minimum(x, detector.BOUND) - psi) * law.pdf(x), x)

        assert mean(stats.t(detector.TAILS)) == pytest.approx(1, rel=1e-3)
        assert mean(stats.norm()) < 1
        assert mean(stats.norm(-0.3, 0.9)) < 1
        assert mean(stats.uniform(-np.sqrt(3), 2 * np.sqrt(3))) < 1


def test_false_alarms_are_rarer_than_stated():
    """Correlated rows, moods, weather and a season: ten years of days may bring ten alarms."""
    alarms, days = 0, 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        state = seen(rng, 0)
        for t in range(365):
            state, readings = detector.update(state, day(rng, t))
            alarms, days = alarms + bool(cries(readings)), days + 1
    assert alarms <= days / 365 / 4


def test_exact_nulls_with_the_heaviest_tails_cry_no_more_often_than_stated():
    """Standardised errors are drawn from the law itself, so that nothing but the e-detectors is slack."""
    rng, target, n, times = np.random.default_rng(1), 100.0, 400, []
    excess = rng.standard_t(detector.TAILS, (n, 2000))
    evidence = np.full((n, len(detector.STAKES)), -np.inf)
    waiting = np.ones(n, bool)
    for t in range(excess.shape[1]):
        evidence = np.logaddexp(evidence, 0) + detector._log_e(excess[:, t])
        crossed = waiting & (np.logaddexp.reduce(evidence, 1) - np.log(evidence.shape[1]) >= np.log(target))
        times += [t + 1] * int(crossed.sum())
        waiting &= ~crossed
    assert np.mean(times + [excess.shape[1]] * int(waiting.sum())) >= target


@pytest.mark.parametrize(
    ("change", "within"),
    [
        ({"unheld": 0.3}, 2),
        ({"unheld": 0.12}, 12),
        ({"rank": 0.75}, 3),
        ({"shares": SHARES * [0, 1, 1, 1, 1, 1]}, 4),
        ({"shares": SHARES * [1, 1, 1, 4, 1, 1]}, 4),
    ],
)
def test_a_shift_is_cried_soon_and_once(change, within):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        state, days = seen(rng), []
        for t in range(40, 80):
            state, readings = detector.update(state, day(rng, t, **change))
            days += [t - 40] * bool(cries(readings))
        assert len(days) == 1
        assert days[0] <= within


def test_a_burst_is_cried_on_its_day_and_again_when_it_comes_again():
    rng = np.random.default_rng(0)
    state, days = seen(rng), []
    for t in range(40, 60):
        figures = day(rng, t) | ({Stream("burst"): Figure(0.4, 300)} if t in {45, 46, 47, 52} else {})
        state, readings = detector.update(state, figures)
        days += [t] * bool(cries(readings))
        assert all(r.stream == Stream("burst") for r in cries(readings))
    assert days == [45, 52]


def test_the_old_level_may_come_back_silently():
    rng = np.random.default_rng(0)
    state, days = seen(rng), []
    other = SHARES[::-1]
    for t in range(40, 70):
        state, readings = detector.update(state, day(rng, t, shares=other if 50 <= t < 55 else SHARES))
        days += [t] * bool(cries(readings))
    assert len(days) == 1
    assert 50 <= days[0] <= 52


def test_few_days_need_a_large_effect():
    small, large = {"unheld": 0.06}, {"unheld": 0.5}
    for change, expected in ((small, False), (large, True)):
        rng = np.random.default_rng(3)
        state, loud = seen(rng, 2), []
        for t in range(2, 12):
            state, readings = detector.update(state, day(rng, t, **change))
            loud += cries(readings)
        assert bool(loud) == expected
        assert all(r.early for r in loud)
        assert all("only large effects" in sentence(f) for f in findings(loud, ["osnet"], {"osnet": 0.0}))


def test_thin_days_neither_cry_nor_teach():
    rng = np.random.default_rng(0)
    state = seen(rng)
    figures = {s: Figure(1.0, 3) for s in day(rng)} | {Stream("share", camera="new"): Figure(1.0, 3)}
    after, readings = detector.update(state, figures)
    assert readings == []
    same(state, after)


def test_a_missing_stream_carries_on():
    rng = np.random.default_rng(0)
    state = seen(rng)
    figures = {s: f for s, f in day(rng).items() if s.figure != "error"}
    after, _ = detector.update(state, figures)
    at = state.streams.index(Stream("error", "osnet"))
    assert all(getattr(after, name)[at] == getattr(state, name)[at] for name in ("level", "weight", "seen", "squares"))


def test_one_bad_day_does_not_poison():
    rng = np.random.default_rng(0)
    state = seen(rng)
    at = state.streams.index(Stream("error", "osnet"))
    bad, _ = detector.update(state, day(rng) | {Stream("error", "osnet"): Figure(0.75, 60)})
    assert abs(bad.level[at] - state.level[at]) < 0.05
    assert bad.spread[at] < 1.3 * state.spread[at]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), order=st.randoms(use_true_random=False))
def test_the_order_of_streams_does_not_matter_and_arguments_stay(seed, order):
    rng = np.random.default_rng(seed)
    days = [day(rng, t) for t in range(4)]
    shuffled = [dict(order.sample(list(d.items()), len(d))) for d in days]
    a = b = nothing()
    for one, other in zip(days, shuffled, strict=True):
        before = replace(a, **{name: getattr(a, name).copy() for name in (*NUMBERS, "evidence")})
        (after, said), (b, heard) = detector.update(a, one), detector.update(b, other)
        same(a, before)
        assert said == heard
        a = after
    same(a, b)


def test_a_camera_that_was_never_there():
    rng = np.random.default_rng(0)
    cameras = [Stream("share", camera=f"cam-{i}") for i in range(4)]
    state = nothing()
    for _ in range(30):
        parts = rng.multinomial(250, np.ones(4) / 4) / 250
        state, _ = detector.update(state, {c: Figure(float(p), 250) for c, p in zip(cameras, parts, strict=True)})
    figures = {c: Figure(0.19, 250) for c in cameras} | {Stream("share", camera="cam-9"): Figure(0.24, 250)}
    _, readings = detector.update(state, figures)
    assert [r.stream.camera for r in cries(readings)] == ["cam-9"]
    assert cries(readings)[0].expected == 0


def test_figures_that_are_none_are_refused():
    with pytest.raises(InputError, match="0 to 1"):
        detector.update(nothing(), {Stream("outlier"): Figure(1.5, 100)})
    with pytest.raises(InputError, match="positive"):
        detector.update(nothing(), {}, 0)


def reading(figure, value, expected, deviation, *, cried=True, descriptor="osnet", cluster=-1, camera=""):
    stream = Stream(figure, "" if figure == "burst" else descriptor, cluster, camera)
    return Reading(stream, value, expected, deviation, abs(deviation), cried, early=False)


@pytest.mark.parametrize(
    ("readings", "kinds"),
    [
        ([], []),
        ([reading("burst", 0.4, 0, 20)], ["stuck camera"]),
        ([reading("unheld", 0.2, 0.02, 9), reading("share", 0.3, 0.1, 8, cluster=2)], ["new kind of image"]),
        ([reading("unheld", 0.2, 0.02, 4, cried=False), reading("outlier", 0.2, 0, 8)], ["new kind of image"]),
        ([reading("crowded", 0.3, 0, 9)], ["stuck camera"]),
        ([reading("crowded", 0.1, 0, 9)], ["new kind of image"]),
        ([reading("crowded", 0.3, 0, 9, descriptor="vdc")], ["new kind of image"]),
        ([reading("share", 0.3, 0.1, 8, cluster=2), reading("share", 0.1, 0.3, -7, cluster=1)], ["cluster growing"]),
        ([reading("share", 0.1, 0.3, -7, cluster=1), reading("norm", 0.6, 0.5, 6)], ["drift"]),
        ([reading("share", 0.1, 0.3, -7, cluster=1)], ["cluster dying"]),
        (
            [reading("distance", 0.9, 0.5, 7, cluster=1), reading("share", 0.1, 0.3, -2, cluster=1, cried=False)],
            ["cluster dying"],
        ),
        ([reading("error", 0.99, 0.5, 15), reading("unheld", 1, 0.02, 14)], ["descriptor changed"]),
        (
            [reading("error", 0.99, 0.5, 15, descriptor=d) for d in ("osnet", "vdc")]
            + [reading("unheld", 1, 0, 14, descriptor=d) for d in ("osnet", "vdc")],
            ["new kind of image"],
        ),
        ([reading("unheld", 1, 0.02, 14, camera="c")], ["new kind of image"]),
        ([reading("burst", 0.4, 0, 20), reading("norm", 0.7, 0.5, 8)], ["stuck camera", "drift"]),
    ],
)
def test_one_cause_has_one_name(readings, kinds):
    found = findings(readings, ["osnet", "vdc"], {"osnet": 0.9, "vdc": 0.1})
    assert [f.kind for f in found] == kinds
    for f in found:
        assert "%" in sentence(f)
        assert sentence(f).endswith(".")
