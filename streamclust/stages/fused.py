"""All descriptors together: one outlier score per image, a flag within the budget, and the strongest evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamclust import fusion, quantiles
from streamclust.evidence import evidence, strongest
from streamclust.job import Job, fingerprint
from streamclust.planning import LABEL_ROWS
from streamclust.quantiles import QuantileSketch
from streamclust.stages.labels import LabelWriter, labels_name, ready, unlabelled, up_to_date
from streamclust.stages.sources import reduced_name
from streamclust.stages.strangeness import load_sketches
from streamclust.store.arrays import Where
from streamclust.store.rows import Rows
from streamclust.store.store import Batch, Store
from streamclust.store.table import reasons
from streamclust.store.traces import FORGOTTEN

Sketches = Mapping[str, Mapping[str, QuantileSketch]]
ARRAYS = {
    "outlier_score": np.float32,
    "outlier": np.bool_,
    "reason_descriptor": np.uint8,
    "reason_code": np.uint8,
    "reason_value": np.float32,
    "reason_quantile": np.float32,
}
COLUMNS = {"outlier_score": "outlier_score", "outlier": "outlier", "reason": "outlier_reason"}
STORED = {
    "density": "score",
    "near_duplicates": "near_duplicates",
    "hdbscan_noise": "hdbscan_noise",
    "optics_noise": "optics_noise",
}


@dataclass(frozen=True)
class Judged:
    """Sketch of the final scores, and how many rows have a descriptor with invalid values."""

    scores: QuantileSketch
    invalid: int


def fuse(job: Job, strangeness: Mapping[str, str]) -> str:
    """Fuse the descriptors' scores; ``strangeness`` maps each descriptor to its model. Returns the model's name."""
    store, settings = job.store, job.settings
    wanted = fingerprint("outliers", sorted(strangeness.items()), settings.outliers.budget)
    known = up_to_date(job, "model", "outliers", wanted)
    if known is not None:
        return known
    sketches = {descriptor: load_sketches(store, model) for descriptor, model in sorted(strangeness.items())}
    addresses = [rows for batch in store.batches for rows in _rows(store, batch, strangeness)]
    name = f"models/outliers-{store.snapshot.number + 1:06d}"
    with job.journal.stage("fuse outlier scores", store.n):
        overlap = job.executor.fold(add_overlap, addresses, fusion.merge_overlap, sketches, run=1)
        weights = fusion.overlap_weights(overlap)
        references = job.executor.fold(add_fused, addresses, fusion.merge_fused, sketches, weights, run=1)
        fused = fusion.finish_fusion(weights, references)
        writer = LabelWriter(store, name, addresses, ARRAYS, fingerprint(wanted, "labels"))
        judged = job.executor.fold(add_judged, writer.addresses, merge_judged, sketches, fused, run=1)
        threshold = quantiles.threshold_above(judged.scores, settings.outliers.budget)
        flagged = sum(job.executor.map(flag_block, writer.addresses, threshold))
    draft = store.draft(name, "model", wanted)
    draft.write("weights", weights)
    draft.write("overlap", np.stack([overlap.rows, overlap.top, overlap.both]))
    for mask, sketch in fused.references.items():
        for part, values in quantiles.to_arrays(sketch).items():
            draft.write(f"references/{mask:d}/{part}", values)
    for part, values in quantiles.to_arrays(quantiles.compact(judged.scores)).items():
        draft.write(f"scores/{part}", values)
    attributes = {
        "role": "outliers",
        "parents": [model for _, model in sorted(strangeness.items())],
        "descriptors": sorted(strangeness),
        "weights": dict(zip(sorted(strangeness), (float(w) for w in weights), strict=True)),
        "budget": settings.outliers.budget,
        "threshold": float(threshold),
        "scored": judged.scores.count,
        "flagged": int(flagged),
        "invalid": judged.invalid,
        "snapshot": store.snapshot.number,
    }
    drafts = writer.finish("outliers", COLUMNS)
    store.publish("outliers", drafts | {name: (draft, draft.entry(attributes, {}))})
    return name


def predict(job: Job, model: str) -> list[str]:
    """Score and flag, by a model and a threshold as they are, the batches not judged yet; returns their names."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    strangeness = dict(zip(about["descriptors"], about["parents"], strict=True))
    addresses = [rows for batch in unlabelled(store, model) for rows in _rows(store, batch, strangeness)]
    if not addresses:
        return []
    sketches = {descriptor: load_sketches(store, of) for descriptor, of in strangeness.items()}
    with job.journal.stage("fuse outlier scores", sum(len(rows) for rows in addresses)):
        writer = LabelWriter(store, model, addresses, ARRAYS, fingerprint(model, "labels"))
        fused = load_fusion(store, model)
        job.executor.fold(add_judged, writer.addresses, merge_judged, sketches, fused, run=1)
        job.executor.map(flag_block, writer.addresses, about["threshold"])
        store.publish("predict outliers", writer.finish("outliers", COLUMNS))
    return sorted({rows.batch for rows in addresses})


