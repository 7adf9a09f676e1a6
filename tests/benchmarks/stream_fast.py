"""Days in memory through the very tasks that a store's days go through: what the detector hears, without the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from streamclust import decomposition, detector, drift, pipeline
from streamclust.ingest import ingest
from streamclust.readers.case import open_case
from streamclust.stages import clusters, fused, measures, observe, strangeness, watch
from streamclust.stages.sources import load_projection
from streamclust.streams import nothing
from tests.benchmarks.replay import Replay
from tests.benchmarks.stream import DIMS, Day, Stream, joined
from tests.benchmarks.stream_score import Cry, agreement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from streamclust.config import Settings
    from streamclust.job import Job

LAST = 7


@dataclass(frozen=True)
class Memory:
    """Stands for the address of a day's rows, whose arrays are at hand; see `streamclust.store.rows.Rows`."""

    base: int
    stop: int
    arrays: dict[str, np.ndarray]
    start: int = 0

    def __len__(self) -> int:
        return self.stop

    @property
    def ids(self) -> np.ndarray:
        return np.arange(self.base, self.base + self.stop)

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def write(self, name: str, values: np.ndarray) -> str:
        self.arrays[name] = values
        return ""


class Here:
    """The verbs of an executor, at once."""

    def map(self, task: Callable, addresses: Sequence, *args: object) -> list:
        return [task(address, *args) for address in addresses]

    def fold(self, task: Callable, addresses: Sequence, _merge: Callable, *args: object) -> object:
        return reduce(lambda state, address: task(state, address, *args), addresses, None)


class Models:
    """Everything in force in a store, in memory."""

    def __init__(self, job: Job) -> None:
        store, self.job, self.seed = job.store, job, job.settings.seed
        models = self.frozen = measures.frozen(store)
        fitted = {b for m in models.values() for b in store.snapshot.entries[m.projection].attributes["batches"]}
        self.measures = measures.fit_measures(job, models, [b for b in store.batches if b.name in fitted])
        self.projections = {d: load_projection(store, m.projection) for d, m in models.items()}
        self.centers = {d: self._centers(job, m.clustering) for d, m in models.items()}
        self.strangeness = {d: strangeness.load_measures(store, m.strangeness) for d, m in models.items()}
        self.sketches = {d: strangeness.load_sketches(store, m.strangeness) for d, m in models.items()}
        self.outliers = next(iter(models.values())).outliers
        self.fusion = fused.load_fusion(store, self.outliers)
        self.threshold = store.snapshot.entries[self.outliers].attributes["threshold"]

    @staticmethod
    def _centers(job: Job, model: str) -> dict[str, np.ndarray]:
        k = job.store.snapshot.entries[model].attributes["k"]
        rooms = {"label": f"sweep/{k:05d}", clusters.FINE: clusters.FINE}
        return {key: job.store.read(model, f"{room}/centers") for key, room in rooms.items()}

    def label(self, day: Day, base: int) -> Memory:
        """Every array that a labelled batch has, under the names by which `observe` reads them."""
        together: dict[str, np.ndarray] = {}
        judged: dict[str, np.ndarray] = {}
        for d, X in day.descriptors.items():
            Z, norm, residual = decomposition.transform(self.projections[d], X)
            rows = Memory(base, len(day), {"Z": Z, "norm": norm, "residual": residual})
            clusters.add_labels(None, rows, self.centers[d], self.seed)
            strangeness.add_measures(None, rows, self.strangeness[d])
            together |= {f"{d}/{name}": values for name, values in rows.arrays.items()}
            judged |= {f"{d}/{measure}": rows.read(array) for measure, array in fused.STORED.items()}
            judged |= {f"{d}/centre_distance": rows.read("distance"), f"{d}/norm": norm}
            judged[f"{d}/reconstruction_error"] = residual
        verdict = Memory(base, len(day), judged)
        fused.add_judged(None, verdict, self.sketches, self.fusion)
        fused.flag_block(verdict, self.threshold)
        return Memory(base, len(day), together | {"outlier": verdict.read("outlier")})

    def observe(self, rows: Memory, day: Day, columns: bool) -> observe.Observation:
        """What is seen of a labelled day."""
        if columns:
            rows.arrays["camera"] = day.camera.astype(object)
        batch = SimpleNamespace(id=day.name, n=len(day), base=rows.base, has=day.descriptors.__contains__)
        with patch.object(observe, "addresses_of", lambda *_: [rows]):
            return observe.observe(replace(self.job, executor=Here()), batch, self.frozen, self.measures)


class FastReplay(Replay):
    """The same in memory but for the fits, for which days lie in the store as few large batches.

    Nothing is drawn and no page is written. An acknowledged cause is a kind and a stream under the same models.
    """

    stages = (pipeline.fit, pipeline.score)

    def __init__(self, stream: Stream, folder: Path, settings: Settings) -> None:
        super().__init__(stream, folder, settings)
        self.days = [(stream.base(), 0)]
        self.waiting: list[tuple[int, Day]] = []
        self._load()

    def _live(self, number: int, day: Day) -> list[Cry]:
        begin = time.perf_counter()
        self.days.append((day, self.days[-1][1] + len(self.days[-1][0])))
        self.waiting.append((number, day))
        rows, seen = self._seen(*self.days[-1])
        figures = watch._complete(self.state, seen)
        self.state, readings = detector.update(self.state, figures)
        self.record.seconds[number] = time.perf_counter() - begin
        for name in day.descriptors:
            self.record.agreement[name][number] = agreement(rows.read(f"{name}/label"), day.truth[name])
        cries = [Cry(number, "descriptor missing", d) for d in DIMS if d not in day.descriptors]
        flagged = {d: crowd.flagged for d, crowd in seen.crowds.items()}
        for found in drift.findings(readings, sorted(day.descriptors), flagged):
            cause = (found.kind, found.lead.stream)
            if cause not in self.silent or found.kind in {"stuck camera", "new kind of image"}:
                cries.append(Cry(number, found.kind, found.lead.stream.descriptor or None, drift.sentence(found)))
            self.silent.add(cause)
        return cries

    def _refit(self, number: int) -> None:
        self._store_waiting()
        super()._refit(number)
        self._load()

    def _load(self) -> None:
        """The models in force, and the detectors' state after the fitted days."""
        self.models, self.state, self.silent = Models(self.job), nothing(), set()
        for day, base in self.days:
            figures = watch._complete(self.state, self._seen(day, base)[1])
            self.state, _ = detector.update(self.state, figures)
        self.state = replace(self.state, evidence=np.full_like(self.state.evidence, -np.inf))

    def _seen(self, day: Day, base: int) -> tuple[Memory, observe.Observation]:
        rows = self.models.label(day, base)
        return rows, self.models.observe(rows, day, self.stream.columns)

    def _store_waiting(self) -> None:
        """Days of the same networks as one batch; the last ones apart, since a refit looks at them apart."""
        last = self.waiting[-1][0]

        def alike(item: tuple[int, Day]) -> tuple[tuple[str, ...], int, bool]:
            return tuple(item[1].descriptors), len(self.stream.since("upgrade", item[0])), last - item[0] < LAST

        for _, group in groupby(self.waiting, alike):
            days = list(group)
            batch = joined(days[0][1].name, [day for _, day in days])
            self.truth[batch.name], self.numbers[batch.name] = batch.truth, days[0][0]
            ingest(self.job, open_case(self.stream.write(self.drop / batch.name, batch)))
        pipeline.predict(self.job)
        self.waiting = []
