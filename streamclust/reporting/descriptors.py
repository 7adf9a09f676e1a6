"""What a report says of one descriptor, read from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamclust.cluster.assign import assign
from streamclust.job import Job
from streamclust.render import plots
from streamclust.render.k_curves import Curve, k_curves
from streamclust.render.parts import Figure, Thumb
from streamclust.render.report_data import Algorithm, Cluster, DescriptorReport, Fine, FineCluster, Noise
from streamclust.reporting.album import Album
from streamclust.reporting.algorithms import describe_algorithms, tree_figure
from streamclust.stages.names import cluster_ids, names
from streamclust.stages.reduced import load_sample
from streamclust.stages.sources import of_projection

STRIP = 8
FINE_SHOWN = 120
MAP_3D_ROWS = 5_000


def describe(job: Job, descriptor: str, clustering: str, album: Album, maps: Mapping[str, bytes]) -> DescriptorReport:
    """One descriptor's chapter."""
    store = job.store
    about = store.snapshot.entries[clustering].attributes
    projection = store.snapshot.entries[about["parents"][0]].attributes
    strangeness = store.snapshot.newest("model", f"{descriptor}/strangeness")
    curves = _curves(job, clustering)
    chosen = about["ks"].index(about["k"])
    source = of_projection(store, about["parents"][0])
    return DescriptorReport(
        name=descriptor,
        dims=source.features(store),
        components=projection["components"],
        variance=projection["explained"],
        scaling=f"joined from {', '.join(source.parts)}" if source.parts else projection["scaler"],
        k=about["clusters"],
        k_reason=about["reason"],
        calinski_harabasz=_number(curves[1][chosen]),
        davies_bouldin=_number(curves[2][chosen]),
        clusters=_clusters(job, clustering, album),
        k_curves=_k_figure(job, clustering, curves),
        algorithms=describe_algorithms(job, _kmeans(job, clustering, curves[:, chosen]), clustering),
        tree=tree_figure(job, clustering),
        variance_curve=_variance_figure(job, descriptor, about["parents"][0]),
        sizes=_sizes_figure(job, descriptor, clustering),
        fine=_fine(job, clustering, album),
        maps=_map_figures(descriptor, maps),
        map_3d=_map_3d(job, clustering),
        noise=() if strangeness is None else _noise(store.snapshot.entries[strangeness].attributes["noise"]),
    )


def _kmeans(job: Job, clustering: str, scores: np.ndarray[Any, Any]) -> Algorithm:
    """Its line beside other algorithms."""
    about = job.store.snapshot.entries[clustering].attributes
    mean, low, high = stabilities(job, clustering, [about["k"]])[0].tolist()
    return Algorithm(
        name="k-means",
        k=about["clusters"],
        calinski_harabasz=_number(scores[1]),
        davies_bouldin=_number(scores[2]),
        stability=None if np.isnan(mean) else (mean, low, high),
        note=f"every k from {about['ks'][0]} to {about['ks'][-1]}, and the fine clustering",
    )


def _curves(job: Job, clustering: str) -> np.ndarray[Any, Any]:
    """(4, ks) inertia, Calinski-Harabasz, Davies-Bouldin, simplified silhouette; the last is new."""
    ks = job.store.snapshot.entries[clustering].attributes["ks"]
    return np.stack([job.store.read(clustering, f"sweep/{k:05d}/scores") for k in ks], axis=1)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _k_figure(job: Job, clustering: str, curves: np.ndarray[Any, Any]) -> Figure | None:
    entry = job.store.snapshot.entries[clustering]
    ks = entry.attributes["ks"]
    if len(ks) < 2:
        return None
    panels = [
        Curve("Calinski-Harabasz", "higher is better", curves[1], plots.BLUE, "high"),
        Curve("Davies-Bouldin", "lower is better", curves[2], plots.VERMILION, "low"),
    ]
    if len(curves) > 3:  # models of before have none
        panels.append(Curve("Simplified silhouette", "higher is better", curves[3], plots.BROWN, "high"))
    caption = "The indices over every valid row, for every k that was tried."
    stability = stabilities(job, clustering, ks)
    if np.isfinite(stability).any():
        mean, band = stability[:, 0], stability[:, 1:]
        panels.append(Curve("Stability", "agreement of halves (ARI)", mean, plots.PURPLE, "high", band))
        caption += " Stability: halves of the sample, clustered apart; the band holds nine of ten pairs."
    panels.append(Curve("Inertia", "sum of squared distances", curves[0], plots.GREEN))
    image = k_curves(ks, panels, entry.attributes["k"])
    return Figure(title=f"{entry.attributes['descriptor']}: choice of k", image=image, caption=caption)


def stabilities(job: Job, clustering: str, ks: Sequence[int]) -> np.ndarray[Any, Any]:
    """How stable k-means is at some k, (ks, 3): mean, low and high; NaN where nothing was said."""
    known = job.store.snapshot.entries[clustering].arrays
    names = [f"sweep/{k:05d}/stability" for k in ks]
    return np.stack([job.store.read(clustering, name) if name in known else np.full(3, np.nan) for name in names])