def load_fusion(store: Store, model: str) -> fusion.Fusion:
    """The frozen fusion, as stored."""
    masks = sorted({int(name.split("/")[1]) for name in store.snapshot.entries[model].arrays if "references/" in name})
    parts = {mask: {part: store.read(model, f"references/{mask}/{part}") for part in quantiles.PARTS} for mask in masks}
    return fusion.Fusion(store.read(model, "weights"), {mask: quantiles.from_arrays(of) for mask, of in parts.items()})


def _rows(store: Store, batch: Batch, strangeness: Mapping[str, str]) -> list[Rows]:
    """Addresses of a batch with every measure of the descriptors it has; none where one was not measured yet."""
    paths: dict[str, Where] = {}
    if not ready(store, strangeness.values(), batch):
        return []
    for descriptor, model in strangeness.items():
        name = labels_name(model, batch.name)
        if name in store.snapshot.entries:
            projection, clustering = store.snapshot.entries[model].attributes["parents"]
            paths |= {f"{descriptor}/{measure}": store.array(name, array) for measure, array in STORED.items()}
            distances = labels_name(clustering, batch.name)
            paths[f"{descriptor}/centre_distance"] = store.array(distances, "distance")
            reduced = reduced_name(projection, batch)
            paths[f"{descriptor}/norm"] = store.array(reduced, "norm")
            paths[f"{descriptor}/reconstruction_error"] = store.array(reduced, "residual")
    if paths and batch.forgotten:
        paths["path"] = store.array(batch.name, "images/path")
    return list(store.rows(batch, min(LABEL_ROWS, batch.n), paths)) if paths else []


def _forgotten(rows: Rows) -> NDArray[np.bool_]:
    """Rows that are numbers without values now, which is no sign of anything."""
    return rows.read("path") == FORGOTTEN if "path" in rows.arrays else np.zeros(len(rows), bool)


def _tails(rows: Rows, sketches: Sketches) -> NDArray[np.float64]:
    """(n, D) share of rows that are denser-lying than each; NaN where a descriptor is missing or not valid."""
    tails = np.full((len(rows), len(sketches)), np.nan)
    for i, (descriptor, of) in enumerate(sketches.items()):
        if f"{descriptor}/density" in rows.arrays:
            tails[:, i] = quantiles.tail_of(of["density"], rows.read(f"{descriptor}/density"))
    return tails


def add_overlap(state: fusion.Overlap | None, rows: Rows, sketches: Sketches) -> fusion.Overlap:
    """One block's joint extremes."""
    found = fusion.overlap_block(_tails(rows, sketches))
    return found if state is None else fusion.merge_overlap(state, found)


