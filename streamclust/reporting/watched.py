"""What was published of the watched days: alarms by batch, and a day's figures, from small entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamclust.detector import FEW_DAYS
from streamclust.stages.watch import Alarm, alarms
from streamclust.store.store import Store
from streamclust.streams import NUMBERS, Figure, Stream


@dataclass(frozen=True)
class Watched:
    """One day as it was watched. ``early``: too few days had been seen, so only large changes could alarm."""

    figures: Mapping[Stream, Figure]
    early: bool


def alarms_of(store: Store) -> dict[str, tuple[Alarm, ...]]:
    """The alarms of every watched batch by its name, oldest first; empty where nothing was cried."""
    raised: dict[str, list[Alarm]] = {}
    for alarm in alarms(store):
        raised.setdefault(alarm.day, []).append(alarm)
    days = (entry.attributes for entry in store.snapshot.of_kind("day").values())
    return {about["role"]: tuple(raised.get(about["id"], ())) for about in days}


def watched(store: Store, name: str) -> Watched:
    """The figures of a day by the ``name`` of its entry."""
    parts = [store.read(name, f"streams/{part}").tolist() for part in ("figure", "descriptor", "cluster", "camera")]
    readings = store.read(name, "readings")
    here = np.isfinite(readings[:, 1])  # those that the day has
    figures = {
        Stream(str(f), str(d), int(c), str(n)): Figure(value, int(rows))
        for f, d, c, n, (value, rows), known in zip(*parts, readings[:, :2].tolist(), here.tolist(), strict=True)
        if known
    }
    seen = store.read(name, "state")[:, NUMBERS.index("seen")]
    before = max(seen.tolist(), default=0.0) - 1
    return Watched(figures, before < FEW_DAYS)


def entry_of(store: Store, batch: str) -> str | None:
    """The name of the entry of a watched batch."""
    return next((n for n, e in store.snapshot.of_kind("day").items() if e.attributes["role"] == batch), None)
