"""What the rows of a day are measured by: the models in force, and what the fitted rows themselves looked like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust import bursts, quantiles, tallies
from streamclust.errors import InputError
from streamclust.job import Job
from streamclust.planning import LABEL_ROWS
from streamclust.quantiles import QuantileSketch
from streamclust.stages.labels import labels_name
from streamclust.stages.names import cluster_ids
from streamclust.stages.reduced import load_sample
from streamclust.stages.sources import described
from streamclust.stages.strangeness import load_sketches
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store
from streamclust.tallies import Yardstick

SKETCHED = ("centre_distance", "reconstruction_error", "norm", "density")
Single = NDArray[np.float32]


@dataclass(frozen=True)
class Frozen:
    """One descriptor's models in force, and the fused one."""

    projection: str
    clustering: str
    strangeness: str
    outliers: str


@dataclass(frozen=True, eq=False)
class Measure:
    """What a descriptor's rows are measured by.

    Attributes
    ----------
    near, around : distances below which a 1,000th and a 20th of the pairs of fitted rows lie.
    fitted : (m, p) float32, fitted rows, reduced.
    """

    by: Yardstick
    near: float
    around: float
    fitted: Single


def frozen(store: Store) -> dict[str, Frozen]:
    """The models in force by descriptor.

    Raises
    ------
    InputError : outliers were not fitted yet.
    """
    newest, outliers, found = store.snapshot.newest, store.snapshot.newest("model", "outliers"), dict[str, Frozen]()
    for descriptor in described(store):
        model = newest("model", f"{descriptor}/strangeness")
        if model and outliers:
            projection, clustering = store.snapshot.entries[model].attributes["parents"]
            found[descriptor] = Frozen(projection, clustering, model, outliers)
    if not found:
        raise InputError(store.path, "no outliers were fitted yet", "a fitted store", "streamclust outliers STORE")
    return found


def fit_measures(job: Job, models: Mapping[str, Frozen], batches: Sequence[Batch]) -> dict[str, Measure]:
    """Yardsticks of every descriptor from the batches that it was fitted on, one fold, and its usual distances."""
    store, found = job.store, dict[str, Measure]()
    for descriptor, model in models.items():
        sketches, ids = _stored(store, model)
        paths = [(b, labels_name(model.clustering, b.name)) for b in batches]
        addresses = [
            rows
            for b, name in paths
            if name in store.snapshot.entries
            for rows in store.rows(b, LABEL_ROWS, {a: store.array(name, a) for a in ("label", "distance")})
        ]
        clusters = job.executor.fold(add_distances, addresses, merge_sketches, len(ids))
        Z = load_sample(store, model.projection).Z
        fitted = Z[np.sort(np.random.default_rng(job.settings.seed).permutation(len(Z))[: bursts.PAIRED])]
        by = Yardstick(sketches, tallies.limits(sketches["centre_distance"], clusters), ids)
        found[descriptor] = Measure(by, *job.executor.map(bursts.radii, [fitted])[0], fitted)
    return found


def load_measures(store: Store, models: Mapping[str, Frozen], reference: str) -> dict[str, Measure]:
    """What ``fit_measures`` found, as stored."""
    found = {}
    for descriptor, model in models.items():
        sketches, ids = _stored(store, model)
        limits, radii, fitted = (store.read(reference, f"{descriptor}/{a}") for a in ("limits", "radii", "fitted"))
        found[descriptor] = Measure(Yardstick(sketches, limits, ids), float(radii[0]), float(radii[1]), fitted)
    return found


def write_measures(draft: Draft, measures: Mapping[str, Measure]) -> None:
    """Into the reference's draft, for ``load_measures``."""
    for descriptor, measure in measures.items():
        draft.write(f"{descriptor}/limits", measure.by.limits)
        draft.write(f"{descriptor}/radii", np.array([measure.near, measure.around]))
        draft.write(f"{descriptor}/fitted", measure.fitted)


def _stored(store: Store, model: Frozen) -> tuple[dict[str, QuantileSketch], tuple[int, ...]]:
    sketches = load_sketches(store, model.strangeness)
    return {name: sketches[name] for name in SKETCHED}, cluster_ids(store, model.clustering)


def add_distances(state: list[QuantileSketch] | None, rows: Rows, k: int) -> list[QuantileSketch]:
    """One block's distances by cluster."""
    found = tallies.cluster_sketches(rows.read("label"), rows.read("distance"), k)
    return found if state is None else merge_sketches(state, found)


def merge_sketches(a: list[QuantileSketch], b: list[QuantileSketch]) -> list[QuantileSketch]:
    """Both."""
    return [quantiles.merge(x, y) for x, y in zip(a, b, strict=True)]
