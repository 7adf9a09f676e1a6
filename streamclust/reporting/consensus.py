"""What a report says of the consensus, read from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamclust.cluster.consensus import Ballot, sharpness
from streamclust.job import Job
from streamclust.render.parts import Pictures, Section, Strip, Table
from streamclust.reporting.album import Album
from streamclust.reporting.descriptors import STRIP, strip
from streamclust.stages.consensus import AGREED
from streamclust.stages.names import cluster_ids

SHOWN = 30  # clusters
NAMED = 6  # clusterings whose favourite is named in a row

Called = tuple[str, tuple[int, ...], NDArray[np.float64]]


def describe_consensus(job: Job, model: str, album: Album) -> Section:
    """Every cluster with its size, its confidence, what the clusterings call it and pictures; the weights."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    counts, confidence = store.read(model, "counts"), store.read(model, "confidence")
    doubted = store.read(model, "doubted") if "doubted" in store.snapshot.entries[model].arrays else None
    ballot, centers = Ballot(tuple(about["sizes"]), tuple(about["weights"])), store.read(model, "centers")
    names = [name.replace("/", " ") for name in about["clusterings"]]
    every = [cluster_ids(store, parent) for parent in about["parents"]]
    called = list(zip(names, every, ballot.shares(centers), strict=True))
    heaviest = sorted(sorted(range(len(called)), key=lambda m: -ballot.weights[m])[:NAMED])
    drawn = _drawn(names, every, [sharpness(table) for table in ballot.tables(centers, counts)])
    ids, n = cluster_ids(store, model), max(int(counts.sum()), 1)
    rows = tuple(
        (
            ids[i],
            int(counts[i]),
            counts[i] / n,
            float(confidence[i]),
            None if doubted is None else int(doubted[i]),
            f"{drawn[i][0]} ({drawn[i][1]:.2f})",
            _words(i, [called[m] for m in heaviest]),
        )
        for i in range(min(len(counts), SHOWN))
    )
    shared = (
        f"{len(counts)} clusters hold what {len(called)} clusterings share (adjusted mutual information "
        f"{about['shared']:.2f})."
    )
    said = f"{shared} {_sure(counts, confidence, doubted)}"
    return Section(
        title="What all agree upon",
        paragraphs=(said, _winners([name for _, _, name in drawn])),
        tables=(
            Table(
                title="Consensus clusters",
                columns=("cluster", "images", "share", "confidence", "in doubt", "drawn best by", "called"),
                rows=rows,
                formats=("text", "count", "percent", "percent", "count", "text", "text"),
                caption="Confidence: the weight of the clusterings that put an image where its cluster mostly is. "
                "Drawn best by: whose cluster fits it best, and the F-measure, 1 where both are the same.",
            ),
            Table(
                title="Weights",
                columns=("clustering", "weight"),
                rows=tuple(zip(names, ballot.weights, strict=True)),
                formats=("text", "percent"),
                caption="A clustering weighs as much as it agrees with the others.",
            ),
        ),
        groups=_groups(job, model, album, ids),
    )


def _sure(counts: NDArray[np.int64], confidence: NDArray[np.float64], doubted: NDArray[np.int64] | None) -> str:
    n = max(int(counts.sum()), 1)
    said = (
        f"On average {confidence @ counts / n:.0%} of the evidence votes for an image's label; "
        f"where it is less than {AGREED:.0%}, the clusterings see different things and the image is in doubt."
    )
    if doubted is None:  # models of before
        return said
    return f"{said} {int(doubted.sum()):,} images are ({doubted.sum() / n:.1%}); the exported table has the confidence."


def _drawn(
    names: Sequence[str], ids: Sequence[Sequence[int]], fits: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> list[tuple[str, float, str]]:
    """For each consensus cluster the clustering's cluster that fits best, how well, and that clustering."""
    measures = np.stack([measure for _, measure in fits])
    best = measures.argmax(axis=0)
    return [(f"{names[m]} {ids[m][fits[m][0][i]]}", float(measures[m, i]), names[m]) for i, m in enumerate(best)]


def _winners(drawn: Sequence[str]) -> str:
    wins = ", ".join(f"{name} ({times} of {len(drawn)})" for name, times in Counter(drawn).most_common())
    return f"The clusterings that draw them best: {wins}."


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
