"""What a worker of the tests loads: small blocks, and tasks that do to their worker what a file tells them.

``STREAMCLUST_TESTS`` names a folder. Where a file ``order`` in it says ``module:function mode times``, that function
does its work first, so that its block is written; then the first call in the whole cluster, and those that come
again for its block, ``times`` in all, leave a file ``reached-<i>`` and end their worker in a way of KillWorker, take
more memory than it may have, or wait for ever. With the mode ``late`` the call stands still before its first write, and
with ``renaming`` amid it, until a file ``go`` is there; a file ``went`` says that it came to its end after that.
``STREAMCLUST_TESTS_NUMPY`` is the version of NumPy that the worker says it has.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from distributed import versions
from distributed.chaos import KillWorker

from streamclust import planning
from streamclust.store.rows import Rows
from tests.distributed.cluster import CHUNK_BYTES

TASKS = (
    "streamclust.ingest:take_block",
    "streamclust.stages.reduced:reduce_block",
    "streamclust.stages.sweep:chain_block",
    "streamclust.stages.sweep:add_lloyd",
    "streamclust.stages.clusters:add_labels",
    "streamclust.stages.every_k:add_joint",
    "streamclust.stages.sight:look_block",
    "streamclust.stages.strangeness:add_measures",
    "streamclust.stages.fused:flag_block",
    "streamclust.stages.maps:place_block",
)
LATE = {"late": (Rows, "write"), "renaming": (os, "replace")}


def dask_setup(worker: Any) -> None:
    """Called by Dask once the worker stands."""
    planning.CHUNK_BYTES = CHUNK_BYTES
    if numpy := os.environ.get("STREAMCLUST_TESTS_NUMPY"):
        real = versions.get_package_info
        versions.get_package_info = lambda packages: real(packages) | {"numpy": numpy}
    folder = Path(os.environ["STREAMCLUST_TESTS"])
    for where in TASKS:
        module, name = where.split(":")
        home = import_module(module)
        setattr(home, name, _obedient(getattr(home, name), where, worker, folder))


def _obedient(real: Any, where: str, worker: Any, folder: Path) -> Any:
    @functools.wraps(real)
    def task(*args: Any, **kwargs: Any) -> Any:
        if not (folder / "order").exists():
            return real(*args, **kwargs)
        here, mode, times = (folder / "order").read_text().split()
        block = repr(next(arg for arg in args if isinstance(arg, Rows)))
        if here == where and mode in LATE and _chosen(folder, block, int(times)):
            with _standing_at(*LATE[mode], folder):
                return real(*args, **kwargs)
        result = real(*args, **kwargs)
        if here == where and mode not in LATE and _chosen(folder, block, int(times)):
            _obey(worker, mode)
        return result

    return task


@contextmanager
def _standing_at(home: Any, name: str, folder: Path) -> Iterator[None]:
    real, go = getattr(home, name), folder / "go"

    def waiting(*args: Any) -> Any:
        while not go.exists():
            time.sleep(0.02)
        return real(*args)

    try:
        with mock.patch.object(home, name, waiting):
            yield
    finally:
        (folder / "went").touch()


def _chosen(folder: Path, block: str, times: int) -> bool:
    """Whether this call is one of the first ``times`` at the block that was there first."""
    own = folder / f"call-{os.getpid()}"
    own.write_text(block)
    for i in range(times):
        try:
            os.link(own, folder / f"reached-{i}")  # nobody ever sees it half written
        except FileExistsError:
            if (folder / f"reached-{i}").read_text() != block:
                return False
        else:
            return True
    return False


def _obey(worker: Any, mode: str) -> None:
    if mode == "memory":
        held = bytearray(worker.memory_manager.memory_limit)
        held[::4096] = b"1" * len(held[::4096])
    elif mode != "hold":
        killer = KillWorker(mode=mode)  # type: ignore[arg-type]
        killer.worker = worker
        worker.loop.add_callback(getattr(killer, mode.replace(".", "_")))
    threading.Event().wait()
