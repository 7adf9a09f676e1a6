"""Per descriptor: local density, HDBSCAN and OPTICS noise, near-duplicates, and a sketch of every measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamclust import quantiles
from streamclust.cluster import core_distances, density
from streamclust.cluster.agreement import vote_agreement, vote_counts
from streamclust.evidence import MEASURES
from streamclust.job import Job, fingerprint
from streamclust.outliers import SubsampledDensity, fit_density, score_density
from streamclust.quantiles import QuantileSketch
from streamclust.stages.labels import NO_VALUE, LabelWriter, labels_name, unlabelled, up_to_date
from streamclust.stages.reduced import Sample, load_sample, read_valid, reduced_rows
from streamclust.store.draft import Draft
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store

Method = Literal["hdbscan", "optics"]
METHODS: tuple[Method, ...] = ("hdbscan", "optics")
WRITTEN = {
    "score": np.float32,
    "hdbscan": np.int32,
    "optics": np.int32,
    "hdbscan_noise": np.float32,
    "optics_noise": np.float32,
    "near_duplicates": np.float32,
}


@dataclass(frozen=True)
class Measures:
    """What was fitted on one descriptor."""

    local: SubsampledDensity
    noise: Mapping[Method, density.NoiseModel]


@dataclass(frozen=True)
class Seen:
    """Sketches of every measure, how often each pair of votes agreed, and how many rows each method calls noise."""

    sketches: Mapping[str, QuantileSketch]
    agreed: Mapping[str, NDArray[np.int64]]
    noise: Mapping[str, int]
    rows: int


def measure(job: Job, projection: str, clustering: str) -> str:
    """Fit every measure of strangeness on the rows of a projection, score all rows by it; returns the model's name."""
    store, settings = job.store, job.settings
    entry = store.snapshot.entries[projection]
    descriptor, n = entry.attributes["descriptor"], entry.attributes["rows"]
    addresses = _addresses(store, projection, clustering)
    batches = sorted({rows.batch for rows in addresses})
    chosen = settings.outliers.model_dump(exclude={"budget", "shown"})
    wanted = fingerprint("strangeness", projection, clustering, batches, chosen, settings.seed)
    known = up_to_date(job, "model", f"{descriptor}/strangeness", wanted)
    if known is not None:
        return known
    sample = load_sample(store, projection)
    with job.journal.stage(f"{descriptor}: fit outliers", n):
        model = _fit(job, sample, [rows for rows in addresses if rows.batch in entry.attributes["batches"]], n)
    name = f"models/{descriptor}-strangeness-{store.snapshot.number + 1:06d}"
    with job.journal.stage(f"{descriptor}: score outliers", n):
        writer = LabelWriter(store, name, addresses, WRITTEN, fingerprint(wanted, "labels"))
        seen = job.executor.fold(add_measures, writer.addresses, merge_seen, model, run=1)
    _publish(job, name, wanted, projection, clustering, model, seen, writer)
    return name


def predict(job: Job, model: str) -> list[str]:
    """Measure, by a model as it is, the batches that it has not measured; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    projection, clustering = about["parents"]
    addresses = _addresses(store, projection, clustering, unlabelled(store, model))
    if not addresses:
        return []
    descriptor = about["descriptor"]
    with job.journal.stage(f"{descriptor}: score outliers", sum(len(rows) for rows in addresses)):
        writer = LabelWriter(store, model, addresses, WRITTEN, fingerprint(model, "labels"))
        job.executor.fold(add_measures, writer.addresses, merge_seen, load_measures(store, model), run=1)
        store.publish(f"predict {descriptor} outliers", writer.finish(about["role"], _columns(descriptor)))
    return sorted({rows.batch for rows in addresses})


def _addresses(store: Store, projection: str, clustering: str, batches: Sequence[Batch] | None = None) -> list[Rows]:
    rows = reduced_rows(store, projection, batches, norm="norm", residual="residual")
    return [r.with_arrays(distance=store.array(labels_name(clustering, r.batch), "distance")) for r in rows]


def _fit(job: Job, sample: Sample, addresses: list[Rows], n: int) -> Measures:
    o, seed = job.settings.outliers, job.settings.seed
    local = fit_density(sample.Z, sample.ids, n_subsamples=o.subsamples, subsample_rows=o.subsample_rows, seed=seed)
    draw = core_distances.draw_votes(len(sample.ids), votes=o.noise_votes, rows=o.noise_rows, seed=seed)
    points, ids = sample.Z[draw.rows], sample.ids[draw.rows]
    core = job.executor.fold(add_core, addresses, core_distances.merge_core, points, ids, run=1)
    noise = job.executor.map(fit_method, METHODS, points, ids, core, draw, n)
    return Measures(local, dict(zip(METHODS, noise, strict=True)))


def add_core(
    state: core_distances.CoreState | None, rows: Rows, points: NDArray[np.float32], ids: NDArray[np.int64]
) -> core_distances.CoreState:
    """One block's rows into the core distances of the sampled rows."""
    Z, valid = read_valid(rows)
    found = core_distances.core_block(points, ids, Z, rows.ids[valid])
    return found if state is None else core_distances.merge_core(state, found)


def fit_method(
    method: Method,
    points: NDArray[np.float32],
    ids: NDArray[np.int64],
    core: core_distances.CoreState,
    draw: core_distances.Draw,
    n: int,
) -> density.NoiseModel:
    """One method on every subsample."""
    return density.fit_noise(points, ids, core, draw, n, method=method)