def _variance_figure(job: Job, descriptor: str, projection: str) -> Figure:
    about = job.store.snapshot.entries[projection].attributes
    ratio = job.store.read(projection, "explained_variance") / (about["total_variance"] or 1.0)
    caption = f"Share of the variance that the first components hold; {about['components']} are kept."
    image = plots.variance_curve(ratio, about["components"])
    return Figure(title=f"{descriptor}: variance kept", image=image, caption=caption)


def _sizes_figure(job: Job, descriptor: str, clustering: str) -> Figure:
    about = job.store.snapshot.entries[clustering].attributes
    sizes = job.store.read(clustering, f"sweep/{about['k']:05d}/counts")
    image = plots.cluster_sizes(sizes, cluster_ids(job.store, clustering))
    return Figure(title=f"{descriptor}: cluster sizes", image=image, caption="Images per cluster.")


def _clusters(job: Job, clustering: str, album: Album) -> tuple[Cluster, ...]:
    store, about = job.store, job.store.snapshot.entries[clustering].attributes
    sizes = store.read(clustering, f"sweep/{about['k']:05d}/counts")
    ids, called = cluster_ids(store, clustering), names(store, about["descriptor"])
    strips = {kind: store.read(clustering, f"members/label/{kind}")[:, :STRIP] for kind in _KINDS}
    album.fetch(row for ids in strips.values() for row in album.rows_of(ids.ravel()))
    return tuple(
        Cluster(
            id=ids[i],
            name=called.get(ids[i], ""),
            size=int(size),
            share=float(size / sizes.sum()),
            nearest=strip(album, strips["nearest"][i]),
            random=strip(album, strips["random"][i]),
            farthest=strip(album, strips["farthest"][i]),
        )
        for i, size in enumerate(sizes)
    )


_KINDS = ("nearest", "random", "farthest")


def strip(album: Album, ids: np.ndarray[Any, Any]) -> tuple[Thumb, ...]:
    """Pictures of rows that the album has fetched; none where none has a picture."""
    thumbs = tuple(album.thumb(row) for row in album.rows_of(ids))
    return thumbs if any(thumb.image or thumb.problem != "no picture" for thumb in thumbs) else ()


def _fine(job: Job, clustering: str, album: Album) -> Fine:
    store = job.store
    sizes = store.read(clustering, "fine/counts")
    medoids = store.read(clustering, "members/fine/nearest")[:, 0]
    rows = {i: row for i, medoid in enumerate(medoids[:FINE_SHOWN]) for row in album.rows_of([medoid])}
    album.fetch(rows.values())
    ids = cluster_ids(store, clustering, "fine")
    shown = tuple(
        FineCluster(id=ids[i], size=int(sizes[i]), medoid=album.thumb(row, f"{sizes[i]:,} images"))
        for i, row in rows.items()
    )
    sentence = (
        f"{len(sizes)} small clusters, {int(sizes.min()):,} to {int(sizes.max()):,} images each, "
        "shown by the image nearest to the centre."
    )
    return Fine(k=len(sizes), clusters=shown, sentence=sentence)


def _map_figures(descriptor: str, maps: Mapping[str, bytes]) -> tuple[Figure, ...]:
    words = {
        "density": ("Where the images lie", "Like images lie together; brighter is denser."),
        "clusters": ("Clusters on the map", "The same map, coloured by cluster."),
        "outliers": ("Outliers on the map", "Flagged images over the density of all."),
    }
    return tuple(
        Figure(title=title, image=maps[name], caption=caption, file_name=name)
        for kind, (title, caption) in words.items()
        if (name := f"{descriptor}-{kind}.png") in maps
    )


def _map_3d(job: Job, clustering: str) -> str:
    """The sample by its first three components, coloured by cluster; empty where there are fewer."""
    store, about = job.store, job.store.snapshot.entries[clustering].attributes
    Z = load_sample(store, about["parents"][0]).Z
    Z = Z[:: -(-len(Z) // MAP_3D_ROWS)]
    if Z.shape[1] < 3:
        return ""
    labels = assign(Z, store.read(clustering, f"sweep/{about['k']:05d}/centers"))[0]
    ids, called = np.array(cluster_ids(store, clustering)), names(store, about["descriptor"])
    return plots.map3d_html(Z[:, :3], ids[labels], [called.get(i, "") for i in range(ids.max() + 1)])


def _noise(noise: Mapping[str, Any]) -> tuple[Noise, ...]:
    names = {"hdbscan": "HDBSCAN", "optics": "OPTICS"}
    return tuple(
        Noise(
            method=names[method],
            share=about["share"],
            clusters=about["clusters"],
            agreement=about["agreement"],
            reliability=about["reliability"],
            sentence=about["sentence"],
        )
        for method, about in noise.items()
    )
