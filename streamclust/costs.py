"""What a command will cost, before it starts: its steps, and how many workers its memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from streamclust import steps
from streamclust.config import AT, MIX, Settings
from streamclust.errors import BudgetError
from streamclust.planning import Plan, Shape, Step

COMMANDS = ("run", "ingest", "fit", "outliers", "map", "report", "daily")


def plan(shapes: Mapping[str, Shape], settings: Settings, workers: int, command: str = "run") -> Plan:
    """The steps of a command over these descriptors, the same under further scalers, and their mix if there is one."""
    own = {name: _as_told(shape, settings, command) for name, shape in shapes.items()}
    further = {f"{name}{AT}{scaler}": shape for name, shape in own.items() for scaler in settings.reduce.also}
    further |= _mix(own, settings, command)
    found = (_of_day if command == "daily" else _of_run)(own, further, settings, workers)
    return Plan(tuple(step for step in found if command in {"run", "daily", step.command}), workers)


def _as_told(shape: Shape, settings: Settings, command: str) -> Shape:
    """With its number of components where that is given: no more than features nor, unless it is fitted, than rows."""
    most = shape.d if command == "daily" else min(shape.n, shape.d)
    return replace(shape, p=min(settings.reduce.components, most)) if settings.reduce.components else shape


def _mix(shapes: Mapping[str, Shape], settings: Settings, command: str) -> dict[str, Shape]:
    """The mix, whose rows are what the others are reduced to; none where one of them is not here."""
    parts = [shapes[name] for name in settings.mix.of if name in shapes]
    if not parts or len(parts) < len(settings.mix.of):
        return {}
    joined = Shape(max(part.n for part in parts), sum(part.components for part in parts))
    return {MIX: _as_told(joined, settings, command)}


def _of_run(shapes: Mapping[str, Shape], further: Mapping[str, Shape], settings: Settings, workers: int) -> list[Step]:
    found = [steps.ingest(name, shape, workers) for name, shape in shapes.items()]
    for name, shape in {**shapes, **further}.items():
        found += [
            *([steps.moments(name, shape, workers)] if name == MIX and name in further else []),
            steps.fit(name, shape, settings),
            *_reduce(name, shape, further, settings, workers),
            steps.cluster(name, shape, settings, workers),
            *(steps.FURTHER[also](name, shape, settings, workers) for also in settings.algorithms.also),
        ]
        if AT not in name:
            found += [
                steps.outliers(name, shape, settings, workers),
                steps.tsne(name, shape, settings, workers),
                steps.place(name, shape, settings, workers),
            ]
    found.append(steps.every_k({**shapes, **further}, settings, workers))
    return [*found, steps.draw(list(shapes.values()), settings, workers)]


def _reduce(name: str, shape: Shape, further: Mapping[str, Shape], settings: Settings, workers: int) -> Iterator[Step]:
    """Once for all scalers of a descriptor, which share the read."""
    if AT not in name:
        yield steps.reduce(name, shape, workers, 1 if name in further else 1 + len(settings.reduce.also))


def _of_day(shapes: Mapping[str, Shape], further: Mapping[str, Shape], settings: Settings, workers: int) -> list[Step]:
    """By models that were fitted before."""
    found = [steps.ingest(name, shape, workers) for name, shape in shapes.items()]
    for name, shape in {**shapes, **further}.items():
        found += [*_reduce(name, shape, further, settings, workers), steps.label(name, shape, settings, workers)]
        if AT not in name:
            found += [
                steps.outliers(name, shape, settings, workers, known=True),
                steps.place(name, shape, settings, workers),
            ]
    return [*found, steps.count_grids()]


def within(shapes: Mapping[str, Shape], settings: Settings, workers: int, command: str = "run") -> Plan:
    """The plan for as many workers as ``settings.memory`` allows, at most ``workers``.

    Raises
    ------
    BudgetError : not even one worker fits; names the step and the bytes.
    """
    budget = settings.memory_bytes
    for count in range(workers, 0, -1):
        found = plan(shapes, settings, count, command)
        if budget is None or found.peak.peak_bytes <= budget:
            return found
    worst = found.peak
    raise BudgetError(
        f"--memory {settings.memory}",
        f"{worst.name} needs {worst.peak_bytes:,} bytes with one worker",
        f"at least {-(-worst.peak_bytes // 10**8) / 10:g}GB",
    )
