"""What is followed from day to day, a day's value of it, the verdict on it, and all that is known of it so far."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

STAKES = (0.5, 1.0, 2.0, 3.5)  # betting fractions that are mixed
SPREAD, SPREAD_DAYS = 2.0, 14.0  # variance of a day over that of independent rows: the guess and its weight in days


@dataclass(frozen=True, order=True)
class Stream:
    """What is followed from day to day: a figure, of a descriptor, of a cluster of it, of a camera, or of all rows."""

    figure: str
    descriptor: str = ""
    cluster: int = -1
    camera: str = ""


@dataclass(frozen=True)
class Figure:
    """A day's value: the mean of ``rows`` numbers from 0 to 1."""

    value: float
    rows: int


@dataclass(frozen=True)
class Reading:
    """One stream on one day: its value, what was expected, by how many deviations they differ, and the verdict.

    ``early`` says that fewer than 14 days were seen since the start or the last change, so the larger floor applied.
    """

    stream: Stream
    value: float
    expected: float
    deviation: float
    strength: float
    cried: bool
    early: bool


@dataclass(frozen=True, eq=False)
class State:
    """All that is known of S streams, in their sorted order.

    Attributes
    ----------
    level, other : (S,) float64, the usual value and the one before the last change (NaN without), as Cohen's angle.
    weight : (S,) the precision of the level. squares, count : (S,) of the spread, both forgetting.
    seen : (S,) days since the start or the last change. away : (S,) days since ``other`` was met.
    evidence : (S, 2, stakes) logs of the e-detectors, upward and downward.
    """

    streams: tuple[Stream, ...]
    level: Doubles
    other: Doubles
    weight: Doubles
    squares: Doubles
    count: Doubles
    seen: Doubles
    away: Doubles
    evidence: Doubles

    @property
    def spread(self) -> Doubles:
        """(S,) variance of a day over that of as many independent rows."""
        return (SPREAD * SPREAD_DAYS + self.squares) / (SPREAD_DAYS + self.count)


NUMBERS = ("level", "other", "weight", "squares", "count", "seen", "away")


def nothing() -> State:
    """The state before any day."""
    return State((), **{name: np.empty(0) for name in NUMBERS}, evidence=np.empty((0, 2, len(STAKES))))


def encode(streams: tuple[Stream, ...]) -> NDArray[np.uint8]:
    """Streams as the bytes of one JSON text, which is far quicker to read than arrays of text."""
    text = json.dumps([astuple(s) for s in streams], ensure_ascii=False, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8)


def decode(stored: NDArray[np.uint8]) -> tuple[Stream, ...]:
    """The streams of ``encode``; days that follow each other mostly have the same, which are read once."""
    return _decode(stored.tobytes())


@lru_cache(maxsize=8)
def _decode(text: bytes) -> tuple[Stream, ...]:
    return tuple(Stream(*fields) for fields in json.loads(text))
