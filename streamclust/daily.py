"""The day's work: every new case folder under a drop folder, oldest first, into a store by its frozen models."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamclust import pipeline
from streamclust.blocks import one_blas_thread
from streamclust.config import Settings
from streamclust.errors import BudgetError, ConflictError, DamageError, InputError, StreamclustError
from streamclust.ingest import ingest
from streamclust.job import Job
from streamclust.journal import Listener, Silent
from streamclust.readers.arrays import matching_files
from streamclust.readers.arrivals import READY, Arrival, arrivals
from streamclust.readers.case import open_case
from streamclust.reporting import collect, day, days
from streamclust.stages import grids, watch
from streamclust.stages.watch import Alarm
from streamclust.store import forgetting
from streamclust.store.files import append_to, read_file
from streamclust.store.store import Batch

ASIDE = "aside"  # a folder of the store: what was set aside, and why
LOG = "daily.log"
TIMEOUT = 600  # seconds that an alarm's command may take


@dataclass(frozen=True)
class Day:
    """One folder's work: its batch, rows, alarms, page, and how long it took."""

    batch: str
    rows: int
    alarms: list[Alarm]
    page: Path
    seconds: float


@dataclass
class Daily:
    """What became of every folder: taken in, known already, still being written, or set aside with its error."""

    taken: list[Day] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    page: Path | None = None

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms of all days that were taken in."""
        return [alarm for taken in self.taken for alarm in taken.alarms]

    def summary(self) -> dict[str, Any]:
        """The same in plain values."""
        return asdict(self) | {"alarms": [asdict(alarm) for alarm in self.alarms]}

    def text(self) -> str:
        """The same in lines to read."""
        lines = [f"{t.batch}: {t.rows:,} images in {t.seconds:.1f} s; {t.page}" for t in self.taken]
        lines += [f"ALARM {alarm.id}: {alarm.sentence}" for alarm in self.alarms]
        lines += [f"{name}: set aside: {error}" for name, error in self.aside.items()]
        lines += [f"{name}: {why}" for name, why in self.waiting.items()]
        if not self.taken:
            lines.append(f"nothing new; {len(self.known)} folders were taken in before")
        return "\n".join([*lines, f"all days: {self.page}"] if self.page else lines)


def daily(
    store: Path | str,
    drop: Path | str,
    settings: Settings | None = None,
    *,
    listener: Listener | None = None,
    on_alarm: str | None = None,
) -> Daily:
    """Take in every new case folder under ``drop``, oldest first, and say what is strange about each day.

    A folder that is stored already costs nothing; one that changed within the last ``daily.settle`` seconds and has
    no ``_READY`` marker is left for next time; one that cannot be used is set aside until it changes, and the others
    go on.

    Parameters
    ----------
    store :
        a fitted store.
    drop :
        the folder of case folders.
    settings :
        by default `Settings`.
    listener :
        is told of progress.
    on_alarm :
        a command that is run for each alarm, with the alarm as JSON on its standard input.

    Raises
    ------
    InputError : no store, no drop folder, or nothing was fitted yet. ConflictError : another daily run is at work.
    """
    settings = settings or Settings()
    found, result = arrivals(Path(drop).absolute()), Daily()
    opened = pipeline.open_job(store, settings, listener or Silent())
    with opened as job, _alone(job.store.path), _log(job.store.path) as log:
        forgetting.resume(job.store)  # one that was interrupted lets nobody else write
        for arrival in found:
            _arrived(job, arrival, result, log, on_alarm)
        if result.taken:
            result.page = days.write_days(job)
            job.store.sweep()
    return result


def _arrived(job: Job, arrival: Arrival, result: Daily, log: Log, on_alarm: str | None) -> None:
    name, settle = arrival.path.name, job.settings.daily.settle
    note = job.store.path / ASIDE / f"{name}.json"
    stored = next((b for b in job.store.every_batch if b.id == name), None)
    if stored is not None and _finished(job, stored) and stored.entry.attributes.get("listing") == arrival.listing:
        result.known.append(name)
    elif error := _set_aside(note, arrival):
        result.aside[name] = error
    elif arrival.quiet < settle:
        result.waiting[name] = f"changed {arrival.quiet:.0f} s ago; left for next time (or put {READY} into it)"
        log(f"{name}: {result.waiting[name]}")
    else:
        try:
            _take_in(job, arrival, result, log, on_alarm)
        except (ConflictError, BudgetError, DamageError):
            raise  # not the folder's fault
        except InputError as refused:
            result.aside[name] = str(refused)
            note.parent.mkdir(exist_ok=True)
            note.write_text(json.dumps({"listing": arrival.listing, "error": str(refused)}))
            log(f"{name}: set aside: {refused}")


def _take_in(job: Job, arrival: Arrival, result: Daily, log: Log, on_alarm: str | None) -> None:
    begin = time.monotonic()
    reading, place = job.settings.ingest, arrival.path / "descriptors"
    parts = {name: files for name, files in reading.parts.items() if matching_files(place, files)}  # a day may lack one
    case = open_case(arrival.path, path_encoding=reading.path_encoding, parts=parts)
    pipeline.prepare_day(job, case)
    name = ingest(job, case)
    batch = next(b for b in job.store.every_batch if b.name == name)
    if _finished(job, batch):  # stored already, from files of another time or under another name
        result.known.append(arrival.path.name)
        return
    if batch not in job.store.batches:
        raise InputError(
            arrival.path, f"batch {batch.id} was withdrawn", hint="streamclust restore it, or leave it out"
        )
    alarms = work(job, batch)
    page = day.write_day(job, batch.name)
    taken = Day(batch.id, batch.n, alarms, page, round(time.monotonic() - begin, 2))
    result.taken.append(taken)
    log(f"{batch.id}: {batch.n:,} images, {len(alarms)} alarm{'s' * (len(alarms) != 1)}, {taken.seconds:.1f} s")
    for alarm in alarms:
        log(f"{batch.id}: ALARM {alarm.id}: {alarm.sentence}")
        if on_alarm:
            _tell(on_alarm, alarm, log)


def acknowledge(store: Path | str, alarm: str, reason: str, who: str) -> Alarm:
    """Acknowledge an alarm, whose cause then does not cry again, and write the pages that show it anew.

    Raises
    ------
    InputError : there is no such alarm, or no reason is given.
    """
    job = pipeline.open_job(store, Settings(), Silent())
    found = watch.acknowledge(job.store, alarm, reason, who)
    day.write_day(job, next(b.name for b in job.store.every_batch if b.id == found.day))
    days.write_days(job)
    return found


@one_blas_thread()
def work(job: Job, batch: Batch) -> list[Alarm]:
    """Label, score and place a stored batch by the frozen models, watch for change, add to the count grids."""
    pipeline.predict(job)
    alarms = watch.watch(job, batch.name)
    newest = job.store.snapshot.newest
    outliers = newest("model", "outliers")
    for descriptor, model in collect.clusterings(job).items():
        placed = newest("model", f"{descriptor}/map")
        if placed and outliers:
            grids.grids(job, placed, model, outliers)
    return alarms


def _finished(job: Job, batch: Batch) -> bool:
    """Whether a batch went through a whole day's work, its page included."""
    watched = any(e.attributes["role"] == batch.name for e in job.store.snapshot.of_kind("day").values())
    return watched and day.page_of(job, batch.id).is_file()


