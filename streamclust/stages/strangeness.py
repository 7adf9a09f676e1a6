"""Per descriptor: local density, HDBSCAN and OPTICS noise, near-duplicates, and a sketch of every measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamclust import quantiles
from streamclust.cluster.agreement import vote_agreement, vote_counts
from streamclust.cluster.density import NoiseModel, Votes, decide
from streamclust.cluster.voters import Voters, draw_voters
from streamclust.evidence import MEASURES
from streamclust.job import Job, fingerprint
from streamclust.outliers import SubsampledDensity, fit_density, score_density
from streamclust.quantiles import QuantileSketch
from streamclust.stages.labels import NO_VALUE, LabelWriter, labelled, labels_name, unlabelled, up_to_date
from streamclust.stages.reduced import load_sample, read_valid, reduced_rows
from streamclust.stages.sight import fit_noise, sight
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
    noise: NoiseModel


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
    name = f"models/{descriptor}-strangeness-{store.snapshot.number + 1:06d}"
    scratch = store.draft(f"{name}-sight", "scratch", fingerprint(wanted, "sight"))
    try:
        with job.journal.stage(f"{descriptor}: fit outliers", n):
            model, addresses = _fit(job, projection, addresses, scratch)
        with job.journal.stage(f"{descriptor}: score outliers", n):
            writer = LabelWriter(store, name, addresses, WRITTEN, fingerprint(wanted, "labels"))
            seen = job.executor.fold(add_measures, writer.addresses, merge_seen, model, run=1)
    finally:
        scratch.discard()
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


def _fit(job: Job, projection: str, addresses: list[Rows], scratch: Draft) -> tuple[Measures, list[Rows]]:
    """What is fitted on the rows of a projection's own batches, and all rows, these with what was seen of them."""
    o, seed, about = job.settings.outliers, job.settings.seed, job.store.snapshot.entries[projection].attributes
    sample = load_sample(job.store, projection)
    local = fit_density(sample.Z, sample.ids, n_subsamples=o.subsamples, subsample_rows=o.subsample_rows, seed=seed)
    drawn = draw_voters(sample.Z, sample.ids, about["rows"], votes=o.noise_votes, rows=o.noise_rows, seed=seed)
    fitted = [rows for rows in addresses if rows.batch in about["batches"]]
    noise, seen = fit_noise(job, drawn, scratch, fitted)
    return Measures(local, noise), seen + [rows for rows in addresses if rows.batch not in about["batches"]]


def _addresses(store: Store, projection: str, clustering: str, batches: Sequence[Batch] | None = None) -> list[Rows]:
    """Reduced rows of the batches that k-means labelled, with their distances."""
    known = [b for b in (store.batches if batches is None else batches) if labelled(store, clustering, b)]
    rows = reduced_rows(store, projection, known, norm="norm", residual="residual")
    return [r.with_arrays(distance=store.array(labels_name(clustering, r.batch), "distance")) for r in rows]


def add_measures(state: Seen | None, rows: Rows, model: Measures) -> Seen:
    """Score one block's rows by every measure and write what later passes need."""
    Z, valid = read_valid(rows)
    ids = rows.ids[valid]
    *found, twins = decide(model.noise, Z, ids, sight(rows, valid, Z, model.noise))
    verdicts = dict(zip(METHODS, found, strict=True))
    values: dict[str, NDArray[Any]] = {"score": score_density(model.local, Z, ids), "near_duplicates": twins}
    for method, verdict in verdicts.items():
        values[method], values[f"{method}_noise"] = verdict.label, verdict.share
    for name, mine in values.items():
        every = np.full(len(rows), NO_VALUE if WRITTEN[name] is np.int32 else np.nan, WRITTEN[name])
        every[valid] = mine
        rows.write(name, every)
    measured = values | {"density": values["score"], "centre_distance": rows.read("distance")[valid]}
    measured |= {"reconstruction_error": rows.read("residual")[valid], "norm": rows.read("norm")[valid]}
    seen = Seen(
        {name: quantiles.sketch_block(measured[name]) for name in MEASURES},
        {method: vote_counts(verdict.votes) for method, verdict in verdicts.items()},
        {method: int(verdict.noise.sum()) for method, verdict in verdicts.items()},
        len(Z),
    )
    return seen if state is None else merge_seen(state, seen)


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
    _write_parts(draft, "voters", model.noise.voters)
    for method in METHODS:
        _write_parts(draft, method, getattr(model.noise, method))
    draft.write("radius", np.asarray(model.noise.radius))
    for measured, sketch in seen.sketches.items():
        for part, values in quantiles.to_arrays(quantiles.compact(sketch)).items():
            draft.write(f"sketches/{measured}/{part}", values)
    attributes = {
        "role": f"{descriptor}/strangeness",
        "descriptor": descriptor,
        "parents": [projection, clustering],
        "rows": seen.rows,
        "noise": {method: _reliability(getattr(model.noise, method), seen, method) for method in METHODS},
        "snapshot": store.snapshot.number,
    }
    drafts = writer.finish(f"{descriptor}/strangeness", _columns(descriptor))
    store.publish(f"outliers {descriptor}", drafts | {name: (draft, draft.entry(attributes, {}))})


def _columns(descriptor: str) -> dict[str, str]:
    columns = {"hdbscan": f"{descriptor}_hdbscan", "optics": f"{descriptor}_optics"}
    return columns | {"score": f"{descriptor}_outlier_score"}


def _write_parts(draft: Draft, room: str, model: Any) -> None:
    """Every field; () becomes (1,)."""
    for field in fields(model):
        draft.write(f"{room}/{field.name}", np.asarray(getattr(model, field.name)))


def load_measures(store: Store, model: str) -> Measures:
    """What was fitted on one descriptor, as stored."""

    def parts(room: str, kind: Any) -> dict[str, NDArray[Any]]:
        return {f.name: store.read(model, f"{room}/{f.name}") for f in fields(kind)}

    local, drawn = parts("density", SubsampledDensity), parts("voters", Voters)
    fraction, radius = float(drawn.pop("fraction")[0]), float(store.read(model, "radius")[0])
    hdbscan, optics = (Votes(**parts(method, Votes)) for method in METHODS)
    return Measures(
        SubsampledDensity(**local | {"scale": local["scale"][0]}),
        NoiseModel(Voters(**drawn, fraction=fraction), hdbscan, optics, radius),
    )


def _reliability(votes: Votes, seen: Seen, method: Method) -> dict[str, Any]:
    """Share of noise, clusters, and how far the votes agree with one another, in numbers and in words."""
    found = vote_agreement(seen.agreed[method])
    share, clusters = seen.noise[method] / max(seen.rows, 1), int(votes.label[0].max(initial=-1)) + 1
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
