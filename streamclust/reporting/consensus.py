"""What a report says of the consensus, read from the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.consensus import Ballot
from streamclust.job import Job
from streamclust.render.report_data import Pictures, Section, Strip, Table
from streamclust.reporting.album import Album
from streamclust.reporting.descriptors import STRIP, strip
from streamclust.stages.names import cluster_ids

SHOWN = 30  # clusters
NAMED = 6  # clusterings whose favourite is named in a row
ALL = 0.8  # the mean confidence from which the clusterings agree

Called = tuple[str, tuple[int, ...], NDArray[np.float64]]


def describe_consensus(job: Job, model: str, album: Album) -> Section:
    """Every cluster with its size, its confidence, what the clusterings call it and pictures; the weights."""
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
        groups=_groups(job, model, album, ids),
    )


def _groups(job: Job, model: str, album: Album, ids: Sequence[int]) -> tuple[Pictures, ...]:
    """Pictures of each cluster: where the clusterings agree, and where they do not."""
    headings = {"nearest": "All agree", "random": "At random", "farthest": "They disagree most"}
    members = {kind: job.store.read(model, f"members/{kind}")[:SHOWN, :STRIP] for kind in headings}
    album.fetch(row for rows in members.values() for row in album.rows_of(rows.ravel()))
    found = []
    for i, confidence in enumerate(job.store.read(model, "confidence")[:SHOWN]):
        strips = tuple(Strip(heading=headings[kind], thumbs=strip(album, rows[i])) for kind, rows in members.items())
        if any(each.thumbs for each in strips):
            found.append(Pictures(name=str(ids[i]), note=f"confidence {confidence:.0%}", strips=strips))
    return tuple(found)


def _words(cluster: int, called: Sequence[Called]) -> str:
    best = [(name, ids[int(shares[cluster].argmax())], shares[cluster].max()) for name, ids, shares in called]
    return ", ".join(f"{name} {i} ({share:.0%})" for name, i, share in best)
