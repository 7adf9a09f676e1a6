"""Play streams of days through the program and score what comes of it: `python -m tests.benchmarks.replay --help`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamclust import pipeline
from streamclust.blocks import one_blas_thread
from streamclust.config import Settings, load_settings
from streamclust.daily import daily
from streamclust.journal import Silent
from streamclust.readers.arrivals import READY
from streamclust.stages import refit
from streamclust.stages.labels import labels_name
from streamclust.stages.names import cluster_ids, name_cluster, names
from streamclust.stages.watch import acknowledge
from tests.benchmarks.stream import DAYS, DEVELOPMENT, DIMS, HELD_BACK, Day, Stream
from tests.benchmarks.stream_plot import plot
from tests.benchmarks.stream_score import Cry, Record, Turn, agreement, remarks, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamclust.job import Job

REFIT_EVERY, LEARN = 50, 7  # days between refits, and from a changed network to one; a new kind is fitted at once
SETTINGS = {  # small models, since every stream fits half a dozen times
    "cluster.k_min": 4,
    "cluster.k_max": 20,
    "cluster.fine_k": 60,
    "cluster.seeds": 1,
    "cluster.restarts": 6,
    "cluster.halves": 0,
    "outliers.noise_rows": 1_000,
    "outliers.noise_votes": 1,
    "outliers.subsamples": 6,
    "outliers.subsample_rows": 300,
    "map.rows": 300,
    "map.perplexity": 10.0,
    "workers": 1,
}


class Replay:
    """One stream through the daily verb, with an operator who names every cluster, acknowledges alarms and refits."""

    stages: tuple[Callable[[Job], object], ...] = (pipeline.fit, pipeline.score, pipeline.place)

    def __init__(self, stream: Stream, folder: Path, settings: Settings) -> None:
        self.record, self.stream, self.settings = Record(stream), stream, settings
        self.store, self.drop, self.refitted = folder / "cars.store", folder / "drop", 0
        self.drop.mkdir(parents=True)
        base = stream.base()
        self.truth, self.numbers = {base.name: base.truth}, {base.name: -1}
        job, _ = pipeline.ingest_case(self.store, stream.write(folder / base.name, base), settings)
        for stage in self.stages:
            stage(job)
        self.named: dict[tuple[str, int], frozenset[int]] = {}
        self._name_all()

    @property
    def job(self) -> Job:
        """A job on the store as it is now."""
        return pipeline.open_job(self.store, self.settings, Silent())

    def run(self) -> Record:
        """Every day of the stream."""
        due = REFIT_EVERY
        for number in range(self.stream.days):
            day = self.stream.day(number)
            if day is not None:
                cries = self._live(number, day)
                self.record.cries += cries
                kinds = {cry.kind for cry in cries}
                if "descriptor changed" in kinds:
                    due = min(due, number + LEARN)
                if "new kind of image" in kinds or number >= due:
                    self._refit(number)
                    due = number + REFIT_EVERY
        self._check_names()
        return self.record

    def _live(self, number: int, day: Day) -> list[Cry]:
        """A day's folder arrives and is worked on; every alarm is acknowledged at once."""
        self.truth[day.name], self.numbers[day.name] = day.truth, number
        (self.stream.write(self.drop / day.name, day) / READY).touch()
        begin = time.perf_counter()
        done = daily(self.store, self.drop, self.settings)
        self.record.seconds[number] = time.perf_counter() - begin
        if [taken.batch for taken in done.taken] != [day.name]:
            raise RuntimeError(f"day {number}: {done.summary()}")
        job = self.job
        for name in day.descriptors:
            found = self._ids(job, name, {day.name})[day.name]
            self.record.agreement[name][number] = agreement(found, day.truth[name])
        for alarm in done.alarms:
            acknowledge(job.store, alarm.id, reason="seen", who="replay")
        return [Cry(number, a.kind, a.descriptor or None, a.sentence) for a in done.alarms]

    def _refit(self, number: int) -> None:
        """Fit on all days, accept, and count the rows that changed their id though nothing happened to them."""
        job = self.job
        before = {name: self._ids(job, name) for name in DIMS}
        refit.propose(job)
        refit.accept(job)
        for stage in self.stages[1:]:
            stage(job)
        changed, shared = {}, {}
        for name in DIMS:
            after = self._ids(job, name)
            old, new = (np.concatenate([of[batch] for batch in before[name]]) for of in (before[name], after))
            calm = np.concatenate([self._calm(name, batch, number) for batch in before[name]])
            both = (old >= 0) & (new >= 0) & calm
            changed[name], shared[name] = int((old != new)[both].sum()), int(both.sum())
        self.record.turns.append(Turn(number, changed, shared))
        self.refitted = number

    def _calm(self, name: str, batch: str, number: int) -> np.ndarray:
        """Rows to which nothing happened since the last refit: no new kind, not of a network that was replaced."""
        truth = self.truth[batch][name]
        lately = [e for e in self.stream.events if self.refitted <= e.day <= number and e.descriptor == name]
        born = [e.which for e in lately if e.kind == "birth"]
        replaced = any(e.kind == "upgrade" and e.day <= self.numbers[batch] for e in lately)
        return ~np.isin(truth, born) & (not replaced)

    def _ids(self, job: Job, name: str, wanted: set[str] | None = None) -> dict[str, np.ndarray]:
        """Stable ids of the rows of each batch that has the descriptor, by the newest model; negative without."""
        model = job.store.snapshot.newest("model", f"{name}/kmeans")
        ids = np.array([*cluster_ids(job.store, model), -2, -1])
        batches = [b for b in job.store.batches if b.has(name) and (wanted is None or b.id in wanted)]
        return {b.id: ids[job.store.read(labels_name(model, b.name), "label")] for b in batches}

    def _kinds(self, job: Job, name: str) -> dict[int, np.ndarray]:
        """Rows of each kind under each id, among those seen by the network that was there when names were given."""
        replaced = [e.day for e in self.stream.of("upgrade") if e.descriptor == name]
        found = {b: ids for b, ids in self._ids(job, name).items() if self.numbers[b] < min(replaced, default=1_000)}
        ids, truth = (np.concatenate([of[b] for b in found]) for of in (found, {b: self.truth[b][name] for b in found}))
        sound = truth >= 0
        return {int(i): np.bincount(truth[sound & (ids == i)]) for i in np.unique(ids[sound]) if i >= 0}

    def _name_all(self) -> None:
        """Each cluster is named for the kinds that make up a quarter of it or more."""
        job = self.job
        for name in DIMS:
            for i, rows in self._kinds(job, name).items():
                self.named[name, i] = frozenset(np.flatnonzero(rows >= rows.sum() / 4).tolist())
                name_cluster(job.store, name, i, " or ".join(map(str, sorted(self.named[name, i]))))
        self.record.names = len(self.named)

    def _check_names(self) -> None:
        """A name is lost where its id is gone though its kind lives, or where most of its rows are of another kind."""
        job = self.job
        dead = {(e.descriptor, e.which) for e in self.stream.of("death")}
        kinds = {name: self._kinds(job, name) for name in DIMS}
        for (name, i), meant in self.named.items():
            text = names(job.store, name).get(i, "nothing")
            gone = i not in kinds[name]
            most = -1 if gone else int(kinds[name][i].argmax())
            retired = gone and all((name, kind) in dead for kind in meant)
            if text == "nothing" or (most not in meant and not retired):
                self.record.lost.append(f"{name} {i}, named {text}, is {'no more' if gone else most}")


