"""The three verbs, map, fold and chain, on Dask or on plain threads; and the serial reference that tests compare with.

A task gets addresses, reads the rows itself and returns a small state, so no block ever travels. Which addresses stand
together in a run, and the shape of the merge tree, depend on the addresses alone: never on workers or on who is first.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, lru_cache, reduce
from typing import Any, Protocol, TypeVar

from streamclust.errors import InputError
from streamclust.remote.client import Remote
from streamclust.remote.connecting import connect

A = TypeVar("A")
S = TypeVar("S")
T = TypeVar("T")
Progress = Callable[[int, int], None]  # tasks done, tasks in all
RUN = 8


class Executor(Protocol):
    """What runs a plan. ``args`` are given to every task as they are and should be small."""

    @property
    def threads(self) -> int:
        """How many a task may keep busy that runs alone: 1 on a cluster, where nobody knows what runs beside it."""
        ...

    def map(self, task: Callable[..., S], addresses: Sequence[A], *args: Any) -> list[S]:
        """``task(address, *args)`` for each address alone, in the order of the addresses."""
        ...

    def fold(
        self, task: Callable[..., S], addresses: Sequence[A], merge: Callable[[S, S], S], *args: Any, run: int = RUN
    ) -> S:
        """``task(state, address, *args)`` along runs of ``run`` addresses from ``None``, then a tree of ``merge``."""
        ...

    def chain(self, task: Callable[..., S], addresses: Sequence[A], states: Sequence[S], *args: Any) -> list[S]:
        """For each state its own chain, ``state = task(state, address, *args)`` in the order given.

        Chains run side by side. A task leaves the state it receives alone, so that running twice does no harm.
        """
        ...

    def close(self) -> None:
        """Let go of what was opened for this; a second time does nothing."""
        ...


def runs(addresses: Sequence[A], length: int) -> list[Sequence[A]]:
    """Consecutive addresses in runs of ``length``."""
    return [addresses[start : start + length] for start in range(0, len(addresses), length)]


def _along(task: Callable[..., S], run: Sequence[A], args: Sequence[Any]) -> S | None:
    state = None
    for address in run:
        state = task(state, address, *args)
    return state


def tree(states: Iterable[Any], join: Callable[[Any, Any], Any]) -> Any:
    """Merge neighbours until one is left, each as soon as both are there: of n states at most log2 n wait."""
    waiting = list[tuple[int, Any]]()  # how many are in each
    for state in states:
        waiting.append((1, state))
        while len(waiting) > 1 and waiting[-2][0] == waiting[-1][0]:
            _join_last(waiting, join)
    while len(waiting) > 1:
        _join_last(waiting, join)
    return waiting[0][1]


def _join_last(waiting: list[tuple[int, Any]], join: Callable[[Any, Any], Any]) -> None:
    (more, a), (count, b) = waiting[-2:]
    waiting[-2:] = [(more + count, join(a, b))]


class Serial:
    """The reference: everything in this thread, in order."""

    threads = 1

    def map(self, task: Callable[..., S], addresses: Sequence[A], *args: Any) -> list[S]:
        return self._each(lambda address: task(address, *args), addresses, list)

    def fold(
        self, task: Callable[..., S], addresses: Sequence[A], merge: Callable[[S, S], S], *args: Any, run: int = RUN
    ) -> S:
        _require(addresses)
        parts = runs(addresses, run)
        found: S = self._each(lambda part: _along(task, part, args), parts, lambda states: tree(states, merge))
        return found

    def chain(self, task: Callable[..., S], addresses: Sequence[A], states: Sequence[S], *args: Any) -> list[S]:
        return self._each(
            lambda state: reduce(lambda s, address: task(s, address, *args), addresses, state), states, list
        )

    def close(self) -> None: ...

    def _each(self, do: Callable[[A], S], things: Sequence[A], gather: Callable[[Iterator[S]], T]) -> T:
        with one_blas_thread():
            return gather(map(do, things))


class Threads(Serial):
    """The same on threads, for short tasks on what is in memory: of milliseconds, a graph costs as much again."""

    def __init__(self) -> None:
        self.threads = len(os.sched_getaffinity(0))

    def _each(self, do: Callable[[A], S], things: Sequence[A], gather: Callable[[Iterator[S]], T]) -> T:
        with one_blas_thread(), ThreadPoolExecutor(self.threads) as pool:
            return gather(_in_order(pool, do, things, 2 * self.threads))


def _in_order(pool: ThreadPoolExecutor, do: Callable[[A], S], things: Sequence[A], ahead: int) -> Iterator[S]:
    """What is done to each, at most so many of them ahead of who takes it."""
    begun = deque[Future[S]]()
    for thing in things:
        begun.append(pool.submit(do, thing))
        if len(begun) >= ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


class Dask:
    """The same verbs as dask.delayed graphs, on the threaded scheduler or on a ``distributed`` client."""

    def __init__(self, workers: int | None = None, client: Any = None, progress: Progress | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self.remote = client if client is None or isinstance(client, Remote) else Remote(client)
        self.progress = progress

    @property
    def threads(self) -> int:
        return self.workers if self.remote is None else 1

    def map(self, task: Callable[..., S], addresses: Sequence[A], *args: Any) -> list[S]:
        from dask import delayed

        shared = [delayed(arg, traverse=False) for arg in args]
        call = delayed(_one, traverse=False)
        return self._compute([call(task, address, *shared) for address in addresses])

    def fold(
        self, task: Callable[..., S], addresses: Sequence[A], merge: Callable[[S, S], S], *args: Any, run: int = RUN
    ) -> S:
        from dask import delayed

        _require(addresses)
        shared = [delayed(arg, traverse=False) for arg in args]
        call, join = delayed(_run, traverse=False), delayed(merge, traverse=False)
        states = [call(task, list(part), *shared) for part in runs(addresses, run)]
        return self._compute([tree(states, join)])[0]  # type: ignore[no-any-return]

    def chain(self, task: Callable[..., S], addresses: Sequence[A], states: Sequence[S], *args: Any) -> list[S]:
        from dask import delayed

        shared = [delayed(arg, traverse=False) for arg in args]
        call = delayed(_step, traverse=False)
        links = [delayed(state, traverse=False) for state in states]
        for address in addresses:
            links = [call(task, link, address, *shared) for link in links]
        return self._compute(links)

    def close(self) -> None:
        if self.remote is not None:
            self.remote.close()

    def _compute(self, values: list[Any]) -> list[Any]:
        if not values:
            return []
        if self.remote is not None:
            return self.remote.compute(values, self.progress)
        import dask

        # A pool of our own: leaving it waits for tasks still running, also after another one failed.
        with one_blas_thread(), _counted(self.progress), ThreadPoolExecutor(self.workers) as pool:
            return list(dask.compute(*values, scheduler="threads", pool=pool, optimize_graph=False))


def _one(task: Callable[..., S], address: Any, *args: Any) -> S:
    _quiet_worker()
    return task(address, *args)


def _run(task: Callable[..., S], part: Sequence[Any], *args: Any) -> S | None:
    _quiet_worker()
    return _along(task, part, args)


def _step(task: Callable[..., S], state: S, address: Any, *args: Any) -> S:
    _quiet_worker()
    return task(state, address, *args)


def _require(addresses: Sequence[Any]) -> None:
    if not addresses:
        raise InputError("the store", "no rows to work on", "at least one batch with rows")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """One BLAS and OpenMP thread per thread of ours; more would also round differently on machines with more cores."""
    with _limit():
        yield


def _limit() -> Any:
    import scipy.linalg.blas  # noqa: F401 - SciPy brings a BLAS of its own: one not loaded yet would not be limited

    return _thread_pools(len(sys.modules)).limit(limits=1)


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> Any:
    """The libraries with threads of their own, sought anew when modules came in, which bring them."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _limit_this_process() -> None:
    _limit()


def _quiet_worker() -> None:
    """On a worker of a cluster BLAS keeps to one thread for good; here :func:`one_blas_thread` sees to it."""
    worker = sys.modules.get("distributed.worker")
    if worker is not None and worker.thread_state.__dict__.get("execution_state"):
        _limit_this_process()


def _counted(progress: Progress | None) -> AbstractContextManager[Any]:
    if progress is None:
        return nullcontext()
    from dask.callbacks import Callback

    count = {"done": 0, "all": 0}

    def start_state(graph: Any, state: Any) -> None:
        count["all"] = len(state["ready"]) + len(state["waiting"])

    def posttask(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        count["done"] += 1
        progress(count["done"], count["all"])

    return Callback(start_state=start_state, posttask=posttask)  # type: ignore[no-any-return]


def executor(scheduler: str | None, workers: int | None, progress: Progress | None = None) -> Dask:
    """Threads here, or the cluster at ``scheduler``, whose client the caller closes.

    Raises
    ------
    InputError : nobody answers at that address. StreamclustError : software differs there.
    """
    return Dask(workers, None if scheduler is None else connect(scheduler), progress)
