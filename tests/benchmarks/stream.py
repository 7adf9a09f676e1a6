"""A made-up stream of days with known truth: kinds are born and die, cameras come and stick, a network is replaced.

Every day has seeds of its own, so that any day can be made alone, and a stream without one of its events is the same
stream otherwise. The truth and the events stand beside a case, never in it.
"""

from __future__ import annotations

import csv
import datetime as dt
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

DEVELOPMENT = range(10)  # seeds to look at
HELD_BACK = range(1000, 1020)  # seeds to measure with, and nothing else
DAYS = 200
BASE_DAYS = 12  # of 250 images, ingested as one batch
DIMS = {"osnet": 32, "colour": 16}
LATENT = {"osnet": 12, "colour": 8}
KINDS = {"osnet": 6, "colour": 5}  # osnet sees what a vehicle is, colour its paint; both are there from the start
BIRTHS, DEATHS = 2, 1  # of what osnet sees
APART, BORN_APART = 4.5, 6.0  # least distance of two centres, in deviations within a kind
CAMERAS, NEW_CAMERA_SHARE = 4, 0.25
RAMP = 5  # days until a new kind has its full share, or an old one is gone
JUNK_SHARE = 0.015
JUNK, STUCK = -1, -2  # truth of rows that are of no kind
FIRST_DAY = dt.date(2026, 1, 1)
LASTING = (*["birth"] * BIRTHS, *["death"] * DEATHS, "new camera", "upgrade")
SPACING, EARLIEST, LATEST = 25, 8, 185  # days between lasting events, and their first and last day
BRIEF = ("stuck camera", "missing descriptor", *["thin"] * 3, *["no folder"] * 5)


@dataclass(frozen=True)
class Event:
    """Something that happens on ``day``, or from that day on; ``descriptor`` names it where only one is touched."""

    day: int
    kind: str
    descriptor: str | None = None
    which: int = 0  # the kind that is born or dies, the camera that sticks


@dataclass(frozen=True)
class Day:
    """A day's rows: descriptors (n, d) float32, cameras (n,) str; beside them truth per descriptor and tracks (n,)."""

    name: str
    descriptors: dict[str, np.ndarray]
    camera: np.ndarray
    truth: dict[str, np.ndarray]
    track: np.ndarray

    def __len__(self) -> int:
        return len(self.camera)


@dataclass(frozen=True)
class View:
    """How one network sees: latent directions mixed into columns, centres of kinds, and what shifts them."""

    centres: np.ndarray  # (kinds, q)
    mixing: np.ndarray  # (q, d) orthonormal rows
    scale: np.ndarray  # (d,)
    offset: np.ndarray  # (d,)
    season: np.ndarray  # (2, q), shifts of the sine and the cosine of the year
    cameras: np.ndarray  # (CAMERAS + 1, q), the last is the new one's
    upgrade: np.ndarray  # (d, d), a rotation times a factor

    @classmethod
    def draw(cls, name: str, seed: int) -> View:
        rng = np.random.default_rng([seed, 1, crc32(name.encode())])
        d, q, old = DIMS[name], LATENT[name], KINDS[name]
        centres = np.zeros((0, q))
        while len(centres) < old + BIRTHS:
            found = rng.normal(0, 1.5, q)
            least = APART if len(centres) < old else BORN_APART
            if not len(centres) or np.linalg.norm(centres - found, axis=1).min() > least:
                centres = np.vstack([centres, found])
        camera = rng.normal(0, 0.3 / np.sqrt(q), (CAMERAS + 1, q))
        new = rng.normal(size=q)
        camera[-1] = rng.uniform(2.5, 3.5) * new / np.linalg.norm(new)
        scale = rng.lognormal(-1, 0.7, d)
        return cls(
            centres=centres,
            mixing=np.linalg.qr(rng.normal(size=(d, q)))[0].T * np.sqrt(d / q),
            scale=scale,
            offset=scale * rng.normal(0, 2, d),
            season=rng.normal(0, 0.5 / np.sqrt(q), (2, q)),
            cameras=camera,
            upgrade=np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.choice([0.7, 1.4]),
        )


