"""Maps and contact sheets of a store as picture files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamclust.job import Job
from streamclust.render.contact_sheets import Tile, contact_sheet
from streamclust.render.density import cluster_image, density_image, outlier_image, smoothed
from streamclust.render.parts import Thumb
from streamclust.reporting.album import Album
from streamclust.stages.grids import LAYERS
from streamclust.stages.names import cluster_ids, names

ENOUGH_ROWS = 250_000
SHEETS = (("nearest", "nearest to the centre"), ("random", "drawn at random"), ("farthest", "farthest from the centre"))


def draw_maps(job: Job, grid: str) -> dict[str, bytes]:
    """Density, clusters and outliers of one descriptor's map: PNG bytes by file name."""
    store, size = job.store, job.settings.render.size
    about = store.snapshot.entries[grid].attributes
    descriptor, extent = about["descriptor"], tuple(about["extent"])
    layers, k = about["layers"], about["clusters"]
    ids, called = cluster_ids(store, about["parents"][1]), names(store, descriptor)
    labels = [-1 if k > LAYERS and i == layers - 1 else ids[i] for i in range(layers)]
    words = [f"the other {k - LAYERS}" if label < 0 else called.get(label, "") for label in labels]

    def clusters() -> bytes:
        grids = store.read(grid, "clusters")
        return _png(cluster_image(grids, extent, labels, words, f"{descriptor}: clusters", size=size))

    with ThreadPoolExecutor(1) as beside:  # the clusters take as long as the other two
        coloured = beside.submit(clusters)
        density, outliers = store.read(grid, "density"), store.read(grid, "outliers")
        if density.sum() < ENOUGH_ROWS:
            density, outliers = _pooled(density), _pooled(outliers)
        smooth = smoothed(density)
        dense = density_image(density, extent, f"{descriptor}: density of all images", size=size, smooth=smooth)
        strange = outlier_image(density, outliers, extent, f"{descriptor}: outliers", size=size, smooth=smooth)
        found = {"density": _png(dense), "outliers": _png(strange), "clusters": coloured.result()}
    return {f"{descriptor}-{kind}.png": image for kind, image in found.items()}


def _pooled(grid: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A quarter of the cells: fewer rows would not show the finer ones."""
    h, w = grid.shape
    return np.asarray(grid.reshape(h // 2, 2, w // 2, 2).sum(axis=(1, 3)), np.uint32)


def draw_sheets(job: Job, clustering: str, album: Album, folder: Path) -> list[Path]:
    """A contact sheet per cluster: nearest to its centre, a random draw, farthest. None without pictures."""
    store = job.store
    about = store.snapshot.entries[clustering].attributes
    members = {kind: store.read(clustering, f"members/label/{kind}") for kind, _ in SHEETS}
    album.fetch(row for ids in members.values() for row in album.rows_of(ids.ravel()))
    written, called = [], names(store, about["descriptor"])
    for cluster, stable in enumerate(cluster_ids(store, clustering)):
        tiles = []
        for kind, words in SHEETS:
            rows = album.rows_of(members[kind][cluster])
            tiles += [_tile(album.thumb(row, words)) for row in rows]
            tiles += [Tile(image=None)] * (members[kind].shape[1] - len(rows))
        if any(tile.image is not None for tile in tiles):
            folder.mkdir(parents=True, exist_ok=True)
            title = f"{about['descriptor']}, cluster {stable} {called.get(stable, '')}".strip()
            sheet = contact_sheet(tiles, members["nearest"].shape[1], job.settings.render.thumbnail, title)
            written.append(folder / f"{about['descriptor']}-{stable:05d}.png")
            written[-1].write_bytes(_png(sheet))
    return written


def _tile(thumb: Thumb) -> Tile:
    image = None if thumb.image is None else Image.open(BytesIO(thumb.image))
    return Tile(image=image, caption=f"{thumb.path}\n{thumb.caption}", broken=thumb.image is None)


def _png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, format="PNG", compress_level=3)  # the default, 6, takes half as long again and saves nothing
    return out.getvalue()
