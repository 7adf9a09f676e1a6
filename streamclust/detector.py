"""Which daily figures changed: one e-detector per stream, its level and spread learned from days, never from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust.errors import InputError
from streamclust.streams import NUMBERS, STAKES, Doubles, Figure, Reading, State, Stream

FEW_DAYS = 14  # until so many days were seen, only effects beyond FLOOR count
FLOOR, EFFECT = 0.3, 0.05  # Cohen's h: 0.2 is called small, 0.5 medium
LOOSE = 0.3  # for crowds, which any season makes, and distances in one cluster, which its neighbours' changes move
LEAST_ROWS = 20  # a figure of fewer rows says nothing about its day
TAILS = 15  # standardised days have tails no heavier than Student's t of so many degrees of freedom
BOUND = 8.0  # and count no further than so many deviations
BETWEEN = 0.05  # deviation of h between days of endless rows, times the spread's root
LEVEL_HALF_LIFE, SPREAD_HALF_LIFE = 28.0, 60.0  # days; changes much slower than the first are seasons, and followed
RATE_HALF_LIFE = 120.0  # days, of the levels of UPWARD figures, which a model that ages slowly raises
BAD_DAY = 2.5  # deviations beyond which a day teaches no more
DEVIATES = 2.5  # deviations from which a stream takes part in an alarm's cause
RELEARN = 3  # days that the levels of all other streams are worth after an alarm
ABSENT = 7  # days after which a level that was left is forgotten
UPWARD = {"burst", "crowded", "unheld", "near_duplicates", "outlier", "invalid"}  # less of these alarms nobody
_ABSENT = Figure(0.0, 0)


def update(
    state: State, figures: Mapping[Stream, Figure], false_alarm_days: float = 365.0
) -> tuple[State, list[Reading]]:
    """One day later: the new state, and a reading of every stream with enough rows.

    The null of a stream: given the days before, its angle differs from its level by no more than the effect that
    matters, plus an error whose standardised tails are Student's. Per direction and stake the day's e-value
    is exp(stake * y - psi(stake)) with y the standardised excess, bounded above, and psi the log of its largest mean;
    Shiryaev-Roberts sums of their products are e-detectors, and so is any weighted mean of e-detectors. A stream cries
    when its own exceeds ``false_alarm_days`` over its share of the whole, so that all streams together have a mean time
    of at least ``false_alarm_days`` between false alarms.

    A stream that cries starts again at its new level, and what deviates on the same day with it; it may return to its
    old level silently. All others forget their evidence, since what moved them a little was the same cause. Streams
    without a figure, or with few rows, stay as they are.

    Raises
    ------
    InputError : a figure outside 0 to 1, or no positive number of days.

    References
    ----------
    Shin, Ramdas, Rinaldo, E-detectors: a nonparametric framework for sequential change detection, 2022. Cohen,
    Statistical power analysis for the behavioral sciences, 1988 (h, the difference of 2 asin sqrt p).
    """
    if not false_alarm_days > 0:
        raise InputError("mean time between false alarms", f"{false_alarm_days} days", "a positive number")
    for stream, figure in figures.items():
        if not 0 <= figure.value <= 1:
            raise InputError(f"figure {stream}", f"{figure.value}", "a mean of numbers from 0 to 1")
    state, value, rows = _arranged(state, figures)
    state, apart, error = _deviations(state, value, rows)
    heard = rows >= LEAST_ROWS
    early = state.seen < FEW_DAYS
    effect = np.array([_effect(s) for s in state.streams])
    matters = np.where(early, np.maximum(effect, FLOOR), effect)
    excess = (np.stack([apart, -apart], 1) - matters[:, None]) / error[:, None]
    grown = np.logaddexp(state.evidence, 0) + _log_e(excess)
    evidence = np.where(heard[:, None, None], grown, state.evidence)
    evidence[[s.figure in UPWARD for s in state.streams], 1] = -np.inf
    strength = np.logaddexp.reduce(evidence, axis=2).max(axis=1, initial=-np.inf) - np.log(len(STAKES))
    cried = heard & (strength >= np.log(false_alarm_days) - np.log(_shares(state.streams)))
    learned = _learned(replace(state, evidence=evidence), apart, error, rows)
    after = _restarted(state, learned, value, rows, cried, np.abs(apart) >= DEVIATES * error)
    numbers = np.column_stack([value, _value_of(state.level), apart / error, strength]).tolist()
    verdicts = zip(state.streams, numbers, cried.tolist(), early.tolist(), heard.tolist(), strict=True)
    return after, [Reading(s, v, e, d, g, c, y) for s, (v, e, d, g), c, y, h in verdicts if h]


def _arranged(state: State, figures: Mapping[Stream, Figure]) -> tuple[State, Doubles, Doubles]:
    """The state with the day's new streams in it, and the day's values and rows (0 without a figure) in its order.

    A camera never seen had a share of 0 before, where cameras were known at all; any other stream starts as it is.
    """
    added = sorted(s for s, f in figures.items() if f.rows >= LEAST_ROWS and s not in set(state.streams))
    cameras = any(s.camera for s in state.streams)
    absent = np.array([s.figure == "share" and bool(s.camera) and cameras for s in added], bool)
    n = len(added)
    fresh = {name: np.zeros(n) for name in NUMBERS} | {
        "level": np.where(absent, 0.0, _angle(np.array([figures[s].value for s in added], np.float64))),
        "other": np.full(n, np.nan),
        "weight": np.where(absent, state.weight.max(initial=0), 0.0),
        "seen": np.where(absent, state.seen.max(initial=0), 0.0),
        "evidence": np.full((n, 2, len(STAKES)), -np.inf),
    }
    streams = (*state.streams, *added)
    order = sorted(range(len(streams)), key=streams.__getitem__)
    joined = {name: np.concatenate([getattr(state, name), values])[order] for name, values in fresh.items()}
    streams = tuple(streams[i] for i in order)
    value, rows = (
        np.array([getattr(figures.get(s, _ABSENT), part) for s in streams], float) for part in ("value", "rows")
    )
    return State(streams, **joined), value, rows


def _deviations(state: State, value: Doubles, rows: Doubles) -> tuple[State, Doubles, Doubles]:
    """The state with the nearer of two levels as the level; the distance from it, and the distance's error.

    An UPWARD figure that falls to a remembered level forgets the one it left: the next rise has a cause of its own.
    One that falls far for the first time takes the new level silently.
    """
    heard, upward = rows >= LEAST_ROWS, np.array([s.figure in UPWARD for s in state.streams], bool)
    angle = _angle(value)
    known = np.isfinite(state.other) & heard
    back = known & (np.abs(angle - state.other) < np.abs(angle - state.level))
    level, other = np.where(back, state.other, state.level), np.where(back, state.level, state.other)
    away = np.where(back, 0, state.away + known)
    other = np.where(known & ((away >= ABSENT) | (back & upward)), np.nan, other)
    error = np.sqrt(state.spread * _unit(state.weight, rows))
    fell = heard & upward & ~known & (angle - level < -DEVIATES * error)
    level, other = np.where(fell, angle, level), np.where(fell, level, other)
    state = replace(state, level=level, other=other, away=np.where(fell, 0, away))
    return state, angle - level, error


def _unit(weight: Doubles, rows: Doubles) -> Doubles:
    """The variance of a day's distance from its level if its rows were independent."""
    return BETWEEN**2 + 1 / np.maximum(rows, 1) + 1 / np.maximum(weight, 1)