def _set_aside(note: Path, arrival: Arrival) -> str:
    """The error of a folder that was set aside and has not changed since, or nothing."""
    try:
        known = json.loads(read_file(note))
        return str(known["error"]) if known["listing"] == arrival.listing else ""
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""  # none, or one that was cut short: the folder is tried again


def _tell(command: str, alarm: Alarm, log: Log) -> None:
    """Run the command for an alarm; where it fails the log says so, and the work goes on."""
    text = json.dumps(asdict(alarm), default=str)
    try:
        done = subprocess.run(
            shlex.split(command), input=text, text=True, capture_output=True, timeout=TIMEOUT, check=False
        )
        if done.returncode:
            log(f"{alarm.id}: {command} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        log(f"{alarm.id}: {command} failed: {error}")


class Log:
    """Lines with their time, appended to a file."""

    def __init__(self, write: Any) -> None:
        self._write = write

    def __call__(self, text: str) -> None:
        """Add a line."""
        self._write(f"{dt.datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")


@contextmanager
def _log(store: Path) -> Iterator[Log]:
    """The store's log; whatever ends the run is its last line."""
    with append_to(store / LOG) as file:
        log = Log(file.write)
        try:
            yield log
        except BaseException as error:
            log(f"ended: {error if isinstance(error, StreamclustError) else repr(error)}")
            raise


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """One daily run at a time; the lock goes with the process, however that ends."""
    with append_to(store / "drafts" / "daily.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(store, "another daily run is at work", hint="try again when it has ended") from None
        yield
