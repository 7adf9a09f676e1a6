"""A process that withdraws, forgets or prunes and is killed at a given call of the os module."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
from pathlib import Path

from streamclust.store.forgetting import forget, resume
from streamclust.store.pruning import prune
from streamclust.store.retention import withdraw
from streamclust.store.store import open_store
from tests.faults import CALLS, _die_at


def work(store: Path, what: str) -> None:
    """Forget some rows or a whole day, withdraw one, or prune."""
    opened = open_store(store)
    if what == "withdraw":
        withdraw(opened, "2026-01-01", "a test")
    elif what == "forget":
        forget(opened, paths=[f"pictures/{row:05d}.jpg" for row in (5, 17, 40, 89)])
    elif what == "forget a day":
        forget(opened, before=dt.date(2026, 1, 2))
    elif what == "prune":
        prune(opened, 1)
    else:
        resume(opened)


def run(store: Path, what: str, said: Path, call: str = "none", count: int = -1, when: str = "before") -> int | None:
    """``die`` in a process of its own, forked from one that has imported everything; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=die, args=(store, what, said, call, count, when))
    process.start()
    process.join(120)
    return process.exitcode


def die(store: Path, what: str, said: Path, call: str, count: int, when: str) -> None:
    """Do it until that call; ``said`` gets how often each call was made, if nobody is killed."""
    counts = dict.fromkeys(CALLS, 0)
    _die_at(call, count, when, counts)
    work(store, what)
    said.write_text(json.dumps(counts))
