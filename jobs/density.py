"""Draw the map of a descriptor: large images and a zoomable page of tiles, from counts that add up over days.

Started again it draws only the tiles that new or withdrawn days touch; killed, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from streamclust import load_settings
from streamclust.job import Job
from streamclust.pipeline import on_store
from streamclust.reporting.tile_map import Asked, tile_map
from streamclust.terminal import one_line
from streamclust.tiling import DEPTH


def arguments() -> argparse.ArgumentParser:
    """What the job can be told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="the store's folder")
    parser.add_argument("out", type=Path, help="the folder for the map; open index.html in it")
    parser.add_argument("--descriptor", help="which descriptor's map; by default the first by name")
    parser.add_argument(
        "--zoom", type=int, metavar="Z", help="deepest level, 256 x 2^Z pixels a side; by default by the rows"
    )
    parser.add_argument(
        "--day", action="append", default=[], metavar="BATCH", help="a layer of that day's rows; may be repeated"
    )
    parser.add_argument(
        "--difference", nargs=2, action="append", default=[], metavar="DAY", help="a layer that compares two days"
    )
    parser.add_argument("--config", type=Path, help="settings as TOML")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler")
    return parser


def draw(job: Job, given: argparse.Namespace) -> dict[str, object]:
    """The map of the descriptor asked for."""
    descriptor = given.descriptor or min(job.store.descriptors)
    asked = Asked(given.zoom, tuple(given.day), tuple(tuple(pair) for pair in given.difference))
    return vars(tile_map(job, given.out, descriptor, asked))


def main(words: list[str] | None = None) -> int:
    """Run the job; the exit code is 0 done, 2 bad input."""
    parser = arguments()
    given = parser.parse_args(words)
    if given.zoom is not None and not 0 <= given.zoom <= DEPTH:
        parser.error(f"--zoom {given.zoom}: expected 0 to {DEPTH}")
    with one_line("density"):
        settings = load_settings(given.config, {"scheduler": given.scheduler})
        found = on_store(given.store, settings, None, lambda job: draw(job, given))
    print(f"{found['rows']:,} rows, {found['written']:,} tiles written, {found['removed']:,} removed: {found['page']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
