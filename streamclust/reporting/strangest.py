"""What a report says of outliers: the strangest with pictures and reasons, the budget, rows that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streamclust import quantiles
from streamclust.job import Job
from streamclust.render import plots
from streamclust.render import report_data as rd
from streamclust.render.parts import Figure, Outlier
from streamclust.reporting.album import Album
from streamclust.stages.fused import invalid_rows, score_order
from streamclust.stages.labels import labels_name
from streamclust.store import table

INVALID_SHOWN = 50


def outliers(job: Job, model: str, album: Album) -> rd.Outliers:
    """The chapter on outliers by a fused ``model``."""
    store, about = job.store, job.store.snapshot.entries[model].attributes
    top = score_order(store, model, job.settings.outliers.shown)
    invalid = invalid_rows(store, model, INVALID_SHOWN)
    album.fetch([(batch, row) for batch, row, _ in top] + [(batch, row) for batch, row, _ in invalid])
    sketch = quantiles.from_arrays(
        {part: store.read(model, f"scores/{part}") for part in ("head", "floor", "top", "bins", "counts")}
    )
    shown = tuple(_outlier(job, model, album, i, row) for i, row in enumerate(top))
    edges = np.linspace(0, max(4.0, top[0][2] if top else 0.0), 81)
    above = np.array([1.0, *(quantiles.tail_of(sketch, edges[1:-1])), 0.0]) * sketch.count
    histogram = plots.score_histogram(-np.diff(above), edges, about["threshold"])
    caption = "How many images have which score; 2 means stranger than 99% of all. The line is the threshold."
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in about["weights"].items())
    return rd.Outliers(
        scored=about["scored"],
        flagged=about["flagged"] + about["invalid"],
        budget=about["budget"],
        threshold=about["threshold"],
        top=shown,
        histogram=Figure(title="Outlier scores", image=histogram, caption=caption),
        weights=tuple(about["weights"].items()),
        precision=tuple(_precision(sketch, about["budget"])),
        invalid=tuple(
            rd.InvalidRow(
                path=album.thumb((b, row)).path, batch=_id(job, b), descriptor=words.split(":")[0], problem=words
            )
            for b, row, words in invalid
        ),
        invalid_total=about["invalid"],
        sentence=(
            f"{about['flagged']:,} images are flagged as outliers (budget {about['budget']:.1%} of {about['scored']:,})"
            + (f", and {about['invalid']:,} more have values that are no numbers" if about["invalid"] else "")
            + f"; the descriptors weigh {weights}."
        ),
    )


def _id(job: Job, batch: str) -> str:
    return str(job.store.snapshot.entries[batch].attributes["id"])


def _outlier(job: Job, model: str, album: Album, rank: int, found: tuple[str, int, float]) -> Outlier:
    batch, row, score = found
    reason = table.reasons(job.store, labels_name(model, batch), row, row + 1)[0]
    return Outlier(rank=rank + 1, thumb=album.thumb((batch, row)), score=score, reason=reason, batch=_id(job, batch))


def _precision(sketch: quantiles.QuantileSketch, budget: float) -> Iterator[rd.Precision]:
    for share in (budget / 4, budget / 2, budget, 2 * budget, 5 * budget):
        if share < 1 and int(share * sketch.count) > 0:
            threshold = quantiles.threshold_above(sketch, share)
            yield rd.Precision(budget=share, rows=int(share * sketch.count), threshold=threshold)
