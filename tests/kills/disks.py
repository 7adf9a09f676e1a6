"""A small file system of its own, and how to leave next to no room on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE, INODES = 4096, 400


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A tmpfs of 1,024 pages at ``place``, or a skip where none can be mounted."""
    place.mkdir()
    options = f"size={1024 * PAGE},nr_inodes={INODES}"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, files: int, pages: int) -> None:
    """Leave room for so many files or pages; what is here goes with `free`."""
    about = os.statvfs(disk)
    with contextlib.suppress(OSError):
        for i in range(about.f_favail - files - 1):
            (disk / f"filler-{i}").touch()
    if pages >= 0:
        with (disk / "filler").open("wb") as file:
            file.write(bytes(PAGE * max(0, os.statvfs(disk).f_bavail - pages)))


def free(disk: Path) -> None:
    """Room again."""
    for file in disk.glob("filler*"):
        file.unlink()
