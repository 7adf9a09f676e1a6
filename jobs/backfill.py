"""Bring history in: every case under a folder, oldest first, into one store; then fit and report once.

Started again it goes on where it stopped: stored cases are no-ops, and so is what was fitted on the same batches.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from streamclust import load_settings
from streamclust.pipeline import STAGES, ingest_case, on_store
from streamclust.terminal import one_line

ONCE = ("fit", "outliers", "map", "report")


def cases(folder: Path) -> list[Path]:
    """Every folder with descriptors directly below ``folder``, by when its last descriptor arrived, then by name."""
    found = [path for path in folder.iterdir() if (path / "descriptors").is_dir()]
    return sorted(found, key=lambda path: ((path / "descriptors").stat().st_mtime, path.name))


def everything(job: Any) -> dict[str, Any]:
    """All stages after ingest, in one job, so that the report knows the time and memory of each."""
    return {key: value for name in ONCE for key, value in STAGES[name](job).items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the job; the exit code is 0 done, 2 bad input or nothing to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="the store's folder; made if need be")
    parser.add_argument("folder", type=Path, help="the folder with a folder per case")
    parser.add_argument("--config", type=Path, help="settings as TOML")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler")
    given = parser.parse_args(arguments)
    with one_line("backfill"):
        settings = load_settings(given.config, {"scheduler": given.scheduler})
        found = cases(given.folder) if given.folder.is_dir() else []
        if not found:
            parser.error(f"{given.folder}: no case in it; expected folders with descriptors/ and images_paths.csv")
        for case in found:
            job, name = ingest_case(given.store, case, settings)
            with job:
                print(f"{name}: {job.store.n:,} images in the store", flush=True)
        print(f"report: {on_store(given.store, settings, None, everything)['report']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
