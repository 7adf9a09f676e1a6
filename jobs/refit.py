"""Fit anew on all days or the last ones and say what would change; with --accept put it in force and report.

Ids and names of clusters stay. Started again it goes on where it stopped; without --accept what others read stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from streamclust import load_settings
from streamclust.pipeline import on_store, refit_stage
from streamclust.terminal import one_line


def main(arguments: list[str] | None = None) -> int:
    """Run the job; the exit code is 0 done, 2 bad input or nothing to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="the store's folder")
    parser.add_argument("--last", type=int, metavar="N", help="fit on the last N batches; by default on all")
    parser.add_argument("--accept", action="store_true", help="put the proposal in force, then outliers, map, report")
    parser.add_argument("--config", type=Path, help="settings as TOML")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler")
    given = parser.parse_args(arguments)
    with one_line("refit"):
        settings = load_settings(given.config, {"scheduler": given.scheduler})
        found = on_store(given.store, settings, None, refit_stage(given.last, given.accept))
    print(f"fitted on {len(found['days'])} batches", *found["changes"], f"comparison: {found['comparison']}", sep="\n")
    if given.accept:
        print(f"report: {found['report']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
