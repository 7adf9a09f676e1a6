"""What the page of a map says, and its large images, put together from tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamclust import tiling
from streamclust.job import Job
from streamclust.render import pyramid, pyramid_page
from streamclust.render.density import DENSITY_STOPS, cluster_colours
from streamclust.render.pyramid import DIFFERENCE_STOPS, OUTLIER_STOPS, Scale
from streamclust.reporting.tile_drawing import put
from streamclust.stages.names import cluster_ids, names
from streamclust.stages.tile_windows import Overview
from streamclust.stages.tiles import Cover, rows_of

LAYERS = ("density", "clusters", "outliers")  # which there are large images of
LISTED = 30
IMAGE_ZOOM = 4  # 4,096 pixels a side
UNIT = "rows per 1% × 1% of the map"


def write_page(job: Job, out: Path, cover: Cover, whole: Overview, index: Mapping[str, Any]) -> None:
    """Write the page."""
    put(out / "index.html", pyramid_page.page(_view(job, cover, whole, index)).encode())


def write_images(job: Job, out: Path, descriptor: str, zoom: int) -> None:
    """Write the large images."""
    with job.journal.stage(f"{descriptor}: large images", 0):
        job.executor.map(write_image, [(out, layer) for layer in LAYERS], min(IMAGE_ZOOM, zoom))


def write_image(address: tuple[Path, str], zoom: int) -> None:
    """One layer at one level as ``<layer>.png``, over grey density but for density itself."""
    out, layer = address
    partial = out / f"{layer}.partial"
    pyramid_page.write_image(partial, tiling.TILE << zoom, _strips(out / "tiles", layer, zoom))
    partial.replace(out / f"{layer}.png")


def _strips(tiles: Path, layer: str, zoom: int) -> Iterator[NDArray[np.uint8]]:
    side = 1 << zoom
    for y in range(side):
        strip = np.empty((tiling.TILE, side, tiling.TILE, 3), np.uint8)
        strip[:] = pyramid_page.BACKGROUND
        for x in range(side):
            for name in dict.fromkeys(("density", layer)):
                path = tiles / name / str(zoom) / str(x) / f"{y}.png"
                if path.is_file():
                    tile = pyramid_page.read_tile(path)
                    strip[:, x] = pyramid_page.over(strip[:, x], pyramid_page.grey(tile) if name != layer else tile)
        yield strip


def _view(job: Job, cover: Cover, whole: Overview, index: Mapping[str, Any]) -> dict[str, Any]:
    store, style = job.store, index["style"]
    ids = {batch.name: batch.id for batch in store.batches}
    days = [ids[name] for name in cover.batches]
    span = f"{len(days)} batches, {days[0]} to {days[-1]}" if len(days) > 1 else days[0]
    clusters = _clusters(job, cover, whole, style["shown"])
    return {
        "title": f"{cover.descriptor}: map of {whole.rows:,} rows",
        "subtitle": f"{span}; {store.path.name}, snapshot {store.snapshot.number}",
        "version": store.snapshot.number,
        "zoom": style["zoom"],
        "frame": vars(cover.frame),
        "home": whole.heart,
        "layers": list(_layers(cover, whole, index, clusters, ids)),
        "clusters": clusters[:LISTED],
        "more": f"and {len(clusters) - LISTED} smaller clusters" if len(clusters) > LISTED else "",
        "notes": list(_notes(job, cover, style)),
        "images": [f"{layer}.png" for layer in LAYERS],
    }


def _notes(job: Job, cover: Cover, style: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Colours were made for the {style['rows']:,} rows of snapshot {style['snapshot']}, level by level, halfway "
        "between equal areas and a logarithmic scale, and are frozen since, so that days compare. They are made anew "
        "when the rows, or those of the fullest place, have doubled."
    )
    radii = [scale["radius"] for scale in style["scales"]]
    yield f"Densities are smoothed over {min(radii)} to {max(radii)} pixels, more where rows are few."
    outside = rows_of(job.store, cover.sources)[1]
    if outside:
        yield f"{outside:,} more rows have no place on the map: they are not valid, or lie outside its frame."


def _clusters(job: Job, cover: Cover, whole: Overview, shown: list[int]) -> list[dict[str, Any]]:
    """Every cluster with rows, largest first."""
    ids = cluster_ids(job.store, cover.parents[1])
    named, colours = names(job.store, cover.descriptor), cluster_colours(ids)
    sizes = (whole.layers[4::2] + whole.layers[5::2])[: len(ids)]
    found = []
    for c in np.argsort(-sizes, kind="stable").tolist():
        if sizes[c]:
            share = 100 * sizes[c] / whole.rows
            found.append(
                {
                    "id": ids[c],
                    "name": named.get(ids[c], ""),
                    "colour": colours[c],
                    "rows": int(sizes[c]),
                    "share": f"{share:.1f}%" if share >= 0.1 else "< 0.1%",
                    "peak": whole.peak(c),
                    "layer": f"cluster-{ids[c]}" if c in shown else None,
                }
            )
    return found


def _layers(
    cover: Cover, whole: Overview, index: Mapping[str, Any], clusters: list[dict[str, Any]], ids: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    style = index["style"]
    common = {"zoom": style["zoom"], "rows": whole.rows, "under": False, "ticks": [], "stops": None, "note": ""}
    density = {"stops": DENSITY_STOPS, "ticks": _ticks(style["scales"]), "heading": UNIT}
    yield common | density | {"id": "density", "kind": "density", "name": "All rows", "folder": "tiles/density"}
    text = "A place has the mean colour of its rows and is brighter where they are denser."
    more = {"heading": f"{len(clusters)} clusters", "note": text}
    yield common | more | {"id": "clusters", "kind": "clusters", "name": "Clusters", "folder": "tiles/clusters"}
    flagged = {"rows": int(whole.layers[1::2].sum()), "heading": "Outliers", "under": True, "stops": OUTLIER_STOPS}
    flagged["note"] = "Red: one flagged row; yellow: four or more within a disc."
    yield common | flagged | {"id": "outliers", "kind": "outliers", "name": "Outliers", "folder": "tiles/outliers"}
    for folder, about in index["extras"].items():
        days = [ids[name] for name in about["batches"]]
        extra = _day(about, days[0]) if len(days) == 1 else _difference(about, days[0], days[1])
        where = {"id": folder, "folder": f"{folder}/{'density' if len(days) == 1 else 'difference'}"}
        yield common | extra | where | {"zoom": about["style"]["zoom"], "under": True}
    for cluster in clusters:
        if cluster["layer"]:
            alone = {"rows": cluster["rows"], "heading": "Clusters", "under": True, "kind": "cluster"}
            alone["note"] = "Brightness is on the scale of all rows. Click the cluster again for all of them."
            yield common | alone | {"id": cluster["layer"], "name": "", "folder": f"tiles/{cluster['layer']}"}


def _day(about: Mapping[str, Any], day: str) -> dict[str, Any]:
    scale = {"stops": DENSITY_STOPS, "ticks": _ticks(about["style"]["scales"]), "heading": UNIT}
    return scale | {"kind": "day", "name": f"Day {day}", "rows": about["rows"][0]}


def _difference(about: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    ticks = [[[f"{v:+d}" if v else "0", 0.5 + v / 2 / pyramid.DEVIATIONS] for v in (-4, -2, 0, 2, 4)]]
    note = (
        f"Red: a larger share of {a} than of {b}; blue: a smaller one. In standard deviations, as if rows came "
        f"independently, which those of one day do not: what is grey is no more than chance."
    )
    return {
        "stops": DIFFERENCE_STOPS,
        "ticks": ticks * len(about["style"]["scales"]),
        "heading": "difference of shares in standard deviations",
        "note": note,
        "kind": "difference",
        "name": f"{a} − {b}",
        "rows": sum(about["rows"]),
    }


def _ticks(scales: list[Mapping[str, Any]]) -> list[list[tuple[str, float]]]:
    """By level, densities on the colour bar in rows per 1 % x 1 % of the map."""
    found = []
    for z, scale in enumerate(scales):
        area = ((tiling.TILE << z) / 100) ** 2
        ticks = Scale(scale["radius"], tuple(scale["steps"])).ticks(area)
        found.append([(_short(v), at) for v, at in ticks])
    return found


def _short(v: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if v >= size * (10 if size == 1e3 else 1):
            return f"{v / size:,.0f}{letter}"
    return f"{v:,.3g}" if v < 1 else f"{v:,.0f}"
