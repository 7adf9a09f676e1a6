"""What a report says of the consensus, read from the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.consensus import Ballot
from streamclust.job import Job
from streamclust.render.report_data import Section, Table
from streamclust.stages.names import cluster_ids

SHOWN = 30  # clusters
NAMED = 6  # clusterings whose favourite is named in a row
ALL = 0.8  # the mean confidence from which the clusterings agree

Called = tuple[str, tuple[int, ...], NDArray[np.float64]]


def describe_consensus(job: Job, model: str) -> Section:
    """Every cluster with its size, its confidence and what the clusterings call it; the weights."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    ballot = Ballot(tuple(about["sizes"]), tuple(about["weights"]))
    counts, confidence = store.read(model, "counts"), store.read(model, "confidence")
    every = list(zip(about["clusterings"], about["parents"], ballot.shares(store.read(model, "centers")), strict=True))
    called = [(name.replace("/", " "), cluster_ids(store, parent), shares) for name, parent, shares in every]
    ids, n = cluster_ids(store, model), max(int(counts.sum()), 1)
    heaviest = sorted(range(len(called)), key=lambda m: -ballot.weights[m])[:NAMED]
    rows = tuple(
        (ids[i], int(counts[i]), counts[i] / n, float(confidence[i]), _words(i, [called[m] for m in sorted(heaviest)]))
        for i in range(min(len(counts), SHOWN))
    )
    sure = float(np.average(confidence, weights=counts)) if counts.sum() else 0.0
    said = (
        f"{len(counts)} clusters hold what {len(called)} clusterings share (adjusted mutual information "
        f"{about['shared']:.2f}). On average {sure:.0%} of the evidence votes for an image's label; "
        f"where it is less than {ALL:.0%}, the clusterings see different things."
    )
    weights = tuple((name, weight) for (name, _, _), weight in zip(called, ballot.weights, strict=True))
    return Section(
        title="What all agree upon",
        paragraphs=(said,),
        tables=(
            Table(
                title="Consensus clusters",
                columns=("cluster", "images", "share", "confidence", "what the clusterings call it"),
                rows=rows,
                formats=("text", "count", "percent", "percent", "text"),
                caption="Confidence: the weight of the clusterings that put an image where its cluster mostly is.",
            ),
            Table(
                title="Weights",
                columns=("clustering", "weight"),
                rows=weights,
                formats=("text", "percent"),
                caption="A clustering weighs as much as it agrees with the others.",
            ),
        ),
    )


def _words(cluster: int, called: Sequence[Called]) -> str:
    best = [(name, ids[int(shares[cluster].argmax())], shares[cluster].max()) for name, ids, shares in called]
    return ", ".join(f"{name} {i} ({share:.0%})" for name, i, share in best)
