"""Points at which a process can be killed: every change that it makes below a folder, in the order it makes them."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Reached = Callable[[int, str], None]  # told the point's number, from 1 on, and its name
MOVES = {"os.rename": 1, "os.link": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0}  # which argument is the place
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Points:
    """Watches this process, for good.

    The interpreter tells of every open, rename, link, removal and new folder before it happens; the other side of each
    is the next point, with nothing between. Half of what each write writes is on its way to the disk at its point. A
    sync is a point before it happens, and does not: a kill keeps the page cache anyhow.
    """

    def __init__(self, root: Path, reached: Reached) -> None:
        self.root, self.reached, self.count = str(root), reached, itertools.count(1)
        sys.addaudithook(self._audit)
        os.fsync = self._sync
        self._open, io.open = io.open, self._halved
        builtins.open = self._halved

    def _at(self, what: str, path: object) -> None:
        self.reached(next(self.count), f"{what} {str(path).removeprefix(self.root)}")

    def _below(self, path: object) -> bool:
        return isinstance(path, str | Path) and str(path).startswith(self.root)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and self._below(args[0]) and args[2] & CHANGING:
            self._at("open", args[0])
        elif event in MOVES and (self._below(args[MOVES[event]]) or args[-1] not in {-1, None}):
            self._at(event, args[MOVES[event]])  # rmtree gives names within an open folder: those are ours as well

    def _sync(self, handle: int) -> None:
        if self._below(path := Path(f"/proc/self/fd/{handle}").readlink()):
            self._at("fsync", path)

    def _halved(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened = self._open(file, mode, *args, **kwargs)
        if not set(mode) & set("wxa+") or not self._below(file):
            return opened
        write = opened.write

        def halves(data: Any) -> int:
            data = data if isinstance(data, str) else memoryview(data).cast("B")
            write(data[: len(data) // 2])
            opened.flush()
            self._at("write", file)
            write(data[len(data) // 2 :])
            return len(data)

        if mode.strip("b") != "r+":
            opened.write = halves
        return opened
