"""The command line with small blocks and without drawing, which stands still at its first point of a name:
``python -m tests.kills.stopped STORE NAME WORD ...`` says the point, and goes on when it is told or interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from streamclust import pipeline, planning
from streamclust.cli import main as command
from streamclust.reporting import collect, day, days
from tests.kills.points import Points
from tests.kills.scenes import BLOCKS, page

NEVER = "(?!)"


def main(store: str, name: str, *words: str) -> None:
    """Run the command."""
    seen = list[str]()

    def reached(count: int, point: str) -> None:
        if not seen and re.search(name, point):
            seen.append(point)
            os.write(1, f"{point}\n".encode())
            os.read(0, 1)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    planning.CHUNK_BYTES = BLOCKS
    pipeline.report, day.write_day, days.write_days = collect.report_folder, page, page
    Points(Path(store), reached)
    sys.argv = ["streamclust", *words]
    command()


if __name__ == "__main__":
    main(*sys.argv[1:])