def add_fused(
    state: Mapping[int, QuantileSketch] | None, rows: Rows, sketches: Sketches, weights: NDArray[np.float64]
) -> Mapping[int, QuantileSketch]:
    """One block's fused scores, per subset of descriptors."""
    found = fusion.fused_block(_tails(rows, sketches), weights)
    return found if state is None else fusion.merge_fused(state, found)


def add_judged(state: Judged | None, rows: Rows, sketches: Sketches, fused: fusion.Fusion) -> Judged:
    """Final scores and reasons of one block. A row with invalid values has no score."""
    tails = _tails(rows, sketches)
    present = np.array([f"{descriptor}/density" in rows.arrays for descriptor in sketches])
    invalid = (np.isnan(tails) & present).any(axis=1) & ~_forgotten(rows)
    scores = fusion.outlier_scores(fused, tails)
    scores[invalid] = np.nan
    which, code, value, quantile = strongest(
        {
            descriptor: _evidence(rows, descriptor, of, bool(here), np.isfinite(tails[:, i]))
            for i, ((descriptor, of), here) in enumerate(zip(sketches.items(), present, strict=True))
        }
    )
    rows.write("outlier_score", scores)
    rows.write("reason_descriptor", which.astype(np.uint8))
    rows.write("reason_code", code)
    rows.write("reason_value", value)
    rows.write("reason_quantile", quantile)
    found = Judged(quantiles.sketch_block(scores), int(invalid.sum()))
    return found if state is None else merge_judged(state, found)


def _evidence(
    rows: Rows, descriptor: str, sketches: Mapping[str, QuantileSketch], here: bool, valid: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    nothing = np.full(len(rows), np.nan, np.float32)
    values = {name: rows.read(f"{descriptor}/{name}") if here else nothing for name in sketches}
    return evidence(values, sketches, np.full(len(rows), here), valid)


def merge_judged(a: Judged, b: Judged) -> Judged:
    """Both."""
    return Judged(quantiles.merge(a.scores, b.scores), a.invalid + b.invalid)


def flag_block(rows: Rows, threshold: float) -> int:
    """Flag one block's rows at the threshold, and those with invalid values beside; returns how many by threshold."""
    scores = rows.read("outlier_score")
    above = scores >= np.float32(threshold)
    rows.write("outlier", (above | np.isnan(scores)) & ~_forgotten(rows))
    return int(above.sum())


def _scored(store: Store, model: str) -> Iterator[tuple[Batch, str]]:
    """The batches that a fused model has judged, each with the name of its labels."""
    for batch in store.batches:
        name = labels_name(model, batch.name)
        if name in store.snapshot.entries:
            yield batch, name


def score_order(store: Store, model: str, most: int) -> list[tuple[str, int, float]]:
    """The ``most`` strangest rows as (batch, row, score), strangest first; rows with invalid values not among them."""
    best: list[tuple[str, int, float]] = []
    for batch, name in _scored(store, model):
        for start in range(0, batch.n, LABEL_ROWS):
            scores = store.read(name, "outlier_score", start, min(batch.n, start + LABEL_ROWS))
            top = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:most]
            best += [(batch.name, start + int(i), float(scores[i])) for i in top if np.isfinite(scores[i])]
            best = sorted(best, key=lambda row: -row[2])[:most]
    return best


def invalid_rows(store: Store, model: str, most: int) -> list[tuple[str, int, str]]:
    """The first ``most`` rows with invalid values as (batch, row, reason)."""
    found: list[tuple[str, int, str]] = []
    for batch, name in _scored(store, model):
        for start in range(0, batch.n, LABEL_ROWS):
            if len(found) < most:
                stop = min(batch.n, start + LABEL_ROWS)
                bad = np.isnan(store.read(name, "outlier_score", start, stop))
                bad &= store.read(name, "outlier", start, stop)  # forgotten rows are not
                rows = [start + int(i) for i in np.flatnonzero(bad)[: most - len(found)]]
                found += [(batch.name, row, reasons(store, name, row, row + 1)[0]) for row in rows]
    return found
