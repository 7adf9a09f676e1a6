"""A Dask cluster at work: versions compared, a pass watched over, and one clear line for what goes wrong there."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from streamclust.errors import StreamclustError

PATIENCE = "120s"  # without any worker, or without an answer of the scheduler, unless Dask's configuration says else
ANSWER = 30.0  # seconds that a busy scheduler has to answer in any case
EVERY = 1.0
AGAIN = "run the same command again to carry on"
WAITING = {"queued", "waiting", "no-worker", "processing"}
# What computes the numbers, and what carries tasks: another version of these could give other bits, or none.
PACKAGES = ("streamclust", "numpy", "scipy", "scikit-learn", "hdbscan", "openTSNE", "zarr", "dask", "distributed")


class Remote:
    """A client of a cluster that checks versions, notices when nothing can go on, and explains failures.

    Raises, from every method, StreamclustError : the cluster is lost, or cannot do this work as it is. It is never an
    InputError: no batch is to blame.
    """

    def __init__(self, client: Any, *, owned: bool = False) -> None:
        import dask
        from dask.utils import parse_timedelta

        self.client, self.address = client, str(client.scheduler.address)
        configured = dask.config.get("distributed.scheduler.no-workers-timeout", None)
        self._patience = float(parse_timedelta(configured or PATIENCE))
        self._known: set[str] = set()
        self._verdict: StreamclustError | None = None
        self._closing = weakref.finalize(self, client.close) if owned else None

    def close(self) -> None:
        """Take leave of the scheduler, if the client is ours; its workers go on for others."""
        if self._closing:
            with suppress(OSError):
                self._closing()

    def compute(self, values: Sequence[Any], progress: Callable[[int, int], None] | None = None) -> list[Any]:
        """The results of Dask's delayed ``values``; an error of a task comes out as it is."""
        import dask

        with self._explained():
            self._check_versions()
            # The sample and the models stand in the graph: unlike scattered data they outlive a worker.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                futures = self.client.compute(values, optimize_graph=False)
            with self._watched(futures, values, progress):
                found = list(self.client.gather(futures))
            self._check_versions()
        return found

    def check_versions(self) -> None:
        """Scheduler and workers have our versions; those that were asked before are not asked again."""
        with self._explained():
            self._check_versions()

    def _check_versions(self) -> None:
        present = set(self._ask("ncores"))
        if self._known and present <= self._known:
            return
        found = self.client.get_versions(packages=PACKAGES)
        ours = _versions(found["client"])
        for name, about in {"scheduler": found["scheduler"], **found["workers"]}.items():
            theirs = _versions(about)
            if other := [package for package in ours if ours[package] != theirs[package]]:
                has = ", ".join(f"{package} {theirs[package] or 'missing'}" for package in other)
                wanted = ", ".join(f"{package} {ours[package] or 'missing'}" for package in other)
                who = name if name == "scheduler" else f"worker {name}"
                raise self._error(f"the {who} has {has}; expected {wanted}, as here")
        self._known |= {self.address, *found["workers"]}

    @contextmanager
    def _watched(
        self, futures: Sequence[Any], values: Sequence[Any], progress: Callable[[int, int], None] | None
    ) -> Iterator[None]:
        """A thread looks after the pass meanwhile; whatever ends the block, no task of it starts any more."""
        done = threading.Event()
        keys = sorted(set().union(*(value.__dask_graph__() for value in values))) if progress else []
        watch = threading.Thread(target=self._watch, args=(done, futures, keys, progress), daemon=True)
        watch.start()
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self.client.cancel(futures)
            raise
        finally:
            done.set()

    def _watch(self, done: threading.Event, futures: Sequence[Any], keys: Sequence[Any], progress: Any) -> None:
        working = time.monotonic()
        while not done.wait(EVERY):
            try:
                state = self._ask("identity", n_workers=-1)["workers"].values()
                self._check_versions()
                working = self._working(state, working)
                if keys:
                    self._show(keys, progress, done)
            except StreamclustError as verdict:
                self._give_up(verdict, done, futures)
                return
            except Exception:  # noqa: BLE001 - the scheduler is gone: who waits for results hears of it as well
                return

    def _give_up(self, verdict: StreamclustError, done: threading.Event, futures: Sequence[Any]) -> None:
        if not done.is_set():
            self._verdict = verdict
            with suppress(Exception):
                self.client.cancel(futures)
        if not done.wait(EVERY):  # results were under way already
            with suppress(OSError):
                self.client.close(timeout=EVERY)

    def _ask(self, handler: str, **about: Any) -> Any:
        limit = max(self._patience, ANSWER)
        try:
            return self.client.sync(getattr(self.client.scheduler, handler), callback_timeout=limit, **about)
        except TimeoutError:
            raise self._error(f"no answer for {limit:g} s") from None

    def _show(self, keys: Sequence[Any], progress: Callable[[int, int], None], done: threading.Event) -> None:
        """Progress from the state of at most 1,000 tasks; what the scheduler has forgotten was done."""
        asked = keys[:: len(keys) // 1000 + 1]
        states = self._ask("get_task_status", keys=asked).values()
        if any(states) and not done.is_set():
            finished = sum(state not in WAITING for state in states)
            progress(finished * len(keys) // len(asked), len(keys))

    def _working(self, workers: Sequence[Mapping[str, Any]], since: float) -> float:
        """When somebody last worked; raises StreamclustError where that is too long ago."""
        now = time.monotonic()
        if any(map(_works, workers)):
            return now
        if now - since <= self._patience:
            return since
        if not workers:
            raise self._no_worker(self._patience)
        limit = min(worker["memory_limit"] or 0 for worker in workers)
        raise self._error(f"every worker is paused: close to its memory limit of {limit:,} bytes; give workers more")

    def _no_worker(self, seconds: float) -> StreamclustError:
        return self._error(f"no worker for {seconds:g} s; start one with: dask worker {self.address}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What Dask raises becomes ours; what tasks raise stays."""
        from distributed.client import ClosedClientError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

        self._verdict = None
        try:
            yield
        except KilledWorker as error:
            raise self._error(self._why_killed(error)) from None
        except (NoWorkerError, NoValidWorkerError) as error:
            raise self._no_worker(error.timeout) from None
        except (CancelledError, ClosedClientError, CommClosedError):
            raise self._verdict or self._error("the scheduler went away") from None
        except OSError:
            if self.client.status == "running":
                raise
            raise self._error("the scheduler went away") from None

    def _why_killed(self, error: Any) -> str:
        """Nannies say which workers they ended for their memory, perhaps a little after the scheduler missed them."""
        story, last = f"{error.allowed_failures + 1} workers in turn did not survive a task", error.last_worker.address
        for _ in range(10):
            events = self.client.get_events("worker-restart-memory")
            if held := [event["rss"] for _, event in events if event["worker"] == last]:
                said = f"the last held {held[-1]:,} bytes, too much for its memory limit"
                return f"{story}: {said}; give each worker more"
            time.sleep(EVERY / 10)
        return f"{story}, the last of them {last}: its log may say why"

    def _error(self, found: str) -> StreamclustError:
        return StreamclustError(f"--scheduler {self.address}: {found}; {AGAIN}")


def _works(worker: Mapping[str, Any]) -> bool:
    """Takes tasks, or has one under way."""
    counts = worker.get("metrics", {}).get("task_counts", {})
    return worker["status"] == "running" or bool(counts.get("executing"))


def _versions(about: Mapping[str, Any]) -> dict[str, str | None]:
    packages = about["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return {"Python": python} | {package: packages.get(package) for package in PACKAGES}