def add_measures(state: Seen | None, rows: Rows, model: Measures) -> Seen:
    """Score one block's rows by every measure and write what later passes need."""
    Z, valid = read_valid(rows)
    ids = rows.ids[valid]
    verdicts = dict(zip(model.noise, density.assign_all(list(model.noise.values()), Z, ids), strict=True))
    values: dict[str, NDArray[Any]] = {"score": score_density(model.local, Z, ids)}
    for method, verdict in verdicts.items():
        values[method], values[f"{method}_noise"] = verdict.label, verdict.share
    values["near_duplicates"] = verdicts["optics"].near_duplicates
    for name, mine in values.items():
        every = np.full(len(rows), NO_VALUE if WRITTEN[name] is np.int32 else np.nan, WRITTEN[name])
        every[valid] = mine
        rows.write(name, every)
    measured = values | {"density": values["score"], "centre_distance": rows.read("distance")[valid]}
    measured |= {"reconstruction_error": rows.read("residual")[valid], "norm": rows.read("norm")[valid]}
    found = Seen(
        {name: quantiles.sketch_block(measured[name]) for name in MEASURES},
        {method: vote_counts(verdict.votes) for method, verdict in verdicts.items()},
        {method: int(verdict.noise.sum()) for method, verdict in verdicts.items()},
        len(Z),
    )
    return found if state is None else merge_seen(state, found)


def merge_seen(a: Seen, b: Seen) -> Seen:
    """Both."""
    return Seen(
        {name: quantiles.merge(a.sketches[name], b.sketches[name]) for name in a.sketches},
        {name: a.agreed[name] + b.agreed[name] for name in a.agreed},
        {name: a.noise[name] + b.noise[name] for name in a.noise},
        a.rows + b.rows,
    )


def _publish(
    job: Job,
    name: str,
    wanted: str,
    projection: str,
    clustering: str,
    model: Measures,
    seen: Seen,
    writer: LabelWriter,
) -> None:
    store = job.store
    descriptor = store.snapshot.entries[projection].attributes["descriptor"]
    draft = store.draft(name, "model", wanted)
    _write_parts(draft, "density", model.local)
    for method, noise in model.noise.items():
        _write_parts(draft, method, noise)
    for measured, sketch in seen.sketches.items():
        for part, values in quantiles.to_arrays(quantiles.compact(sketch)).items():
            draft.write(f"sketches/{measured}/{part}", values)
    attributes = {
        "role": f"{descriptor}/strangeness",
        "descriptor": descriptor,
        "parents": [projection, clustering],
        "rows": seen.rows,
        "noise": {method: _reliability(model.noise[method], seen, method) for method in METHODS},
        "snapshot": store.snapshot.number,
    }
    drafts = writer.finish(f"{descriptor}/strangeness", _columns(descriptor))
    store.publish(f"outliers {descriptor}", drafts | {name: (draft, draft.entry(attributes, {}))})


def _columns(descriptor: str) -> dict[str, str]:
    columns = {"hdbscan": f"{descriptor}_hdbscan", "optics": f"{descriptor}_optics"}
    return columns | {"score": f"{descriptor}_outlier_score"}


def _write_parts(draft: Draft, room: str, model: Any) -> None:
    """Every field but names; () becomes (1,)."""
    for field in fields(model):
        value = getattr(model, field.name)
        if not isinstance(value, str):
            draft.write(f"{room}/{field.name}", np.asarray(value))


def load_measures(store: Store, model: str) -> Measures:
    """What was fitted on one descriptor, as stored."""

    def parts(room: str, kind: Any) -> dict[str, NDArray[Any]]:
        return {f.name: store.read(model, f"{room}/{f.name}") for f in fields(kind) if f.name != "method"}

    local = parts("density", SubsampledDensity)
    noise = {}
    for method in METHODS:
        found = parts(method, density.NoiseModel)
        k, radius, fraction = (found.pop(name)[0] for name in ("neighbour", "radius", "fraction"))
        noise[method] = density.NoiseModel(
            method, **found, neighbour=int(k), radius=float(radius), fraction=float(fraction)
        )
    return Measures(SubsampledDensity(**local | {"scale": local["scale"][0]}), noise)


def _reliability(model: density.NoiseModel, seen: Seen, method: Method) -> dict[str, Any]:
    """Share of noise, clusters, and how far the votes agree with one another, in numbers and in words."""
    found = vote_agreement(seen.agreed[method])
    share, clusters = seen.noise[method] / max(seen.rows, 1), int(model.label[0].max(initial=-1)) + 1
    if np.isnan(found.share):
        word, said = "fair", "One subsample holds every sampled row, so there is no second vote to compare with."
    else:
        word = "reliable" if found.reliable else "unreliable"
        said = f"Two subsamples agree on {found.share:.1%} of images (kappa {found.kappa:.2f})."
    agreement = None if np.isnan(found.share) else found.share
    return {"share": share, "clusters": clusters, "agreement": agreement, "reliability": word, "sentence": said}


def load_sketches(store: Store, model: str) -> dict[str, QuantileSketch]:
    """The stored sketches of every measure."""
    return {
        name: quantiles.from_arrays({part: store.read(model, f"sketches/{name}/{part}") for part in quantiles.PARTS})
        for name in MEASURES
    }
