"""How a map is drawn: colour scales, smoothing and layers, frozen until they are made anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamclust import tiling
from streamclust.job import Job
from streamclust.render import pyramid
from streamclust.render.density import cluster_colours
from streamclust.render.pyramid import Scale
from streamclust.reporting.tile_drawing import Layer, Sheet, histograms
from streamclust.stages.names import cluster_ids
from streamclust.stages.tile_windows import OVERVIEW, Overview, Sources, Touch, unit_codes, units
from streamclust.stages.tiles import Cover

CLUSTERS = 12  # with tiles of their own


@dataclass(frozen=True)
class Style:
    """What makes the same picture of the same counts: kept in the index until it is made anew.

    ``shown`` are the clusters with tiles of their own, by position; ``rows``, ``fullest`` (rows of the fullest cell of
    the overview) and ``snapshot`` are those it was made from.
    """

    zoom: int
    scales: tuple[Scale, ...]
    marks: tuple[int, ...]
    shown: tuple[int, ...]
    rows: int
    fullest: int
    snapshot: int

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Style:
        """From the index."""
        scales = tuple(Scale(s["radius"], tuple(s["steps"])) for s in tree["scales"])
        return cls(**{**tree, "scales": scales, "marks": tuple(tree["marks"]), "shown": tuple(tree["shown"])})


def make_style(job: Job, sources: Sources, whole: Overview, zoom: int | None) -> Style:
    """The scales of each level from all its pixels, and the smoothing that the rows are dense enough for."""
    zoom = tiling.zoom_for(whole.rows) if zoom is None else zoom
    radii = [pyramid.radius_for(whole.density * 4.0 ** (OVERVIEW - z)) for z in range(zoom + 1)]
    addresses = list(units(job.store, sources, zoom, unit_codes(whole.codes, zoom)))
    counted = histograms(job, addresses, radii)
    scales = tuple(pyramid.scale_of(counted[z], radius) for z, radius in enumerate(radii))
    flagged = int(whole.layers[1::2].sum())
    third = whole.share * np.array([(tiling.TILE << z) ** 2 for z in range(zoom + 1)]) / 3 / max(flagged, 1)
    marks = tuple(np.clip(np.sqrt(third / np.pi) - 0.5, 0, 3).astype(int).tolist())  # they hide at most a third
    sizes = whole.layers[4::2] + whole.layers[5::2]
    shown = np.argsort(-sizes, kind="stable")[:CLUSTERS]
    shown = np.sort(shown[sizes[shown] > 0])
    return Style(zoom, scales, marks, tuple(shown.tolist()), whole.rows, whole.fullest, job.store.snapshot.number)


def sheet_of(job: Job, cover: Cover, style: Style) -> Sheet:
    """The sheet of all rows of a cover, for no folder yet: densities, clusters, outliers, and the largest clusters."""
    ids = cluster_ids(job.store, cover.parents[1])
    layers = [Layer("density", "density"), Layer("clusters", "clusters"), Layer("outliers", "outliers")]
    layers += [Layer(f"cluster-{ids[c]}", "cluster", c) for c in style.shown]
    return Sheet(Path(), Path(), tuple(layers), tuple(cluster_colours(ids)), style.scales, style.marks)


def touch_of(layer: Layer, style: Style) -> Touch:
    """The rows that a layer shows and how far they reach."""
    number = np.arange(2**16)
    if layer.kind == "outliers":
        return Touch(number % 2 == 1, style.marks)
    every = number >= 0 if layer.kind != "cluster" else number // 2 - 2 == layer.cluster
    return Touch(every, tuple(scale.radius for scale in style.scales))
