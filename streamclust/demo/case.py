"""Write a traffic case in the folder layout that ingest reads, and compare what was found in it with its truth."""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamclust.demo.descriptors import describe
from streamclust.demo.draw import FAILURES, STREETS, Scene, draw_picture
from streamclust.demo.vehicles import BODIES, PAINTS, VIEWS
from streamclust.errors import InputError

BLOCK = 64  # pictures in memory at once
JUNK_SHARE = 0.025
CLUMP = 25  # the most near-identical pictures that one stuck camera sends


@dataclass(frozen=True, slots=True)
class Shot:
    """One row of the case: its scene, the seed of its drawing, and the seed of its sensor noise (they differ within a clump)."""

    scene: Scene
    seed: int
    moment: datetime


def draw_case(folder: str | Path, *, n_images: int = 3000, seed: int = 0) -> Path:
    """..."""
    root = Path(folder)
    shots = plan_day(n_images, seed)
    (root / "row_data").mkdir(parents=True, exist_ok=True)
    (root / "descriptors").mkdir(exist_ok=True)
    parts: dict[str, list[NDArray[np.float32]]] = {}
    with zipfile.ZipFile(root / "row_data" / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for start in range(0, len(shots), BLOCK):
            block = []
            for i, shot in enumerate(shots[start : start + BLOCK], start):
                data = jpeg(draw_picture(shot.scene, np.random.default_rng([seed, shot.seed])))
                archive.writestr(zipfile.ZipInfo(path_of(i, shot)), data)
                block.append(np.asarray(Image.open(io.BytesIO(data))))
            for name, rows in describe(np.stack(block)).items():
                parts.setdefault(name, []).append(rows)
    for name, blocks in parts.items():
        with (root / "descriptors" / f"{name}.pickle").open("wb") as f:
            pickle.dump(np.concatenate(blocks), f, protocol=4)
    write_tables(root, shots)
    return root


def path_of(i, shot):
    return f"{shot.moment:%Y-%m-%d}/cam-{shot.scene.camera + 1:02d}/{i:06d}.jpg"


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=82)
    return out.getvalue()


def plan_day(n_images: int, seed: int) -> list[Shot]:
    rng = np.random.default_rng([seed, n_images])
    n_junk = round(JUNK_SHARE * n_images)
    day = datetime(2026, 1, 1) + timedelta(days=seed)
    shots = []
    clumped = n_junk // 2
    nxt = n_images
    while clumped >= 8:
        size = min(CLUMP, clumped, max(n_images // 120, 8))
        camera, hour, sort = int(rng.integers(6)), float(rng.uniform(9, 16)), ("empty", "dark", "glare")[len(shots) % 3 if False else int(rng.integers(3))]
        for i in range(size):
            shots.append(Shot(Scene(camera, hour, sort), nxt, day + timedelta(hours=hour, seconds=2 * i)))
        nxt += 1
        clumped -= size
    sorts = list(FAILURES)
    for i in range(n_images - len(shots)):
        hour = float(rng.uniform(0, 24)) if rng.random() < 0.3 else float(np.clip(rng.normal(13, 4), 0, 23.99))
        camera = int(rng.integers(len(STREETS)))
        vehicle = (BODIES[int(rng.integers(5))], VIEWS[int(rng.integers(4))], list(PAINTS)[int(rng.integers(7))])
        junk = len(shots) < n_junk
        sort = sorts[int(rng.integers(len(sorts)))] if junk else "vehicle"
        if junk and rng.random() < 0.5:
            vehicle = ("", "", "")
        shots.append(Shot(Scene(camera, hour, sort, *vehicle), i, day + timedelta(hours=hour)))
    return sorted(shots, key=lambda s: s.moment)


def write_tables(root, shots):
    with (root / "images_paths.csv").open("w", newline="", encoding="utf-8") as f, (root / "truth.csv").open("w", newline="") as g:
        paths, truth = csv.writer(f, lineterminator="\n"), csv.writer(g, lineterminator="\n")
        paths.writerow(["", "path", "camera", "time"]); truth.writerow(["path", "kind", "type", "view", "colour", "sort"])
        for i, s in enumerate(shots):
            paths.writerow([i, path_of(i, s), f"cam-{s.scene.camera + 1:02d}", s.moment.isoformat(timespec="seconds")])
            v = s.scene.sort == "vehicle"
            truth.writerow([path_of(i, s), "vehicle" if v else "junk", *((s.scene.body, s.scene.view, s.scene.colour) if v else ("", "", "")), s.scene.sort])
