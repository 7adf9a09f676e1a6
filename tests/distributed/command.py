"""The command line with small blocks, so that a small case has many, and without what takes long and no worker does:
drawing the report, and waiting for the disk.
"""

from __future__ import annotations

import signal
import sys

from streamclust import pipeline, planning
from streamclust.cli import main
from streamclust.reporting import collect
from tests.distributed.cluster import CHUNK_BYTES
from tests.faults import no_fsync

if __name__ == "__main__":
    sys.argv[0] = "streamclust"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    planning.CHUNK_BYTES = CHUNK_BYTES
    pipeline.report = collect.report_folder
    with no_fsync():
        main()