@dataclass(frozen=True)
class Stream:
    """The stream of a seed; ``columns`` says whether its tables name cameras."""

    seed: int
    events: tuple[Event, ...]
    days: int = DAYS
    columns: bool = True

    @classmethod
    def draw(cls, seed: int, *, columns: bool = True) -> Stream:
        """Lasting events in random order, well apart; brief ones on other days."""
        rng = np.random.default_rng([seed, 0])
        room = LATEST - EARLIEST - SPACING * (len(LASTING) - 1)
        days = np.sort(rng.integers(0, room + 1, len(LASTING))) + EARLIEST + SPACING * np.arange(len(LASTING))
        events, births = [], KINDS["osnet"]
        dying = iter(rng.permutation(KINDS["osnet"]).tolist())
        for day, kind in zip(days.tolist(), rng.permutation(LASTING).tolist(), strict=True):
            which = births if kind == "birth" else next(dying) if kind == "death" else 0
            births += kind == "birth"
            seen = {"upgrade": str(rng.choice(list(DIMS))), "new camera": None}.get(kind, "osnet")
            events.append(Event(day, kind, seen, which))
        free = [d for d in range(3, DAYS) if np.abs(days - d).min() > 2]
        for day, kind in zip(rng.choice(free, len(BRIEF), replace=False).tolist(), BRIEF, strict=True):
            missing = str(rng.choice(list(DIMS))) if kind == "missing descriptor" else None
            events.append(Event(day, kind, missing, int(rng.integers(CAMERAS))))
        return cls(seed, tuple(sorted(events, key=lambda e: e.day)), columns=columns)

    def without(self, *kinds: str) -> Stream:
        """The same stream in which those events do not happen."""
        return replace(self, events=tuple(e for e in self.events if e.kind not in kinds))

    def of(self, kind: str, day: int | None = None) -> list[Event]:
        """Its events of a kind, or those of them that are on that very day."""
        return [e for e in self.events if e.kind == kind and day in {None, e.day}]

    def since(self, kind: str, day: int) -> list[Event]:
        """Its events of a kind that have begun on that day or before."""
        return [e for e in self.events if e.kind == kind and e.day <= day]

    @cached_property
    def views(self) -> dict[str, View]:
        """How each network sees."""
        return {name: View.draw(name, self.seed) for name in DIMS}

    def base(self) -> Day:
        """The days before the first, as one batch."""
        return joined("base", [self._rows(day) for day in range(-BASE_DAYS, 0)])

    def day(self, number: int) -> Day | None:
        """One day; ``None`` where no folder came."""
        return None if self.of("no folder", number) else self._rows(number)

    def shares(self, name: str, day: int) -> np.ndarray:
        """(kinds,) expected shares of what a network sees, by season and by who lives; without the day's own mood."""
        rng = np.random.default_rng([self.seed, 2, crc32(name.encode())])
        n = KINDS[name] + BIRTHS
        usual, phase = rng.uniform(0.08, 0.2, n), rng.uniform(0, 2 * np.pi, n)
        usual *= np.exp(0.2 * np.sin(2 * np.pi * day / 365 + phase))
        life = np.r_[np.ones(KINDS[name]), np.zeros(BIRTHS)]
        for event in self.since("birth", day) + self.since("death", day):
            if event.descriptor == name:
                part = min(1.0, (day - event.day + 1) / RAMP)
                life[event.which] = part if event.kind == "birth" else 1 - part
        return usual * life / (usual * life).sum()

    def _rows(self, day: int) -> Day:
        """Vehicles pass and leave a track of one to six pictures each; the day has a mood that all its rows share."""
        rng = np.random.default_rng([self.seed, 3, day + BASE_DAYS])
        date = FIRST_DAY + dt.timedelta(days=day)
        weekend = date.weekday() >= 5
        n = 3 if self.of("thin", day) else 250 if day < 0 else int(rng.integers(150, 250 if weekend else 400))
        lengths = np.minimum(rng.geometric(0.55, n), 6)
        track = np.repeat(np.arange(n), lengths)[:n]
        junk = (rng.random(n) < JUNK_SHARE)[track]
        usual = rng.integers(0, CAMERAS, n)
        new = (rng.random(n) < NEW_CAMERA_SHARE) & bool(self.since("new camera", day))
        camera = np.where(new, CAMERAS, usual)[track]
        truth = {}
        for name in DIMS:
            mood = rng.normal(0, 0.12, KINDS[name] + BIRTHS) - 0.3 * weekend * (np.arange(KINDS[name] + BIRTHS) == 0)
            weights = self.shares(name, day) * np.exp(mood)
            kinds = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(n))
            truth[name] = np.where(junk, JUNK, kinds[track])
        found = {name: self._see(name, day, truth[name], camera, track) for name in DIMS}
        for event in self.of("stuck camera", day):
            found, truth, camera, track = self._stick(event, found, truth, camera, track)
        gone = {e.descriptor for e in self.of("missing descriptor", day)}
        named = np.array([f"cam-{c + 1:02d}" for c in camera])
        descriptors = {name: self._columns(name, day, Z, track) for name, Z in found.items() if name not in gone}
        return Day(date.isoformat(), descriptors, named, truth, track)

    def _see(self, name: str, day: int, truth: np.ndarray, camera: np.ndarray, track: np.ndarray) -> np.ndarray:
        """Latent vectors (n, q): the kind's centre, what season, weather and camera shift, the vehicle, the picture."""
        view = self.views[name]
        rng = np.random.default_rng([self.seed, 4, day + BASE_DAYS, crc32(name.encode())])
        n, q = len(truth), view.centres.shape[1]
        weather = rng.normal(0, 0.4 / np.sqrt(q), q) + rng.normal(0, 0.3 / np.sqrt(q), (CAMERAS + 1, q))[camera]
        year = 2 * np.pi * day / 365
        vehicle = rng.normal(size=(n, q)) * rng.lognormal(0, 0.15, (n, 1))
        Z = np.where((truth >= 0)[:, None], view.centres[truth], 2.0 * rng.normal(size=(n, q))[track]) + vehicle[track]
        Z += np.sin(year) * view.season[0] + np.cos(year) * view.season[1] + weather + view.cameras[camera]
        return Z + 0.25 * rng.normal(size=(n, q))

    def _stick(
        self, event: Event, found: dict, truth: dict, camera: np.ndarray, track: np.ndarray
    ) -> tuple[dict, dict, np.ndarray, np.ndarray]:
        """A camera sends one picture over and over: an empty street, or (odd seeds) a vehicle like any other."""
        rng = np.random.default_rng([self.seed, 5, event.day])
        m = int(rng.integers(60, 121))
        row = int(rng.integers(len(camera)))
        grown = {}
        for name, Z in found.items():
            frame = Z[row] if self.seed % 2 else 2.5 * rng.normal(size=Z.shape[1])
            grown[name] = np.vstack([Z, frame + 0.02 * rng.normal(size=(m, Z.shape[1]))])
        truth = {name: np.r_[kinds, np.full(m, STUCK)] for name, kinds in truth.items()}
        return grown, truth, np.r_[camera, np.full(m, event.which)], np.r_[track, np.full(m, len(camera))]

    def _columns(self, name: str, day: int, Z: np.ndarray, track: np.ndarray) -> np.ndarray:
        view = self.views[name]
        rng = np.random.default_rng([self.seed, 6, day + BASE_DAYS, crc32(name.encode())])
        noise = rng.normal(size=(len(Z), 2, DIMS[name]))  # one of the vehicle, one of the picture
        X = Z @ view.mixing + 0.3 * noise[track, 0] + 0.01 * noise[:, 1]
        if any(e.descriptor == name for e in self.since("upgrade", day)):
            X @= view.upgrade
        return (X * view.scale + view.offset).astype(np.float32)

    def write(self, folder: Path, day: Day) -> Path:
        """A case folder: ``descriptors/NAME.npy`` and ``images_paths.csv`` (index, path, camera); no pictures."""
        (folder / "descriptors").mkdir(parents=True)
        for name, X in day.descriptors.items():
            np.save(folder / "descriptors" / f"{name}.npy", X)
        with (folder / "images_paths.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["", "path", "camera"] if self.columns else ["", "path"])
            for i, camera in enumerate(day.camera.tolist()):
                table.writerow([i, f"{day.name}/{i:05d}.jpg", camera][: 3 if self.columns else 2])
        return folder


def joined(name: str, days: list[Day]) -> Day:
    """Days that have the same descriptors as one."""
    starts = np.cumsum([0] + [len(day) for day in days[:-1]])
    return Day(
        name,
        {d: np.concatenate([day.descriptors[d] for day in days]) for d in days[0].descriptors},
        np.concatenate([day.camera for day in days]),
        {d: np.concatenate([day.truth[d] for day in days]) for d in DIMS},
        np.concatenate([day.track + start for day, start in zip(days, starts, strict=True)]),
    )
