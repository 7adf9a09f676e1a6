"""Start a Dask cluster from a settings file, run a command with ``--scheduler`` at its address, and end the cluster.

python start.py slurm.toml streamclust daily /data/cars.store /data/drop
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

# What a settings file with a mistake, or a cluster that cannot start, ends in.
WRONG = (OSError, ImportError, AttributeError, KeyError, TypeError, ValueError, RuntimeError)


def cluster(settings: dict[str, Any]) -> Any:
    """The cluster that ``class`` and ``[options]`` describe, asked for ``workers``."""
    module, _, name = settings["class"].rpartition(".")
    found = getattr(import_module(module), name)(**settings.get("options", {}))
    if "workers" in settings:
        found.scale(settings["workers"])
    return found


def ended(signum: int, frame: object) -> None:
    """Leave in order, so that the workers end as well."""
    raise SystemExit(128 + signum)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print the script that a batch system would get")
    parser.add_argument("settings", type=Path, help="which cluster, as TOML")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run on it")
    given = parser.parse_args(arguments)
    try:
        settings = tomllib.loads(given.settings.read_text(encoding="utf-8"))
        if given.dry_run:
            settings.pop("workers", None)
        signal.signal(signal.SIGTERM, ended)
        with cluster(settings) as running:
            if given.dry_run:
                print(running.job_script())
                return 0
            return subprocess.run([*given.command, "--scheduler", running.scheduler_address], check=False).returncode
    except WRONG as error:
        print(f"start: {given.settings}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