def _effect(stream: Stream) -> float:
    return LOOSE if stream.figure == "crowded" or (stream.figure == "distance" and stream.cluster >= 0) else EFFECT


def _learned(state: State, apart: Doubles, error: Doubles, rows: Doubles) -> State:
    """Level and spread a day later; a bad day moves neither further than one at BAD_DAY deviations would."""
    heard = rows >= LEAST_ROWS
    kept = 0.5 ** (1 / np.array([RATE_HALF_LIFE if s.figure in UPWARD else LEVEL_HALF_LIFE for s in state.streams]))
    precision = 1 / (BETWEEN**2 + 1 / np.maximum(rows, 1))
    weight = kept * state.weight + precision
    step = np.clip(apart, -BAD_DAY * error, BAD_DAY * error) * precision / weight
    square = np.minimum(apart**2 / _unit(state.weight, rows), BAD_DAY**2 * state.spread)
    first = state.weight == 0  # it differs from itself by nothing, which teaches nothing
    kept = 0.5 ** (1 / SPREAD_HALF_LIFE)
    return replace(
        state,
        level=np.where(heard, state.level + step, state.level),
        weight=np.where(heard, weight, state.weight),
        squares=np.where(heard & ~first, kept * state.squares + square, state.squares),
        count=np.where(heard & ~first, kept * state.count + 1, state.count),
        seen=state.seen + heard,
    )


def _restarted(
    before: State, state: State, value: Doubles, rows: Doubles, cried: NDArray[np.bool_], deviates: NDArray[np.bool_]
) -> State:
    """After a cry. Near-identical pictures are counted apart, so a burst says nothing about other streams."""
    burst = np.array([s.figure == "burst" for s in state.streams], bool)
    concerned = cried | np.full(len(cried), (cried & ~burst).any())
    moved = cried | (concerned & deviates & (rows >= LEAST_ROWS))
    day = 1 / (BETWEEN**2 + 1 / np.maximum(rows, LEAST_ROWS))
    return replace(
        state,
        level=np.where(moved, _angle(value), state.level),
        other=np.where(moved, before.level, state.other),
        weight=np.where(moved, day, np.where(concerned, np.minimum(state.weight, RELEARN * day), state.weight)),
        seen=np.where(concerned, 0, state.seen),
        away=np.where(moved, 0, state.away),
        evidence=np.where(concerned[:, None, None], -np.inf, state.evidence),
    )


def _angle(value: Doubles) -> Doubles:
    """Cohen's angle: for a mean of n independent numbers from 0 to 1 its variance is at most 1 / n."""
    return np.asarray(2 * np.arcsin(np.sqrt(value)))


def _value_of(angle: Doubles) -> Doubles:
    return np.asarray(np.sin(np.clip(angle, 0, np.pi) / 2) ** 2)


def _shares(streams: Sequence[Stream]) -> Doubles:
    """Each stream's share of the false alarms: groups alike, since a thousand cameras must not silence one burst."""
    group = [
        (s.figure if s.figure in {"burst", "crowded", "unheld"} else "", s.cluster >= 0, bool(s.camera))
        for s in streams
    ]
    many = {g: group.count(g) for g in set(group)}
    return np.array([1 / (len(many) * many[g]) for g in group])


def _log_e(excess: Doubles) -> Doubles:
    """Logs of the day's e-values, one more axis for the stakes."""
    return np.asarray(np.minimum(excess, BOUND)[..., None] * np.array(STAKES) - _psi())


@cache
def _psi() -> Doubles:
    """log E exp(stake * min(t, BOUND)) for Student's t, by the midpoint rule on its angle: t = sqrt(df) tan(a)."""
    steps = 200_000
    a = (np.arange(steps) + 0.5) / steps * np.pi - np.pi / 2
    density = np.cos(a) ** (TAILS - 1)
    t: Any = np.minimum(np.sqrt(TAILS) * np.tan(a), BOUND)
    return np.array([np.log((np.exp(stake * t) * density).sum() / density.sum()) for stake in STAKES], np.float64)