def replay(seed: int, days: int, fast: bool, columns: bool, plots: Path, scratch: Path | None) -> Record:
    """One seed in a scratch folder that is removed again; the plot is left in ``plots``."""
    from tests.benchmarks.stream_fast import FastReplay

    place = Path(tempfile.mkdtemp(dir=scratch))
    try:
        with one_blas_thread():
            kind = FastReplay if fast else Replay
            whole = Stream.draw(seed, columns=columns)
            stream = replace(whole, days=days, events=tuple(e for e in whole.events if e.day < days))
            record = kind(stream, place, load_settings(None, SETTINGS)).run()
    finally:
        shutil.rmtree(place)
    plots.mkdir(parents=True, exist_ok=True)
    plot(record, plots / f"stream-{seed:04d}.png")
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(DEVELOPMENT)[:1], help="development seeds: 0 to 9")
    parser.add_argument("--held-back", action="store_true", help="the 20 seeds to measure with; never to tune by")
    parser.add_argument("--days", type=int, default=DAYS, help="only so many days of each")
    parser.add_argument("--fast", action="store_true", help="days in memory, only fits through a store")
    parser.add_argument("--no-camera", action="store_true", help="tables do not name cameras")
    parser.add_argument("--jobs", type=int, default=1, help="streams played side by side")
    parser.add_argument("--plots", type=Path, default=Path("bench-plots"), help="folder of the plots")
    parser.add_argument("--scratch", type=Path, help="an existing folder with room for the stores")
    arguments = parser.parse_args()
    play = partial(
        replay,
        days=arguments.days,
        fast=arguments.fast,
        columns=not arguments.no_camera,
        plots=arguments.plots,
        scratch=arguments.scratch,
    )
    with ProcessPoolExecutor(arguments.jobs) as pool:
        records = list(pool.map(play, HELD_BACK if arguments.held_back else arguments.seeds))
    print(f"### {len(records)} streams of {records[0].stream.days} days\n\n{table(records)}\n")
    print("\n".join(remarks(records)))


if __name__ == "__main__":
    main()
