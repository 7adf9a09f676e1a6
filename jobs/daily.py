"""The day's work, as a timer or cron starts it: every new case folder under a drop folder into a fitted store.

Started again it takes in what is new, and finishes what was cut short.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from streamclust import load_settings
from streamclust.daily import daily
from streamclust.terminal import one_line


def main(arguments: list[str] | None = None) -> int:
    """Run the job; the exit code is 0 done, 2 bad input, 4 done with alarms or with a folder set aside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="the store's folder")
    parser.add_argument("drop", type=Path, help="the folder with a case folder for each day")
    parser.add_argument("--on-alarm", metavar="COMMAND", help="run for each alarm, which it gets as JSON on its input")
    parser.add_argument("--config", type=Path, help="settings as TOML")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler")
    given = parser.parse_args(arguments)
    with one_line("daily"):
        settings = load_settings(given.config, {"scheduler": given.scheduler})
        found = daily(given.store, given.drop, settings, on_alarm=given.on_alarm)
    print(found.text())
    return 4 if found.alarms or found.aside else 0


if __name__ == "__main__":
    raise SystemExit(main())
