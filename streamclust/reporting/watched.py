"""What was published of the watched days: alarms by batch, and a day's figures, from small entries."""

from __future__ import annotations

import math

from streamclust.detector import FEW_DAYS
from streamclust.stages.watch import Alarm, alarms
from streamclust.store.store import Store
from streamclust.streams import NUMBERS, Figure, Stream, decode


def alarms_of(store: Store) -> dict[str, tuple[Alarm, ...]]:
    """The alarms of every watched batch by its name, oldest first; empty where nothing was cried."""
    raised: dict[str, list[Alarm]] = {}
    for alarm in alarms(store):
        raised.setdefault(alarm.day, []).append(alarm)
    days = (entry.attributes for entry in store.snapshot.of_kind("day").values())
    return {about["role"]: tuple(raised.get(about["id"], ())) for about in days}


def figures_of(store: Store, name: str) -> dict[Stream, Figure]:
    """The figures of a day by the ``name`` of its entry."""
    streams, readings = decode(store.read(name, "streams")), store.read(name, "readings")[:, :2].tolist()
    return {
        s: Figure(value, int(rows)) for s, (value, rows) in zip(streams, readings, strict=True) if math.isfinite(rows)
    }


def early(store: Store, name: str) -> bool:
    """Whether too few days had been seen before the day of that name, so that only large changes could alarm."""
    seen = store.read(name, "state")[:, NUMBERS.index("seen")]
    return max(seen.tolist(), default=0.0) - 1 < FEW_DAYS


def entry_of(store: Store, batch: str) -> str | None:
    """The name of the entry of a watched batch."""
    return next((n for n, e in store.snapshot.of_kind("day").items() if e.attributes["role"] == batch), None)
