"""What is true of the rows of a made-up case, and the tables and pictures that tell it."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 2048
FACTORS = {
    "body": ("sedan", "hatchback", "suv", "pickup", "van", "truck", "bus"),
    "view": ("front", "front_quarter", "side", "rear_quarter", "rear"),
    "colour": ("white", "gray", "black", "blue", "red", "green", "yellow", "orange", "brown"),
}
JUNK = ("", "glare", "no_vehicle", "blur")
NEAR_DUPLICATES, SCATTERED = 0.05, 0.015  # shares of the rows
CLUMP_EVERY, CLUMP_ROWS = 3, (20, 200)  # a clump in every third block; its least and most rows


@dataclass(frozen=True)
class Rows:
    """The truth of one block: factor levels (3, b), junk kind, clump (0 none), row it repeats (or -1), camera."""

    levels: np.ndarray
    junk: np.ndarray
    clump: np.ndarray
    repeats: np.ndarray
    camera: np.ndarray

    @classmethod
    def draw(cls, seed: int, block: int) -> Rows:
        rng = np.random.default_rng([seed, 0, block])
        levels = np.stack([rng.choice(len(names), BLOCK, p=frequencies(len(names))) for names in FACTORS.values()])
        junk = np.where(rng.random(BLOCK) < SCATTERED, rng.integers(1, len(JUNK), BLOCK), 0)
        clump = np.zeros(BLOCK, int)
        if block % CLUMP_EVERY == 0:
            size = int(rng.integers(CLUMP_ROWS[0], CLUMP_ROWS[1] + 1))
            window = min(BLOCK, 8 * size)
            members = rng.integers(BLOCK - window + 1) + rng.choice(window, size, replace=False)
            junk[members], clump[members] = rng.integers(1, len(JUNK)), block + 1
        chosen = (rng.random(BLOCK) < NEAR_DUPLICATES * 1.04) & (junk == 0)  # 1.04: junk rows repeat nothing
        originals = np.flatnonzero(~chosen & (junk == 0))
        earlier = np.searchsorted(originals, np.arange(BLOCK))
        pick = originals[(rng.random(BLOCK) * earlier).astype(int)]
        repeats = np.where(chosen & (earlier > 0), pick, -1)
        levels = np.where(repeats >= 0, levels[:, pick], levels)
        return cls(levels, junk, clump, repeats, rng.integers(0, 12, BLOCK))


def frequencies(levels: int) -> np.ndarray:
    """How common each level of a factor is."""
    weights = 1 / np.arange(2, levels + 2)
    shares: np.ndarray = weights / weights.sum()
    return shares


def write_tables(folder: Path, n: int, seed: int) -> None:
    """Write images_paths.csv (what a case has) and truth.csv (for scoring only)."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with (
        (folder / "images_paths.csv").open("w", newline="", encoding="utf-8") as paths,
        (folder / "truth.csv").open("w", newline="", encoding="utf-8") as truth,
    ):
        first, second = csv.writer(paths, lineterminator="\n"), csv.writer(truth, lineterminator="\n")
        first.writerow(("", "paths", "camera", "time"))
        second.writerow(("path", "kind", *FACTORS, "junk", "clump", "repeats"))
        for i, camera, levels, junk, clump, repeats in _truths(n, seed):
            stamp = (begin + timedelta(seconds=7 * i)).isoformat()
            first.writerow((i, _name(i), f"cam{camera:02d}", stamp))
            again = _name(repeats) if repeats >= 0 else ""
            seen = [""] * len(FACTORS) if junk else [v[j] for v, j in zip(FACTORS.values(), levels, strict=True)]
            second.writerow((_name(i), "non-vehicle" if junk else "vehicle", *seen, JUNK[junk], clump or "", again))


def _truths(n: int, seed: int) -> Iterator[tuple[Any, ...]]:
    for block in range(-(-n // BLOCK)):
        rows, base = Rows.draw(seed, block), block * BLOCK
        repeats = np.where(rows.repeats >= 0, rows.repeats + base, -1)
        columns = (rows.camera, rows.levels.T, rows.junk, rows.clump, repeats)
        yield from zip(range(base, min(n, base + BLOCK)), *(c.tolist() for c in columns), strict=False)


def _name(i: int) -> str:
    return f"base/{i:07d}.jpg"


def write_pictures(folder: Path, n: int, seed: int) -> None:
    """Write row_data/images.zip: stored JPEGs, alike for rows of the same truth."""
    drawn: dict[tuple[int, ...], bytes] = {}
    (folder / "row_data").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "row_data" / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for i, _, levels, junk, _, _ in _truths(n, seed):
            key = (junk,) if junk else (0, *levels)
            if key not in drawn:
                drawn[key] = _picture(key)
            archive.writestr(zipfile.ZipInfo(_name(i)), drawn[key])  # without a time, so that equal cases are equal


def _picture(key: tuple[int, ...]) -> bytes:
    """A small JPEG that shows what the truth says: a shape whose length is the body, its place the view; or junk."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 48), ("#606468", "#fffbe8", "#506050", "#404040")[key[0]])
    if not key[0]:
        _, body, view, colour = key
        draw = ImageDraw.Draw(image)
        left, paint = 4 + 4 * view, FACTORS["colour"][colour]
        draw.rectangle((left, 22, left + 22 + 3 * body, 36), fill=paint)
        draw.rectangle((left + 4, 20 - 2 * body, left + 14 + 3 * body, 22), fill=paint)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
