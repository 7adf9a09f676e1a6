"""Write a small traffic case with known truth in the folder layout that ingest reads: ``draw_case``."""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from streamclust.demo.bodies import BODIES, VIEWS
from streamclust.demo.descriptors import SIZES, describe
from streamclust.demo.draw import FAILURES, STREETS, Scene, draw_picture
from streamclust.demo.vehicles import PAINTS
from streamclust.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 64  # pictures in memory at once
JUNK_SHARE = 0.025
CLUMP = (8, 25)  # the fewest and the most near-identical pictures that one stuck camera sends
STUCK = ("empty", "dark", "glare")


@dataclass(frozen=True, slots=True)
class Shot:
    """One row of the case. Shots that share ``seed`` differ in nothing but sensor noise."""

    scene: Scene
    seed: int
    moment: datetime

    @property
    def camera(self) -> str:
        return f"cam-{self.scene.camera + 1:02d}"


def draw_case(folder: str | Path, *, n_images: int = 3000, seed: int = 0) -> Path:
    """Draw a day of traffic at six cameras and describe its pictures.

    Writes ``row_data/images.zip`` (stored JPEG, 160 x 120), ``images_paths.csv`` (index, path, camera, time),
    ``descriptors/shape.pickle``, ``colour.pickle`` and ``texture.pickle`` (protocol 4, float32), and ``truth.csv``
    (path, kind, type, view, colour), which is for scoring only. Equal arguments give equal bytes. A block of pictures
    is in memory at a time, beside the descriptors themselves (3.6 kB per picture).

    Parameters
    ----------
    folder : str or Path
        Made where it does not exist; files of an earlier case in it are replaced.
    n_images : int
        How many pictures. 2.5 % of them are junk, half of that in clumps of near-identical pictures.
    seed : int
        Which day: day 0 is 2026-01-01. The streets and cameras are the same every day; paths never repeat between days.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        if ``n_images`` is below 1 or ``seed`` is not in 0 .. 9999.
    """
    if n_images < 1:
        raise InputError("n_images", str(n_images), "1 or more")
    if not 0 <= seed <= 9999:
        raise InputError("seed", str(seed), "0 to 9999")
    root = Path(folder)
    (root / "row_data").mkdir(parents=True, exist_ok=True)
    (root / "descriptors").mkdir(exist_ok=True)
    shots = plan_day(n_images, seed)
    matrices = {name: np.empty((n_images, d), np.float32) for name, d in SIZES.items()}
    with zipfile.ZipFile(root / "row_data" / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for start in range(0, n_images, BLOCK):
            pictures = np.stack(list(photograph(archive, shots[start : start + BLOCK], start, seed)))
            for name, rows in describe(pictures).items():
                matrices[name][start : start + len(rows)] = rows
    for name, matrix in matrices.items():
        with (root / "descriptors" / f"{name}.pickle").open("wb") as file:
            pickle.dump(matrix, file, protocol=4)
    write_tables(root, shots)
    return root


def plan_day(n_images: int, seed: int) -> list[Shot]:
    """What every picture of the day shows, in the order of time."""
    rng = np.random.default_rng([seed, n_images, 1])
    midnight = datetime(2026, 1, 1) + timedelta(days=seed)  # noqa: DTZ001  (a camera's own clock has no zone)
    n_junk = round(JUNK_SHARE * n_images)
    shots = stuck_cameras(n_junk // 2, midnight, rng)
    for i in range(len(shots), n_images):
        hour = float(rng.uniform(0, 24) if rng.random() < 0.3 else np.clip(rng.normal(13, 4), 0, 23.99))
        body, view, paint = (str(rng.choice(names)) for names in (BODIES, VIEWS, list(PAINTS)))
        sort = str(rng.choice(list(FAILURES))) if i < n_junk else "vehicle"
        if i < n_junk and rng.random() < 0.5:
            body = view = paint = ""
        scene = Scene(int(rng.integers(len(STREETS))), hour, sort, body, view, paint)
        shots.append(Shot(scene, i, midnight + timedelta(hours=hour)))
    return sorted(shots, key=lambda shot: (shot.moment, shot.seed))


def stuck_cameras(n: int, midnight: datetime, rng: np.random.Generator) -> list[Shot]:
    """At most ``n`` shots in clumps: a camera sends the same junk every two seconds for a while."""
    shots: list[Shot] = []
    while n - len(shots) >= CLUMP[0]:
        scene = Scene(int(rng.integers(len(STREETS))), float(rng.uniform(9, 16)), str(rng.choice(STUCK)))
        began, first = midnight + timedelta(hours=scene.hour), len(shots)
        shots += [Shot(scene, first, began + timedelta(seconds=2 * i)) for i in range(min(CLUMP[1], n - first))]
    return shots


def photograph(archive: zipfile.ZipFile, shots: list[Shot], start: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Draw the shots, store their JPEGs, and give back the pictures as a reader of the JPEGs sees them."""
    for i, shot in enumerate(shots, start):
        rng, sensor = np.random.default_rng([seed, 2, shot.seed]), np.random.default_rng([seed, 3, i])
        jpeg = io.BytesIO()
        draw_picture(shot.scene, rng, sensor).save(jpeg, "JPEG", quality=82)
        entry = zipfile.ZipInfo(path_of(i, shot))  # dated 1980, so that the zip's bytes do not depend on the clock
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, jpeg.getvalue())
        yield np.asarray(Image.open(jpeg))


def path_of(i: int, shot: Shot) -> str:
    return f"{shot.moment:%Y-%m-%d}/{shot.camera}/{i:06d}.jpg"


def write_tables(root: Path, shots: list[Shot]) -> None:
    """``images_paths.csv`` and ``truth.csv``; a junk picture has no type, view or colour."""
    with (
        (root / "images_paths.csv").open("w", newline="", encoding="utf-8") as paths_file,
        (root / "truth.csv").open("w", newline="", encoding="utf-8") as truth_file,
    ):
        paths, truth = (csv.writer(file, lineterminator="\n") for file in (paths_file, truth_file))
        paths.writerow(["", "path", "camera", "time"])
        truth.writerow(["path", "kind", "type", "view", "colour"])
        for i, shot in enumerate(shots):
            path, scene = path_of(i, shot), shot.scene
            paths.writerow([i, path, shot.camera, shot.moment.isoformat(timespec="seconds")])
            known = (
                ("vehicle", scene.body, scene.view, scene.colour) if scene.sort == "vehicle" else ("junk", "", "", "")
            )
            truth.writerow([path, *known])
