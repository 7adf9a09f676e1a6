"""What a command will need of this machine, for the case or the store that it is given."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from streamclust import costs
from streamclust.config import Settings
from streamclust.errors import InputError
from streamclust.planning import Plan, Shape
from streamclust.readers.case import Case, open_case
from streamclust.readers.sources import unpacked_bytes
from streamclust.store.store import Store, open_store


def plan_for(source: Path | str, settings: Settings, command: str = "run") -> Plan:
    """The plan of a command over a case, or over a store; of a store all has been brought in.

    Raises
    ------
    InputError : no such command, or one that brings a case in, over a store. BudgetError : ``settings.memory`` cannot
    hold.
    """
    source = Path(source)
    if command not in costs.COMMANDS:
        raise InputError(f"command {command!r}", "no such command is planned", f"one of {', '.join(costs.COMMANDS)}")
    if not (source / "log").is_dir():
        reading = settings.ingest
        case = open_case(source, path_encoding=reading.path_encoding, parts=reading.parts)
        return costs.within(shapes_of_case(case), settings, workers(settings), command)
    if command in {"ingest", "daily"}:
        raise InputError(f"a plan of {command}", f"{source} is a store", "the case that is to come in")
    found = costs.within(shapes_of_store(open_store(source)), settings, workers(settings), command)
    return replace(found, steps=tuple(step for step in found.steps if step.command != "ingest"))


def shapes_of_case(case: Case) -> dict[str, Shape]:
    """The shape of each descriptor that comes with a case."""
    return {
        name: Shape(*source.shape, source.dtype.itemsize, unpacked=unpacked_bytes(source))
        for name, source in case.descriptors.items()
    }


def shapes_of_store(store: Store) -> dict[str, Shape]:
    """The shape of each descriptor over all rows of a store."""
    return {name: Shape(store.n, d) for name, d in store.descriptors.items()}


def workers(settings: Settings) -> int:
    """Threads of this machine's own executor."""
    return settings.workers or len(os.sched_getaffinity(0))
