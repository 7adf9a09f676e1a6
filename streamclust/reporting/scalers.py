"""What a report says of descriptors under several scalers: whose clusters are the most stable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from streamclust import counts
from streamclust.job import Job
from streamclust.render.parts import Section, Table
from streamclust.reporting.descriptors import stabilities
from streamclust.stages.compare import table_key
from streamclust.stages.sources import came_as

COLUMNS = ("scaler", "components", "k", "stability there", "low", "high", "mean of every k", "agreement")
FORMATS = ("text", "count", "count", "number", "number", "number", "number", "number")
CAPTION = (
    "Stability: adjusted Rand index between halves of the sample, clustered apart, with the interval of nine pairs in "
    "ten. Agreement: adjusted Rand index of the chosen clusters and those under the scaler that is set, over every row."
)


def describe_scalers(job: Job, models: Mapping[str, str]) -> Iterator[Section]:
    """A table for each descriptor that has several, best first; nothing where none has.

    The indices of k measure distances under one scaler and cannot be compared with those under another; how far
    halves of the rows agree can be (Ben-Hur, Elisseeff and Guyon, "A stability based method for discovering structure
    in clustered data", 2002).
    """
    sets: dict[str, list[str]] = {}
    for descriptor in sorted(models):  # the one that is set comes first
        sets.setdefault(came_as(descriptor), []).append(descriptor)
    every = [_table(job, models, names) for names in sets.values() if len(names) > 1]
    found = [(said, table) for said, table in every if len(table.rows) > 1]
    if found:
        said, tables = zip(*found, strict=True)
        yield Section(title="Which scaler?", paragraphs=said, tables=tables)


def _table(job: Job, models: Mapping[str, str], names: Sequence[str]) -> tuple[str, Table]:
    entries, rows, seen = job.store.snapshot.entries, [], set[str]()
    for name in names:
        about = entries[models[name]].attributes
        projection, every = entries[about["parents"][0]].attributes, stabilities(job, models[name], about["ks"])
        if projection["scaler"] in seen:
            continue  # what auto stands for
        seen.add(projection["scaler"])
        there = every[about["ks"].index(about["k"])]
        known = np.isfinite(every[:, 0])
        mean = float(every[known, 0].mean()) if known.any() else np.nan
        numbers = [_number(value) for value in (*there, mean, _agreement(job, names[0], name))]
        called = f"{projection['scaler']}{' (set)' * (name == names[0])}"
        rows.append((called, projection["components"], about["clusters"], *numbers))
    rows.sort(key=lambda row: -(row[6] or 0.0))
    table = Table(title=names[0], columns=COLUMNS, rows=tuple(rows), formats=FORMATS, caption=CAPTION)
    return _sentence(names[0], rows), table


def _agreement(job: Job, first: str, other: str) -> float:
    comparison, pair = job.store.snapshot.newest("comparison", "comparison"), (f"{first}/kmeans", f"{other}/kmeans")
    if comparison is None or (key := table_key("label", pair)) not in job.store.snapshot.entries[comparison].arrays:
        return 1.0 if first == other else np.nan
    return counts.adjusted_rand(job.store.read(comparison, key))


def _sentence(descriptor: str, rows: Sequence[tuple[Any, ...]]) -> str:
    best, means = rows[0][0], [row[6] for row in rows]
    if None in means:
        return f"{descriptor}: nothing is known of how stable its clusters are."
    said = ", ".join(f"{row[0]} {row[6]:z.2f}" for row in rows)
    return f"{descriptor}: halves of its rows agree most under {best} (adjusted Rand index, mean of every k: {said})."


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
