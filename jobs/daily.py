"""The day's work, as a timer or cron starts it: every new case folder under a drop folder into a fitted store.

Started again it takes in what is new, and finishes what was cut short.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamclust import StreamclustError, load_settings
from streamclust.daily import daily
from streamclust.terminal import stoppable


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit code: 0 done, 2 bad input, 4 done with alarms or with a folder set aside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="the store's folder")
    parser.add_argument("drop", type=Path, help="the folder with a case folder for each day")
    parser.add_argument("--on-alarm", metavar="COMMAND", help="run for each alarm, which it gets as JSON on its input")
    parser.add_argument("--config", type=Path, help="settings as TOML")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler")
    given = parser.parse_args(arguments)
    try:
        with stoppable():
            found = daily(
                given.store,
                given.drop,
                load_settings(given.config, {"scheduler": given.scheduler}),
                on_alarm=given.on_alarm,
            )
    except StreamclustError as error:
        print(f"daily: {error}", file=sys.stderr)
        return error.exit_code
    print(found.text())
    return 4 if found.alarms or found.aside else 0


if __name__ == "__main__":
    raise SystemExit(main())
