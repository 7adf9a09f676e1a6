"""Maps of millions of points as tiles: time, memory, tiles, a day's update, and datashader alone on the same points."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from streamclust.job import fingerprint
from streamclust.stages.labels import labels_name
from streamclust.store.store import Store, create
from tests.benchmarks.memory import PeakMemory, measure
from tests.conftest import ROOT

CLUSTERS = 20
BLOCK = 2**20
MODELS = {"map": "osnet/map", "kmeans": "osnet/kmeans", "outliers": "outliers"}


def points(seed: int, n: int) -> dict[str, np.ndarray]:
    """Places like those of a t-SNE map: clusters of filaments of very different sizes, and one row in 100 flagged."""
    shape, rng = np.random.default_rng(0), np.random.default_rng(seed)
    hearts, weights = shape.normal(0, 40, (CLUSTERS, 2)), shape.dirichlet(np.ones(CLUSTERS))
    knots = hearts.repeat(40, axis=0) + shape.normal(0, 9, (40 * CLUSTERS, 2))
    label = np.sort(rng.choice(CLUSTERS, n, p=weights))[rng.permutation(n)]
    knot = label * 40 + rng.integers(0, 40, n)
    xy = knots[knot] + rng.normal(0, 1, (n, 2)) * shape.gamma(1, 1.5, 40 * CLUSTERS)[knot, None]
    xy = np.clip(xy, -150, 150)
    return {
        "x": xy[:, 0].astype(np.float32),
        "y": xy[:, 1].astype(np.float32),
        "label": label.astype(np.int32),
        "outlier": rng.random(n) < 0.01,
    }


def fitted_store(path: Path, extent: list[float], clusters: int) -> Store:
    """A store with a map, clusters and flags of nothing yet."""
    store = create(path)
    drafts = {}
    for kind, role in MODELS.items():
        name = f"models/{role.replace('/', '-')}-000001"
        draft = store.draft(name, "model", kind)
        about: dict[str, Any] = {"role": role, "descriptor": "osnet", "extent": extent, "clusters": clusters}
        drafts[name] = (draft, draft.entry(about, {}))
    store.publish("models", drafts)
    return store


def add_day(store: Store, day: str, rows: dict[str, np.ndarray]) -> str:
    """A batch with its labels, published as a run would; returns its name."""
    n = len(rows["x"])
    name = f"batches/{store.snapshot.number + 1:06d}-{day}"
    draft = store.draft(name, "batch", fingerprint(day))
    about = {"id": day, "rows": n, "descriptors": {"osnet": {"features": 2, "dtype": "float32"}}}
    drafts = {name: (draft, draft.entry(about, {}))}
    for arrays, role in ((("x", "y"), "osnet/map"), (("label",), "osnet/kmeans"), (("outlier",), "outliers")):
        model = store.snapshot.newest("model", role)
        assert model is not None
        labels = store.draft(labels_name(model, name), "labels", fingerprint(model, day))
        for array in arrays:
            labels.write(array, rows[array])
        drafts[labels.name] = (labels, labels.entry({"role": role, "model": model, "batch": name}, {}))
    store.publish(f"ingest {day}", drafts)
    return name


def draw(store: Path, out: Path, *words: str) -> dict[str, Any]:
    """The job as a scheduler starts it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = measure([sys.executable, str(ROOT / "jobs" / "density.py"), str(store), str(out), *words])
    assert found.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = found.stdout.strip().rsplit(":", 1)[0]
    return {"seconds": round(found.seconds, 1), "cpu_s": round(cpu, 1), "peak_mb": found.peak // 2**20, "said": said}


def datashader_alone(rows: dict[str, np.ndarray], zoom: int, out: Path) -> dict[str, Any]:
    """The same points in memory: one picture of 4,096 pixels, then the tiles of all levels, densities only."""
    import dask
    import datashader as ds
    import datashader.transfer_functions as tf
    import pandas as pd
    from datashader.tiles import render_tiles

    frame = pd.DataFrame({"x": rows["x"], "y": rows["y"]})
    tf.shade(ds.Canvas(8, 8).points(frame[:10], "x", "y"))  # compiles

    def load(x: tuple[float, float], y: tuple[float, float]) -> pd.DataFrame:
        return frame[frame["x"].between(*x) & frame["y"].between(*y)]

    def count(df: pd.DataFrame, *, x_range: Any, y_range: Any, height: int, width: int) -> Any:
        return ds.Canvas(width, height, x_range, y_range).points(df, "x", "y")

    def shade(counts: Any, span: Any) -> Any:
        return tf.shade(counts, how="log", span=span)

    with PeakMemory() as memory, dask.config.set(scheduler="threads"), redirect_stdout(sys.stderr):
        begin, cpu = time.perf_counter(), time.process_time()
        tf.shade(ds.Canvas(4096, 4096).points(frame, "x", "y"), how="eq_hist").to_pil().save(out / "peer.png")
        found = {
            "picture_s": round(time.perf_counter() - begin, 2),
            "picture_cpu_s": round(time.process_time() - cpu, 2),
        }
        begin, cpu = time.perf_counter(), time.process_time()
        around = (-160.0, -160.0, 160.0, 160.0)
        render_tiles(around, range(zoom + 1), load, count, shade, lambda image, **_: image, str(out / "peer"))
        found |= {"tiles_s": round(time.perf_counter() - begin, 1), "tiles_cpu_s": round(time.process_time() - cpu, 1)}
    tiles = sum(1 for _ in (out / "peer").rglob("*.png"))
    return found | {"tiles": tiles, "peak_mb": memory.peak // 2**20}


def main() -> None:
    """Print a JSON object with what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--day", type=int, default=4_000)
    parser.add_argument("--peer", action="store_true", help="datashader too, which holds all points in memory")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        store = fitted_store(folder / "store", [-150, 150, -150, 150], CLUSTERS)
        for first in range(0, given.rows, BLOCK * 8):
            add_day(store, f"base{first // BLOCK:04d}", points(first, min(BLOCK * 8, given.rows - first)))
        found = {"rows": given.rows, "first": draw(folder / "store", folder / "map")}
        found["again"] = draw(folder / "store", folder / "map")
        store.refresh()
        add_day(store, "today", points(7, given.day))
        print(found, file=sys.stderr, flush=True)
        found["day"] = draw(folder / "store", folder / "map")
        zoom = json.loads((folder / "map" / "index.json").read_text())["style"]["zoom"]
        found |= {"zoom": zoom, "tiles": sum(1 for _ in (folder / "map" / "tiles").rglob("*.png"))}
        if given.peer:
            found["datashader"] = datashader_alone(points(0, given.rows), zoom, folder)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
