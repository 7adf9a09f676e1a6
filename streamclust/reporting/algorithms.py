"""What a report says of the further algorithms beside a descriptor's k-means, read from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from streamclust.job import Job
from streamclust.render import plots
from streamclust.render.k_curves import Best, Curve, k_curves
from streamclust.render.parts import Figure
from streamclust.render.report_data import Algorithm
from streamclust.render.trees import dendrogram
from streamclust.stages.algorithms import beside

# What each algorithm's sweep is scored by, in the order of the stored columns: name, colour, and which is better.
INDICES: Mapping[str, tuple[tuple[str, str, Best], ...]] = {
    "mixture": (("BIC", plots.PURPLE, "low"), ("AIC", plots.GREEN, "low")),
    "agglomerative": (("Calinski-Harabasz", plots.BLUE, "high"), ("Davies-Bouldin", plots.VERMILION, "low")),
}
CAPTIONS = {
    "mixture": "Of a Gaussian mixture for every k, from its k-means clusters, over every valid row.",
    "agglomerative": "Of the tree, cut into k clusters, over every valid row.",
}


def describe_algorithms(job: Job, kmeans: Algorithm, clustering: str) -> tuple[Algorithm, ...]:
    """One line each, k-means among them, best first, and what it says of every k; see `streamclust.stages.algorithms`.

    Nothing where k-means is alone.
    """
    entries, found = job.store.snapshot.entries, []
    descriptor = entries[clustering].attributes["descriptor"]
    seconds = {stage.name: stage.seconds for stage in job.journal.stages}
    for name, model in beside(job.store, clustering).items():
        about = entries[model].attributes
        found.append(
            Algorithm(
                name=name,
                k=about["clusters"],
                k_reason=about.get("reason", ""),  # models of before have none
                k_curves=_curves(job, name, model),
                calinski_harabasz=about["calinski_harabasz"],
                davies_bouldin=about["davies_bouldin"],
                stability=_interval(about.get("stability")),  # models of before have none
                seconds=seconds.get(f"{descriptor}: {name}"),
                agreement=about["adjusted_rand"],
                note=about["note"],
            )
        )
    return ranked([replace(kmeans, seconds=seconds.get(f"{descriptor}: k-means")), *found]) if found else ()


def ranked(algorithms: Sequence[Algorithm]) -> tuple[Algorithm, ...]:
    """Best first, by the mean of their ranks in whatever is known of all of them; of equal ones the first given."""
    from scipy.stats import rankdata

    marks = [
        [_less(a.calinski_harabasz), a.davies_bouldin, _less(a.stability and a.stability[0]), a.seconds]
        for a in algorithms
    ]
    ranks = [rankdata(np.array(of, float)) for of in zip(*marks, strict=True) if None not in of]
    if not ranks:
        return tuple(algorithms)
    found = [replace(a, rank=rank) for a, rank in zip(algorithms, np.mean(ranks, axis=0).tolist(), strict=True)]
    return tuple(sorted(found, key=lambda a: a.rank or 0))


def _less(value: float | None) -> float | None:
    """What is better when higher, as what is better when lower."""
    return None if value is None else -value


def _interval(values: Sequence[float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])


def _curves(job: Job, algorithm: str, model: str) -> Figure | None:
    """The indices of every k that was tried; nothing where that is one."""
    entry = job.store.snapshot.entries[model]
    if "sweep/ks" not in entry.arrays or len(ks := job.store.read(model, "sweep/ks")) < 2:
        return None
    scores = job.store.read(model, "sweep/scores").T
    panels = [
        Curve(name, f"{best}er is better", values, colour, best)
        for (name, colour, best), values in zip(INDICES[algorithm], scores, strict=True)
    ]
    title = f"{entry.attributes['descriptor']}: choice of k by {algorithm} clustering"
    image = k_curves(ks.tolist(), panels, entry.attributes.get("k", entry.attributes["clusters"]))
    return Figure(title=title, image=image, caption=CAPTIONS[algorithm])


def tree_figure(job: Job, clustering: str) -> Figure | None:
    """The last merges of the agglomerative clustering, where there is one."""
    model = beside(job.store, clustering).get("agglomerative")
    if model is None or len(linkage := job.store.read(model, "linkage")) < 2:
        return None
    about = job.store.snapshot.entries[model].attributes
    caption = f"{about['note'].capitalize()}, step by step; the dashed line leaves {about['clusters']} clusters."
    image = dendrogram(linkage, about["clusters"])
    return Figure(title=f"{about['descriptor']}: agglomerative clustering", image=image, caption=caption)
