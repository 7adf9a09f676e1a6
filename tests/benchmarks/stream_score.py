"""What a replay is worth: which alarm has which cause, how late each event is found, what is cried for nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.stream import DIMS, Event, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

DRIFT = frozenset({"new kind of image", "cluster growing", "cluster dying", "drift"})
# Event -> what says that it was found, what else it may cause, and the last day of either, counted from its own.
# Lasting events stand at least 25 days apart, so that no alarm has two of them for a cause.
CAUSES: dict[str, tuple[frozenset[str], frozenset[str], int]] = {
    "stuck camera": (frozenset({"stuck camera"}), DRIFT, 0),
    "new camera": (DRIFT, DRIFT, 10),
    "upgrade": (frozenset({"descriptor changed"}), DRIFT, 10),
    "missing descriptor": (frozenset({"descriptor missing"}), frozenset(), 0),
    "birth": (frozenset({"new kind of image", "cluster growing"}), DRIFT, 20),
    "death": (frozenset({"cluster dying"}), DRIFT, 20),
}
ENOUGH = 30  # rows of a day below which its agreement with the truth says nothing


@dataclass(frozen=True)
class Cry:
    """An alarm as raised: on which day, of what kind, of which descriptor (``None``: of all), about what."""

    day: int
    kind: str
    descriptor: str | None = None
    subject: str = ""


@dataclass(frozen=True)
class Turn:
    """A refit that was accepted: rows that changed their id without a cause, of those that had one; per descriptor."""

    day: int
    changed: dict[str, int]
    shared: dict[str, int]


@dataclass
class Record:
    """All that one replay leaves behind, to be scored and drawn."""

    stream: Stream
    cries: list[Cry] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)  # of each day that came
    agreement: dict[str, dict[int, float]] = field(default_factory=lambda: {name: {} for name in DIMS})
    names: int = 0  # that were given
    lost: list[str] = field(default_factory=list)  # what became of those that were lost


def causes(stream: Stream, cry: Cry) -> list[Event]:
    """The events that explain an alarm."""
    return [e for e in stream.events if e.kind in CAUSES and _explains(e, cry)]


def delays(record: Record) -> dict[Event, int | None]:
    """Days from each event to the first alarm that names it, counted in days that came; ``None`` where none did."""
    found: dict[Event, int | None] = {}
    for event in record.stream.events:
        if event.kind in CAUSES:
            days = [c.day for c in record.cries if _explains(event, c) and c.kind in CAUSES[event.kind][0]]
            came = [d for d in range(event.day, min(days, default=event.day)) if not record.stream.of("no folder", d)]
            found[event] = len(came) if days else None
    return found


def false_alarms(record: Record) -> list[Cry]:
    """Alarms that no event explains."""
    return [cry for cry in record.cries if not causes(record.stream, cry)]


def changed_per_day(record: Record) -> float:
    """The share of rows that change their id without a cause, per day; the worst of the descriptors."""
    parts = [sum(turn.changed[d] / max(turn.shared[d], 1) for turn in record.turns) for d in DIMS]
    return max(parts) / record.stream.days


def slope(record: Record) -> tuple[float, float]:
    """Seconds of a median day, and how many more a day costs 100 days later (Theil and Sen's slope)."""
    from scipy.stats import theilslopes

    if len(record.seconds) < 2:
        return sum(record.seconds.values()), 0.0
    found = theilslopes(list(record.seconds.values()), list(record.seconds))
    return median(record.seconds.values()), 100 * float(found.slope)


def agreement(labels: np.ndarray, truth: np.ndarray) -> float:
    """Adjusted Rand index over rows that are of a kind and have a label; NaN for fewer than ``ENOUGH``."""
    from sklearn.metrics import adjusted_rand_score

    sound = (truth >= 0) & (labels >= 0)
    return float(adjusted_rand_score(truth[sound], labels[sound])) if sound.sum() >= ENOUGH else float("nan")


def table(records: Sequence[Record]) -> str:
    """One row per seed and one over all, as Markdown."""
    kinds = list(CAUSES)
    head = ["seed", "names lost", "ids changed % / day", *(f"{kind}, days" for kind in kinds)]
    head += ["false alarms", "alarms", "s / day", "s / day per 100 days", *(f"ARI {d}" for d in DIMS)]
    rows = [[str(r.stream.seed), *_cells(r, kinds)] for r in records]
    false = [len(false_alarms(r)) for r in records]
    late = {kind: [d for r in records for e, d in delays(r).items() if e.kind == kind] for kind in kinds}
    total = [
        f"**{sum(len(r.lost) for r in records)}** of {sum(r.names for r in records)}",
        f"**{max(map(changed_per_day, records)):.2%}** at most",
    ]
    total += [_summary(late[kind]) for kind in kinds]
    total += [f"median {median(false):g}, mean {mean(false):.2f}", f"mean {mean(len(r.cries) for r in records):.1f}"]
    seconds = [slope(r) for r in records]
    total += [f"{median(s for s, _ in seconds):.2f}", f"{median(s for _, s in seconds):+.3f}"]
    total += [f"{np.nanmean([_mean(r, d) for r in records]):.3f}" for d in DIMS]
    lines = [head, ["---"] * len(head), *rows, ["all", *total]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def remarks(records: Sequence[Record]) -> list[str]:
    """A line for each false alarm, each event that nobody named, and each name that was lost."""
    found = []
    for record in records:
        seed = record.stream.seed
        found += [f"- seed {seed}, day {c.day}: false alarm, {c.kind}: {c.subject}" for c in false_alarms(record)]
        late = delays(record).items()
        found += [f"- seed {seed}, day {e.day}: {e.kind} not found" for e, days in late if days is None]
        found += [f"- seed {seed}: name lost: {lost}" for lost in record.lost]
    return found


def _explains(event: Event, cry: Cry) -> bool:
    names, others, last = CAUSES[event.kind]
    touched = event.descriptor in {None, cry.descriptor} or cry.descriptor is None
    return touched and cry.kind in names | others and event.day <= cry.day <= event.day + last


def _cells(record: Record, kinds: Sequence[str]) -> list[str]:
    late = delays(record)
    seconds, more = slope(record)
    found = {kind: ["not found" if d is None else str(d) for e, d in late.items() if e.kind == kind] for kind in kinds}
    cells = [f"{len(record.lost)} of {record.names}", f"{changed_per_day(record):.2%}"]
    cells += [", ".join(found[kind]) for kind in kinds]
    cells += [str(len(false_alarms(record))), str(len(record.cries)), f"{seconds:.2f}", f"{more:+.3f}"]
    return cells + [f"{_mean(record, d):.3f}" for d in DIMS]


def _summary(late: Sequence[int | None]) -> str:
    found = [d for d in late if d is not None]
    said = f"median {median(found):g}, most {max(found)}" if found else "-"
    return said + (f", {len(late) - len(found)} of {len(late)} not found" if len(found) < len(late) else "")


def _mean(record: Record, descriptor: str) -> float:
    values = [v for v in record.agreement[descriptor].values() if np.isfinite(v)]
    return float(np.mean(values)) if values else float("nan")
